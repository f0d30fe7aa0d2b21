"""Intervals of means, against scipy, an analysis of variance by hand, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from studies.statistics.pairedruns import DIFFERENCES, ends

from sage_kit.errors import DataError
from sage_kit.studies.statistics import Interval, around, average, t_interval, two_way


def test_student_interval_is_scipys() -> None:
    expected = stats.ttest_1samp(DIFFERENCES, 0).confidence_interval(0.95)
    interval = t_interval(DIFFERENCES)
    assert ends(interval) == pytest.approx(ends(expected))
    assert (interval.value, interval.df) == (pytest.approx(DIFFERENCES.mean()), 4)
    assert interval.se == pytest.approx(stats.sem(DIFFERENCES))


def test_two_way_is_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(4, 1)) + rng.normal(size=(1, 6)) + rng.normal(size=(4, 6))
    rows, columns = cells.mean(axis=1, keepdims=True), cells.mean(axis=0, keepdims=True)
    ms_seeds = 6 * rows.var(ddof=1)
    ms_examples = 4 * columns.var(ddof=1)
    ms_rest = ((cells - rows - columns + cells.mean()) ** 2).sum() / 15
    total = ms_seeds + ms_examples - ms_rest
    assert total > max(ms_seeds, ms_examples)
    interval = two_way(cells)
    assert interval.value == pytest.approx(cells.mean())
    assert interval.se == pytest.approx(np.sqrt(total / 24))
    assert interval.df == pytest.approx(total**2 / (ms_seeds**2 / 3 + ms_examples**2 / 5 + ms_rest**2 / 15))
    expected = stats.t.interval(0.95, interval.df, cells.mean(), np.sqrt(total / 24))
    assert ends(interval) == pytest.approx(expected)


def test_two_way_is_never_surer_than_either_way_alone() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        cells = rng.normal(size=(5, 30))
        interval = two_way(cells)
        assert interval.se >= max(stats.sem(cells.mean(axis=1)), stats.sem(cells.mean(axis=0))) - 1e-12
        assert interval.df >= 4


def test_one_seed_is_judged_by_its_examples() -> None:
    cells = np.random.default_rng(2).normal(size=(1, 40))
    assert ends(two_way(cells)) == pytest.approx(ends(stats.ttest_1samp(cells[0], 0).confidence_interval(0.95)))


def test_hits_less_hits_count_two_examples_more() -> None:
    cells = np.zeros((1, 50))
    cells[0, 0] = 1
    # squares about the mean 0.02, and 1 of the two halves of a pseudo-example
    squares = 0.98**2 + 49 * 0.02**2 + 1
    assert two_way(cells).se == pytest.approx(np.sqrt(squares * 50 / 52 / 49 / 50))
    assert two_way(cells * 0.99).se == pytest.approx(stats.sem(cells[0]) * 0.99)


@pytest.mark.parametrize("seeds", [1, 5])
def test_cells_without_spread_have_the_bound_of_clopper_and_pearson(seeds: int) -> None:
    interval = two_way(np.zeros((seeds, 100)))
    assert interval.high == pytest.approx(stats.binomtest(0, 100).proportion_ci(0.95).high)
    assert interval.low == -interval.high
    assert interval.identical
    assert two_way(np.full((seeds, 100), 0.2), largest=3.0).high == pytest.approx(0.2 + 3 * interval.high)
    assert not two_way(np.eye(3)).identical


def test_an_average_adds_variances() -> None:
    parts = [around(0.1, 0.04, 7.0), around(0.5, 0.01, 20.0), around(0.3, 0.09, 4.0)]
    mean = average(parts)
    assert mean.value == pytest.approx(0.3)
    assert mean.se == pytest.approx(np.sqrt(0.14) / 3)
    assert mean.df == pytest.approx(0.14**2 / (0.04**2 / 7 + 0.01**2 / 20 + 0.09**2 / 4))
    assert average(parts[:1]) == parts[0]
    same = average([two_way(np.zeros((5, 100))), two_way(np.zeros((5, 100)))])
    assert same.identical
    assert same.high == pytest.approx(two_way(np.zeros((5, 100))).high / np.sqrt(2))
    assert not average([*parts, two_way(np.zeros((5, 100)))]).identical
    np.testing.assert_equal(ends(average([*parts, Interval(0.1, np.nan, np.nan)])), (np.nan, np.nan))
    with pytest.raises(DataError, match="no estimate to average"):
        average([])


def test_seeds_without_spread() -> None:
    np.testing.assert_equal(ends(t_interval(np.array([0.1]))), (np.nan, np.nan))
    np.testing.assert_equal(ends(t_interval(np.array([0.1, np.nan, 0.3]))), (np.nan, np.nan))
    exact = t_interval(np.array([0.1, 0.3 - 0.2, 0.1]))
    assert ends(exact) == pytest.approx((0.1, 0.1))
    assert exact.identical
    # counted in whole rounds: values split evenly between two neighbouring numbers have a deviation of half a round
    counted = t_interval(np.full(5, 3.0), resolution=1.0)
    assert counted.high == pytest.approx(3 + stats.t.ppf(0.975, 4) * 0.5 / np.sqrt(5))


def test_what_has_no_interval() -> None:
    for cells in (np.ones((5, 1)), np.array([[0.1, np.nan], [0.2, 0.3]])):
        np.testing.assert_equal(ends(two_way(cells)), (np.nan, np.nan))
    for cells in (np.ones(3), np.ones((0, 3))):
        with pytest.raises(DataError, match="cells have shape"):
            two_way(cells)
    with pytest.raises(DataError, match=r"differences have shape \(0,\)"):
        t_interval(np.array([]))
