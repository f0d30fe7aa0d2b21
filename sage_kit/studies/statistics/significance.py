"""Whether a difference could be none at all, and how large it is beside its spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from sage_kit.errors import DataError
from sage_kit.studies.statistics.checks import NEGLIGIBLE, check_resamples, no_spread, seed_values

Array = NDArray[Any]
Floats = NDArray[np.float64]

EXACT_SIGN_FLIPS = 12
"""Up to so many seeds, all sign patterns are tried: 4,096."""


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
    values = seed_values(differences)
    if len(values) < 2 or not np.isfinite(values).all():
        return float("nan")
    if no_spread(values):
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
    values = seed_values(differences)
    check_resamples(resamples)
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
    values = seed_values(differences)
    if len(values) < 3 or no_spread(values):
        return float("nan")
    m = len(values) - 1
    correction = np.exp(special.gammaln(m / 2) - special.gammaln((m - 1) / 2)) / np.sqrt(m / 2)
    return float(correction * values.mean() / values.std(ddof=1))
