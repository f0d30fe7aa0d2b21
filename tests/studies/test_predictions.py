"""Saved predictions: half precision that predicts alike, and comparisons of what runs put out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.data.metrics import METRICS, agreement, divergence
from sage_kit.errors import StudyError
from sage_kit.studies.predictions import compare_outputs, halved

Array = NDArray[Any]
CLASSES = TaskSpec(name="two", summary="", text_columns=("text",), labels=("a", "b", "c"), metrics=("macro_f1",))
NUMBERS = TaskSpec(
    name="numbers", summary="", text_columns=("text",), label_range=(0.0, 5.0), metrics=("spearman", "pearson")
)
SPECS = {"two": CLASSES, "numbers": NUMBERS}


def test_half_precision_predicts_the_same_classes() -> None:
    rng = np.random.default_rng(0)
    # logits so near each other that rounding makes many equal, of all sizes and signs
    logits = (rng.choice([-300.0, -1, -1e-6, 1e-6, 1, 300], (5000, 1)) * (1 + 3e-4 * rng.random((5000, 3)))).astype(
        np.float32
    )
    half = halved(logits)
    assert half.dtype == np.float16
    assert (logits.astype(np.float16).argmax(1) != logits.argmax(1)).any()
    np.testing.assert_array_equal(half.argmax(1), logits.argmax(1))
    np.testing.assert_allclose(half, logits, rtol=2e-3, atol=2e-7)
    np.testing.assert_array_equal(halved(half), half)


@pytest.mark.parametrize(
    "logits", [np.array([[0.1], [0.2]], np.float32), np.array([[1e6, 0.0]], np.float32), np.array([[np.nan, 0.0]])]
)
def test_what_half_precision_does_not_hold_stays_as_it_is(logits: Array) -> None:
    np.testing.assert_array_equal(halved(logits), logits)
    assert halved(logits).dtype == logits.dtype


class Outputs:
    """Made-up outputs of two tasks, three seeds and three arms."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.tasks, self.arms = ["two", "numbers"], ["plain", "sage", "other"]
        self._labels = {"two": rng.integers(0, 3, 40), "numbers": rng.uniform(0, 5, 50)}
        self._teacher = {"two": rng.normal(size=(40, 3)), "numbers": self._labels["numbers"][:, None] + 0.1}
        self._logits = {
            (task, arm): teacher + rng.normal(0, 0.5, (3, *teacher.shape))
            for task, teacher in self._teacher.items()
            for arm in self.arms
        }

    def labels(self, task: str, split: str) -> Array:
        return self._labels[task]

    def teacher_logits(self, task: str, split: str) -> Array:
        return self._teacher[task]

    def logits(self, task: str, arm: str, split: str) -> Array:
        return self._logits[task, arm]

    def splits(self, task: str) -> list[str]:
        return ["matched", "mismatched"]


@pytest.mark.parametrize("metric", ["", "agreement", "divergence"])
def test_means_are_those_of_the_runs(metric: str) -> None:
    outputs = Outputs()
    table = compare_outputs(outputs, SPECS, "plain", metric=metric).set_index(["task", "arm"])
    assert set(table["metric"]) == {metric or "primary"}
    for task, spec in SPECS.items():
        labels, teacher = outputs.labels(task, ""), halved(outputs.teacher_logits(task, ""))
        scores = []
        for student in map(halved, outputs.logits(task, "sage", "")):
            if metric == "agreement":
                scores.append(agreement(student, teacher, spec))
            elif metric == "divergence":
                scores.append(float(np.log(divergence(teacher, student).mean())))
            else:
                predicted = student.argmax(1) if spec.labels else student[:, 0]
                scores.append(METRICS[spec.metrics[0]](labels, predicted))
        assert table.loc[(task, "sage"), "mean"] == pytest.approx(np.mean(scores))
    assert ("average", "other") in table.index


def test_what_is_not_there_is_named() -> None:
    outputs = Outputs()
    assert set(compare_outputs(outputs, SPECS, "plain", split="mismatched", arms=["sage"])["arm"]) == {"sage"}
    with pytest.raises(StudyError, match=r"no arm 'sagee'\. Did you mean 'sage'"):
        compare_outputs(outputs, SPECS, "plain", arms=["sagee"])
    with pytest.raises(StudyError, match=r"task 'two' has no split 'mismatch'\. Did you mean 'mismatched'"):
        compare_outputs(outputs, SPECS, "plain", split="mismatch")
