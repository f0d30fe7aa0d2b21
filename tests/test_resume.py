"""A run that is killed at any moment goes on to the same end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from commandline import call
from safetensors.torch import load_file
from toyrun import go_back, toy_config, toy_run, without_times

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config, to_toml, with_absolute_paths
from sage_kit.distill import resume
from sage_kit.errors import RunDirectoryError
from sage_kit.rundir import RunDirectory

KILL_PLUGIN = '''
"""Kills the process with SIGKILL at a moment named by the environment."""
import os, signal
from sage_kit import hookimpl

MOMENT = os.environ.get("KILL_AT", "")

def kill(moment):
    if moment == MOMENT:
        os.kill(os.getpid(), signal.SIGKILL)

@hookimpl
def sage_step_finished(activity, done):
    kill(f"{activity}:{done}")

@hookimpl
def sage_synthetic_created(round):
    kill(f"synthetic:{round}")

@hookimpl
def sage_round_finished(result):
    kill(f"round:{result.round}")

@hookimpl
def sage_checkpoint_saved(round):
    kill(f"checkpoint:{round}")
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def uninterrupted(folder: Path, tiny_bert: Path):
    return toy_run(folder, tiny_bert, hidden_weight=0.5)


@pytest.mark.parametrize("moment", ["round 1:4", "synthetic:2", "round:3"])
def test_killed_process_resumes_to_the_same_end(
    folder: Path, tiny_bert: Path, uninterrupted, tmp_path: Path, moment: str
) -> None:
    """Kills a real process during a pass, after a synthesis, and between a round's evaluation and its checkpoint."""
    plugin = tmp_path / "killer.py"
    plugin.write_text(KILL_PLUGIN)
    target = tmp_path / "run"
    config = tmp_path / "config.toml"
    config.write_text(to_toml(toy_config(folder, tiny_bert, hidden_weight=0.5, run_dir=str(target))))
    environment = {**os.environ, "KILL_AT": moment, "SAGE_KIT_PLUGINS": ""}
    command = [sys.executable, "-m", "sage_kit"]
    killed = subprocess.run(
        [*command, "run", "--config", str(config), "--plugin", str(plugin)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (target / "summary.json").exists()

    environment["KILL_AT"] = ""
    refused = subprocess.run([*command, "resume", str(target)], env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert str(plugin) in refused.stderr  # which is not executed unless it is named or trusted
    consent = ["--trust-plugins"] if moment == "round:3" else ["--plugin", str(plugin)]
    resumed = subprocess.run(
        [*command, "resume", str(target), *consent], env=environment, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    directory, expected = uninterrupted
    assert without_times(RunDirectory.open(target).summary()) == without_times(expected)
    ours, theirs = (load_file(path / "student" / "model.safetensors") for path in (target, directory.path))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)
    assert len((target / "metrics.jsonl").read_text().splitlines()) == 3


def test_static_run_resumes_with_its_first_synthetic_examples(folder: Path, tiny_bert: Path) -> None:
    _, expected = toy_run(folder, tiny_bert, schedule="static", keep_checkpoints=0)
    directory, _ = toy_run(folder, tiny_bert, schedule="static", keep_checkpoints=0)
    go_back(directory, to_round=2)
    assert without_times(resume(RunDirectory.open(directory.path), Plugins(allow=""))) == without_times(expected)


@pytest.mark.parametrize("damage", ["flipped", "halved"])
def test_static_run_does_not_go_on_with_damaged_synthetic_examples(folder: Path, tiny_bert: Path, damage: str) -> None:
    """One bit would give another student, without a word."""
    directory, _ = toy_run(folder, tiny_bert, schedule="static", rounds=2, keep_checkpoints=0)
    (directory.path / "summary.json").unlink()
    config = directory.path / "config.toml"
    config.write_text(config.read_text().replace("rounds = 2", "rounds = 3"))
    spoil(directory.synthetic(2), damage)
    with pytest.raises(RunDirectoryError, match="rounds is 3 and was 2"):
        resume(RunDirectory.open(directory.path), Plugins(allow=""))
    config.write_text(config.read_text().replace("rounds = 3", "rounds = 2"))
    shutil.rmtree(directory.path / "checkpoints" / "round-002")
    resume(RunDirectory.open(directory.path), Plugins(allow=""))  # which draws them again
    longer, _ = toy_run(folder, tiny_bert, schedule="static", rounds=3, keep_checkpoints=0)
    go_back(longer, to_round=2)
    spoil(longer.synthetic(2), damage)
    with pytest.raises(RunDirectoryError, match=r"rounds/002/synthetic\.safetensors is not readable"):
        resume(RunDirectory.open(longer.path), Plugins(allow=""))


def spoil(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data if how == "flipped" else data[: len(data) // 2])


def test_static_run_counts_and_saves_its_examples_once(folder: Path, tiny_bert: Path) -> None:
    first, _ = toy_run(folder, tiny_bert, schedule="static", keep_checkpoints=0)
    again, _ = toy_run(folder, tiny_bert, schedule="static", keep_checkpoints=0)
    go_back(again, to_round=2)
    before = again.synthetic(2).stat()
    resume(RunDirectory.open(again.path), Plugins(allow=""))
    assert again.rounds_with_synthetic() == first.rounds_with_synthetic() == [2]
    assert again.synthetic(2).stat().st_ino == before.st_ino
    for name in ("tokens", "flops"):
        assert again.costs()[name] == first.costs()[name]


def test_equal_runs_write_equal_bytes(folder: Path, tiny_bert: Path) -> None:
    settings = {"observers": ["loss_profile"], "keep_best": "agreement", "keep_checkpoints": 0}
    first, second = (toy_run(folder, tiny_bert, **settings)[0].path for _ in range(2))

    def contents(path: Path) -> dict[str, bytes]:
        files = [*path.rglob("*.safetensors"), *path.rglob("*.parquet"), *(path / "student").rglob("*"),
                 path / "config.toml"]  # fmt: skip
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in files if file.is_file()}

    ours, theirs = contents(first), contents(second)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 20
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_edited_settings_are_told_by_the_setting(folder: Path, tiny_bert: Path) -> None:
    directory, _ = toy_run(folder, tiny_bert, keep_checkpoints=0)
    go_back(directory, to_round=1)
    config = directory.path / "config.toml"
    config.write_text(config.read_text().replace("max_length = 32", "max_length = 16"))
    with pytest.raises(RunDirectoryError, match="max_length is 16 and was 32"):
        resume(RunDirectory.open(directory.path), Plugins(allow=""))
    # also where what lies beside it was edited, too: the checkpoint knows
    (directory.path / "environment.json").unlink()
    with pytest.raises(RunDirectoryError, match="max_length is 16 and was 32"):
        resume(RunDirectory.open(directory.path), Plugins(allow=""))


def test_damage_is_told_on_the_error_output_whichever_observers_run(
    folder: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, _ = toy_run(folder, tiny_bert, keep_checkpoints=0, observers=[], keep_best="agreement")
    (directory.path / "summary.json").unlink()
    spoil(directory.path / "checkpoints" / "round-003" / "student.safetensors", "flipped")
    entry = next((folder / "cache" / "vectors").glob("[!.]*"))
    file = next(path for path in entry.iterdir() if path.name != "entry.json")
    spoil(file, "halved")
    capsys.readouterr()
    resume(RunDirectory.open(directory.path), Plugins(allow=""))
    lines = capsys.readouterr().err.splitlines()
    assert any("round-003 is damaged (student.safetensors does not have its checksum)" in line for line in lines)
    assert any(f"cache entry {entry} is damaged" in line for line in lines)
    assert all(line.startswith("sage-kit: ") for line in lines if "damaged" in line)


@pytest.mark.parametrize("file", ["student/model.safetensors", "student/config.json", "predictions.safetensors",
                                  "map.safetensors", "rounds/003/synthetic.safetensors"])  # fmt: skip
def test_damage_of_a_finished_run_is_named(uninterrupted, tmp_path: Path, file: str) -> None:
    path = tmp_path / "run"
    shutil.copytree(uninterrupted[0].path, path)
    assert RunDirectory.open(path).damage() == []
    assert call("resume", str(path)).code == 0
    spoil(path / file, "halved")
    for command in ("resume", "show"):
        answer = call(command, str(path), *(["--no-figures"] if command == "show" else []))
        assert answer.code == 2
        assert "is damaged" in answer.last
        assert file in answer.last
        assert f"`sage-kit resume {path}`" in answer.last or command == "show"
        if command == "show":
            assert "agreement" in answer.out  # the rest is shown


def test_run_in_bf16_resumes_to_the_same_bits(folder: Path, tiny_bert: Path) -> None:
    first, expected = toy_run(folder, tiny_bert, precision="bf16", rounds=2)
    again, _ = toy_run(folder, tiny_bert, precision="bf16", rounds=2, keep_checkpoints=0)
    go_back(again, to_round=1)
    assert without_times(resume(RunDirectory.open(again.path), Plugins(allow=""))) == without_times(expected)
    ours, theirs = (load_file(directory.student / "model.safetensors") for directory in (again, first))
    for name in theirs:
        assert ours[name].dtype == torch.float32
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)
        # a weight that was rounded to bf16 would be the same after it is rounded again
        assert "layer" not in name or "weight" not in name or (ours[name].bfloat16().float() != ours[name]).any()


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}, "learning_rate": 0.05, "lr_schedule": "cosine"},
        {"optimizer": "adafactor", "lr_schedule": "polynomial", "lr_schedule_options": {"power": 2.0}},
        {"gradient_accumulation": 3, "gradient_checkpointing": True},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_other_ways_to_train_resume_to_the_same_bits(folder: Path, tiny_bert: Path, settings) -> None:
    first, expected = toy_run(folder, tiny_bert, rounds=2, **settings)
    again, _ = toy_run(folder, tiny_bert, rounds=2, keep_checkpoints=0, **settings)
    go_back(again, to_round=1)
    assert without_times(resume(RunDirectory.open(again.path), Plugins(allow=""))) == without_times(expected)
    ours, theirs = (load_file(directory.student / "model.safetensors") for directory in (again, first))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=0)


def test_run_resumed_after_its_last_round_is_scored_on_validation(folder: Path, tiny_bert: Path) -> None:
    directory, expected = toy_run(folder, tiny_bert, evaluate_validation="end")
    (directory.path / "summary.json").unlink()
    summary = resume(RunDirectory.open(directory.path), Plugins(allow=""))
    assert summary["validation"]["validation"]
    assert without_times(summary) == without_times(expected)


def test_damaged_newest_checkpoint_is_passed_over(folder: Path, tiny_bert: Path, uninterrupted) -> None:
    directory, _ = toy_run(folder, tiny_bert, hidden_weight=0.5, keep_checkpoints=0)
    (directory.path / "summary.json").unlink()
    student = directory.path / "checkpoints" / "round-003" / "student.safetensors"
    content = bytearray(student.read_bytes())
    content[-1] ^= 1
    student.write_bytes(content)
    summary = resume(RunDirectory.open(directory.path), Plugins(allow=""))
    assert without_times(summary) == without_times(uninterrupted[1])


def test_changed_data_is_refused(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text((folder / "train.jsonl").read_text())
    directory, _ = toy_run(folder, tiny_bert, train_file=str(train), keep_checkpoints=0)
    go_back(directory, to_round=1)
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join(reversed(lines)))
    with pytest.raises(RunDirectoryError, match="has changed since the run began"):
        resume(RunDirectory.open(directory.path), Plugins(allow=""))


def test_a_running_run_cannot_be_resumed(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    directory, _ = toy_run(folder, tiny_bert, keep_checkpoints=0)
    go_back(directory, to_round=1)
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import sys, time; from sage_kit.rundir import RunDirectory\n"
         "d = RunDirectory.open(sys.argv[1]); d.lock(); print('held', flush=True); time.sleep(60)",
         str(directory.path)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(RunDirectoryError, match="in use by another process"):
            resume(RunDirectory.open(directory.path), Plugins(allow=""))
    finally:
        holder.kill()
        holder.communicate()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            resume(RunDirectory.open(directory.path), Plugins(allow=""))
            break
        except RunDirectoryError:
            time.sleep(0.2)
    assert RunDirectory.open(directory.path).summary() is not None


def test_relative_paths_mean_the_same_when_resumed_from_elsewhere(
    folder: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    home = tmp_path / "home"
    shutil.copytree(tiny_bert, home / "teacher")
    toy_config(home, tiny_bert)  # writes the data
    (home / "corpus.txt").write_text("a good film\na bad film\n")
    monkeypatch.chdir(home)
    directory, expected = toy_run(
        folder, Path("teacher"), train_file="train.jsonl", validation_file="validation.jsonl", cache_dir="cache",
        warmup_corpus="corpus.txt", warmup_epochs=1, rounds=2, keep_checkpoints=0,
    )  # fmt: skip
    go_back(directory, to_round=1)
    monkeypatch.chdir(tmp_path)
    assert without_times(resume(RunDirectory.open(directory.path), Plugins(allow=""))) == without_times(expected)
    assert not (tmp_path / "cache").exists()


def test_names_of_the_hub_and_of_packages_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    config = load_config(
        {"teacher": "package:some/model", "tokenizer": "local", "warmup_corpus": "wiki", "train_file": "a.csv"}
    )
    found = with_absolute_paths(config)
    assert (found.teacher, found.warmup_corpus) == ("package:some/model", "wiki")
    assert (found.tokenizer, found.train_file) == (str(tmp_path / "local"), str(tmp_path / "a.csv"))
