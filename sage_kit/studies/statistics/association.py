"""Whether two sets, neighbours or two rankings go together, and how much of that chance alone would reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from sage_kit.errors import ConfigError, DataError
from sage_kit.studies.statistics.intervals import LEVEL, NEGLIGIBLE, Interval, check_rows

Array = NDArray[Any]

CHUNK = 2_000_000
"""Permuted values (permutations times places) held at once: 16 MB, and a few arrays of that size beside it."""


def jaccard(a: Array, b: Array) -> float:
    """Share of two index sets' union that both hold (Jaccard 1912, The New Phytologist 11); 1 for two empty sets."""
    first, second = np.unique(a), np.unique(b)
    common = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - common
    return common / union if union else 1.0


def expected_jaccard(n: int, k: int, other: int | None = None) -> float:
    """Expected Jaccard index of two independent random subsets of n things: the level that chance alone reaches.

    The overlap x of subsets of k and m things is hypergeometric, and the index is x / (k + m - x), averaged here over
    the distribution of x, exactly. `other` is the size m of the other subset; None takes k.
    """
    m = k if other is None else other
    if not (0 <= k <= n and 0 <= m <= n):
        raise DataError(f"subsets of {k} and {m} among {n}: sizes must be between 0 and {n}.")
    if k + m == 0:
        return 1.0
    overlap = np.arange(max(0, k + m - n), min(k, m) + 1)
    return float(stats.hypergeom.pmf(overlap, n, k, m) @ (overlap / (k + m - overlap)))


@dataclass(frozen=True)
class MoransI:
    """Moran's I of values, and what it would be without a pattern."""

    # about 1 where neighbours are alike, below `expected` where they differ more than chance has it; NaN for constant
    # values
    value: float
    expected: float  # mean over all permutations of the values: -1 / (n - 1)
    p: float  # share of permutations with an I as high, the observed one counted among them: one-sided, for likeness


def morans_i(values: Array, neighbors: Array, *, permutations: int = 999, seed: int | Sequence[int] = 0) -> MoransI:
    """Whether neighbours have like values: Moran's I with k nearest neighbours of weight 1 / k (row-standardised).

    I = sum_i z_i (mean of z over the neighbours of i) / sum_i z_i ** 2, where z are the values less their mean (Moran
    1950, Notes on continuous stochastic phenomena, Biometrika 37). The p permutes the values over the places, many
    permutations in one sparse product, which `scipy.stats.permutation_test` does not do. Values are (n,), `neighbors`
    (n, k) indices of each row's neighbours without the row itself.
    """
    z, places = np.asarray(values, dtype=np.float64), np.asarray(neighbors)
    if permutations < 1:
        raise ConfigError(f"permutations is {permutations}: it must be 1 or more.")
    n = len(z)
    if z.ndim != 1 or n < 2 or places.ndim != 2 or len(places) != n or not places.shape[1]:
        raise DataError(f"values {z.shape} and neighbors {places.shape} do not fit: take (n,) and (n, k), n > 1.")
    if places.min() < 0 or places.max() >= n or (places == np.arange(n)[:, None]).any():
        raise DataError(f"neighbors must be indices from 0 to {n - 1}, and no row its own neighbour: leave it out.")
    z = z - z.mean()
    squares = float(z @ z)
    if not squares > NEGLIGIBLE * NEGLIGIBLE * n:
        return MoransI(float("nan"), -1 / (n - 1), float("nan"))
    k = places.shape[1]
    weights = sparse.csr_array((np.full(n * k, 1 / k), places.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    observed = float(z @ (weights @ z)) / squares
    generator = np.random.default_rng(seed)
    block = max(1, CHUNK // n)
    as_high = 0
    for start in range(0, permutations, block):
        order = np.tile(np.arange(n), (min(block, permutations - start), 1))
        shuffled = np.ascontiguousarray(z[generator.permuted(order, axis=1)].T)
        indices = np.einsum("np,np->p", shuffled, weights @ shuffled) / squares
        as_high += int((indices >= observed - NEGLIGIBLE).sum())
    return MoransI(observed, -1 / (n - 1), (as_high + 1) / (permutations + 1))


def correlation(x: Array, y: Array) -> Interval:
    """Spearman's rank correlation of independent points, with the interval of its Fisher transform.

    The standard error of atanh(r) is sqrt((1 + r ** 2 / 2) / (n - 3)) (Bonett and Wright 2000, Sample size requirements
    for estimating Pearson, Kendall and Spearman correlations, Psychometrika 65). Points in perfect order, whose
    transform is infinite, count as if two neighbours were swapped. A constant x or y has the correlation 0. With NaN
    ends for fewer than four points, and for points that are not finite.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    check_rows(x, y[None], "y values")
    n = len(x)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return Interval(np.nan, np.nan, np.nan)
    r = 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(stats.spearmanr(x, y).statistic)
    if n < 4:
        return Interval(r, np.nan, np.nan)
    most = 1 - 12 / (n * (n * n - 1))
    inner = float(np.clip(r, -most, most))
    reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * np.sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(inner) - reach), np.tanh(np.arctanh(inner) + reach)
    return Interval(r, float(min(low, r)), float(max(high, r)))
