"""Whether a number could be its threshold after all, and which difference a design can find."""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize, stats

from sage_kit.errors import ConfigError
from sage_kit.studies.statistics.intervals import LEVEL, Interval

ALPHA = 1 - LEVEL
POWER = 0.8  # chance of finding a difference that is called detectable


def p_value(interval: Interval, threshold: float = 0.0) -> float:
    """Two-sided p of a threshold, from the interval itself, so that p < 0.05 where the interval leaves it out.

    The half width towards the threshold over the quantile that the ends stand at is the standard error (Altman and
    Bland 2011, How to obtain the P value from a confidence interval, BMJ 343), and p is that of value less threshold
    over it. Of Student's intervals this is the t-test's. NaN for an interval without ends; for one without width 1 at
    its value, else 0.
    """
    distance = threshold - interval.value
    reach = interval.high - interval.value if distance > 0 else interval.value - interval.low
    if not (math.isfinite(reach) and math.isfinite(distance)):
        return math.nan
    if reach <= 0:
        return 1.0 if distance == 0 else 0.0
    quantile = stats.t.ppf((1 + LEVEL) / 2, interval.df)
    return float(2 * stats.t.sf(abs(distance) / reach * quantile, interval.df))


def detectable(se: float, df: float, *, comparisons: int = 1, power: float = POWER) -> float:
    """The smallest true difference that a two-sided test at 5 % finds with the given chance: (t_a + t_b) se.

    t_a is the quantile of the test, at 5 % over the number of comparisons (the first step of Holm's correction), t_b
    that of the power, both of Student's t (Lachin 1981, Introduction to sample size determination and power analysis,
    Controlled Clinical Trials 2, with t for its normal quantiles). NaN where the standard error is not known.
    `comparisons` are the findings that are corrected together.
    """
    if not (math.isfinite(se) and df > 0):
        return math.nan
    return float((stats.t.ppf(1 - ALPHA / (2 * max(comparisons, 1)), df) + stats.t.ppf(power, df)) * se)


def standard_error(low: float, high: float, df: float) -> float:
    """The standard error behind the ends of an interval."""
    return float((high - low) / 2 / stats.t.ppf((1 + LEVEL) / 2, df))


def count_interval(k: int, n: int) -> Interval:
    """The share of k among n, with the exact binomial interval (Clopper and Pearson 1934, Biometrika 26)."""
    if not (n >= 1 and 0 <= k <= n):
        raise ConfigError(f"a count of {k} among {n}: it must lie between 0 and a number of at least 1.")
    found = stats.binomtest(k, n).proportion_ci(LEVEL)
    return Interval(k / n, float(found.low), float(found.high))


def count_p(k: int, n: int, threshold: float) -> float:
    """Two-sided p of a share, twice the smaller tail, so that p < 0.05 where `count_interval` leaves it out. The p of
    `scipy.stats.binomtest` adds the less likely counts of both tails, and can contradict that interval.
    """
    return float(min(1.0, 2 * min(stats.binom.cdf(k, n, threshold), stats.binom.sf(k - 1, n, threshold))))


def count_detectable(n: int, threshold: float, *, comparisons: int = 1, power: float = POWER) -> float:
    """The smallest distance of a true share from a threshold that n runs find with the given chance. NaN when no share
    has such a chance, as with five runs against one half.
    """
    counts = np.arange(n + 1)
    found = [k for k in counts if count_p(int(k), n, threshold) < ALPHA / max(comparisons, 1)]

    def lacking(share: float) -> float:
        return float(stats.binom.pmf(found, n, share).sum()) - power

    distances = [
        abs(optimize.brentq(lacking, threshold, end) - threshold)
        for end in (0.0, 1.0)
        if found and threshold != end and lacking(threshold) < 0 < lacking(end)
    ]
    return min(distances, default=math.nan)
