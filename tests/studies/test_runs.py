"""Runs of arms: what their keys hold, and what is never removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from toyrun import toy_config, toy_settings

from sage_kit import distill
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import CompatibilityError, RunHeldError, RunInUseError
from sage_kit.rundir import RunDirectory
from sage_kit.studies import run_store
from sage_kit.studies.contents import checkpoint_content
from sage_kit.studies.run_store import RunStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "store", Plugins(allow=""))


def test_a_teacher_counts_by_its_content(
    folder: Path, store: RunStore, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "acme_models" / "model"
    shutil.copytree(tiny_bert, package)
    (package.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def key(teacher: str) -> str:
        return store.key(load_config({**toy_settings(folder, tiny_bert), "teacher": teacher}))

    before = key(str(tiny_bert))
    os.utime(package / "model.safetensors", ns=(1, 1))
    assert key("package:acme_models/model") == key(str(package)) == before
    weights = bytearray((package / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (package / "model.safetensors").write_bytes(weights)
    assert key("package:acme_models/model") == key(str(package)) != before
    assert key("some/hub-name") != key("other/hub-name")


def test_a_hub_name_counts_with_the_commit_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert checkpoint_content("acme/model") == "acme/model"
    root = tmp_path / "models--acme--model"
    (root / "refs").mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        (root / "snapshots" / commit).mkdir(parents=True)
        (root / "snapshots" / commit / "config.json").write_text("{}")
        (root / "refs" / "main").write_text(commit)
        assert checkpoint_content("acme/model") == f"acme/model@{commit}"


def test_precision_that_the_machine_chooses_is_part_of_the_key(
    folder: Path, store: RunStore, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    automatic = toy_config(folder, tiny_bert, precision="auto")
    assert store.key(automatic) == store.key(toy_config(folder, tiny_bert, precision="fp32"))
    bf16 = store.key(toy_config(folder, tiny_bert, precision="bf16"))
    assert bf16 != store.key(automatic)
    monkeypatch.setattr(run_store, "precision_of", lambda config: "bf16")
    assert store.key(automatic) == bf16


def test_observers_that_only_show_something_do_not_count(folder: Path, store: RunStore, tiny_bert: Path) -> None:
    def key(*observers: str) -> str:
        return store.key(toy_config(folder, tiny_bert, observers=list(observers)))

    assert key("jsonl") == key("progress", "jsonl")
    assert key("jsonl") != key("jsonl", "loss_profile")


def test_a_run_without_validation_does_not_stand_for_one_with_it(
    folder: Path, store: RunStore, tiny_bert: Path
) -> None:
    every, end, never = (
        store.key(toy_config(folder, tiny_bert, evaluate_validation=when)) for when in ("every_round", "end", "never")
    )
    assert every == end != never


def test_a_run_that_another_study_is_making_is_left_to_it(folder: Path, store: RunStore, tiny_bert: Path) -> None:
    config = toy_config(folder, tiny_bert, rounds=1)
    path = store.root / config.task / store.key(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.parent / f".{path.name}.lock")
    with lock:
        with pytest.raises(RunHeldError, match="in the hands of another study"):
            store.run("a", config, wait=False)
        assert not path.exists()
    made = store.run("a", config, wait=False)
    assert made.directory.path == path
    assert not lock.is_locked
    with FileLock(lock.lock_file, timeout=0):
        pass  # and it was given back


def test_a_run_tells_what_made_it(folder: Path, store: RunStore, tiny_bert: Path) -> None:
    config = toy_config(folder, tiny_bert, rounds=1)
    run = store.run("a", config)
    environment = run.record(store.plugins)["environment"]
    assert environment["code"] == store.code_digest(config)
    assert (environment["precision"], environment["device"]) == ("fp32", "cpu")
    assert environment["threads"] >= 1
    assert environment["processor"]
    assert run.record(store.plugins)["key"] == store.key(config)


HOLD = """
import sys
from sage_kit.rundir import RunDirectory
run = RunDirectory.open(sys.argv[1])
run.lock()
print("held", flush=True)
sys.stdin.read()
"""


def interrupted(store: RunStore, config: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was interrupted after its first round."""

    def interrupt(*arguments: Any, **others: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(distill.Loop, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.run("a", config)
    return store.root / config.task / store.key(config)


@pytest.mark.parametrize("damage", [False, True], ids=["unfinished", "damaged"])
def test_a_run_that_another_process_holds_is_never_removed(
    folder: Path, store: RunStore, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, damage: bool
) -> None:
    config = load_config({**toy_settings(folder, tiny_bert), "rounds": 1})
    path = interrupted(store, config, monkeypatch)
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        if damage:  # it cannot be gone on with, and yet its folder is someone's
            (path / "config.toml").write_text("no_such_setting = 1\n", encoding="utf-8")
        before = sorted(str(item) for item in path.rglob("*"))
        with pytest.raises(RunInUseError, match=rf"is in use by another process \({process.pid} on .*\): wait"):
            store.run("a", config)
        assert sorted(str(item) for item in path.rglob("*")) == before
        process.kill()
        process.wait()
    run = store.run("a", config)  # gone on with, or made anew
    assert run.directory.path == path
    assert json.loads((path / "summary.json").read_text(encoding="utf-8"))["student_steps"] > 0
    assert RunDirectory(path).predictions()["dev"]["student"].shape[1] == 2


def test_tasks_that_a_study_cannot_look_at_are_refused(store: RunStore, folder: Path, tiny_bert: Path) -> None:
    config = load_config({**toy_settings(folder, tiny_bert), "task_kind": "tags"})
    narrow = RunStore(store.root, store.plugins, structured=False)
    with pytest.raises(CompatibilityError, match="looks at classes and numbers, and task 'file' has tags"):
        narrow.key(config)
