"""The command line: what it prints, and how light it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from toyrun import toy_run, toy_settings

import sage_kit
from sage_kit.cli import main
from sage_kit.config import RunConfig, load_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path):
    return toy_run(tmp_path_factory.mktemp("cli"), tiny_bert)


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Standard output of a command that must succeed."""
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    captured = capsys.readouterr()
    assert exit_info.value.code == 0, captured.err
    return captured.out


def test_version(capsys) -> None:
    assert output(capsys, "--version").strip() == f"sage-kit {sage_kit.__version__}"


def test_help_lists_every_setting_with_its_text(capsys) -> None:
    text = " ".join(output(capsys, "run", "--help").split())
    for name, field in RunConfig.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert " ".join(field.description.split())[:25] in text


@pytest.mark.parametrize("arguments", [[], ["study"]])
def test_without_a_command_the_help_is_shown_line_by_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) > 8


@pytest.mark.parametrize("arguments", [["--help"], ["plugins", "--json"], ["config"], ["run", "--help"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from sage_kit.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'umap', 'sklearn', 'scipy', 'numba', 'accelerate', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_config_prints_toml_that_loads_back(capsys, tmp_path: Path, preset: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(output(capsys, "config", "--preset", preset))
    assert load_config(file=file) == load_config(preset=preset)


def test_plugins_short_lists_the_names_of_each_kind(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    lines = output(capsys, "plugins", "--short").splitlines()
    names = {kind: listed.split(", ") for kind, _, listed in (line.partition(": ") for line in lines)}
    everything = json.loads(output(capsys, "plugins", "--json"))["components"]
    assert sum(map(len, names.values())) == len(everything)
    assert "pca" in names["reducer"]
    assert names["stop rule"] == ["agreement"]
    assert output(capsys, "plugins", "--short", "--kind", "filter") == f"filter: {', '.join(names['filter'])}\n"
    with pytest.raises(SystemExit) as exit_info:
        main(["plugins", "--short", "--json"])
    assert exit_info.value.code == 2
    assert "both --short and --json are given" in capsys.readouterr().err


def test_config_schema(capsys) -> None:
    schema = json.loads(output(capsys, "config", "--schema"))
    assert set(schema["properties"]) == set(RunConfig.model_fields)


def test_plugins_json_lists_origin_and_capabilities(capsys, monkeypatch) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    listing = json.loads(output(capsys, "plugins", "--json"))
    pca = next(item for item in listing["components"] if (item["kind"], item["name"]) == ("reducer", "pca"))
    assert pca["distribution"] == "sage-kit"
    assert pca["version"] == sage_kit.__version__
    assert pca["capabilities"]["has_inverse"] is True
    assert listing["quarantined"] == []


def test_plugins_table_and_kind(capsys, monkeypatch) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    text = output(capsys, "plugins", "--kind", "sampler")
    assert "high_loss" in text
    assert "movie_reviews" not in text


def test_run_with_flags_prints_the_table(capsys, tmp_path: Path, tiny_bert: Path, monkeypatch) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    text = output(capsys, "run", *as_flags(toy_settings(tmp_path, tiny_bert, rounds=1)))
    assert "teacher" in text
    assert "SAGE" in text
    assert "student steps" in text.replace("\n", " ")
    assert "Run directory: " in text


def as_flags(settings: dict[str, Any]) -> list[str]:
    arguments = []
    for name, value in settings.items():
        text = ",".join(value) if isinstance(value, list) else value
        text = ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else text
        arguments += [f"--{name.replace('_', '-')}", str(text)]
    return arguments


def test_run_on_own_files_of_which_only_the_teachers_has_labels(capsys, tmp_path: Path, tiny_bert, monkeypatch) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    parts = [tiny.toy_task_rows(n, seed) for n, seed in ((200, 1), (60, 2), (50, 3))]
    words = ("blame", "praise")
    (tmp_path / "labelled.csv").write_text(
        "text,label\n" + "".join(f'"{row["text"]}",{words[row["label"]]}\n' for row in parts[0]), encoding="utf-8"
    )
    (tmp_path / "texts.csv").write_text(
        "number,text\n" + "".join(f'{i},"{row["text"]}"\n' for i, row in enumerate(parts[1])), encoding="utf-8"
    )
    tiny.write_jsonl(tmp_path / "others.jsonl", [{"text": row["text"], "label": None} for row in parts[2]])
    settings = toy_settings(
        tmp_path, tiny_bert, rounds=2, train_file=str(tmp_path / "labelled.csv"), validation_file="",
        transfer_file=str(tmp_path / "texts.csv"), evaluation_file=str(tmp_path / "others.jsonl"),
    )  # fmt: skip
    text = output(capsys, "run", *as_flags(settings))
    assert "file: validation data set apart from train, used for reporting only" in " ".join(text.split())
    assert "evaluation set: 50 rows" in text
    [folder] = (tmp_path / "runs" / "file").iterdir()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["examples"]["train"], summary["examples"]["evaluation"]) == (60, 50)
    assert sum(counts["teacher"] for counts in summary["labels"]["classes"].values()) == summary["examples"]["teacher"]
    assert set(summary["evaluation"]) == {"agreement", "divergence"}
    assert f"{summary['evaluation']['divergence']:.4f}" in text
    assert summary["rounds"][-1]["synthetic"] > 0
    assert "evaluation set: 50 rows" in output(capsys, "show", str(folder), "--no-figures")
    # one line for what needs the labels that are not there
    with pytest.raises(SystemExit) as exit_info:
        main(["run", *as_flags(settings), "--hard-label-weight", "0.5"])
    assert exit_info.value.code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sage-kit: ")]
    assert line == (
        "sage-kit: hard_label_weight is 0.5, but 60 of the 60 rows that the student learns from have no label: set it "
        "to 0, or give all labels"
    )


def test_show_prints_rounds_and_draws(capsys, finished) -> None:
    directory, summary = finished
    text = output(capsys, "show", str(directory.path))
    assert f"{summary['validation']['validation']['accuracy']:.4f}" in text
    assert "costs" in text
    figures = sorted(path.name for path in (directory.path / "figures").iterdir())
    assert figures == ["learning_curves.png", "map.png"]
    for name in figures:
        assert name in text.replace("\n", "")


def test_show_json(capsys, finished) -> None:
    directory, summary = finished
    assert json.loads(output(capsys, "show", str(directory.path), "--json"))["rounds"] == summary["rounds"]


def test_resume_of_a_finished_run_says_so(capsys, finished) -> None:
    directory, _ = finished
    assert "finished already" in output(capsys, "resume", str(directory.path))


def test_cache_lists_and_clears(capsys, tmp_path: Path, tiny_bert: Path) -> None:
    toy_run(tmp_path, tiny_bert, rounds=2)
    cache = str(tmp_path / "cache")
    text = output(capsys, "cache", "--cache-dir", cache)
    for kind in ("teacher", "vectors", "labels", "map"):
        assert kind in text
    assert "freed" in output(capsys, "cache", "--cache-dir", cache, "--clear", "--kind", "map")
    assert " map " not in output(capsys, "cache", "--cache-dir", cache)
    output(capsys, "cache", "--cache-dir", cache, "--clear")
    assert "0 entries" in output(capsys, "cache", "--cache-dir", cache)
