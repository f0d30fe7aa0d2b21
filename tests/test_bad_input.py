"""Each mistake of a user is one line on the error output, without a traceback, and exit code 2."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from toyrun import toy_settings

from sage_kit.cli import main
from sage_kit.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(autouse=True)
def _no_external_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")


def flags(settings: dict[str, object]) -> list[str]:
    arguments = []
    for name, value in settings.items():
        text = ",".join(value) if isinstance(value, list) else value
        if isinstance(value, dict):
            text = ", ".join(f"{key}={json.dumps(item)}" for key, item in value.items())
        arguments += [f"--{name.replace('_', '-')}", str(text)]
    return arguments


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run the command line, which must fail with exit code 2 and one line; returns the line."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    error = capsys.readouterr().err
    last = error.strip().splitlines()[-1]
    assert exit_info.value.code == 2, error
    assert "Traceback" not in error
    assert last.startswith("sage-kit: ")
    assert sum(line.startswith("sage-kit: ") for line in error.splitlines()) == 1
    return last


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--temprature", "3"], "--temperature"),
        (["run", "--temperature", "hot"], "'temperature' is 'hot'"),
        (["run", "--temperature", "-1"], "greater than 0"),
        (["run", "--schedule", "sometimes"], "'adaptive', 'static' or 'none'"),
        (["run", "--task", "sst3"], "Did you mean 'sst2'"),
        (["new-plugin", "reducer", "pca"], "there is a reducer 'pca' already (from sage-kit "),
        (["run", "--reducer", "pcaa"], "Unknown reducer 'pcaa'. Did you mean 'pca'? Available: "),
        (["run", "--reducer", "pca", "--sampler", "high_los"], "Did you mean 'high_loss'"),
        (["run", "--reducer", "pca", "--reducer-options", "whitten=true"], "Did you mean 'whiten'"),
        (
            ["run", "--reducer", "pca", "--sampler", "high_loss", "--sampler-options", "fraction=7"],
            "less than or equal to 1",
        ),
        (["run", "--reducer", "pca", "--observers", "jsonll"], "Did you mean 'jsonl'"),
        (["run", "--preset", "papre"], "Did you mean 'paper'"),
        (["run", "--config", "/nowhere/config.toml"], "No such file"),
        (["run", "--plugin", "/nowhere/plugin.py"], "does not exist"),
        (["run", "--mix", "replace", "--synthetic-ratio", "2"], "at most 1"),
        (["run", "--warmup-epochs", "1"], "warmup_corpus"),
        (["plugins", "--kind", "reducr"], "Did you mean 'reducer'"),
        (["show", "/nowhere"], "does not exist"),
        (["resume", "/nowhere"], "does not exist"),
        (["rnu"], "Did you mean 'run'"),
        (["show"], "DIR"),
    ],
)
def test_mistakes_in_names_and_values(capsys, arguments: list[str], expected: str) -> None:
    assert expected in fails(capsys, arguments)


def test_reducer_of_a_plugin_that_is_not_there_names_the_remedy(capsys) -> None:
    installed = {point.name for point in importlib.metadata.entry_points(group="sage_kit")}
    remedy = "SAGE_KIT_PLUGINS leaves it out" if "umap" in installed else "pip install ./plugins/umap"
    assert remedy in fails(capsys, ["run", "--reducer", "umap"])


def test_malformed_toml_names_file_and_place(capsys, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("rounds = = 3\n")
    message = fails(capsys, ["run", "--config", str(file)])
    assert str(file) in message
    assert "line 1" in message


def test_unknown_setting_in_toml_names_file(capsys, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("roundz = 3\n")
    message = fails(capsys, ["run", "--config", str(file)])
    assert "'roundz'" in message
    assert "Did you mean 'rounds'" in message
    assert str(file) in message


BAD_ROWS = {
    "label outside its range": (
        [{"text": "good", "label": 0}, {"text": "bad", "label": 7}] * 10, {"label_names": ["a", "b"]}, "row 2"
    ),
    "empty text": ([{"text": "good", "label": 0}, {"text": " ", "label": 1}] * 10, {}, "row 2"),
    "class missing": ([{"text": f"good {i}", "label": 0} for i in range(30)], {"label_names": ["a", "b"]}, "'b'"),
    "code for no label": (
        [{"text": f"good {i}", "label": i % 3 - 1} for i in range(30)], {}, "label_names to [\"-1\", \"0\", \"1\"]"
    ),
    "word for no label": (
        [{"text": f"good {i}", "label": "NA" if i % 3 else "pos"} for i in range(30)], {}, "missing_labels to 'drop'"
    ),
    "class in two spellings": (
        [{"text": f"good {i}", "label": ("pos", "pos ", "neg")[i % 3]} for i in range(30)], {}, "differ only in blanks"
    ),
    "a class for each row": (
        [{"text": f"good {i}", "label": f"id {i}"} for i in range(30)], {}, "is 'label' the label column?"
    ),
    "missing column": ([{"txt": "good", "label": 0}] * 10, {}, "Did you mean 'txt'"),
    "no rows": ([], {}, "train.jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows(capsys, folder: Path, tiny_bert: Path, tmp_path: Path, case: str) -> None:
    rows, extra, expected = BAD_ROWS[case]
    train = tiny.write_jsonl(tmp_path / "train.jsonl", rows)
    settings = toy_settings(folder, tiny_bert, train_file=str(train), run_dir=str(tmp_path / "run"), **extra)
    message = fails(capsys, ["run", *flags(settings)])
    assert expected in message
    assert not (tmp_path / "run").exists()


def test_malformed_file(capsys, folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text('{"text": "good", "label": 0}\n{"text": "bad", \n')
    message = fails(capsys, ["run", *flags(toy_settings(folder, tiny_bert, train_file=str(train)))])
    assert "train.jsonl" in message
    assert "2" in message


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"train_file": "/nowhere.csv"}, "/nowhere.csv"),
        ({"n_components": 33}, "32 dimensions"),
        ({"sampler_options": {"k": 400}}, "at least 401 training examples"),
        ({"student_layers": 9}, "student_layers"),
        ({"bypass": 4}, "at least one must lie behind the input layers"),
        ({"max_length": 1000}, "max_length"),
        ({"teacher": "/nowhere/teacher"}, "/nowhere/teacher"),
        ({"teacher": "package:no_such_package/model"}, "no_such_package"),
        ({"student_init": "0,9"}, "9"),
        ({"device": "cuda:7"}, "not there"),
        ({"device": "abacus"}, "abacus"),
        ({"precision": "fp16"}, "fp16"),
        ({"hidden_weight": 1, "hidden_layers": "1,9"}, "9"),
        ({"student_width": 64}, "set it to less, or to 0 for the teacher's"),
        ({"student_width": 10, "student_heads": 5, "relation_weight": 1}, "set it to one of 1, 2"),
        ({"student_width": 16, "bypass": 1}, "set bypass to 'embeddings', or student_width to 0"),
        ({"relation_weight": 1, "relation_layer": 9}, "relation_layer names block 9"),
        ({"relation_weight": 1, "relation_heads": 3}, "set it to 2 or 4"),
        ({"relation_weight": 1, "granularity": "pooled"}, "set it to 0, or granularity to 'token'"),
        ({"inverter": "native", "inverter_options": {"budget_seconds": 1e-9}}, "budget"),
        ({"cache_dir": "/dev/null/cache"}, "cache_dir"),
        ({"run_dir": "/dev/null/run"}, "run_dir"),
        ({"warmup_epochs": 1, "warmup_corpus": "/nowhere.txt"}, "/nowhere.txt"),
    ],
)
def test_choices_that_do_not_fit(capsys, folder: Path, tiny_bert: Path, tmp_path: Path, extra, expected: str) -> None:
    settings = {**toy_settings(folder, tiny_bert, run_dir=str(tmp_path / "run")), **extra}
    assert expected in fails(capsys, ["run", *flags(settings)])


def test_tokenizer_that_does_not_fit(capsys, folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.add_tokens([f"extra{i}" for i in range(500)])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = toy_settings(folder, tiny_bert, tokenizer=str(tmp_path / "tokenizer"))
    assert "embeds only" in fails(capsys, ["run", *flags(settings)])


def test_nan_in_vectors(capsys, folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    teacher = tiny.make_checkpoint(tmp_path / "teacher", labels=2)
    weights = load_file(teacher / "model.safetensors")
    weights["bert.embeddings.position_embeddings.weight"][3, 0] = torch.nan
    save_file(weights, teacher / "model.safetensors", {"format": "pt"})
    message = fails(capsys, ["run", *flags(toy_settings(folder, teacher))])
    assert "not finite" in message
    assert "train, row " in message


def test_unwritable_run_directory(capsys, folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = toy_settings(folder, tiny_bert, runs_dir=str(tmp_path / "file"))
    assert "cannot be written" in fails(capsys, ["run", *flags(settings)])


def test_used_run_directory(capsys, folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    settings = toy_settings(folder, tiny_bert, run_dir=str(tmp_path))
    assert "not empty" in fails(capsys, ["run", *flags(settings)])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


FULL_DISK = """
import resource, signal, sys
from sage_kit import hookimpl

