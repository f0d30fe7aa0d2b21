"""The figures of a scorecard: functions of arrays, in double precision.

`x` stands for held-out vectors and `r` for what a predictor says of them, both of shape (m, dim).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Doubles = NDArray[np.float64]

METRICS = ("cosine", "centred_cosine", "mse", "r2")

LEVEL = 0.95
DRAWS = 2000  # bootstrap samples
BLOCK_VALUES = 2**24  # numbers in a block of distances (128 MB in double precision)
SAME = 1e-5  # distance, as a share of the vector's norm, below which two vectors of single precision count as the same
ROUNDINGS = 8
"""Roundings of a vector's norm by which two may differ and still be too close to tell how far apart they are."""

TWO_NN_DISCARDED = 0.1
"""Share of the largest ratios that the fit of the intrinsic dimension leaves out, as its authors do."""


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


# ---- fidelity -------------------------------------------------------------------------------------------------------


def cosines(x: Array, r: Array) -> Doubles:
    """Cosine of each pair of rows, of shape (m,); 0 where one of the two is zero."""
    x, r = np.asarray(x, dtype=np.float64), np.asarray(r, dtype=np.float64)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(r, axis=1)
    products = np.einsum("ij,ij->i", x, r)
    return np.asarray(np.divide(products, norms, out=np.zeros(len(x)), where=norms > 0))


def terms(x: Array, r: Array, mean: Array) -> dict[str, Doubles]:
    """What each held-out example adds to the metrics.

    Parameters
    ----------
    x, r : array of shape (m, dim)
    mean : array of shape (dim,)
        Mean of the vectors that the predictor has learnt from.

    Returns
    -------
    dict of str to array of shape (m,), float64
        "cosine"; "centred_cosine", of the rows less the mean (0 for a prediction that is the mean); "error", the mean
        squared difference over the dimensions; and "spread", the same from the mean vector.
    """
    x, r, mean = (np.asarray(values, dtype=np.float64) for values in (x, r, mean))
    return {
        "cosine": cosines(x, r),
        "centred_cosine": cosines(x - mean, r - mean),
        "error": np.square(x - r).mean(axis=1),
        "spread": np.square(x - mean).mean(axis=1),
    }


def fidelity(x: Array, r: Array, mean: Array) -> dict[str, float]:
    """The metrics of a predictor.

    Parameters
    ----------
    x, r : array of shape (m, dim)
    mean : array of shape (dim,)

    Returns
    -------
    dict of str to float
        "cosine" and "centred_cosine", means over the examples; "mse", the mean over examples and dimensions; and "r2",
        ``1 - sum |x - r|^2 / sum |x - mean|^2``: 0 for a prediction of the mean, 1 for a perfect one; NaN without
        spread.
    """
    values = terms(x, r, mean)
    return {name: float(value[0]) for name, value in _metrics(values, np.ones((1, len(x)))).items()}


def fidelity_figures(
    x: Array, predictors: Mapping[str, Array], mean: Array, seed: int
) -> tuple[dict[str, dict[str, Figure]], dict[str, dict[str, Figure]]]:
    """The metrics of several predictors with intervals, and what the first is ahead of each other one.

    Parameters
    ----------
    x : array of shape (m, dim)
    predictors : mapping of str to array of shape (m, dim)
    mean : array of shape (dim,)
    seed : int
        Of the bootstrap.

    Returns
    -------
    figures : dict of str to dict of str to Figure
        By predictor, then by metric.
    differences : dict of str to dict of str to Figure
        By other predictor, then by metric: the first's less the other's.

    Notes
    -----
    Percentile bootstrap over the held-out examples, `DRAWS` samples. Every predictor is scored on the same samples, so
    the intervals of the differences are paired.
    """
    rows = len(x)
    draws = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=DRAWS)
    weights = np.concatenate([np.ones((1, rows)), draws])
    sampled = {name: _metrics(terms(x, r, mean), weights) for name, r in predictors.items()}
    first, *others = sampled
    figures = {name: {metric: _figure(values) for metric, values in by.items()} for name, by in sampled.items()}
    differences = {
        other: {metric: _figure(sampled[first][metric] - values) for metric, values in sampled[other].items()}
        for other in others
    }
    return figures, differences


def _metrics(values: Mapping[str, Doubles], weights: Array) -> dict[str, Doubles]:
    """The metrics of each row of weights, which say how often an example counts."""
    total = weights.sum(axis=1)
    error, spread = weights @ values["error"], weights @ values["spread"]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(spread > 0, error / spread, np.nan)
    return {
        "cosine": weights @ values["cosine"] / total,
        "centred_cosine": weights @ values["centred_cosine"] / total,
        "mse": error / total,
        "r2": 1 - share,
    }


