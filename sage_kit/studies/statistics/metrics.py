"""A metric on many resamples of the same rows at once: a product of matrices instead of a call per resample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.errors import ConfigError, DataError, did_you_mean
from sage_kit.studies.statistics.checks import check_rows

Array = NDArray[Any]
Floats = NDArray[np.float64]


def weighted_metric(name: str, labels: Array, predictions: Array, weights: Array, *, tolerance: float = 0.0) -> Floats:
    """A metric of many resamples of the same rows at once, each resample given by how often it holds each row.

    Equal to ``sage_kit.evaluate.METRICS[name]`` on the repeated rows, degenerate resamples included: a correlation that
    is undefined (labels or predictions constant) is 0, and it is NaN where a prediction in the resample is not finite.

    Parameters
    ----------
    name : str
        A metric of `sage_kit.evaluate.METRICS`, or "agreement".
    labels : array of shape (n,)
        Gold labels; for "agreement" the teacher's predictions.
    predictions : array of shape (n,)
        Predicted classes or values.
    weights : array of shape (resamples, n)
        Counts, not negative; no row may be all zero.
    tolerance : float
        For "agreement" in regression: two values are alike when they differ by at most this.

    Returns
    -------
    array of shape (resamples,), float64

    Raises
    ------
    ConfigError
        For an unknown metric.
    DataError
        If shapes do not fit, a resample is empty, or F1 is asked of other classes than 0 and 1.
    """
    labels, predictions, weights = np.asarray(labels), np.asarray(predictions), np.asarray(weights)
    check_rows(labels, predictions[None], "predictions")
    if weights.ndim != 2 or weights.shape[1:] != labels.shape:
        raise DataError(f"weights have shape {weights.shape}: it must be (resamples, {len(labels)}), a count per row.")
    return named_metric(name)(labels, predictions[None], Counts(weights.astype(np.float64)), tolerance)[0]


class Counts:
    """Counts of several resamples, (resamples, n), and their totals."""

    def __init__(self, weights: Floats) -> None:
        self.weights = weights
        self.total = weights.sum(axis=1)
        if not (self.total > 0).all():
            raise DataError("a resample is empty: each row of the weights needs a count above zero.")

    def of(self, rows: Array) -> Floats:
        """How many rows of each resample have a property: (n, k) booleans to (resamples, k)."""
        return self.weights @ rows.astype(np.float64)

    def mean(self, *factors: Floats) -> Floats:
        """Mean products of values of shape (n,) or (resamples, n): (resamples,)."""
        if factors[0].ndim == 1:
            return self.weights @ factors[0] / self.total
        operands = ",".join(["rn"] * (1 + len(factors)))
        return np.einsum(f"{operands}->r", self.weights, *factors) / self.total


_Metric = Callable[[Array, Array, Counts, float], Floats]
"""Labels (n,), predictions (k, n), counts of the resamples and the tolerance to (k, resamples)."""


def _accuracy(labels: Array, predictions: Array, counts: Counts, tolerance: float) -> Floats:
    return counts.of((predictions == labels).T).T / counts.total


def _agreement(labels: Array, predictions: Array, counts: Counts, tolerance: float) -> Floats:
    return counts.of((np.abs(predictions - labels) <= tolerance).T).T / counts.total


def _class_counts(labels: Array, predictions: Array, counts: Counts) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Per row of predictions: how often each class is hit, true and predicted, each of shape (resamples, classes)."""
    classes = np.unique(np.concatenate([labels, predictions.ravel()]))
    is_true = labels[:, None] == classes
    true = counts.of(is_true)
    for predicted in predictions:
        yield counts.of(is_true & (predicted == labels)[:, None]), true, counts.of(predicted[:, None] == classes)


def _f1(labels: Array, predictions: Array, counts: Counts, tolerance: float) -> Floats:
    strangers = np.setdiff1d(np.concatenate([labels, predictions.ravel()]), [0, 1])
    if len(strangers):
        raise DataError(f"metric 'f1' is for classes 0 and 1, and there is a {strangers[0]}: take 'macro_f1'.")
    hits = counts.of(((labels == 1) & (predictions == 1)).T).T
    both = counts.of((labels == 1)[:, None])[:, 0] + counts.of((predictions == 1).T).T
    return _ratio(2 * hits, both)