@hookimpl
def sage_round_started(round):
    # from round two on no file may grow beyond a few kilobytes: what a full disk does to every write
    if round == 2:
        sys.dont_write_bytecode = True  # a module compiled from now on would be cut short, for every later process
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
"""


def test_full_disk_leaves_the_last_checkpoint(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "full_disk.py"
    plugin.write_text(FULL_DISK)
    target = tmp_path / "run"
    # the map is cached by a run before, so that the first write to fail belongs to the run directory
    command = [sys.executable, "-m", "sage_kit", "run"]
    environment = {**os.environ, "SAGE_KIT_PLUGINS": ""}
    settings = toy_settings(folder, tiny_bert, run_dir=str(target))
    done = subprocess.run(
        [*command, *flags(settings), "--plugin", str(plugin)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("sage-kit: disk full while writing")
    assert "Traceback" not in done.stderr

    from sage_kit.components.plugins import Plugins
    from sage_kit.distill import resume
    from sage_kit.rundir import RunDirectory

    directory = RunDirectory.open(target)
    assert directory.latest_checkpoint().round == 1
    assert not list(target.rglob(".tmp-*"))
    assert len(resume(directory, Plugins(allow=""))["rounds"]) == 3


def test_text_that_the_tokenizer_does_not_know(capsys, tiny_bert: Path, tmp_path: Path) -> None:
    """Words of another language: each text is one unknown token, and the remedy that is given works."""
    texts = [f"\u4f60{chr(0x4E00 + number)}" for number in range(60)]
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(texts)]
    tiny.write_jsonl(tmp_path / "train.jsonl", rows)
    tiny.write_jsonl(tmp_path / "validation.jsonl", rows)
    settings = toy_settings(tmp_path, tiny_bert, observers=["progress"], rounds=2, teacher_epochs=1)
    with pytest.raises(SystemExit) as caught:
        main(["run", *flags(settings)])
    assert caught.value.code == DataError.exit_code
    shown = capsys.readouterr().err.splitlines()
    assert any(
        line.startswith("WARNING: train: the tokenizer of ") and "knows no word of any of the 54 texts" in line
        for line in shown
    )
    assert shown[-1].startswith("sage-kit: the vectors of the 54 texts are all alike, of which no map can be made")
    assert not any(line.startswith("round 1") for line in shown)
    with pytest.raises(SystemExit) as caught:
        main(["run", *flags({**settings, "schedule": "none"})])
    assert caught.value.code == 0


def test_text_that_the_tokenizer_half_knows(capsys, tiny_bert: Path, tmp_path: Path) -> None:
    rows = tiny.toy_task_rows(60)
    for row in rows[::2]:
        row["text"] = " ".join(f"x{word}" for word in row["text"].split())
    tiny.write_jsonl(tmp_path / "train.jsonl", rows)
    tiny.write_jsonl(tmp_path / "validation.jsonl", tiny.toy_task_rows(20, seed=1))
    settings = toy_settings(tmp_path, tiny_bert, observers=["progress"], rounds=1, schedule="none", teacher_epochs=1)
    with pytest.raises(SystemExit) as caught:
        main(["run", *flags(settings)])
    assert caught.value.code == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "does not know" in line]
    assert [line.partition(": the")[0] for line in warnings] == ["WARNING: train", "WARNING: dev"]
    assert re.search(r"does not know \d\d% of the tokens, and no word of \d\d?% of the texts", warnings[0])
