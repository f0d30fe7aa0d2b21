"""The bootstrap over seeds and examples, against one that resamples the rows themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from studies.statistics.pairedruns import ends, runs

from sage_kit.errors import ConfigError, DataError
from sage_kit.studies.statistics import (
    average_over_tasks,
    interval_of,
    paired_bootstrap,
    paired_replicates,
    resampling,
)

Array = NDArray[Any]


def phi(labels: Array, predictions: Array) -> float:
    """Matthews' coefficient of two classes, as the correlation that it is."""
    return float(np.corrcoef(labels, predictions)[0, 1])


def test_crossed_bootstrap_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    a, b = (np.where(runs(4, 40, right, seed, 0.05), labels, 1 - labels) for seed, right in ((1, 0.8), (2, 0.6)))
    value, replicates = paired_replicates(labels, a, b, "matthews", resamples=4000)
    assert value == pytest.approx(np.mean([phi(labels, p) - phi(labels, q) for p, q in zip(a, b, strict=True)]))
    expected = []
    for _ in range(1500):
        rows, seeds = rng.integers(0, 40, 40), rng.integers(0, 4, 4)
        gold = labels[rows]
        expected.append(np.mean([phi(gold, a[s, rows]) - phi(gold, b[s, rows]) for s in seeds]))
    assert replicates.mean() == pytest.approx(np.mean(expected), abs=4 * np.std(expected) / np.sqrt(1500))
    assert replicates.std() == pytest.approx(np.std(expected), rel=0.08)
    assert np.quantile(replicates, [0.1, 0.9]) == pytest.approx(np.quantile(expected, [0.1, 0.9]), abs=0.03)


def test_only_what_is_asked_for_is_resampled() -> None:
    labels = np.ones(50, int)
    a, b = runs(5, 50, 0.8, 1, 0.1), runs(5, 50, 0.7, 2, 0.1)
    per_seed = a.mean(1) - b.mean(1)
    value, seeds = paired_replicates(labels, a, b, "accuracy", over="seeds", resamples=20_000)
    assert seeds.std() == pytest.approx(per_seed.std() / np.sqrt(5), rel=0.03)
    per_example = a.mean(0) - b.mean(0)
    _, examples = paired_replicates(labels, a, b, "accuracy", over="examples", resamples=20_000)
    assert examples.std() == pytest.approx(per_example.std() / np.sqrt(50), rel=0.03)
    assert seeds.mean() == pytest.approx(value, abs=0.001)
    assert examples.mean() == pytest.approx(value, abs=0.003)


def test_resamples_pair_seeds_and_examples() -> None:
    # Arms that differ by the same example everywhere have a difference that only that example's count moves.
    labels = np.ones(30, int)
    a = runs(3, 30, 0.5, 1, 0.2)
    a[:, 0] = 1
    b = a.copy()
    b[:, 0] = 0
    value, replicates = paired_replicates(labels, a, b, "accuracy", resamples=500)
    assert value == pytest.approx(1 / 30)
    assert set(np.round(replicates * 30, 9)) <= set(range(10))


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, a, b = np.ones(30, int), runs(3, 30, 0.8, 1), runs(3, 30, 0.6, 2)
    whole = paired_replicates(labels, a, b, "accuracy", resamples=50)[1]
    monkeypatch.setattr(resampling, "CHUNK", 100)
    assert np.array_equal(paired_replicates(labels, a, b, "accuracy", resamples=50)[1], whole)
    assert not np.array_equal(paired_replicates(labels, a, b, "accuracy", resamples=50, seed=1)[1], whole)


def test_paired_bootstrap_takes_percentiles() -> None:
    labels, a, b = np.ones(30, int), runs(3, 30, 0.8, 1), runs(3, 30, 0.6, 2)
    value, replicates = paired_replicates(labels, a, b, "accuracy")
    interval = paired_bootstrap(labels, a, b, "accuracy", level=0.9)
    assert interval == interval_of(value, replicates, 0.9)
    assert ends(interval) == pytest.approx(np.percentile(replicates, [5, 95]))


def test_crossed_coverage_errs_on_the_safe_side() -> None:
    labels = np.ones(100, int)
    rng = np.random.default_rng(0)
    covered = narrow = 0
    for _ in range(200):
        chances = rng.uniform(0.4, 1, (1, 100)) + rng.normal(0, 0.03, (2, 5, 1)) + rng.normal(0, 0.1, (2, 1, 100))
        a, b = (rng.random((2, 5, 100)) < chances).astype(int)
        both = paired_bootstrap(labels, a, b, "accuracy", resamples=300)
        seeds = paired_bootstrap(labels, a, b, "accuracy", resamples=300, over="seeds")
        covered += both.low <= 0 <= both.high
        narrow += seeds.low <= 0 <= seeds.high
    assert covered >= 185
    assert narrow <= 178  # seeds alone fall short of 95 %


def test_one_seed_says_nothing_of_seeds() -> None:
    labels, a, b = np.ones(30, int), runs(1, 30, 0.8, 1), runs(1, 30, 0.6, 2)
    both = paired_bootstrap(labels, a, b, "accuracy")
    np.testing.assert_equal(ends(both), (np.nan, np.nan))
    assert both.value == pytest.approx(a.mean() - b.mean())
    assert np.isfinite(ends(paired_bootstrap(labels, a, b, "accuracy", over="examples"))).all()


def test_unpaired_predictions_are_refused() -> None:
    labels = np.ones(30, int)
    with pytest.raises(DataError, match="predictions_a have 3 seeds and predictions_b 2"):
        paired_bootstrap(labels, runs(3, 30, 0.5), runs(2, 30, 0.5), "accuracy")
    with pytest.raises(DataError, match="one column for each of the 30 labels"):
        paired_bootstrap(labels, runs(3, 30, 0.5), runs(3, 29, 0.5), "accuracy")
    with pytest.raises(ConfigError, match="Unknown over 'rows'"):
        paired_bootstrap(labels, labels[None], labels[None], "accuracy", over="rows")  # type: ignore[arg-type]


def test_average_over_tasks() -> None:
    assert average_over_tasks([np.array([1.0, 2]), np.array([3.0, 6])]).tolist() == [2, 4]
    with pytest.raises(DataError, match="one and the same"):
        average_over_tasks([np.ones(2), np.ones(3)])