def _figure(values: Doubles) -> Figure:
    """The first value, and the interval of the others."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    return Figure(float(values[0]), float(low), float(high))


# ---- neighbours in full space ---------------------------------------------------------------------------------------


def nearest(queries: Array, points: Array, own: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], Doubles]:
    """The point nearest to each query.

    Parameters
    ----------
    queries : array of shape (m, dim)
    points : array of shape (n, dim)
        May be a memory map.
    own : array of shape (m,), int64, or None
        A row of `points` that is not counted, for each query: itself.

    Returns
    -------
    indices : array of shape (m,), int64
    distances : array of shape (m,), float64
        Euclidean.
    """
    queries, points = np.asarray(queries, dtype=np.float64), np.asarray(points)
    best = np.full(len(queries), np.inf)
    indices = np.zeros(len(queries), dtype=np.int64)
    norms = np.square(queries).sum(axis=1)
    for rows in _slices(len(points), max(1, BLOCK_VALUES // max(len(queries), points.shape[1]))):
        block = np.asarray(points[rows], dtype=np.float64)
        squared = norms[:, None] - 2 * (queries @ block.T) + np.square(block).sum(axis=1)
        if own is not None:
            inside = np.flatnonzero((own >= rows.start) & (own < rows.stop))
            squared[inside, own[inside] - rows.start] = np.inf
        found = squared.argmin(axis=1)
        least = squared[np.arange(len(queries)), found]
        closer = least < best
        best[closer], indices[closer] = least[closer], rows.start + found[closer]
    # once more without the cancellation
    return indices, np.linalg.norm(queries - np.asarray(points[indices], dtype=np.float64), axis=1)


def novelty(vectors: Array, distances: Array, real_distances: Array) -> dict[str, float]:
    """How far synthetic vectors lie from real ones.

    Parameters
    ----------
    vectors : array of shape (m, dim)
        The synthetic vectors.
    distances : array of shape (m,)
        From each to the nearest real vector.
    real_distances : array of shape (s,)
        From real vectors to the nearest other real vector.

    Returns
    -------
    dict of str to float
        "median", "low" and "high" (quantiles of 10 and 90 %) of the distances; the same three divided by the mean of
        `real_distances`, as "median_ratio" and so on (NaN when that is 0); that mean, "real_mean"; and "identical",
        the share of synthetic vectors that are a real one.
    """
    low, median, high = (float(value) for value in np.quantile(distances, [0.1, 0.5, 0.9]))
    unit = float(np.mean(real_distances))
    result = {"median": median, "low": low, "high": high, "real_mean": unit}
    for name in ("median", "low", "high"):
        result[f"{name}_ratio"] = result[name] / unit if unit > 0 else float("nan")
    norms = np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=1)
    result["identical"] = float((np.asarray(distances) <= SAME * norms).mean())
    return result


# ---- intrinsic dimension --------------------------------------------------------------------------------------------


def intrinsic_dimension(vectors: Array) -> float:
    """Intrinsic dimension by the ratio of the distances to the two nearest neighbours.

    Parameters
    ----------
    vectors : array of shape (m, dim)
        Vectors that occur more than once count once; of two that differ by no more than rounding in their precision,
        neither counts.

    Returns
    -------
    float
        NaN for fewer than three different vectors.

    Notes
    -----
    TwoNN (Facco, d'Errico, Rodriguez and Laio, Scientific Reports 7, 12140, 2017): with ``mu`` the ratio of the second
    distance to the first, ``-log(1 - F(mu)) = d log(mu)`` on a locally uniform manifold of dimension d; d is the slope
    of a line through the origin, fitted without the largest 10 % of the ratios. The estimate depends on how dense the
    sample is, so only sets of the same size compare.
    """
    vectors = np.asarray(vectors)
    rounding = ROUNDINGS * float(np.finfo(vectors.dtype).eps)
    points = np.unique(vectors, axis=0).astype(np.float64)
    if len(points) < 3:
        return float("nan")
    first, second = _two_nearest(points)
    apart = first > rounding * np.linalg.norm(points, axis=1)  # the ratio would be noise
    logs = np.sort(np.log(second[apart] / first[apart]))
    kept = logs[: int(len(logs) * (1 - TWO_NN_DISCARDED))]
    heights = -np.log1p(-np.arange(1, len(kept) + 1) / max(len(logs), 1))
    squares = float(kept @ kept)
    return float(kept @ heights / squares) if squares > 0 else float("nan")


def _two_nearest(points: Doubles) -> tuple[Doubles, Doubles]:
    """Distances to the nearest and the second nearest other point, each of shape (n,)."""
    n = len(points)
    centred = points - points.mean(axis=0)
    norms = np.square(centred).sum(axis=1)
    first, second = np.empty(n), np.empty(n)
    for rows in _slices(n, max(1, BLOCK_VALUES // max(n, points.shape[1] * 2))):
        block = centred[rows]
        squared = norms[rows, None] - 2 * (block @ centred.T) + norms
        squared[np.arange(len(block)), np.arange(rows.start, rows.stop)] = np.inf
        two = np.argpartition(squared, 1, axis=1)[:, :2]
        exact = np.sort(np.linalg.norm(centred[two] - block[:, None], axis=2), axis=1)
        first[rows], second[rows] = exact[:, 0], exact[:, 1]
    return first, second


# ---- the map --------------------------------------------------------------------------------------------------------


def round_trip(coordinates: Array, again: Array, map_coordinates: Array) -> Doubles:
    """How far from its place a vector made for it lands in the map.

    Parameters
    ----------
    coordinates : array of shape (m, n_components)
        Places.
    again : array of shape (m, n_components)
        Where the reducer puts the vectors that an inverter made for them.
    map_coordinates : array of shape (n, n_components)
        The map of the real examples.

    Returns
    -------
    array of shape (m,), float64
        Distances in units of the map's standard deviation, the root mean squared distance of its points from their
        mean: to put everything at the centre gives about 1. NaN for a map that is one point.
    """
    places = np.asarray(map_coordinates, dtype=np.float64)
    deviation = float(np.sqrt(places.var(axis=0).sum()))
    distances = np.linalg.norm(np.asarray(again, dtype=np.float64) - np.asarray(coordinates, dtype=np.float64), axis=1)
    return np.asarray(distances / deviation if deviation > 0 else np.full(len(distances), np.nan))


def mean_figure(values: Array, seed: int) -> Figure:
    """The mean of per-example values, of shape (m,), with its bootstrap interval."""
    values = np.asarray(values, dtype=np.float64)
    rows = len(values)
    draws = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=DRAWS)
    return _figure(np.concatenate([[values.mean()], draws @ values / rows]))


def mean_norm(vectors: Array) -> float:
    """Mean Euclidean norm of the rows."""
    return float(np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=1).mean())


def _slices(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
