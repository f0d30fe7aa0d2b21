"""Every score against scikit-learn and scipy called directly, against a loop, and by hand."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from encodedrows import score
from numpy.typing import NDArray
from scipy import stats
from scipy.special import softmax
from sklearn import metrics

from sage_kit.components import TaskSpec
from sage_kit.data.metrics import (
    AGREEMENT_TOLERANCE,
    METRICS,
    agreement,
    best_constant,
    calibration_error,
    divergence,
    predictions,
)

RNG = np.random.default_rng(0)

CLASSES = {"references": {
    "accuracy": metrics.accuracy_score,
    "f1": metrics.f1_score,
    "macro_f1": lambda a, b: metrics.f1_score(a, b, average="macro"),
    "matthews": metrics.matthews_corrcoef,
}}["references"]  # fmt: skip
NUMBERS = {
    "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
    "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
}


def task(**changes: Any) -> TaskSpec:
    return TaskSpec(**{"name": "x", "summary": "x", "text_columns": ("text",), "labels": ("a", "b"), **changes})


REGRESSION = task(labels=(), label_range=(0.0, 5.0), metrics=("pearson", "spearman"))


# ---- metrics


def test_every_metric_has_a_reference_here() -> None:
    assert set(METRICS) == set(CLASSES) | set(NUMBERS)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_metrics_of_classes_are_those_of_scikit_learn(name: str) -> None:
    labels, predicted = RNG.integers(0, 2, 300), RNG.integers(0, 2, 300)
    value = METRICS[name](labels, predicted)
    assert type(value) is float
    assert value == pytest.approx(CLASSES[name](labels, predicted), abs=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "matthews"])
def test_metrics_of_three_classes_are_those_of_scikit_learn(name: str) -> None:
    labels, predicted = RNG.integers(0, 3, 300), RNG.integers(0, 3, 300)
    assert METRICS[name](labels, predicted) == pytest.approx(CLASSES[name](labels, predicted), abs=1e-12)


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_correlations_are_those_of_scipy(name: str) -> None:
    labels = RNG.uniform(0, 5, 300).astype(np.float32)
    predicted = (labels + RNG.normal(0, 1, 300)).astype(np.float32)
    value = METRICS[name](labels, predicted)
    assert type(value) is float
    assert value == pytest.approx(NUMBERS[name](labels.astype(float), predicted.astype(float)), abs=1e-12)


# confusion: 3 true positives, 1 false positive, 2 false negatives, 4 true negatives
LABELS = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
PREDICTED = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 7 / 10),
        ("f1", 2 * 3 / (2 * 3 + 1 + 2)),
        ("macro_f1", (2 * 3 / 9 + 2 * 4 / (2 * 4 + 1 + 2)) / 2),
        ("matthews", (3 * 4 - 1 * 2) / math.sqrt(4 * 5 * 5 * 6)),
    ],
)
def test_metrics_of_classes_by_hand(name: str, expected: float) -> None:
    assert METRICS[name](LABELS, PREDICTED) == pytest.approx(expected, abs=1e-12)


def test_correlations_by_hand() -> None:
    labels, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 40.0])
    # 1 - 6 * sum d^2 / (n (n^2 - 1)) with d = 0, 1, 1, 0
    assert METRICS["spearman"](labels, predicted) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert METRICS["pearson"](labels, predicted) == pytest.approx(58 / math.sqrt(5 * 1085))
    assert METRICS["pearson"](labels, -labels) == pytest.approx(-1)


@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("name", sorted(CLASSES))
def test_constant_classes_have_a_score_and_no_warning(name: str, constant: int) -> None:
    same = np.full(10, constant)
    expected = {
        "accuracy": 0.5,
        "f1": 2 / 3 if constant else 0.0,
        "macro_f1": 1 / 3,
        "matthews": 0.0,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METRICS[name](LABELS, same) == pytest.approx(expected[name])
        assert 0 <= METRICS[name](same, same) <= 1


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_constant_explains_nothing(name: str) -> None:
    varied, same = np.arange(5, dtype=np.float32), np.full(5, 2.5, np.float32)
    for labels, predicted in ((varied, same), (same, varied), (same, same), (varied[:1], varied[:1])):
        assert METRICS[name](labels, predicted) == 0.0


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_prediction_that_is_not_finite_gives_nan(name: str) -> None:
    labels = np.arange(5, dtype=np.float32)
    predicted = np.array([0, 1, np.nan, 3, 4], np.float32)
    assert math.isnan(METRICS[name](labels, predicted))


# ---- predictions and agreement


def test_predictions_of_classes_and_of_numbers() -> None:
    logits = np.array([[0.1, 0.9], [2.0, -1.0], [0.5, 0.5]], np.float32)
    assert predictions(logits, task()).tolist() == [1, 0, 0]
    np.testing.assert_array_equal(predictions(logits[:, :1], REGRESSION), logits[:, 0])


def test_agreement_of_classes_counts_equal_choices() -> None:
    teacher = np.array([[1, 0], [0, 1], [0, 1], [3, 2]], np.float32)
    student = np.array([[9, 0], [0, 0.1], [1, 0], [0, 1]], np.float32)
    assert agreement(student, teacher, task()) == 0.5
    assert agreement(teacher * 7 - 3, teacher, task()) == 1.0
    assert agreement(-teacher, teacher, task()) == 0.0


def test_agreement_of_numbers_has_a_tolerance_of_a_share_of_the_range() -> None:
    assert AGREEMENT_TOLERANCE * 5 == 0.25  # exact in binary, so that the boundary can be tested
    teacher = np.full((6, 1), 2.0, np.float32)
    beyond = np.float32(0.25) + np.float32(2e-7) * 4
    student = teacher + np.array([[0.0], [0.25], [-0.25], [beyond], [-beyond], [3.0]], np.float32)
    assert agreement(student, teacher, REGRESSION) == 3 / 6
    assert agreement(student, teacher, task(labels=(), label_range=(-5.0, 5.0))) == 5 / 6


# ---- calibration


def reference_calibration(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """Bin by bin and example by example."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        probabilities = softmax(row)
        chosen = int(np.argmax(probabilities))
        bins[min(14, int(probabilities[chosen] * 15))].append((float(probabilities[chosen]), chosen == label))
    total = 0.0
    for examples in bins:
        if examples:
            confidence = sum(c for c, _ in examples) / len(examples)
            accuracy = sum(hit for _, hit in examples) / len(examples)
            total += len(examples) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("n_outputs", [2, 3, 10])