def _macro_f1(labels: Array, predictions: Array, counts: Counts, tolerance: float) -> Floats:
    # The mean is over the classes that the resample has, as label or as prediction.
    return np.array(
        [
            _ratio(2 * hits, true + predicted).sum(axis=1) / ((true + predicted) > 0).sum(axis=1)
            for hits, true, predicted in _class_counts(labels, predictions, counts)
        ]
    )


def _matthews(labels: Array, predictions: Array, counts: Counts, tolerance: float) -> Floats:
    # The multi-class coefficient R_K of Gorodkin (2004), Comparing two K-category assignments by a K-category
    # correlation coefficient, Computational Biology and Chemistry 28.
    rows = []
    for hits, true, predicted in _class_counts(labels, predictions, counts):
        covariance = hits.sum(axis=1) * counts.total - (true * predicted).sum(axis=1)
        variances = [counts.total**2 - (marginal**2).sum(axis=1) for marginal in (true, predicted)]
        rows.append(_ratio(covariance, np.sqrt(variances[0]) * np.sqrt(variances[1])))
    return np.array(rows)


def _pearson(labels: Array, predictions: Array, counts: Counts, tolerance: float) -> Floats:
    truth = labels.astype(np.float64)
    centred, varied = _centred(truth, counts), _varies(truth, counts)
    rows = []
    for predicted in predictions:
        values, spoilt = _finite(predicted, counts)
        correlations = _correlate(centred, _centred(values, counts), counts)
        rows.append(np.where(spoilt, np.nan, np.where(varied & _varies(values, counts), correlations, 0.0)))
    return np.array(rows)


def spearman(labels: Array, predictions: Array, counts: Counts, tolerance: float) -> Floats:
    """Spearman's rank correlation within each resample: (k, resamples)."""
    # Ranks are halves of integers, so those of constant values have a spread of exactly zero, and the quotient is 0.
    ranks = _centred(_mid_ranks(labels.astype(np.float64), counts), counts)
    rows = []
    for predicted in predictions:
        values, spoilt = _finite(predicted, counts)
        correlations = _correlate(ranks, _centred(_mid_ranks(values, counts), counts), counts)
        rows.append(np.where(spoilt, np.nan, correlations))
    return np.array(rows)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _finite(values: Array, counts: Counts) -> tuple[Floats, NDArray[np.bool_]]:
    """The values with 0 for those that are not finite, and which resamples hold one of those."""
    bad = ~np.isfinite(values)
    return np.where(bad, 0.0, values).astype(np.float64), np.asarray(counts.weights[:, bad].any(axis=1))


def _varies(values: Floats, counts: Counts) -> NDArray[np.bool_]:
    """Whether a resample holds two different values: moments cannot tell, since their rounding hides it."""
    present = counts.weights > 0
    lowest = np.where(present, values, np.inf).min(axis=1)
    return np.where(present, values, -np.inf).max(axis=1) > lowest


def _mid_ranks(values: Floats, counts: Counts) -> Floats:
    """Ranks from 1 within each resample, ties sharing the mean of theirs: (n,) to (resamples, n)."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    in_order = counts.weights[:, np.argsort(group, kind="stable")]
    tied = np.add.reduceat(in_order, starts, axis=1)
    return (np.cumsum(tied, axis=1) - (tied - 1) / 2)[:, group]


def _centred(values: Floats, counts: Counts) -> tuple[Floats, Floats]:
    """Values (n,) or (resamples, n) less the mean of each resample, (resamples, n), and their standard deviations.

    A second reading of the values: one-pass moments lose a small spread far from zero.
    """
    centred = values - counts.mean(values)[:, None]
    return centred, np.sqrt(counts.mean(centred, centred))


def _correlate(x: tuple[Floats, Floats], y: tuple[Floats, Floats], counts: Counts) -> Floats:
    """Pearson's correlation within each resample, of two results of `_centred`: (resamples,)."""
    return np.clip(_ratio(counts.mean(x[0], y[0]), x[1] * y[1]), -1.0, 1.0)


_METRICS: Mapping[str, _Metric] = {
    "accuracy": _accuracy,
    "agreement": _agreement,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": spearman,
}


def named_metric(name: str) -> _Metric:
    """The metric of that name."""
    if name not in _METRICS:
        raise ConfigError(f"Unknown metric {name!r}.{did_you_mean(name, _METRICS)}")
    return _METRICS[name]
