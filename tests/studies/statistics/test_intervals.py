"""Intervals over seeds, against scipy, all resamples and what they cover."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from studies.statistics.pairedruns import DIFFERENCES, ends

from sage_kit.errors import ConfigError, DataError
from sage_kit.studies.statistics import Interval, bootstrap_seeds, t_interval


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_student_interval_is_scipys(level: float) -> None:
    expected = stats.ttest_1samp(DIFFERENCES, 0).confidence_interval(level)
    interval = t_interval(DIFFERENCES, level)
    assert ends(interval) == pytest.approx(ends(expected))
    assert interval.value == pytest.approx(DIFFERENCES.mean())


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_seed_bootstrap_is_scipys(method: str) -> None:
    values = np.random.default_rng(3).exponential(size=12)  # skewed, so that the methods differ
    expected = stats.bootstrap(
        (values,), np.mean, method={"bca": "BCa"}.get(method, method), n_resamples=40_000, rng=np.random.default_rng(0)
    ).confidence_interval  # fmt: skip
    interval = bootstrap_seeds(values, method=method, resamples=40_000)  # type: ignore[arg-type]
    assert ends(interval) == pytest.approx(ends(expected), abs=0.015)
    other = bootstrap_seeds(values, method="percentile" if method == "bca" else "bca", resamples=40_000)
    assert abs(other.high - interval.high) > 0.03


def test_few_seeds_are_resampled_in_every_way_once() -> None:
    grid = np.stack(np.meshgrid(*[DIFFERENCES] * 5), -1).reshape(-1, 5).mean(1)
    expected = np.quantile(grid, [0.025, 0.975])
    assert ends(bootstrap_seeds(DIFFERENCES, method="percentile", seed=1)) == pytest.approx(expected)


def test_expanded_percentiles() -> None:
    # Five seeds: t is 2.7764, times sqrt(5 / 4) is 3.1042, whose normal tail is 0.000954.
    grid = np.stack(np.meshgrid(*[DIFFERENCES] * 5), -1).reshape(-1, 5).mean(1)
    expected = np.quantile(grid, [0.000954, 1 - 0.000954])
    assert ends(bootstrap_seeds(DIFFERENCES)) == pytest.approx(expected, abs=1e-5)


def test_coverage_over_five_seeds() -> None:
    # What the docstring of `bootstrap_seeds` says, to what 1,500 draws can tell (three standard errors).
    draws = np.random.default_rng(0).normal(size=(1500, 5))
    covered = {
        method: np.mean([i.low <= 0 <= i.high for i in (bootstrap_seeds(d, method=method) for d in draws)])
        for method in ("percentile", "bca", "expanded")
    }  # type: ignore[arg-type]
    student = np.mean([i.low <= 0 <= i.high for i in map(t_interval, draws)])
    assert student == pytest.approx(0.95, abs=0.017)
    assert covered["expanded"] == pytest.approx(0.925, abs=0.02)
    assert covered["percentile"] == pytest.approx(0.842, abs=0.028)
    assert covered["bca"] == pytest.approx(0.842, abs=0.028)


@pytest.mark.parametrize("interval", [t_interval, bootstrap_seeds])
def test_seeds_without_spread(interval: Any) -> None:
    np.testing.assert_equal(ends(interval(np.array([0.1]))), (np.nan, np.nan))
    np.testing.assert_equal(ends(interval(np.array([0.1, 0.3 - 0.2, 0.1]))), (np.nan, np.nan))
    np.testing.assert_equal(ends(interval(np.array([0.1, np.nan, 0.3]))), (np.nan, np.nan))
    assert interval(np.zeros(3)) == Interval(0, 0, 0)


def test_bad_intervals_are_refused() -> None:
    with pytest.raises(ConfigError, match="level is 95: a coverage lies between 0 and 1"):
        t_interval(DIFFERENCES, 95)
    with pytest.raises(ConfigError, match=r"Unknown method 'percentil'. Did you mean 'percentile'\?"):
        bootstrap_seeds(DIFFERENCES, method="percentil")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="resamples is 0"):
        bootstrap_seeds(DIFFERENCES, resamples=0)
    with pytest.raises(DataError, match=r"differences have shape \(0,\)"):
        t_interval(np.array([]))