def test_calibration_error_is_that_of_a_loop(n_outputs: int) -> None:
    logits = RNG.normal(0, 2, (500, n_outputs)).astype(np.float32)
    labels = RNG.integers(0, n_outputs, 500)
    assert calibration_error(logits, labels) == pytest.approx(reference_calibration(logits, labels), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    sure = np.array([[100.0, 0.0]] * 4, np.float32)
    assert calibration_error(sure, np.array([0, 0, 0, 0])) == 0
    assert calibration_error(sure, np.array([1, 1, 1, 1])) == 1
    assert calibration_error(sure, np.array([0, 1, 0, 0])) == 0.25
    # one half sure, one of two right
    assert calibration_error(np.zeros((2, 2), np.float32), np.array([0, 1])) == 0
    # 0.8 sure and right, 0.6 sure and wrong: two bins
    logits = np.log(np.array([[0.8, 0.2], [0.6, 0.4]])).astype(np.float32)
    assert calibration_error(logits, np.array([0, 1])) == pytest.approx((0.2 + 0.6) / 2)
    # 0.9 sure and wrong, 0.99 sure and right: the last bin but one, and the last
    logits = np.log(np.array([[0.9, 0.1], [0.99, 0.01]])).astype(np.float32)
    assert calibration_error(logits, np.array([1, 0])) == pytest.approx((0.9 + 0.01) / 2)


def test_calibration_error_of_a_diverged_model_is_nan() -> None:
    logits = np.array([[0.0, np.nan], [1.0, 0.0]], np.float32)
    assert math.isnan(calibration_error(logits, np.array([0, 1])))


# ---- all scores


def test_scores_of_classes() -> None:
    logits, teacher = RNG.normal(size=(50, 2)).astype(np.float32), RNG.normal(size=(50, 2)).astype(np.float32)
    labels = RNG.integers(0, 2, 50)
    found = score(task(metrics=("f1", "accuracy")), logits, labels, teacher)
    assert list(found) == ["f1", "accuracy", "agreement", "calibration_error"]
    assert found["f1"] == METRICS["f1"](labels, logits.argmax(-1))
    assert found["accuracy"] == np.mean(labels == logits.argmax(-1))
    assert found["agreement"] == np.mean(teacher.argmax(-1) == logits.argmax(-1))
    assert found["calibration_error"] == calibration_error(logits, labels)
    assert all(type(value) is float for value in found.values())


def test_scores_of_numbers() -> None:
    logits = RNG.uniform(0, 5, (50, 1)).astype(np.float32)
    labels = RNG.uniform(0, 5, 50).astype(np.float32)
    assert list(score(REGRESSION, logits, labels)) == ["pearson", "spearman"]
    found = score(REGRESSION, logits, labels, logits + 0.125)
    assert found["agreement"] == 1.0
    assert found["pearson"] == pytest.approx(stats.pearsonr(labels.astype(float), logits[:, 0].astype(float)).statistic)


def test_scores_of_a_diverged_model_are_scores() -> None:
    logits = np.full((4, 2), np.nan, np.float32)
    found = score(task(), logits, np.array([0, 1, 0, 1]), np.zeros((4, 2), np.float32))
    assert found["accuracy"] == 0.5
    assert math.isnan(found["calibration_error"])
    assert math.isnan(score(REGRESSION, logits[:, :1], np.arange(4, dtype=np.float32))["pearson"])


# ---- divergence from the teacher


@pytest.mark.parametrize("outputs", [2, 5])
def test_divergence_agrees_with_its_formula(outputs: int) -> None:
    rng = np.random.default_rng(0)
    teacher, student = (rng.standard_normal((50, outputs)).astype(np.float32) * 3 for _ in range(2))
    p, q = (
        np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(1, keepdims=True) for x in (teacher, student)
    )
    np.testing.assert_allclose(divergence(teacher, student), (p * np.log(p / q)).sum(1), rtol=1e-9)
    assert divergence(teacher, teacher).max() == 0


def test_divergence_of_extreme_and_of_single_outputs() -> None:
    extreme = np.array([[1e3, -1e3], [0, 0]], np.float32)
    np.testing.assert_allclose(divergence(extreme, -extreme), [2000, 0])
    single = np.array([[1.0], [3.0]], np.float32)
    np.testing.assert_allclose(divergence(single, np.zeros((2, 1), np.float32)), [0.5, 4.5])


@pytest.mark.parametrize("name", sorted(METRICS))
def test_the_best_constant_answer_is_found_by_the_metric(name: str) -> None:
    if name in ("pearson", "spearman"):
        labels = np.float32([0, 1, 5, 4])
        assert best_constant(labels, name) == (2.5, 0.0)
        return
    labels = np.array([0, 0, 0, 1])
    answer, value = best_constant(labels, name)
    scores = [METRICS[name](labels, np.full(4, constant)) for constant in (0, 1)]
    assert value == max(scores)
    # F1 is that of class 1, however rare
    assert answer == (1.0 if name == "f1" else 0.0)
