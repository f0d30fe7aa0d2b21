"""The statistics of every study: arms compared in pairs, seed by seed and example by example.

Plain functions of arrays. Three questions have their own tools: how far chance in the seeds reaches (`t_interval`,
`bootstrap_seeds`), how far chance in seeds and evaluation examples together reaches (`paired_bootstrap`), and whether a
difference could be none at all (`paired_p`, `sign_flip_p`, `holm`). `compare_arms` and `compare_predictions` put them
into one table.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special, stats

from sage_kit.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]
Floats = NDArray[np.float64]

Over = Literal["both", "seeds", "examples"]
SeedMethod = Literal["expanded", "percentile", "bca"]
Test = Literal["t", "sign_flip"]

AVERAGE = "average"
"""Name of the row that averages over the tasks."""

CHUNK = 2_000_000
"""Counts (resamples times examples) held at once: 16 MB, and a few arrays of that size beside it."""

EXACT_SIGN_FLIPS = 12
"""Up to so many seeds, all sign patterns are tried: 4,096."""

NEGLIGIBLE = 1e-12
"""Differences that spread less than this, relative to the larger of 1 and their size, differ by rounding only."""


@dataclass(frozen=True)
class Interval:
    """A number and its interval.

    Attributes
    ----------
    value : float
        The estimate.
    low, high : float
        Ends of the interval; NaN where the data say nothing about them.
    """

    value: float
    low: float
    high: float


# ---- metrics of many resamples at once -------------------------------------------------------------------------------


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
    _check_rows(labels, predictions[None], "predictions")
    if weights.ndim != 2 or weights.shape[1:] != labels.shape:
        raise DataError(f"weights have shape {weights.shape}: it must be (resamples, {len(labels)}), a count per row.")
    return _metric(name)(labels, predictions[None], _Counts(weights.astype(np.float64)), tolerance)[0]


class _Counts:
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


_Metric = Callable[[Array, Array, _Counts, float], Floats]
"""Labels (n,), predictions (k, n), counts of the resamples and the tolerance to (k, resamples)."""


def _accuracy(labels: Array, predictions: Array, counts: _Counts, tolerance: float) -> Floats:
    return counts.of((predictions == labels).T).T / counts.total


def _agreement(labels: Array, predictions: Array, counts: _Counts, tolerance: float) -> Floats:
    return counts.of((np.abs(predictions - labels) <= tolerance).T).T / counts.total


def _class_counts(labels: Array, predictions: Array, counts: _Counts) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Per row of predictions: how often each class is hit, true and predicted, each of shape (resamples, classes)."""
    classes = np.unique(np.concatenate([labels, predictions.ravel()]))
    is_true = labels[:, None] == classes
    true = counts.of(is_true)
    for predicted in predictions:
        yield counts.of(is_true & (predicted == labels)[:, None]), true, counts.of(predicted[:, None] == classes)


def _f1(labels: Array, predictions: Array, counts: _Counts, tolerance: float) -> Floats:
    strangers = np.setdiff1d(np.concatenate([labels, predictions.ravel()]), [0, 1])
    if len(strangers):
        raise DataError(f"metric 'f1' is for classes 0 and 1, and there is a {strangers[0]}: take 'macro_f1'.")
    hits = counts.of(((labels == 1) & (predictions == 1)).T).T
    both = counts.of((labels == 1)[:, None])[:, 0] + counts.of((predictions == 1).T).T
    return _ratio(2 * hits, both)


def _macro_f1(labels: Array, predictions: Array, counts: _Counts, tolerance: float) -> Floats:
    # The mean is over the classes that the resample has, as label or as prediction.
    return np.array(
        [
            _ratio(2 * hits, true + predicted).sum(axis=1) / ((true + predicted) > 0).sum(axis=1)
            for hits, true, predicted in _class_counts(labels, predictions, counts)
        ]
    )


def _matthews(labels: Array, predictions: Array, counts: _Counts, tolerance: float) -> Floats:
    # The multi-class coefficient R_K of Gorodkin (2004), Comparing two K-category assignments by a K-category
    # correlation coefficient, Computational Biology and Chemistry 28.
    rows = []
    for hits, true, predicted in _class_counts(labels, predictions, counts):
        covariance = hits.sum(axis=1) * counts.total - (true * predicted).sum(axis=1)
        variances = [counts.total**2 - (marginal**2).sum(axis=1) for marginal in (true, predicted)]
        rows.append(_ratio(covariance, np.sqrt(variances[0]) * np.sqrt(variances[1])))
    return np.array(rows)


def _pearson(labels: Array, predictions: Array, counts: _Counts, tolerance: float) -> Floats:
    truth = labels.astype(np.float64)
    centred, varied = _centred(truth, counts), _varies(truth, counts)
    rows = []
    for predicted in predictions:
        values, spoilt = _finite(predicted, counts)
        correlations = _correlate(centred, _centred(values, counts), counts)
        rows.append(np.where(spoilt, np.nan, np.where(varied & _varies(values, counts), correlations, 0.0)))
    return np.array(rows)


