"""A complete run on the toy task with a tiny teacher: settings, and a runner that tests share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.distill import resume, run
from sage_kit.rundir import RunDirectory

ALL_ROWS: dict[str, Any] = {
    "train_rows": 0, "validation_rows": 0, "teacher_rows": 0, "transfer_rows": 0, "transfer_pool": 0,
    "evaluation_rows": 0, "dev_rows": 0, "dev_fraction": 0.25,
}  # fmt: skip
"""For a study of toy data: all rows that dev leaves are for teacher and student alike, whatever the profile says."""


def toy_settings(folder: Path, teacher: Path, **overrides: Any) -> dict[str, Any]:
    """Settings of a run that takes a few seconds: 300 rows, four tiny blocks to two, three rounds.

    Parameters
    ----------
    folder : Path
        Where data, cache and runs go.
    teacher : Path
        A checkpoint of `tiny`.
    **overrides
        Other settings.
    """
    train, validation = folder / "train.jsonl", folder / "validation.jsonl"
    if not train.exists():
        tiny.write_jsonl(train, tiny.toy_task_rows(300, seed=1))
        tiny.write_jsonl(validation, tiny.toy_task_rows(120, seed=2))
    settings = {
        "task": "file",
        "train_file": str(train),
        "validation_file": str(validation),
        "teacher": str(teacher),
        "max_length": 32,
        "student_layers": 2,
        "learning_rate": 2e-3,
        "reducer": "pca",
        # the method with all its parts, which the default need not have
        "sampler": "high_loss",
        "sampler_options": {"k": 8},
        "lift_options": {"source": "auto", "temperature": 0.0},
        "rounds": 3,
        "stop_agreement": 1.01,
        "device": "cpu",
        "observers": ["jsonl"],
        "cache_dir": str(folder / "cache"),
        "runs_dir": str(folder / "runs"),
        **tiny.TOY_TRAINING,
    }
    if "lift" in overrides:  # another one has other options
        del settings["lift_options"]
    return {**settings, **overrides}


def toy_config(folder: Path, teacher: Path, **overrides: Any) -> RunConfig:
    """The settings as a RunConfig."""
    return load_config(toy_settings(folder, teacher, **overrides))


def toy_run(folder: Path, teacher: Path, **overrides: Any) -> tuple[RunDirectory, dict[str, Any]]:
    """Run it with the built-in plugins only."""
    return run(toy_config(folder, teacher, **overrides), Plugins(allow=""))


def go_back(directory: RunDirectory, to_round: int) -> None:
    """Make a finished run, all of whose checkpoints were kept, look as if it had been killed after a round."""
    (directory.path / "summary.json").unlink()
    for path in (directory.path / "checkpoints").glob("round-*"):
        if int(path.name[-3:]) > to_round:
            shutil.rmtree(path)


def without_times(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without what the clock says."""
    rounds = [{key: value for key, value in result.items() if key != "seconds"} for result in summary["rounds"]]
    teacher = {key: value for key, value in summary["teacher"].items() if key != "seconds"}
    rest = {key: value for key, value in summary.items() if key != "seconds"}
    return {**rest, "rounds": rounds, "teacher": teacher}


def check_resumed(folder: Path, teacher: Path, **settings: Any) -> None:
    """A run of two rounds that is killed after the first ends as one that is not: the same summary and weights."""
    first, expected = toy_run(folder, teacher, **settings, rounds=2)
    again, _ = toy_run(folder, teacher, **settings, rounds=2, keep_checkpoints=0)
    go_back(again, to_round=1)
    assert without_times(resume(RunDirectory.open(again.path), Plugins(allow=""))) == without_times(expected)
    ours, theirs = (load_file(directory.student / "model.safetensors") for directory in (again, first))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
