"""Metrics of many resamples, against those of the resampled rows themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sage_kit.errors import ConfigError, DataError
from sage_kit.evaluate import METRICS, agreement
from sage_kit.studies.statistics import metrics, weighted_metric

Array = NDArray[Any]


def resamples(n: int, size: int, seed: int = 0) -> tuple[Array, Array]:
    """Indices of resampled rows (size, n), and how often each holds each row."""
    rows = np.random.default_rng(seed).integers(0, n, (size, n))
    return rows, np.array([np.bincount(row, minlength=n) for row in rows])


def outputs(kind: str, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Labels and predictions of a kind."""
    if kind == "values":
        labels = rng.normal(size=n)
        return labels, (labels + rng.normal(size=n)).astype(np.float32)
    if kind == "ties":
        return rng.integers(0, 5, n) / 2, (rng.integers(0, 4, n) / 4).astype(np.float32)
    if kind == "far":  # a small spread far from zero
        labels = 1e6 + rng.normal(size=n)
        return labels, labels + rng.normal(size=n)
    classes = {"two": 2, "three": 3, "gaps": 4}[kind]
    labels = rng.integers(0, classes, n)
    predictions = np.where(rng.random(n) < 0.6, labels, rng.integers(0, classes, n))
    return (labels * 3, predictions * 3) if kind == "gaps" else (labels, predictions)


CASES = [
    *[(name, "two") for name in ("accuracy", "f1", "macro_f1", "matthews")],
    *[(name, kind) for name in ("accuracy", "macro_f1", "matthews") for kind in ("three", "gaps")],
    *[(name, kind) for name in ("pearson", "spearman") for kind in ("values", "ties", "far")],
]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 60])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_metrics_equal_those_of_the_resampled_rows(name: str, kind: str, n: int) -> None:
    # Three rows and fewer make plenty of constant resamples, for which the metrics have their own rules.
    rng = np.random.default_rng(n)
    for _ in range(3):
        labels, predictions = outputs(kind, n, rng)
        rows, weights = resamples(n, 40, seed=n)
        expected = [METRICS[name](labels[row], predictions[row]) for row in rows]
        np.testing.assert_allclose(weighted_metric(name, labels, predictions, weights), expected, rtol=0, atol=1e-8)


def test_every_metric_is_there() -> None:
    assert {name for name, _ in CASES} == set(METRICS)
    assert set(metrics._METRICS) == {*METRICS, "agreement"}


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_prediction_that_is_not_finite_spoils_the_resamples_that_hold_it(name: str) -> None:
    labels, predictions = np.arange(6.0), np.array([0.0, 2, 1, np.nan, np.inf, 5])
    rows, weights = resamples(6, 60)
    values = weighted_metric(name, labels, predictions, weights)
    expected = [METRICS[name](labels[row], predictions[row]) for row in rows]
    assert 0 < np.isnan(expected).sum() < 60
    np.testing.assert_allclose(values, expected, atol=1e-12)


@pytest.mark.parametrize("constant", [0.1, -7.3, 1e9])
def test_constants_are_seen_despite_rounding(constant: float) -> None:
    labels, predictions = np.arange(7.0), np.full(7, constant)
    assert weighted_metric("pearson", labels, predictions, np.ones((1, 7)))[0] == 0
    assert weighted_metric("pearson", predictions, labels, np.ones((1, 7)))[0] == 0


def test_agreement_equals_that_of_the_resampled_rows() -> None:
    rng = np.random.default_rng(0)
    rows, weights = resamples(30, 20)
    student, teacher = rng.normal(size=(2, 30, 3))
    mine = weighted_metric("agreement", teacher.argmax(1), student.argmax(1), weights)
    assert mine == pytest.approx([(student.argmax(1) == teacher.argmax(1))[row].mean() for row in rows])

    class Regression:
        is_regression, label_range = True, (0.0, 5.0)

    student, teacher = rng.uniform(0, 1, (2, 30, 1)).astype(np.float32)
    expected = [agreement(student[row], teacher[row], Regression()) for row in rows]  # type: ignore[arg-type]
    mine = weighted_metric("agreement", teacher[:, 0], student[:, 0], weights, tolerance=0.05 * 5)
    assert 0 < min(expected) < max(expected) < 1
    assert mine == pytest.approx(expected)


def test_unusable_rows_are_named() -> None:
    ones = np.ones((1, 3))
    with pytest.raises(ConfigError, match=r"Unknown metric 'acuracy'. Did you mean 'accuracy'\?"):
        weighted_metric("acuracy", np.zeros(3), np.zeros(3), ones)
    with pytest.raises(DataError, match="there is a 2: take 'macro_f1'"):
        weighted_metric("f1", np.array([0, 1, 2]), np.zeros(3, int), ones)
    with pytest.raises(DataError, match="resample is empty"):
        weighted_metric("accuracy", np.zeros(3), np.zeros(3), np.zeros((1, 3)))
    with pytest.raises(DataError, match=r"weights have shape \(1, 3\): it must be \(resamples, 4\)"):
        weighted_metric("accuracy", np.zeros(4), np.zeros(4), ones)
    with pytest.raises(DataError, match="each of the 3 labels"):
        weighted_metric("accuracy", np.zeros(3), np.zeros(4), ones)
