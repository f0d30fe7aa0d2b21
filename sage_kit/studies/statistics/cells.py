"""A metric as a mean over examples: what each example contributes to the score of each run.

Accuracy, agreement and divergence are means already. F1, Matthews' correlation, Pearson's and Spearman's are functions
of means; an example's contribution is the score plus the example's influence, which is the score's derivative with
respect to the example's weight (Hampel 1974, The influence curve and its role in robust estimation, JASA 69). These are
the pseudo-values of the infinitesimal jackknife (Jaeckel 1972; Efron 1982, The Jackknife, the Bootstrap and Other
Resampling Plans, chapter 6): their mean is the score, and their variance over n is that of the score to first order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.data.metrics import Measure
from sage_kit.errors import ConfigError, DataError, did_you_mean
from sage_kit.studies.statistics.intervals import check_rows

Array = NDArray[Any]
Floats = NDArray[np.float64]


def has_contributions(measure: Measure) -> bool:
    """Whether it is known what each example contributes to a metric."""
    return measure.name in _METRICS or measure.contributions is not None


def contributions(metric: str | Measure, labels: Array, predictions: Array) -> Floats:
    """What each example contributes to a metric of each run.

    Returns array of shape (seeds, n), float64. The mean of a row is the metric of that run; a metric that is undefined
    counts as 0, as in `METRICS`, and one of predictions that are not finite is NaN. Of a metric of which nobody knows
    what an example contributes (`has_contributions`), (seeds, 1): the scores as wholes, from which intervals are over
    seeds alone. Labels are (n,), predictions (seeds, n) of classes or values; the metric is one of
    `sage_kit.data.metrics.METRICS`, or one that `sage_kit.data.metrics.measure` gave.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    check_rows(labels, predictions, "predictions")
    if isinstance(metric, Measure) and metric.name not in _METRICS:
        found = metric.contributions
        if found is None:
            return np.array([[metric.score(labels, row)] for row in predictions])
        return np.stack([found(labels, row) for row in predictions])
    metric = metric.name if isinstance(metric, Measure) else metric
    if metric not in _METRICS:
        raise ConfigError(f"Unknown metric {metric!r}.{did_you_mean(metric, _METRICS)}")
    return np.stack([_METRICS[metric](labels, row) for row in predictions])


def log_mean(values: Array) -> Floats:
    """What each example contributes to the logarithm of a mean: log m + (value - m) / m, the delta method. Returns
    array of shape (seeds, n), float64. The mean of a row is the logarithm of its values' mean; -inf where that is zero.
    """
    values = np.asarray(values, dtype=np.float64)
    means = values.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(means > 0, np.log(means) + (values - means) / means, -np.inf)


def _accuracy(labels: Array, predicted: Array) -> Floats:
    return np.asarray(predicted == labels, dtype=np.float64)


def _f1_parts(is_true: Array, is_predicted: Array) -> Floats:
    """Of one class: F1 = 2 hits / (true + predicted)."""
    both = is_true.astype(np.float64) + is_predicted
    total = both.mean()
    if not total:
        return np.zeros(len(both))
    hits = 2.0 * (is_true & is_predicted)
    score = hits.mean() / total
    return np.asarray(score + (hits - score * both) / total)


def _f1(labels: Array, predicted: Array) -> Floats:
    strangers = np.setdiff1d(np.concatenate([labels, predicted]), [0, 1])
    if len(strangers):
        raise DataError(f"metric 'f1' is for classes 0 and 1, and there is a {strangers[0]}: take 'macro_f1'.")
    return _f1_parts(labels == 1, predicted == 1)


def _macro_f1(labels: Array, predicted: Array) -> Floats:
    # the mean is over the classes that are there, as label or as prediction
    classes = np.unique(np.concatenate([labels, predicted]))
    return np.asarray(np.mean([_f1_parts(labels == each, predicted == each) for each in classes], axis=0))


def _matthews(labels: Array, predicted: Array) -> Floats:
    # The multi-class coefficient R_K of Gorodkin (2004), Comparing two K-category assignments by a K-category
    # correlation coefficient, Computational Biology and Chemistry 28: the correlation of the two tables of indicators.
    classes = np.unique(np.concatenate([labels, predicted]))
    return _correlation((labels[:, None] == classes).astype(np.float64), (predicted[:, None] == classes) * 1.0)


def _pearson(labels: Array, predicted: Array) -> Floats:
    return _correlation(_standard(labels)[:, None], _standard(predicted)[:, None])


def _correlation(x: Floats, y: Floats) -> Floats:
    """Of r = sum of covariances / sqrt(sum of variances of x times that of y): r + (z_x z_y - r (z_x^2 + z_y^2) / 2).

    x and y are (n, k); for k = 1 this is the influence of Pearson's correlation (Devlin, Gnanadesikan and Kettenring
    1975, Robust estimation and outlier detection with correlation coefficients, Biometrika 62).
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.full(len(x), np.nan)
    if np.ptp(x, axis=0).max() == 0 or np.ptp(y, axis=0).max() == 0:
        return np.zeros(len(x))  # undefined; zero says that nothing was explained
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    products, of_x, of_y = (x * y).sum(axis=1), (x * x).sum(axis=1), (y * y).sum(axis=1)
    scale = np.sqrt(of_x.mean() * of_y.mean())
    r = products.mean() / scale
    return np.asarray(products / scale - r * (of_x / of_x.mean() + of_y / of_y.mean() - 2) / 2)


def _standard(values: Array) -> Floats:
    """Values of unit scale, for products of large ones overflow and of small ones vanish; constant ones become zero."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        return np.where(np.isfinite(values), 0.0, np.nan)
    values = values - values.mean()
    return np.asarray(values / np.abs(values).max())


def _spearman(labels: Array, predicted: Array) -> Floats:
    """Pearson's correlation of mid-ranks; an example also moves the ranks of all others.

    With u and v the mid-ranks as shares of n, less 1/2, a mean of products like u v changes by the example's own
    product, and by what its weight does to the ranks of all examples i: it lifts u_i by k(x, x_i), 1 for x < x_i and
    1/2 for x = x_i, less the mean of that.
    """
    from scipy.stats import rankdata

    if not np.isfinite(predicted).all():
        return np.full(len(labels), np.nan)
    if np.ptp(labels) == 0 or np.ptp(predicted) == 0:
        return np.zeros(len(labels))
    u, v = ((rankdata(values) - 0.5) / len(labels) - 0.5 for values in (labels, predicted))
    products = u * v + _lifted(labels, v) + _lifted(predicted, u)
    of_u, of_v = u * u + 2 * _lifted(labels, u), v * v + 2 * _lifted(predicted, v)
    var_u, var_v = (u * u).mean(), (v * v).mean()
    scale = np.sqrt(var_u * var_v)
    r = (u * v).mean() / scale
    return np.asarray(products / scale - r * (of_u / var_u + of_v / var_v - 2) / 2)


def _lifted(values: Array, weights: Floats) -> Floats:
    """For each example the mean over all i of weights[i] k(value, values[i]), less the mean of that over examples."""
    _, group = np.unique(values, return_inverse=True)
    sums = np.bincount(group, weights=weights)
    lifted = (sums.sum() - np.cumsum(sums) + sums / 2)[group] / len(values)
    return np.asarray(lifted - lifted.mean())


_METRICS: Mapping[str, Callable[[Array, Array], Floats]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
