"""p from intervals, counts, and what a design can find, against scipy and simulation."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from studies.statistics.pairedruns import DIFFERENCES, ends

from sage_kit.errors import ConfigError, DataError
from sage_kit.studies.statistics import (
    Interval,
    around,
    count_detectable,
    count_interval,
    count_p,
    detectable,
    holm,
    p_value,
    standard_error,
    t_interval,
)


@pytest.mark.parametrize("threshold", [0.0, 0.005, -0.02, 0.03])
def test_p_is_that_of_the_t_test(threshold: float) -> None:
    assert p_value(t_interval(DIFFERENCES), threshold) == pytest.approx(
        stats.ttest_1samp(DIFFERENCES, threshold).pvalue
    )


def test_p_and_interval_never_contradict_each_other() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        value, below, above = rng.normal(), *rng.exponential(size=2)
        interval = Interval(value, value - below, value + above, rng.choice([3.0, 11.5, np.inf]))
        threshold = rng.normal()
        assert (p_value(interval, threshold) < 0.05) == (not interval.low <= threshold <= interval.high)


def test_p_without_a_width() -> None:
    assert p_value(Interval(1.0, 1.0, 1.0), 1.0) == 1
    assert p_value(Interval(1.0, 1.0, 1.0), 0.0) == 0
    assert np.isnan(p_value(Interval(1.0, np.nan, np.nan)))


def test_the_standard_error_comes_back() -> None:
    interval = around(0.3, 0.04, 6.5)
    assert standard_error(interval.low, interval.high, interval.df) == pytest.approx(0.2)


def test_the_detectable_difference_is_found_in_four_of_five_cases() -> None:
    rng = np.random.default_rng(0)
    n = 20
    difference = detectable(1 / np.sqrt(n), n - 1)
    samples = rng.normal(difference, 1, (4000, n))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.025)
    # among several, at the first step of Holm's correction
    samples = rng.normal(detectable(1 / np.sqrt(n), n - 1, comparisons=4), 1, (4000, n))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05 / 4).mean() == pytest.approx(0.8, abs=0.025)
    assert np.isnan(detectable(np.nan, 5))


def test_counts_have_the_exact_interval() -> None:
    for k, n in ((0, 3), (2, 5), (5, 5), (7, 20)):
        interval = count_interval(k, n)
        assert interval.value == k / n
        assert ends(interval) == pytest.approx(ends(stats.binomtest(k, n).proportion_ci(0.95, "exact")))
        for threshold in (0.1, 0.45, 0.5, 0.9):
            assert (count_p(k, n, threshold) < 0.05) == (not interval.low <= threshold <= interval.high)
    # half of the trials: twice the tail is the usual two-sided p
    assert count_p(9, 10, 0.5) == pytest.approx(stats.binomtest(9, 10, 0.5).pvalue)
    with pytest.raises(ConfigError, match="a count of 4 among 3"):
        count_interval(4, 3)


def test_what_a_number_of_runs_can_tell() -> None:
    assert np.isnan(count_detectable(5, 0.5))  # five of five leave one half open
    distance = count_detectable(10, 0.5)
    found = [k for k in range(11) if count_p(k, 10, 0.5) < 0.05]
    assert stats.binom.pmf(found, 10, 0.5 + distance).sum() == pytest.approx(0.8)
    assert count_detectable(40, 0.5) < distance
    assert count_detectable(40, 0.5, comparisons=5) > count_detectable(40, 0.5)


def test_holm_hand_worked() -> None:
    # Rising: 0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, 0.04 x 1 = 0.04 raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1, 1])
    np.testing.assert_allclose(holm([np.nan, 0.01, np.nan, 0.04]), [np.nan, 0.02, np.nan, 0.04])
    assert holm([]) == []
    with pytest.raises(DataError, match="between 0 and 1"):
        holm([0.1, 1.2])


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    # Closure: p of a hypothesis is the largest Bonferroni p of all families that contain it.
    p = np.random.default_rng(0).random(5) ** 3
    for index, adjusted in enumerate(holm(p)):
        families = [list(f) for size in range(1, 6) for f in combinations(range(5), size) if index in f]
        assert adjusted == pytest.approx(max(min(1, len(f) * p[f].min()) for f in families))
