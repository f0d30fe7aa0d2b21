"""What several analyses read of runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sage_kit.components import TaskSpec
from sage_kit.errors import StudyError
from sage_kit.studies.analyses.run_data import by_arm, label_text, synthetic_sets
from sage_kit.studies.runs import Runs


def fake_run(task: str, arm: str, seed: int) -> Any:
    return SimpleNamespace(task=task, arm=arm, seed=seed)


def test_runs_come_by_task_and_arm_and_only_where_there_are_any() -> None:
    runs = Runs([fake_run("a", "plain", 1), fake_run("a", "plain", 0), fake_run("b", "sage", 0)])
    found = [(task, arm, [run.seed for run in its]) for task, arm, its in by_arm(runs)]
    assert found == [("a", "plain", [0, 1]), ("b", "sage", [0])]


def test_a_run_without_synthetic_examples_is_told() -> None:
    run = SimpleNamespace(arm="plain", directory=SimpleNamespace(rounds_with_synthetic=list))
    with pytest.raises(StudyError, match="the run of arm 'plain' has kept no synthetic examples"):
        synthetic_sets(run)  # type: ignore[arg-type]


def test_labels_are_told_in_words() -> None:
    classes = TaskSpec(name="a", summary="", text_columns=("text",), labels=("bad", "good"))
    number = TaskSpec(name="b", summary="", text_columns=("text",), label_range=(0.0, 5.0))
    assert [label_text(value, classes) for value in (np.int64(1), np.int64(-1))] == ["good", "none"]
    assert [label_text(value, number) for value in (2.5, np.nan)] == ["2.50", "none"]