def _spearman(labels: Array, predictions: Array, counts: _Counts, tolerance: float) -> Floats:
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


def _finite(values: Array, counts: _Counts) -> tuple[Floats, NDArray[np.bool_]]:
    """The values with 0 for those that are not finite, and which resamples hold one of those."""
    bad = ~np.isfinite(values)
    return np.where(bad, 0.0, values).astype(np.float64), np.asarray(counts.weights[:, bad].any(axis=1))


def _varies(values: Floats, counts: _Counts) -> NDArray[np.bool_]:
    """Whether a resample holds two different values: moments cannot tell, since their rounding hides it."""
    present = counts.weights > 0
    lowest = np.where(present, values, np.inf).min(axis=1)
    return np.where(present, values, -np.inf).max(axis=1) > lowest


def _mid_ranks(values: Floats, counts: _Counts) -> Floats:
    """Ranks from 1 within each resample, ties sharing the mean of theirs: (n,) to (resamples, n)."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    in_order = counts.weights[:, np.argsort(group, kind="stable")]
    tied = np.add.reduceat(in_order, starts, axis=1)
    return (np.cumsum(tied, axis=1) - (tied - 1) / 2)[:, group]


def _centred(values: Floats, counts: _Counts) -> tuple[Floats, Floats]:
    """Values (n,) or (resamples, n) less the mean of each resample, (resamples, n), and their standard deviations.

    A second reading of the values: one-pass moments lose a small spread far from zero.
    """
    centred = values - counts.mean(values)[:, None]
    return centred, np.sqrt(counts.mean(centred, centred))


def _correlate(x: tuple[Floats, Floats], y: tuple[Floats, Floats], counts: _Counts) -> Floats:
    """Pearson's correlation within each resample, of two results of `_centred`: (resamples,)."""
    return np.clip(_ratio(counts.mean(x[0], y[0]), x[1] * y[1]), -1.0, 1.0)


_METRICS: Mapping[str, _Metric] = {
    "accuracy": _accuracy,
    "agreement": _agreement,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}


def _metric(name: str) -> _Metric:
    if name not in _METRICS:
        raise ConfigError(f"Unknown metric {name!r}.{did_you_mean(name, _METRICS)}")
    return _METRICS[name]


def _check_rows(labels: Array, predictions: Array, what: str) -> None:
    if labels.ndim != 1 or not len(labels):
        raise DataError(f"labels have shape {labels.shape}: it must be (n,), with one row at least.")
    if predictions.ndim != 2 or not len(predictions) or predictions.shape[1:] != labels.shape:
        raise DataError(
            f"{what} have shape {predictions.shape}: they must be one row per seed and one column for each of the "
            f"{len(labels)} labels."
        )


# ---- intervals over seeds --------------------------------------------------------------------------------------------


def t_interval(differences: Array, level: float = 0.95) -> Interval:
    """Student's interval of a mean over seeds: mean plus or minus t times s / sqrt(n) (Student 1908, Biometrika 6).

    The default for few seeds: exact for normal differences, and its quantile (2.78 for five seeds) knows how poorly
    five seeds tell a spread. Differences that are all equal and not zero have no spread to go by: two or three seeds on
    a small evaluation set do that by chance, so the ends are NaN, not the value. Identical arms (all zero) give [0, 0].

    Parameters
    ----------
    differences : array of shape (seeds,)
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    Interval
        With NaN ends for one seed.
    """
    values = _seed_values(differences)
    _check_level(level)
    mean = float(values.mean())
    if len(values) < 2 or _no_spread(values):
        end = 0.0 if len(values) > 1 and mean == 0 else np.nan
        return Interval(mean, end, end)
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * float(values.std(ddof=1)) / np.sqrt(len(values))
    return Interval(mean, mean - reach, mean + reach)


