"""Fine-tuning of a teacher that is killed and goes on, and what it counts as its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from sage_kit.components import TaskSpec
from sage_kit.config import load_config
from sage_kit.data.splits import Split, TaskData
from sage_kit.errors import ModelError
from sage_kit.models import finetuning, teacher
from sage_kit.models.teacher import Teacher, load_teacher
from sage_kit.storage.cache import Cache

CPU = torch.device("cpu")


class KilledError(Exception):
    """Stands for the end of a process."""


def make_data(regression: bool = False) -> TaskData:
    rows = tiny.toy_task_rows(96, 0)
    labels = np.array([row["label"] for row in rows])
    spec = TaskSpec(name="toy", summary="", text_columns=("text",), labels=() if regression else ("blame", "praise"))
    own = Split("teacher", [row["text"] for row in rows], None, labels.astype(np.float32) if regression else labels)
    # the student learns from other texts, without labels
    other = Split("train", ["a film", "a plot"], None, np.full(2, -1))
    return TaskData(spec, other, own.take(np.arange(8), "dev"), {}, own)


def load(
    directory: Path,
    checkpoint: Path,
    on_step: Callable[..., None] = lambda done, total, loss: None,
    said: Callable[[str], Any] = lambda text: None,
    data: TaskData | None = None,
    **settings: Any,
) -> Teacher:
    quick = {"teacher_epochs": 3, "teacher_learning_rate": 1e-3, "batch_size": 8, "max_length": 32, "device": "cpu"}
    config = load_config({"teacher": str(checkpoint), **quick, **settings})
    return load_teacher(config, data or make_data(), Cache(directory, said), CPU, said, on_step)


def killed_after(step: int) -> Callable[..., None]:
    def on_step(done: int, total: int, loss: Any) -> None:
        if done == step:
            raise KilledError

    return on_step


@pytest.fixture(scope="module")
def headless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint without a head, with dropout."""
    return tiny.make_checkpoint(tmp_path_factory.mktemp("headless") / "bert", layers=2)


@pytest.mark.parametrize("regression", [False, True])
@pytest.mark.parametrize(
    ("kills", "goes_on_after"),
    # 12 steps an epoch, and a checkpoint after every fifth and at the end of an epoch
    [((3,), (0,)), ((8,), (5,)), ((14,), (12,)), ((7, 13, 31), (5, 12, 30))],
)
def test_one_that_was_killed_goes_on_to_the_same_bits(
    tmp_path: Path,
    headless: Path,
    monkeypatch: pytest.MonkeyPatch,
    kills: tuple[int, ...],
    goes_on_after: tuple[int, ...],
    regression: bool,
) -> None:
    data = make_data(regression)
    monkeypatch.setattr(finetuning, "SAVED_EVERY", 5)
    whole = load(tmp_path / "whole", headless, killed_after(0), data=data)
    directory = tmp_path / "killed"
    for kill in kills:
        with pytest.raises(KilledError):
            load(directory, headless, killed_after(kill), data=data)
    said: list[str] = []
    steps: list[int] = []
    again = load(directory, headless, lambda done, total, loss: steps.append(done), said.append, data=data)
    after = goes_on_after[-1]
    assert steps == list(range(after + 1, 37))
    assert [text for text in said if "goes on" in text] == (
        [f"fine-tuning goes on after {after} of 36 steps"] if after else []
    )
    assert again.fingerprint == whole.fingerprint
    # nothing is left beside the entry, and nothing in it that a whole one has not
    entry, other = (next((path / "teacher").glob("[!.]*")) for path in (directory, tmp_path / "whole"))
    assert sorted(path.name for path in entry.iterdir()) == sorted(path.name for path in other.iterdir())
    assert [path.name for path in (directory / "teacher").glob(".*") if not path.name.startswith(".lock-")] == []


def test_a_damaged_checkpoint_is_no_harm(tmp_path: Path, headless: Path) -> None:
    whole = load(tmp_path / "whole", headless)
    directory = tmp_path / "killed"
    with pytest.raises(KilledError):
        load(directory, headless, killed_after(13))
    (path,) = directory.glob("teacher/.partial-*/*")
    path.write_bytes(path.read_bytes()[:-100])
    steps: list[int] = []
    again = load(directory, headless, lambda done, total, loss: steps.append(done))
    assert steps[0] == 1
    assert again.fingerprint == whole.fingerprint


def test_other_settings_do_not_go_on_from_it(tmp_path: Path, headless: Path) -> None:
    with pytest.raises(KilledError):
        load(tmp_path, headless, killed_after(13))
    steps: list[int] = []
    load(tmp_path, headless, lambda done, total, loss: steps.append(done), teacher_learning_rate=2e-3)
    assert steps[0] == 1


def test_the_cache_is_cleared_of_what_a_killed_one_left(tmp_path: Path, headless: Path) -> None:
    with pytest.raises(KilledError):
        load(tmp_path, headless, killed_after(13))
    assert list(tmp_path.glob("teacher/.partial-*"))
    assert Cache(tmp_path).clear() > 10_000
    assert not list(tmp_path.glob("teacher/.partial-*"))


def test_one_that_diverged_leaves_no_checkpoint(tmp_path: Path, headless: Path) -> None:
    with pytest.raises(ModelError, match="diverged"):
        load(tmp_path, headless, teacher_learning_rate=1e15)
    assert not list(tmp_path.glob("teacher/.partial-*"))


# ---- its time -------------------------------------------------------------------------------------------------------


def test_its_seconds_are_those_of_the_training_alone(
    tmp_path: Path, headless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = teacher.encode

    def slow(*args: Any, **options: Any) -> Any:
        time.sleep(3)
        return encode(*args, **options)

    load(tmp_path / "warm", headless)  # what torch does once
    monkeypatch.setattr(teacher, "encode", slow)
    made = load(tmp_path / "cache", headless)
    assert 0 < made.seconds < 3
    found = load(tmp_path / "cache", headless)  # without a token
    assert found.seconds == 0
    assert found.fingerprint == made.fingerprint


def test_its_seconds_hold_those_before_it_was_killed(tmp_path: Path, headless: Path) -> None:
    def slow(done: int, total: int, loss: Any) -> None:
        time.sleep(0.05)
        if done == 25:
            raise KilledError

    with pytest.raises(KilledError):
        load(tmp_path, headless, slow)
    assert load(tmp_path, headless).seconds > 23 * 0.05
