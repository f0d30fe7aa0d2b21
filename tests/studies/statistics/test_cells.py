"""What an example contributes to a metric: their mean is the metric, and each is a derivative of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from sage_kit.data.metrics import METRICS
from sage_kit.errors import ConfigError, DataError
from sage_kit.studies.statistics import cells, contributions, log_mean

Array = NDArray[Any]


def outputs(kind: str, n: int, seed: int = 0) -> tuple[Array, Array]:
    """Labels and predictions of a kind."""
    rng = np.random.default_rng(seed)
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


def test_every_metric_is_there() -> None:
    assert {name for name, _ in CASES} == set(METRICS) == set(cells._METRICS)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_mean_is_the_metric(name: str, kind: str) -> None:
    for n in (2, 3, 5, 60):
        for seed in range(5):
            labels, predictions = outputs(kind, n, seed)
            found = contributions(name, labels, predictions[None])
            assert found.shape == (1, n)
            assert found.mean() == pytest.approx(METRICS[name](labels, predictions), abs=1e-7)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_contribution_is_the_derivative_by_the_weight_of_the_example(name: str, kind: str) -> None:
    # by brute force: every example stands there 300 times, one of them once more and once less
    labels, predictions = outputs(kind, 30)
    copies = 300
    changes = []
    for row in range(30):
        more, less = np.full(30, copies), np.full(30, copies)
        more[row] += 1
        less[row] -= 1
        up, down = (METRICS[name](np.repeat(labels, w), np.repeat(predictions, w)) for w in (more, less))
        changes.append((up - down) / 2 * 30 * copies)
    found = contributions(name, labels, predictions[None])[0]
    np.testing.assert_allclose(found - found.mean(), changes, atol=1e-4)


@pytest.mark.parametrize(("name", "kind"), [("f1", "two"), ("matthews", "three"), ("pearson", "values"),
                                            ("spearman", "values"), ("spearman", "ties")])  # fmt: skip
def test_their_spread_is_that_of_a_bootstrap_over_examples(name: str, kind: str) -> None:
    labels, predictions = outputs(kind, 400)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 400, (600, 400))
    resampled = np.array([METRICS[name](labels[row], predictions[row]) for row in rows])
    found = contributions(name, labels, predictions[None])[0]
    # a standard deviation of 600 values is known to 3 %
    assert stats.sem(found) == pytest.approx(resampled.std(), rel=0.09)


def test_the_logarithm_of_a_mean() -> None:
    values = np.random.default_rng(0).exponential(size=(2, 500))
    found = log_mean(values)
    assert found.mean(axis=1) == pytest.approx(np.log(values.mean(axis=1)))
    rows = np.random.default_rng(1).integers(0, 500, (600, 500))
    assert stats.sem(found[0]) == pytest.approx(np.log(values[0][rows].mean(axis=1)).std(), rel=0.09)
    assert log_mean(np.zeros((1, 4))).tolist() == [[-np.inf] * 4]


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_predictions_that_are_not_finite_have_no_score(name: str) -> None:
    predictions = np.array([[0.0, 2, 1, np.nan], [0.0, 2, 1, np.inf], [0.0, 2, 1, 3]])
    found = contributions(name, np.arange(4.0), predictions)
    assert np.isnan(found[:2]).all()
    assert np.isfinite(found[2]).all()


@pytest.mark.parametrize("constant", [0.1, -7.3, 1e9])
def test_constants_explain_nothing(constant: float) -> None:
    values, constants = np.arange(7.0), np.full(7, constant)
    for name in ("pearson", "spearman"):
        assert not contributions(name, values, constants[None]).any()
        assert not contributions(name, constants, values[None]).any()
    assert not contributions("matthews", np.array([0, 1, 1]), np.ones((1, 3), int)).any()
    assert not contributions("f1", np.zeros(3, int), np.zeros((1, 3), int)).any()


def test_unusable_rows_are_named() -> None:
    with pytest.raises(ConfigError, match=r"Unknown metric 'acuracy'. Did you mean 'accuracy'\?"):
        contributions("acuracy", np.zeros(3), np.zeros((1, 3)))
    with pytest.raises(DataError, match="there is a 2: take 'macro_f1'"):
        contributions("f1", np.array([0, 1, 2]), np.zeros((1, 3), int))
    with pytest.raises(DataError, match="each of the 3 labels"):
        contributions("accuracy", np.zeros(3), np.zeros((1, 4)))