def bootstrap_seeds(
    differences: Array,
    *,
    method: SeedMethod = "expanded",
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int | Sequence[int] = 0,
) -> Interval:
    """A bootstrap interval of a mean over seeds.

    A bootstrap over so few seeds is too narrow: resampling n values shows (n - 1) / n of their variance, no percentile
    of it has Student's tails, and it cannot leave the range of the values. Of 20,000 draws of five normal differences,
    intervals meant to cover 95 % covered the mean in 84 % ("percentile" and "bca" alike) and in 92 % ("expanded", the
    default), `t_interval` in 95.0 %; of three differences in 69, 70, 76 and 95 %. Take `t_interval` unless the
    differences are many and skewed.

    Parameters
    ----------
    differences : array of shape (seeds,)
    method : str
        "percentile" (Efron 1979); "bca", bias-corrected and accelerated (Efron 1987, Better bootstrap confidence
        intervals, JASA 82); or "expanded", percentiles moved out to Phi(-+ sqrt(n / (n - 1)) t), where t is Student's
        quantile (Hesterberg 2015, What teachers should know about the bootstrap, The American Statistician 69).
    resamples : int
        Drawn at random, unless all n ** n of them are no more than that: then each is taken once.
    level : float
        Coverage aimed at, between 0 and 1.
    seed : int or sequence of int
        Of the random resamples.

    Returns
    -------
    Interval
        With NaN ends for one seed, and for differences that are all equal and not zero (see `t_interval`).

    Raises
    ------
    ConfigError
        For an unknown method, and a level or number of resamples out of range.
    """
    values = _seed_values(differences)
    _check_level(level)
    _check_choice("method", method, SeedMethod)
    _check_resamples(resamples)
    n, mean = len(values), float(values.mean())
    if n < 2 or _no_spread(values) or not np.isfinite(values).all():
        end = 0.0 if n > 1 and mean == 0 else np.nan
        return Interval(mean, end, end)
    if n**n <= resamples:
        rows = np.indices((n,) * n).reshape(n, -1).T
    else:
        rows = np.random.default_rng(seed).integers(0, n, (resamples, n))
    means = values[rows].mean(axis=1)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "expanded":
        tails = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf(tails, n - 1))
    elif method == "bca":
        # A resample's mean can equal the mean but for rounding; half of such ties count as below.
        slack = NEGLIGIBLE * max(1.0, float(np.abs(values).max()))
        bias = special.ndtri((np.mean(means < mean - slack) + np.mean(means <= mean + slack)) / 2)
        about = values - mean
        acceleration = (about**3).sum() / (6 * (about**2).sum() ** 1.5)
        shifted = bias + special.ndtri(tails)
        tails = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    low, high = np.quantile(means, tails)
    return Interval(mean, float(low), float(high))


def _seed_values(differences: Array) -> Floats:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(f"differences have shape {values.shape}: it must be (seeds,), with one seed at least.")
    return values


def _no_spread(values: Floats) -> bool:
    return bool(np.ptp(values) <= NEGLIGIBLE * max(1.0, float(np.abs(values).max())))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}: a coverage lies between 0 and 1, as 0.95 does.")


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ConfigError(f"resamples is {resamples}: it must be 1 or more.")


def _check_choice(what: str, choice: str, literal: Any) -> None:
    if choice not in get_args(literal):
        raise ConfigError(f"Unknown {what} {choice!r}.{did_you_mean(choice, get_args(literal))}")


# ---- intervals over seeds and examples -------------------------------------------------------------------------------


def paired_bootstrap(
    labels: Array,
    predictions_a: Array,
    predictions_b: Array,
    metric: str,
    *,
    resamples: int = 2000,
    seed: int | Sequence[int] = 0,
    level: float = 0.95,
    over: Over = "both",
    tolerance: float = 0.0,
) -> Interval:
    """Percentile interval of the mean over seeds of metric(a) - metric(b), paired by seed and by example.

    With ``over="both"`` seeds and examples are resampled together, each with its own counts, and a run's example weighs
    by the product: the pigeonhole bootstrap (Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1). It
    overstates chance in single (seed, example) pairs and, with few seeds, understates that between seeds, as
    `bootstrap_seeds` does: of intervals for five seeds and 300 simulated examples that were meant to cover 95 %, 97 to
    99 % covered the truth where examples made most of the chance, 96 % where seeds mattered as much, and 89 % where
    seeds were all. In the first of these `t_interval`, which takes the evaluation examples as given, covered the truth
    for new examples in 89 % only, in the last in 95 %. So read both.

    Parameters
    ----------
    labels : array of shape (n,)
        Gold labels; for "agreement" the teacher's predictions.
    predictions_a, predictions_b : array of shape (seeds, n)
        Predicted classes or values; row s of both comes from the same seed.
    metric : str
        A metric of `sage_kit.evaluate.METRICS`, or "agreement".
    resamples : int
    seed : int or sequence of int
        Of the resamples. The same seed draws the same examples for every pair of arms.
    level : float
        Coverage aimed at, between 0 and 1.
    over : str
        What is resampled: "both", "seeds" or "examples".
    tolerance : float
        For "agreement" in regression: two values are alike when they differ by at most this.

    Returns
    -------
    Interval
        With NaN ends where seeds are resampled and there is one only.

    Raises
    ------
    ConfigError
        For an unknown metric or `over`, and a level or number of resamples out of range.
    DataError
        If the shapes do not fit.
    """
    _check_level(level)
    value, replicates = paired_replicates(
        labels, predictions_a, predictions_b, metric, resamples=resamples, seed=seed, over=over, tolerance=tolerance
    )
    return interval_of(value, replicates, level)


