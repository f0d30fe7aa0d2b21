"""The one rule for intervals: two-way random effects, seeds by examples, with Student's t.

A difference d of two arms varies with the seed s of the pair of runs and with the evaluation example e: a seed that
favours one arm favours it on many examples, an example that suits one arm does so under many seeds, and the rest is
particular to the two. `two_way` reads the three variances from the table of d and gives the interval of its mean for
new seeds and new examples. With one seed it is Student's interval over examples, with numbers of runs alone
(`t_interval`) Student's over seeds. Scipy has nothing for crossed effects, and a mixed model
fitted by likelihood, as statsmodels fits it, is another estimate, without Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sage_kit.errors import DataError

Array = NDArray[Any]
Floats = NDArray[np.float64]

LEVEL = 0.95  # coverage of every interval
NEGLIGIBLE = 1e-12
"""Differences that spread less than this, relative to the larger of 1 and their size, differ by rounding only."""


def check_rows(labels: Array, predictions: Array, what: str) -> None:
    """Refuse labels that are not (n,), and predictions that are not (k, n)."""
    if labels.ndim != 1 or not len(labels):
        raise DataError(f"labels have shape {labels.shape}: it must be (n,), with one row at least.")
    if predictions.ndim != 2 or not len(predictions) or predictions.shape[1:] != labels.shape:
        raise DataError(
            f"{what} have shape {predictions.shape}: they must be one row per seed and one column for each of the "
            f"{len(labels)} labels."
        )


def no_spread(values: Floats) -> bool:
    """Whether values differ by rounding only."""
    return bool(np.ptp(values) <= NEGLIGIBLE * max(1.0, float(np.abs(values).max())))


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval.

    Attributes
    ----------
    value : float
        The estimate.
    low, high : float
        Ends of the interval; NaN where the data say nothing about them.
    df : float
        Degrees of freedom of the t distribution that the ends come from; infinite for the normal one.
    se : float
        Standard error of the value: the part of the interval's half width that `df` does not explain.
    identical : bool
        Whether all values were the same, so that the ends come from a bound instead of a spread.
    """

    value: float
    low: float
    high: float
    df: float = np.inf
    se: float = np.nan
    identical: bool = False


def around(value: float, variance: float, df: float) -> Interval:
    """The interval of an estimate with a variance that was estimated with `df` degrees of freedom."""
    if not (np.isfinite(value) and np.isfinite(variance)):
        return Interval(value, np.nan, np.nan, df)
    se = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, df)) * se
    return Interval(value, value - reach, value + reach, float(df), se)


def bounded(value: float, reach: float) -> Interval:
    """The interval of a value that all observations share: so far as `reach` to both sides."""
    return Interval(value, value - reach, value + reach, np.inf, reach / float(stats.norm.ppf((1 + LEVEL) / 2)), True)


