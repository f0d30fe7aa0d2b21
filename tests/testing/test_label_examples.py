"""Labels of each kind as metrics get them, and what the checks find in broken metrics and tasks of these kinds."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from sage_kit.components import Answers, MetricSpec, TaskSpec
from sage_kit.components.specs import LABEL_KINDS
from sage_kit.testing import check_component, label_examples

NEW_KINDS = LABEL_KINDS[2:]


def failed(spec: Any) -> dict[str, str]:
    return {result.name: result.message for result in check_component(spec) if not result.passed}


def rows_that_agree(kind: str, labels: Any, predictions: Any) -> float:
    """Share of rows that are predicted as the labels say."""
    exact = label_examples.right(kind, labels)
    if kind == "label_sets":
        return float(((predictions >= 0.5) == exact).mean())
    if kind == "embeddings":
        near = np.argmax(predictions[:, 0] @ predictions[:, 1].T, axis=1)
        return float(np.mean(near == np.arange(len(near))))
    if kind == "spans":
        same = [
            found in answers.texts or (found == "" and not answers.texts)
            for answers, found in zip(labels, predictions, strict=True)
        ]
        return float(np.mean(same))
    pairs = [
        (a, b) for ours, theirs in zip(labels, predictions, strict=True) for a, b in zip(ours, theirs, strict=True)
    ]
    return float(np.mean([a == b for a, b in pairs]))


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_the_same_seed_gives_the_same_and_another_does_not(kind: str) -> None:
    one, again, other = (label_examples.make(kind, 40, seed) for seed in (1, 1, 2))
    assert all(map(label_examples.same, one, again))
    assert not label_examples.same(one[1], other[1])
    assert len(one[0]) == len(one[1]) == 40


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_right_predictions_are_right_and_shuffled_ones_are_not(kind: str) -> None:
    labels, predictions = label_examples.make(kind, 96)
    before = copy.deepcopy(labels)
    right, mixed = label_examples.right(kind, labels), label_examples.shuffled(kind, labels, 1)
    assert rows_that_agree(kind, labels, right) == 1
    assert 0.5 < rows_that_agree(kind, labels, predictions) < 1
    assert rows_that_agree(kind, labels, mixed) < rows_that_agree(kind, labels, predictions)
    assert label_examples.same(labels, before)


def test_shapes_and_types() -> None:
    labels, predictions = label_examples.make("label_sets", 5)
    assert (labels.dtype, labels.shape, predictions.dtype) == (np.int8, (5, 4), np.float32)
    labels, predictions = label_examples.make("tags", 5)
    assert all(len(a) == len(b) for a, b in zip(labels, predictions, strict=True))
    labels, predictions = label_examples.make("spans", 200)
    assert all(isinstance(answers, Answers) for answers in labels)
    assert {len(answers.texts) for answers in labels} == {0, 1, 2}
    labels, predictions = label_examples.make("embeddings", 5)
    assert (labels.dtype, predictions.dtype, predictions.shape) == (np.float32, np.float32, (5, 2, 16))


# ---- metrics


class Words:
    """Share of words whose tag is right."""

    def __init__(self, options: Any, context: Any) -> None:
        pass

    def score(self, labels: Any, predictions: Any) -> Any:
        return float(
            np.mean([a == b for row in zip(labels, predictions, strict=True) for a, b in zip(*row, strict=True)])
        )


class WordsPopped(Words):
    def score(self, labels: Any, predictions: Any) -> Any:
        found = super().score(labels, predictions)
        predictions.reverse()
        return found


class WordsOfTwo(Words):
    def score(self, labels: Any, predictions: Any) -> Any:
        return super().score(labels[:2], predictions[:2]) if labels[1] else 0.0


class Cosines:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def score(self, labels: Any, predictions: Any) -> Any:
        return float(-np.abs(labels / 5 - (predictions[:, 0] * predictions[:, 1]).sum(1)).mean())


class Sets:
    def __init__(self, options: Any, context: Any) -> None:
        pass

    def score(self, labels: Any, predictions: Any) -> Any:
        return float(self.contributions(labels, predictions).mean())

    def contributions(self, labels: Any, predictions: Any) -> Any:
        return (labels == (predictions >= 0.5)).astype(np.float64)  # one number for each label of a row


@pytest.mark.parametrize(
    ("kind", "factory", "check", "message"),
    [
        ("tags", WordsPopped, "metric_keeps_its_input", "in place: predictions"),
        ("tags", WordsOfTwo, "metric_takes_hard_data", "one row it raises IndexError"),
        ("embeddings", Cosines, "metric_takes_hard_data", "no labels it raises"),
        ("label_sets", Sets, "metric_contributions", "the contributions have shape (96, 4), not (96,)"),
    ],
)
def test_broken_metrics_are_caught(kind: str, factory: Any, check: str, message: str) -> None:
    spec = MetricSpec(name="broken", summary="Broken", factory=factory, takes=(kind,), range=(-5.0, 1.0))
    assert message in failed(spec)[check]


def test_a_sound_metric_passes() -> None:
    assert failed(MetricSpec(name="words", summary="Words", factory=Words, takes=("tags",))) == {}


# ---- tasks


def task(**fields: Any) -> TaskSpec:
    return TaskSpec(**{"name": "odd", "summary": "Odd", "text_columns": ("a", "b"), **fields})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (task(task_kind="tags", metrics=("tag_accuracy",)), "it has no labels, which tags are made of"),
        (task(task_kind="spans", text_columns=("a",), metrics=("answer_f1",)), "spans are of two texts"),
        (task(task_kind="spans", label_column="", metrics=("answer_f1",)), "it has no label column"),
        (
            task(task_kind="tags", labels=("O", "B-X"), metrics=("accuracy",)),
            "the metric 'accuracy' is for classes, and its labels are tags",
        ),
        (task(labels=("x", "y"), metrics=("span_f1",)), "the metric 'span_f1' is for tags, and its labels are classes"),
        (task(task_kind="label_sets", labels=("x", "y"), metrics=("pearson",)), "its labels are label_sets"),
    ],
)
def test_tasks_whose_fields_do_not_fit_are_caught(spec: TaskSpec, message: str) -> None:
    assert message in failed(spec)["task_is_declared"]


def test_a_task_without_labels_to_score_is_declared() -> None:
    spec = task(task_kind="embeddings", label_column="", metrics=("retrieval_accuracy",))
    assert "task_is_declared" not in failed(spec)