def paired_replicates(
    labels: Array,
    predictions_a: Array,
    predictions_b: Array,
    metric: str,
    *,
    resamples: int = 2000,
    seed: int | Sequence[int] = 0,
    over: Over = "both",
    tolerance: float = 0.0,
) -> tuple[float, Floats]:
    """The difference that `paired_bootstrap` is about, and its replicates, for averages over tasks.

    Parameters are those of `paired_bootstrap`, and so are the errors. Give each task another `seed`: replicates of
    different tasks must be independent to be averaged.

    Returns
    -------
    value : float
        Mean over seeds of metric(a) - metric(b).
    replicates : array of shape (resamples,), float64
        The same of each resample; NaN where seeds are resampled and there is one only.
    """
    labels, a, b = np.asarray(labels), np.asarray(predictions_a), np.asarray(predictions_b)
    _check_rows(labels, a, "predictions_a")
    _check_rows(labels, b, "predictions_b")
    if len(a) != len(b):
        raise DataError(f"predictions_a have {len(a)} seeds and predictions_b {len(b)}: pairs need the same seeds.")
    values, resampled = _seed_metrics(labels, np.stack([a, b]), metric, resamples, seed, over, tolerance)
    return float((values[0] - values[1]).mean()), _mean_over_seeds(resampled[0] - resampled[1], seed, over)


def _seed_metrics(
    labels: Array, arms: Array, metric: str, resamples: int, seed: int | Sequence[int], over: Over, tolerance: float
) -> tuple[Floats, Floats]:
    """Metrics of arms (arms, seeds, n): on all rows (arms, seeds), and on resampled ones (arms, seeds, resamples).

    Where examples are not resampled, the latter repeat the former.
    """
    _check_choice("over", over, Over)
    _check_resamples(resamples)
    compute, flat = _metric(metric), arms.reshape(-1, len(labels))
    shape = arms.shape[:2]
    values = compute(labels, flat, _Counts(np.ones((1, len(labels)))), tolerance).reshape(shape)
    if over == "seeds":
        return values, np.broadcast_to(values[..., None], (*shape, resamples))
    drawn = _example_counts(len(labels), resamples, seed)
    blocks = [compute(labels, flat, _Counts(counts), tolerance) for counts in drawn]
    return values, np.concatenate(blocks, axis=1).reshape(*shape, resamples)


def _mean_over_seeds(resampled: Floats, seed: int | Sequence[int], over: Over) -> Floats:
    """Means over seeds, or over resampled seeds: (seeds, resamples) to (resamples,)."""
    n, resamples = resampled.shape
    if over == "examples":
        return resampled.mean(axis=0)
    if n == 1:
        return np.full(resamples, np.nan)  # one seed says nothing of how seeds vary
    rows = np.random.default_rng([1, *np.atleast_1d(seed)]).integers(0, n, (n, resamples))
    return np.take_along_axis(resampled, rows, axis=0).mean(axis=0)