def t_interval(values: Array, *, resolution: float = 0.0) -> Interval:
    """Student's interval of a mean over seeds: mean plus or minus t times s / sqrt(n) (Student 1908, Biometrika 6).

    With NaN ends for one value, and for values that are not all finite.

    `resolution` is the step in which the values are counted, 0 for exact ones. Values that are all equal would have no
    interval, so they are taken to differ by chance within one step: their standard deviation is no more than half of it
    (that of values split evenly between two neighbouring steps).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(f"differences have shape {values.shape}: it must be (seeds,), with one seed at least.")
    n, mean = len(values), float(values.mean())
    if n < 2 or not np.isfinite(mean):
        return Interval(mean, np.nan, np.nan, max(n - 1, 1))
    if no_spread(values):
        reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * resolution / 2 / np.sqrt(n)
        return bounded(mean, reach)
    return around(mean, float(values.var(ddof=1)) / n, n - 1)


def two_way(cells: Array, *, largest: float = 1.0) -> Interval:
    """The mean of a table of seeds by examples, with an interval for new seeds and new examples.

    The model is d[s, e] = mean + seed[s] + example[e] + rest[s, e], all random. With the mean squares of its analysis
    of variance, MS_S of seeds, MS_E of examples, MS_R of the rest, the variance of the mean is estimated by

    (MS_S + MS_E - MS_R) / (S E),

    never less than MS_S / (S E) or MS_E / (S E), which are what Student's interval over seeds alone or over examples
    alone takes, so that a component that comes out negative counts as zero (Cornfield and Tukey 1956, Average values of
    mean squares in factorials, Annals of Mathematical Statistics 27). Its degrees of freedom are those of Satterthwaite
    (1946, An approximate distribution of estimates of variance components, Biometrics Bulletin 2), at least S - 1: the
    squared estimate over the sum of the mean squares' squares, each divided by its own degrees of freedom. Meant to
    cover 95 %, it covers 94 to 98 % where chance is in seeds, in examples, in both or in neither (the tests simulate
    it).

    Cells of hits less hits (-1, 0 and 1) that differ in few examples tell little of how many such examples there are,
    so two pseudo-examples count in the variance over examples: half a one that favours either arm, and one that favours
    none (after Agresti and Min 2005, Simple improved confidence intervals for comparing matched proportions, Statistics
    in Medicine 24).

    Parameters
    ----------
    cells : array of shape (seeds, n)
        A number per seed and example.
    largest : float
        The most by which a cell can differ from zero: 1 for a hit less a hit. Only used where the cells have no spread.

    Returns
    -------
    Interval
        Cells without any spread give a bound: were a share q of all examples to differ, none of n would with chance
        (1 - q) ** n, so with 95 % confidence (each side 2.5 %) no more than q = 1 - 0.025 ** (1 / n) do (Clopper and
        Pearson 1934, Biometrika 26; the "rule of three" is its one-sided approximation), each by no more than
        `largest`. With NaN ends for a single cell, and where a cell is not finite.

    Raises
    ------
    DataError
        If the cells are no table.
    """
    table = np.asarray(cells, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise DataError(f"cells have shape {table.shape}: it must be (seeds, examples), with one of each at least.")
    seeds, examples = table.shape
    mean = float(table.mean())
    if not np.isfinite(table).all() or examples < 2:
        return Interval(mean, np.nan, np.nan, 1.0)
    if no_spread(table):
        return bounded(mean, largest * (1 - ((1 - LEVEL) / 2) ** (1 / examples)))
    by_seed, by_example = table.mean(axis=1) - mean, table.mean(axis=0) - mean
    of_examples = float((by_example**2).sum())
    if np.isin(table, (-1.0, 0.0, 1.0)).all():
        of_examples = (of_examples + 1.0) * examples / (examples + 2)
    ms_examples = seeds * of_examples / (examples - 1)
    if seeds == 1:
        return around(mean, ms_examples / examples, examples - 1)
    ms_seeds = examples * float((by_seed**2).sum()) / (seeds - 1)
    df_rest = (seeds - 1) * (examples - 1)
    rest = table - mean - by_seed[:, None] - by_example[None, :]
    ms_rest = float((rest**2).sum()) / df_rest
    total = max(ms_seeds + ms_examples - ms_rest, ms_seeds, ms_examples)
    spread = ms_seeds**2 / (seeds - 1) + ms_examples**2 / (examples - 1) + ms_rest**2 / df_rest
    return around(mean, total / (seeds * examples), max(total**2 / spread, seeds - 1))


def of_scores(cells: Array, *, largest: float = 1.0) -> Interval:
    """`two_way`, or for scores as wholes, cells of shape (seeds, 1), Student's interval over the seeds.

    Of a metric of which nobody knows what an example contributes, only the scores are there.
    """
    table = np.asarray(cells, dtype=np.float64)
    if table.ndim == 2 and table.shape[1] == 1 and len(table) > 1:
        return t_interval(table[:, 0])
    return two_way(table, largest=largest)


def average(parts: Sequence[Interval]) -> Interval:
    """The mean of independent estimates, each weighing the same: that of several tasks.

    Tasks are fixed: the average is about these tasks, not about others. Their examples are other examples, and a seed
    is no more than a name that they share: it draws from other data in another order, so runs of two tasks under one
    seed vary independently (in 55 arms of earlier studies, on SST-2 and STS-B, their differences to plain distillation
    had correlations over five seeds of -0.2 on average). So variances add, and the degrees of freedom are
    Satterthwaite's. `identical` where all parts are.
    """
    if not parts:
        raise DataError("there is no estimate to average: give one task at least.")
    mean = float(np.mean([part.value for part in parts]))
    variances = np.array([part.se**2 for part in parts])
    total = float(variances.sum())
    if not np.isfinite(total):
        return Interval(mean, np.nan, np.nan, 1.0)
    if all(part.identical for part in parts):
        reach = float(np.sqrt(sum((part.high - part.value) ** 2 for part in parts))) / len(parts)
        return bounded(mean, reach)
    df = total**2 / float((variances**2 / np.array([part.df for part in parts])).sum())
    return around(mean, total / len(parts) ** 2, df)
