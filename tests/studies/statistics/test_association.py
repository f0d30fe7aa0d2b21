"""Sets, neighbours and rankings, against scipy, their definitions and all subsets."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from studies.statistics.pairedruns import ends

from sage_kit.errors import DataError
from sage_kit.studies.statistics import association, correlation, expected_jaccard, jaccard, morans_i

Array = NDArray[Any]


def test_jaccard() -> None:
    assert jaccard(np.array([1, 2, 3, 3]), np.array([2, 3, 4])) == 0.5
    assert jaccard(np.array([], int), np.array([1])) == 0
    assert jaccard(np.array([], int), np.array([], int)) == 1


def test_expected_jaccard_counts_all_subsets() -> None:
    for n, k, other in ((6, 2, 2), (5, 3, 2), (4, 3, 3), (5, 5, 1), (5, 0, 2)):
        pairs = [
            jaccard(np.array(a, int), np.array(b, int))
            for a in combinations(range(n), k)
            for b in combinations(range(n), other)
        ]
        assert expected_jaccard(n, k, other) == pytest.approx(np.mean(pairs))
    assert expected_jaccard(6, 2) == expected_jaccard(6, 2, 2)
    assert expected_jaccard(3, 0) == 1
    assert expected_jaccard(60_000, 6_000) == pytest.approx(1 / 19, rel=1e-3)
    with pytest.raises(DataError, match="must be between 0 and 5"):
        expected_jaccard(5, 6)


def places(n: int, k: int, seed: int = 0) -> tuple[Array, Array]:
    points = np.random.default_rng(seed).normal(size=(n, 2))
    distances = ((points[:, None] - points) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return points, np.argsort(distances, axis=1)[:, :k]


def naive_morans_i(values: Array, neighbors: Array) -> float:
    n, k = neighbors.shape
    weights = np.zeros((n, n))
    for i in range(n):
        weights[i, neighbors[i]] = 1 / k
    z = values.astype(np.float64) - values.astype(np.float64).mean()
    total = sum(weights[i, j] * z[i] * z[j] for i in range(n) for j in range(n))
    return n / weights.sum() * total / (z**2).sum()


def test_morans_i_is_its_definition() -> None:
    points, neighbors = places(40, 5)
    for values in (points[:, 0], np.random.default_rng(1).exponential(size=40).astype(np.float32)):
        assert morans_i(values, neighbors, permutations=9).value == pytest.approx(naive_morans_i(values, neighbors))


def test_morans_i_under_chance() -> None:
    points, neighbors = places(40, 5)
    smooth = morans_i(points[:, 0], neighbors)
    assert smooth.value > 0.6
    assert smooth.p == pytest.approx(1 / 1000)
    rng = np.random.default_rng(0)
    shuffled = [morans_i(rng.permutation(points[:, 0]), neighbors, permutations=99) for _ in range(300)]
    assert smooth.expected == pytest.approx(-1 / 39)
    assert np.mean([result.value for result in shuffled]) == pytest.approx(-1 / 39, abs=0.015)
    assert stats.kstest([result.p for result in shuffled], "uniform").pvalue > 0.01


def test_morans_i_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, neighbors = np.random.default_rng(1).normal(size=40), places(40, 5)[1]
    whole = morans_i(values, neighbors)
    monkeypatch.setattr(association, "CHUNK", 1000)
    assert morans_i(values, neighbors) == whole


def test_morans_i_of_constants_and_bad_neighbors() -> None:
    neighbors = places(10, 3)[1]
    assert np.isnan(morans_i(np.full(10, 0.1), neighbors).value)
    with pytest.raises(DataError, match="no row its own neighbour"):
        morans_i(np.arange(10.0), np.zeros((10, 3), int))
    with pytest.raises(DataError, match="indices from 0 to 9"):
        morans_i(np.arange(10.0), neighbors + 5)
    with pytest.raises(DataError, match="do not fit"):
        morans_i(np.arange(9.0), neighbors)


def test_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=25)
    y = (x + rng.normal(size=25)).round(1)
    interval = correlation(x, y)
    assert interval.value == pytest.approx(stats.spearmanr(x, y).statistic)
    expected = stats.bootstrap(
        (x, y), lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=1500, rng=rng,
    ).confidence_interval  # fmt: skip
    assert ends(interval) == pytest.approx(ends(expected), abs=0.05)
    np.testing.assert_equal(ends(correlation(x[:3], y[:3])), (np.nan, np.nan))
    with pytest.raises(DataError, match="y values have shape"):
        correlation(x, y[:4])
