"""How far chance in the seeds reaches: Student's interval, bootstraps over seeds, percentiles of replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from sage_kit.studies.statistics.checks import (
    NEGLIGIBLE,
    check_choice,
    check_level,
    check_resamples,
    no_spread,
    seed_values,
)

Array = NDArray[Any]
Floats = NDArray[np.float64]

SeedMethod = Literal["expanded", "percentile", "bca"]


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
    values = seed_values(differences)
    check_level(level)
    mean = float(values.mean())
    if len(values) < 2 or no_spread(values):
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
    values = seed_values(differences)
    check_level(level)
    check_choice("method", method, SeedMethod)
    check_resamples(resamples)
    n, mean = len(values), float(values.mean())
    if n < 2 or no_spread(values) or not np.isfinite(values).all():
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
    check_level(level)
    low, high = np.quantile(np.asarray(replicates, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))