def _example_counts(n: int, resamples: int, seed: int | Sequence[int]) -> Iterator[Floats]:
    """How often each resample holds each of n examples, in blocks of shape (up to CHUNK / n, n)."""
    generator = np.random.default_rng([0, *np.atleast_1d(seed)])
    block = max(1, CHUNK // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def average_over_tasks(replicates: Sequence[Array]) -> Floats:
    """Replicates of the average over tasks, each task weighing the same, from independent replicates of each.

    Parameters
    ----------
    replicates : sequence of array of shape (resamples,)
        One per task, drawn with another `seed` each.

    Returns
    -------
    array of shape (resamples,), float64

    Raises
    ------
    DataError
        If there is none, or their numbers differ.
    """
    sizes = sorted({np.shape(item) for item in replicates})
    if len(sizes) != 1 or len(sizes[0]) != 1:
        raise DataError(f"replicates of the tasks have shapes {sizes}: they must be one and the same, (resamples,).")
    return np.mean(np.asarray(replicates, dtype=np.float64), axis=0)


def interval_of(value: float, replicates: Array, level: float = 0.95) -> Interval:
    """The percentile interval of replicates around a value.

    Parameters
    ----------
    value : float
    replicates : array of shape (resamples,)
    level : float
        Coverage aimed at, between 0 and 1.

    Returns
    -------
    Interval
        With NaN ends if a replicate is NaN.
    """
    _check_level(level)
    low, high = np.quantile(np.asarray(replicates, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


# ---- tests -----------------------------------------------------------------------------------------------------------


def paired_p(differences: Array) -> float:
    """Two-sided p of the paired t-test: could the mean of the differences be zero? (Student 1908, Biometrika 6).

    Where the differences are all equal, the t-test divides by a spread of zero; the sign-flip test stands in (1 for
    identical arms, 2 / 2 ** n otherwise).

    Parameters
    ----------
    differences : array of shape (seeds,)

    Returns
    -------
    float
        NaN for one seed.
    """
    values = _seed_values(differences)
    if len(values) < 2 or not np.isfinite(values).all():
        return float("nan")
    if _no_spread(values):
        return sign_flip_p(values)
    return float(stats.ttest_1samp(values, 0.0).pvalue)


def sign_flip_p(differences: Array, *, resamples: int = 100_000, seed: int | Sequence[int] = 0) -> float:
    """Two-sided p of the sign-flip test: how often is the mean as far from zero when signs are given by a coin?

    It assumes only that a difference is as likely as its negative (Fisher 1935, The Design of Experiments, section 21).
    All sign patterns are tried for up to `EXACT_SIGN_FLIPS` seeds; with n seeds p cannot be below 2 / 2 ** n, which for
    five is 0.0625. Beyond, patterns are drawn and the observed one is counted among them (Phipson and Smyth 2010,
    Permutation p-values should never be zero, Statistical Applications in Genetics and Molecular Biology 9).

    Parameters
    ----------
    differences : array of shape (seeds,)
    resamples : int
        Patterns drawn for more than `EXACT_SIGN_FLIPS` seeds.
    seed : int or sequence of int
        Of the drawn patterns.

    Returns
    -------
    float
        NaN for one seed.
    """
    values = _seed_values(differences)
    _check_resamples(resamples)
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return float("nan")
    exact = n <= EXACT_SIGN_FLIPS
    if exact:
        heads = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        heads = np.random.default_rng(seed).integers(0, 2, (resamples, n), dtype=np.int8)
    # Patterns that give the same mean must count as ties whatever the order of summation.
    slack = NEGLIGIBLE * float(np.abs(values).sum())
    extreme = int((np.abs((1 - 2 * heads) @ values) >= abs(values.sum()) - slack).sum())
    return extreme / len(heads) if exact else (extreme + 1) / (resamples + 1)


def holm(p_values: Array) -> Floats:
    """Adjusted p by Holm's step-down method, which holds the chance of any false finding among the p at their level.

    With m values in rising order, the i-th becomes the largest of (m - j + 1) p_j over j <= i, and 1 at most (Holm
    1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6).

    Parameters
    ----------
    p_values : array of shape (m,)
        NaN where there is no test: it stays NaN and does not count.

    Returns
    -------
    array of shape (m,), float64
        In the order given.

    Raises
    ------
    DataError
        If a value is not between 0 and 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise DataError(f"p values are {p.tolist()}: each must be between 0 and 1, or NaN.")
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def effect_size(differences: Array) -> float:
    """Mean difference in units of its standard deviation over seeds: Cohen's d_z with Hedges' small-sample correction.

    d_z = mean / s (Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, section 2.3.5), times
    J(m) = Gamma(m / 2) / (sqrt(m / 2) Gamma((m - 1) / 2)) with m = n - 1 (Hedges 1981, Distribution theory for Glass's
    estimator of effect size, Journal of Educational Statistics 6, equation 6e): 0.80 for five seeds. The spread of a
    difference paired by seed is small, so 2 here is not the 2 of unpaired studies.

    Parameters
    ----------
    differences : array of shape (seeds,)

    Returns
    -------
    float
        NaN for one seed, for two (d_z has no mean then, and J is 0), and where the differences have no spread.
    """
    values = _seed_values(differences)
    if len(values) < 3 or _no_spread(values):
        return float("nan")
    m = len(values) - 1
    correction = np.exp(special.gammaln(m / 2) - special.gammaln((m - 1) / 2)) / np.sqrt(m / 2)
    return float(correction * values.mean() / values.std(ddof=1))


# ---- tables ----------------------------------------------------------------------------------------------------------


def summarize(
    table: pd.DataFrame, value: str = "value", by: Sequence[str] = ("task", "arm"), *, level: float = 0.95
) -> pd.DataFrame:
    """Means over seeds with Student's intervals, a row per group: how each arm did, not how arms differ.

    Parameters
    ----------
    table : pandas DataFrame
        One row per run.
    value : str
        Column to summarise.
    by : sequence of str
        Columns that make a group.
    level : float
        Coverage of the intervals.

    Returns
    -------
    pandas DataFrame
        Columns of `by`, then n_seeds (rows of the group), mean, low and high; groups in the order of the table.

    Raises
    ------
    ConfigError
        If a column is missing, or the level is out of range.
    """
    import pandas as pd

    _check_level(level)
    _check_columns(table, (*by, value))
    rows = []
    for key, group in table.groupby(list(by), sort=False, dropna=False):
        interval = t_interval(group[value].to_numpy(), level)
        rows.append((*key, len(group), interval.value, interval.low, interval.high))
    return pd.DataFrame(rows, columns=[*by, "n_seeds", "mean", "low", "high"])


def compare_arms(
    table: pd.DataFrame,
    baseline: str,
    *,
    value: str = "value",
    level: float = 0.95,
    test: Test = "t",
    average: bool = True,
    replicates: Mapping[tuple[str, str], Array] | None = None,
) -> pd.DataFrame:
    """Every arm against the baseline, paired by seed: a row per task and arm, and one for the average over tasks.

    Parameters
    ----------
    table : pandas DataFrame
        One row per run, with columns "task", "arm", "seed" and the value.
    baseline : str
        The arm to compare with.
    value : str
        Column of the metric.
    level : float
        Coverage of the intervals.
    test : str
        "t" (`paired_p`) or "sign_flip" (`sign_flip_p`).
    average : bool
        Whether to add the average over tasks, where there are several: per seed, the mean of the tasks' differences,
        each task weighing the same. It needs the same arms and seeds in every task.
    replicates : mapping of (task, arm) to array of shape (resamples,), or None
        Replicates of the difference from the baseline (`paired_replicates`): "low" and "high" are taken from them, and
        Student's interval moves to "seeds_low" and "seeds_high". Those of the average are averaged from the tasks'.

    Returns
    -------
    pandas DataFrame
        Columns task, arm, n_seeds, mean, baseline_mean, difference (mean minus baseline_mean), low, high, with
        `replicates` seeds_low, seeds_high, then p, p_holm (Holm's, across the arms of a task) and effect
        (`effect_size`). Tasks and arms come in the order of the table.

    Raises
    ------
    ConfigError
        For an unknown baseline, test or column.
    DataError
        If a pair is incomplete (a seed that only one of the arms has), a run comes twice, or replicates are missing.
    """
    import pandas as pd

    _check_level(level)
    _check_choice("test", test, Test)
    _check_columns(table, ("task", "arm", "seed", value))
    tasks, arms = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["arm"]))
    if baseline not in arms:
        raise ConfigError(f"Unknown baseline arm {baseline!r}.{did_you_mean(baseline, map(str, arms), 'Arms')}")
    if AVERAGE in tasks:
        raise DataError(f"A task is named {AVERAGE!r}, which is the name of the average over tasks: rename the task.")
    values = _by_run(table, value)
    groups = {task: _pairs(values, task, arms, baseline) for task in tasks}
    if average and len(tasks) > 1:
        groups[AVERAGE] = _average_pairs(groups)
    shares = dict(replicates) if replicates is not None else None
    if shares is not None:
        for arm in groups.get(AVERAGE, ()):
            shares[AVERAGE, arm] = average_over_tasks([_replicates_of(shares, task, arm) for task in tasks])
    p_of = paired_p if test == "t" else sign_flip_p
    rows: list[dict[str, Any]] = []
    for task, group in groups.items():
        p_values = np.array([p_of(pair.differences) for pair in group.values()])
        for (arm, pair), p, adjusted in zip(group.items(), p_values, holm(p_values), strict=True):
            seeds = t_interval(pair.differences, level)
            row: dict[str, Any] = {
                "task": task, "arm": arm, "n_seeds": len(pair.seeds), "mean": pair.ours.mean(),
                "baseline_mean": pair.base.mean(), "difference": seeds.value, "low": seeds.low, "high": seeds.high,
            }  # fmt: skip
            if shares is not None:
                both = interval_of(seeds.value, _replicates_of(shares, task, arm), level)
                row |= {"low": both.low, "high": both.high, "seeds_low": seeds.low, "seeds_high": seeds.high}
            rows.append(row | {"p": p, "p_holm": adjusted, "effect": effect_size(pair.differences)})
    columns = ["task", "arm", "n_seeds", "mean", "baseline_mean", "difference", "low", "high"]
    columns += ["seeds_low", "seeds_high"] if shares is not None else []
    return pd.DataFrame(rows, columns=[*columns, "p", "p_holm", "effect"])


def compare_predictions(
    predictions: Mapping[tuple[str, str], Array],
    labels: Mapping[str, Array],
    metrics: Mapping[str, str],
    baseline: str,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    test: Test = "t",
    over: Over = "both",
    average: bool = True,
    tolerances: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Every arm against the baseline, from each run's predictions: `compare_arms` with `paired_bootstrap`'s intervals.

    All arms of a task share their resamples; tasks draw independent ones, by their names.

    Parameters
    ----------
    predictions : mapping of (task, arm) to array of shape (seeds, n)
        Predicted classes or values; row s of each arm of a task comes from the same seed.
    labels : mapping of task to array of shape (n,)
        Gold labels; for "agreement" the teacher's predictions.
    metrics : mapping of task to str
        A metric of `sage_kit.evaluate.METRICS`, or "agreement".
    baseline : str
        The arm to compare with.
    resamples : int
    seed : int
        Of the resamples.
    level : float
        Coverage of the intervals.
    test : str
        "t" (`paired_p`) or "sign_flip" (`sign_flip_p`).
    over : str
        What "low" and "high" resample: "both", "seeds" or "examples".
    average : bool
        Whether to add the average over tasks.
    tolerances : mapping of task to float, or None
        For "agreement" in regression: two values are alike when they differ by at most this; 0 where not given.

    Returns
    -------
    pandas DataFrame
        As that of `compare_arms`: "low" and "high" by the bootstrap, "seeds_low" and "seeds_high" by `t_interval`.

    Raises
    ------
    ConfigError
        For an unknown baseline, metric, test or `over`.
    DataError
        If labels or a metric are missing, or the arms of a task differ in their seeds or examples.
    """
    import pandas as pd

    tasks, arms = (
        list(dict.fromkeys(task for task, _ in predictions)),
        list(dict.fromkeys(arm for _, arm in predictions)),
    )
    if baseline not in arms:
        raise ConfigError(f"Unknown baseline arm {baseline!r}.{did_you_mean(baseline, arms, 'Arms')}")
    runs: list[dict[str, Any]] = []
    replicates: dict[tuple[str, str], Array] = {}
    for task in tasks:
        if task not in labels or task not in metrics:
            lacking = "metric" if task in labels else "labels"
            raise DataError(f"Task {task!r} has predictions but no {lacking}: give them.")
        own = [arm for arm in arms if (task, arm) in predictions]
        if baseline not in own:
            raise DataError(f"Task {task!r} has no predictions of the baseline {baseline!r}: run that arm too.")
        gold = np.asarray(labels[task])
        stacked = [np.asarray(predictions[task, arm]) for arm in own]
        for arm, array in zip(own, stacked, strict=True):
            _check_rows(gold, array, f"predictions of task {task!r}, arm {arm!r},")
            if len(array) != len(stacked[0]):
                raise DataError(
                    f"task {task!r} has {len(array)} seeds of arm {arm!r} and {len(stacked[0])} of {own[0]!r}: "
                    "run the same seeds of both."
                )
        # By its name, so that a task's interval does not depend on the tasks beside it.
        stream = [seed, zlib.crc32(task.encode())]
        tolerance = (tolerances or {}).get(task, 0.0)
        values, resampled = _seed_metrics(gold, np.stack(stacked), metrics[task], resamples, stream, over, tolerance)
        base = own.index(baseline)
        for index, arm in enumerate(own):
            replicates[task, arm] = _mean_over_seeds(resampled[index] - resampled[base], stream, over)
            runs += [{"task": task, "arm": arm, "seed": s, "value": value} for s, value in enumerate(values[index])]
    return compare_arms(pd.DataFrame(runs), baseline, level=level, test=test, average=average, replicates=replicates)


def _check_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    known = [str(column) for column in table.columns]
    for column in columns:
        if column not in known:
            raise ConfigError(f"The table of runs has no column {column!r}.{did_you_mean(column, known)}")


_Runs = Mapping[tuple[Any, Any], Mapping[Any, float]]
"""Values by (task, arm), then by seed."""


def _by_run(table: pd.DataFrame, value: str) -> _Runs:
    runs: dict[tuple[Any, Any], dict[Any, float]] = {}
    columns = (table[column].tolist() for column in ("task", "arm", "seed", value))
    for task, arm, seed, number in zip(*columns, strict=True):
        seeds = runs.setdefault((task, arm), {})
        if seed in seeds:
            raise DataError(f"The table has two runs of task {task!r}, arm {arm!r}, seed {seed}: keep one.")
        seeds[seed] = float(number)
    return runs


@dataclass(frozen=True)
class _Pair:
    """Values of an arm and of the baseline, seed by seed."""

    seeds: list[Any]
    ours: Floats
    base: Floats

    @property
    def differences(self) -> Floats:
        return self.ours - self.base


def _pairs(values: _Runs, task: Any, arms: Sequence[Any], baseline: Any) -> dict[Any, _Pair]:
    """The arms of a task beside the baseline, where both have exactly the same seeds."""
    base = values.get((task, baseline), {})
    pairs: dict[Any, _Pair] = {}
    for arm in arms:
        ours = values.get((task, arm))
        if arm == baseline or ours is None:
            continue
        for seed in sorted(ours.keys() ^ base.keys()):
            has, lacks = (arm, baseline) if seed in ours else (baseline, arm)
            raise DataError(
                f"Task {task!r}, seed {seed}: there is a run of arm {has!r} and none of arm {lacks!r}, so they cannot "
                "be paired. Run the missing one or leave the seed out."
            )
        seeds = sorted(ours)
        pairs[arm] = _Pair(seeds, np.array([ours[seed] for seed in seeds]), np.array([base[seed] for seed in seeds]))
    return pairs


def _average_pairs(groups: Mapping[Any, Mapping[Any, _Pair]]) -> dict[Any, _Pair]:
    """Per arm and seed the means over tasks, where each task has the same arms and seeds."""
    averages: dict[Any, _Pair] = {}
    for arm in dict.fromkeys(arm for group in groups.values() for arm in group):
        seeds = sorted({seed for group in groups.values() if arm in group for seed in group[arm].seeds})
        for task, group in groups.items():
            for seed in seeds:
                if arm not in group or seed not in group[arm].seeds:
                    raise DataError(
                        f"Task {task!r}, seed {seed}: there is no run of arm {arm!r}, and another task has one, so "
                        "tasks cannot be averaged. Run it, leave it out everywhere, or ask for no average."
                    )
        pairs = [group[arm] for group in groups.values()]
        ours, base = (np.mean([getattr(pair, side) for pair in pairs], axis=0) for side in ("ours", "base"))
        averages[arm] = _Pair(seeds, ours, base)
    return averages


def _replicates_of(replicates: Mapping[tuple[str, str], Array], task: str, arm: str) -> Array:
    if (task, arm) not in replicates:
        raise DataError(f"There are no replicates of task {task!r}, arm {arm!r}: give them for every arm, or for none.")
    return np.asarray(replicates[task, arm])


# ---- sets, neighbours and ranks --------------------------------------------------------------------------------------


def jaccard(a: Array, b: Array) -> float:
    """Share of two index sets' union that both hold (Jaccard 1912, The New Phytologist 11); 1 for two empty sets.

    Parameters
    ----------
    a, b : array of shape (any,), int
        Indices; repeated ones count once.

    Returns
    -------
    float
        Between 0 and 1.
    """
    first, second = np.unique(a), np.unique(b)
    common = len(np.intersect1d(first, second, assume_unique=True))
    union = len(first) + len(second) - common
    return common / union if union else 1.0


def expected_jaccard(n: int, k: int, other: int | None = None) -> float:
    """Expected Jaccard index of two independent random subsets of n things: the level that chance alone reaches.

    The overlap x of subsets of k and m things is hypergeometric, and the index is x / (k + m - x), averaged here over
    the distribution of x, exactly.

    Parameters
    ----------
    n : int
        Size of the whole.
    k : int
        Size of a subset.
    other : int or None
        Size m of the other subset; None takes k.

    Returns
    -------
    float

    Raises
    ------
    DataError
        If a subset is larger than the whole, or a size is negative.
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
    """Moran's I of values, and what it would be without a pattern.

    Attributes
    ----------
    value : float
        About 1 where neighbours are alike, below `expected` where they differ more than chance has it; NaN for constant
        values.
    expected : float
        Mean over all permutations of the values: -1 / (n - 1).
    p : float
        Share of permutations with an I as high, the observed one counted among them: one-sided, for likeness.
    """

    value: float
    expected: float
    p: float


def morans_i(values: Array, neighbors: Array, *, permutations: int = 999, seed: int | Sequence[int] = 0) -> MoransI:
    """Whether neighbours have like values: Moran's I with k nearest neighbours of weight 1 / k (row-standardised).

    I = sum_i z_i (mean of z over the neighbours of i) / sum_i z_i ** 2, where z are the values less their mean (Moran
    1950, Notes on continuous stochastic phenomena, Biometrika 37). The p permutes the values over the places.

    Parameters
    ----------
    values : array of shape (n,)
    neighbors : array of shape (n, k), int
        Indices of each row's neighbours, without the row itself.
    permutations : int
    seed : int or sequence of int
        Of the permutations.

    Returns
    -------
    MoransI

    Raises
    ------
    DataError
        If the shapes do not fit, an index is out of range, or a row is its own neighbour.
    """
    z, places = np.asarray(values, dtype=np.float64), np.asarray(neighbors)
    _check_resamples(permutations)
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


def correlation(
    x: Array, y: Array, *, resamples: int = 10_000, level: float = 0.95, seed: int | Sequence[int] = 0
) -> Interval:
    """Spearman's rank correlation of points, with a percentile bootstrap interval over the points.

    The points are taken as independent; a resample in which x or y is constant counts as 0. Meant to cover 95 %, it
    covered the truth in 96 to 97 % of 1,000 simulated normal samples of 8, 12 and 20 points with correlation 0.6.

    Parameters
    ----------
    x, y : array of shape (n,)
    resamples : int
    level : float
        Coverage aimed at, between 0 and 1.
    seed : int or sequence of int
        Of the resamples.

    Returns
    -------
    Interval
        With NaN ends for fewer than four points: every resample of them is on a line or nearly so.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    _check_rows(x, y[None], "y values")
    _check_level(level)
    _check_resamples(resamples)
    whole = _spearman(x, y[None], _Counts(np.ones((1, len(x)))), 0.0)[0, 0]
    if len(x) < 4:
        return Interval(float(whole), np.nan, np.nan)
    blocks = [_spearman(x, y[None], _Counts(counts), 0.0)[0] for counts in _example_counts(len(x), resamples, seed)]
    return interval_of(whole, np.concatenate(blocks), level)
