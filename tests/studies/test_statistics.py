"""The paired statistics, against scipy, scikit-learn, the resampled rows themselves and worked examples."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from sage_kit.errors import ConfigError, DataError
from sage_kit.evaluate import METRICS, agreement
from sage_kit.studies import statistics
from sage_kit.studies.statistics import (
    Interval,
    average_over_tasks,
    bootstrap_seeds,
    compare_arms,
    compare_predictions,
    correlation,
    effect_size,
    expected_jaccard,
    holm,
    interval_of,
    jaccard,
    morans_i,
    paired_bootstrap,
    paired_p,
    paired_replicates,
    sign_flip_p,
    summarize,
    t_interval,
    weighted_metric,
)

Array = NDArray[Any]
DIFFERENCES = np.array([0.012, -0.003, 0.02, 0.008, 0.011])


def resamples(n: int, size: int, seed: int = 0) -> tuple[Array, Array]:
    """Indices of resampled rows (size, n), and how often each holds each row."""
    rows = np.random.default_rng(seed).integers(0, n, (size, n))
    return rows, np.array([np.bincount(row, minlength=n) for row in rows])


def outputs(kind: str, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Labels and predictions of a kind."""
    if kind == "values":
        labels = rng.normal(size=n)
        return labels, (labels + rng.normal(size=n)).astype(np.float32)
    if kind == "ties":
        return rng.integers(0, 5, n) / 2, (rng.integers(0, 4, n) / 4).astype(np.float32)
    if kind == "far":  # a small spread far from zero
        labels = 1e6 + rng.normal(size=n)
        return labels, labels + rng.normal(size=n)
    classes = {"two": 2, "three": 3, "gaps": 4}[kind]
    labels = rng.integers(0, classes, n)
    predictions = np.where(rng.random(n) < 0.6, labels, rng.integers(0, classes, n))
    return (labels * 3, predictions * 3) if kind == "gaps" else (labels, predictions)


CASES = [
    *[(name, "two") for name in ("accuracy", "f1", "macro_f1", "matthews")],
    *[(name, kind) for name in ("accuracy", "macro_f1", "matthews") for kind in ("three", "gaps")],
    *[(name, kind) for name in ("pearson", "spearman") for kind in ("values", "ties", "far")],
]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 60])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_metrics_equal_those_of_the_resampled_rows(name: str, kind: str, n: int) -> None:
    # Three rows and fewer make plenty of constant resamples, for which the metrics have their own rules.
    rng = np.random.default_rng(n)
    for _ in range(3):
        labels, predictions = outputs(kind, n, rng)
        rows, weights = resamples(n, 40, seed=n)
        expected = [METRICS[name](labels[row], predictions[row]) for row in rows]
        np.testing.assert_allclose(weighted_metric(name, labels, predictions, weights), expected, rtol=0, atol=1e-8)


def test_every_metric_is_there() -> None:
    assert {name for name, _ in CASES} == set(METRICS)
    assert set(statistics._METRICS) == {*METRICS, "agreement"}


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_a_prediction_that_is_not_finite_spoils_the_resamples_that_hold_it(name: str) -> None:
    labels, predictions = np.arange(6.0), np.array([0.0, 2, 1, np.nan, np.inf, 5])
    rows, weights = resamples(6, 60)
    values = weighted_metric(name, labels, predictions, weights)
    expected = [METRICS[name](labels[row], predictions[row]) for row in rows]
    assert 0 < np.isnan(expected).sum() < 60
    np.testing.assert_allclose(values, expected, atol=1e-12)


@pytest.mark.parametrize("constant", [0.1, -7.3, 1e9])
def test_constants_are_seen_despite_rounding(constant: float) -> None:
    labels, predictions = np.arange(7.0), np.full(7, constant)
    assert weighted_metric("pearson", labels, predictions, np.ones((1, 7)))[0] == 0
    assert weighted_metric("pearson", predictions, labels, np.ones((1, 7)))[0] == 0


def test_agreement_equals_that_of_the_resampled_rows() -> None:
    rng = np.random.default_rng(0)
    rows, weights = resamples(30, 20)
    student, teacher = rng.normal(size=(2, 30, 3))
    mine = weighted_metric("agreement", teacher.argmax(1), student.argmax(1), weights)
    assert mine == pytest.approx([(student.argmax(1) == teacher.argmax(1))[row].mean() for row in rows])

    class Regression:
        is_regression, label_range = True, (0.0, 5.0)

    student, teacher = rng.uniform(0, 1, (2, 30, 1)).astype(np.float32)
    expected = [agreement(student[row], teacher[row], Regression()) for row in rows]  # type: ignore[arg-type]
    mine = weighted_metric("agreement", teacher[:, 0], student[:, 0], weights, tolerance=0.05 * 5)
    assert 0 < min(expected) < max(expected) < 1
    assert mine == pytest.approx(expected)


def test_unusable_rows_are_named() -> None:
    ones = np.ones((1, 3))
    with pytest.raises(ConfigError, match=r"Unknown metric 'acuracy'. Did you mean 'accuracy'\?"):
        weighted_metric("acuracy", np.zeros(3), np.zeros(3), ones)
    with pytest.raises(DataError, match="there is a 2: take 'macro_f1'"):
        weighted_metric("f1", np.array([0, 1, 2]), np.zeros(3, int), ones)
    with pytest.raises(DataError, match="resample is empty"):
        weighted_metric("accuracy", np.zeros(3), np.zeros(3), np.zeros((1, 3)))
    with pytest.raises(DataError, match=r"weights have shape \(1, 3\): it must be \(resamples, 4\)"):
        weighted_metric("accuracy", np.zeros(4), np.zeros(4), ones)
    with pytest.raises(DataError, match="each of the 3 labels"):
        weighted_metric("accuracy", np.zeros(3), np.zeros(4), ones)


# ---- intervals over seeds --------------------------------------------------------------------------------------------


def ends(interval: Any) -> tuple[float, float]:
    return interval.low, interval.high


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


# ---- intervals over seeds and examples -------------------------------------------------------------------------------


def runs(seeds: int, n: int, right: float, seed: int = 0, spread: float = 0.0) -> Array:
    """Predictions (seeds, n) that hit labels of one with the given chance, which varies between seeds."""
    rng = np.random.default_rng(seed)
    return (rng.random((seeds, n)) < right + rng.normal(0, spread, (seeds, 1))).astype(int)


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
    monkeypatch.setattr(statistics, "CHUNK", 100)
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


# ---- tests -----------------------------------------------------------------------------------------------------------


def test_paired_p_is_scipys() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    assert paired_p(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_sign_flips_are_scipys(n: int) -> None:
    a, b = np.random.default_rng(n).normal(0.3, 1, size=(2, n)).round(1)
    expected = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    assert sign_flip_p(a - b) == pytest.approx(expected.pvalue)


def test_sign_flips_are_drawn_beyond_a_dozen_seeds() -> None:
    differences = np.random.default_rng(0).normal(0.5, 1, 13)
    patterns = 1 - 2 * ((np.arange(2**13)[:, None] >> np.arange(13)) & 1)
    exact = np.mean(np.abs(patterns @ differences) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.004)
    assert sign_flip_p(np.ones(40)) == pytest.approx(1 / 100_001)  # never zero


def test_sign_flips_hand_worked() -> None:
    # Of the eight patterns of 1, 2, 3 only +++ and --- reach 6; of 1, 1, 2 the sum 4 the same; of 1, 1, -2 all reach 0.
    assert sign_flip_p(np.array([1.0, 2, 3])) == 2 / 8
    assert sign_flip_p(np.array([0.1, 0.1, 0.2])) == 2 / 8
    assert sign_flip_p(np.array([1.0, 1, -2])) == 1


@pytest.mark.parametrize("p_of", [paired_p, sign_flip_p])
def test_tests_without_spread(p_of: Any) -> None:
    assert np.isnan(p_of(np.array([0.1])))
    assert np.isnan(p_of(np.array([0.1, np.nan])))
    assert p_of(np.zeros(5)) == 1
    assert p_of(np.full(5, 0.1)) == 2 / 32
    assert p_of(np.array([0.1, 0.1, 0.3 - 0.2])) == 2 / 8


def test_holm_hand_worked() -> None:
    # Rising: 0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, 0.04 x 1 = 0.04 raised to 0.06.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1, 1])
    np.testing.assert_allclose(holm(np.array([np.nan, 0.01, np.nan, 0.04])), [np.nan, 0.02, np.nan, 0.04])
    assert holm(np.array([])).shape == (0,)
    with pytest.raises(DataError, match="between 0 and 1"):
        holm(np.array([0.1, 1.2]))


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    # Closure: p of a hypothesis is the largest Bonferroni p of all families that contain it.
    p = np.random.default_rng(0).random(5) ** 3
    for index, adjusted in enumerate(holm(p)):
        families = [list(f) for size in range(1, 6) for f in combinations(range(5), size) if index in f]
        assert adjusted == pytest.approx(max(min(1, len(f) * p[f].min()) for f in families))


def test_effect_size() -> None:
    # J(4) = Gamma(2) / (sqrt(2) Gamma(1.5)) = 1 / (1.41421 x 0.886227) = 0.797885.
    assert effect_size(DIFFERENCES) == pytest.approx(0.797885 * DIFFERENCES.mean() / DIFFERENCES.std(ddof=1), rel=1e-5)
    for values in ([0.1], [0.1, 0.2], [0.1, 0.1, 0.3 - 0.2], [0.0, 0.0, 0.0]):
        assert np.isnan(effect_size(np.array(values)))


def test_effect_size_is_unbiased() -> None:
    draws = np.random.default_rng(0).normal(0.7, 1, (4000, 5))
    assert np.mean([effect_size(d) for d in draws]) == pytest.approx(0.7, abs=0.03)


# ---- tables ----------------------------------------------------------------------------------------------------------


def table_of(values: dict[tuple[str, str], list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"task": task, "arm": arm, "seed": seed, "value": value}
            for (task, arm), seeds in values.items()
            for seed, value in enumerate(seeds)
        ]
    )


VALUES = {
    ("rte", "plain"): [0.60, 0.62, 0.61, 0.63], ("rte", "sage"): [0.63, 0.64, 0.65, 0.64],
    ("rte", "smote"): [0.61, 0.61, 0.61, 0.64], ("cola", "plain"): [0.40, 0.45, 0.41, 0.39],
    ("cola", "sage"): [0.44, 0.46, 0.40, 0.45], ("cola", "smote"): [0.38, 0.44, 0.43, 0.40],
}  # fmt: skip


def test_arms_are_compared_in_pairs() -> None:
    table = table_of(VALUES).sample(frac=1, random_state=0)  # the order of the rows must not matter
    result = compare_arms(table, "plain").set_index(["task", "arm"])
    assert list(result.columns) == [
        "n_seeds", "mean", "baseline_mean", "difference", "low", "high", "p", "p_holm", "effect",
    ]  # fmt: skip
    assert set(result.index) == {(t, a) for t in ("rte", "cola", "average") for a in ("sage", "smote")}
    per_seed: dict[tuple[str, str], Array] = {
        (task, arm): np.array(VALUES[task, arm]) - VALUES[task, "plain"]
        for task in ("rte", "cola")
        for arm in ("sage", "smote")
    }
    for arm in ("sage", "smote"):
        per_seed["average", arm] = (per_seed["rte", arm] + per_seed["cola", arm]) / 2
    for key, differences in per_seed.items():
        row = result.loc[key]
        scipys = stats.ttest_1samp(differences, 0)
        assert row["n_seeds"] == 4
        assert row["difference"] == pytest.approx(differences.mean())
        assert row["mean"] - row["baseline_mean"] == pytest.approx(differences.mean())
        assert (row["low"], row["high"]) == pytest.approx(ends(scipys.confidence_interval()))
        assert row["p"] == pytest.approx(scipys.pvalue)
        assert row["effect"] == pytest.approx(effect_size(differences))
    for task in ("rte", "cola", "average"):
        assert result.loc[task, "p_holm"].tolist() == pytest.approx(holm(result.loc[task, "p"].to_numpy()))
    assert result.loc[("rte", "sage"), "mean"] == pytest.approx(0.64)


def test_one_task_has_no_average() -> None:
    one = {key: seeds for key, seeds in VALUES.items() if key[0] == "rte"}
    assert compare_arms(table_of(one), "plain")["task"].tolist() == ["rte", "rte"]
    assert "average" not in set(compare_arms(table_of(VALUES), "plain", average=False)["task"])


def test_the_sign_flip_test_can_be_asked_for() -> None:
    result = compare_arms(table_of(VALUES), "plain", test="sign_flip").set_index(["task", "arm"])
    assert result.loc[("rte", "sage"), "p"] == 2 / 16


def test_replicates_give_the_interval() -> None:
    rng = np.random.default_rng(0)
    replicates = {(task, arm): rng.normal(size=100) for task in ("rte", "cola") for arm in ("sage", "smote")}
    result = compare_arms(table_of(VALUES), "plain", replicates=replicates).set_index(["task", "arm"])
    student = compare_arms(table_of(VALUES), "plain").set_index(["task", "arm"])
    mean = (replicates["rte", "sage"] + replicates["cola", "sage"]) / 2
    for key, expected in ((("cola", "smote"), replicates["cola", "smote"]), (("average", "sage"), mean)):
        row = result.loc[key]
        assert (row["low"], row["high"]) == pytest.approx(np.quantile(expected, [0.025, 0.975]))
        assert (row["seeds_low"], row["seeds_high"]) == pytest.approx(tuple(student.loc[key, ["low", "high"]]))
    del replicates["cola", "sage"]
    with pytest.raises(DataError, match="no replicates of task 'cola', arm 'sage'"):
        compare_arms(table_of(VALUES), "plain", replicates=replicates)


@pytest.mark.parametrize(("arm", "other"), [("sage", "plain"), ("plain", "sage")])
def test_a_missing_pair_is_named(arm: str, other: str) -> None:
    table = table_of(VALUES)
    table = table[~((table["task"] == "cola") & (table["arm"] == arm) & (table["seed"] == 2))]
    with pytest.raises(DataError, match=f"Task 'cola', seed 2: there is a run of arm .* and none of arm '{arm}'"):
        compare_arms(table, "plain")


def test_an_average_needs_the_same_runs_everywhere() -> None:
    table = table_of(VALUES)
    fewer = table[~((table["task"] == "cola") & (table["seed"] == 3))]
    with pytest.raises(DataError, match="Task 'cola', seed 3: there is no run of arm 'sage'"):
        compare_arms(fewer, "plain")
    assert set(compare_arms(fewer, "plain", average=False)["n_seeds"]) == {3, 4}
    without = table[~((table["task"] == "rte") & (table["arm"] == "smote"))]
    with pytest.raises(DataError, match="Task 'rte', seed 0: there is no run of arm 'smote'"):
        compare_arms(without, "plain")


def test_unusable_tables_are_named() -> None:
    table = table_of(VALUES)
    with pytest.raises(ConfigError, match=r"Unknown baseline arm 'plian'. Did you mean 'plain'\?"):
        compare_arms(table, "plian")
    with pytest.raises(ConfigError, match="no column 'accuracy'"):
        compare_arms(table, "plain", value="accuracy")
    with pytest.raises(ConfigError, match="Unknown test 'wilcoxon'"):
        compare_arms(table, "plain", test="wilcoxon")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="two runs of task 'rte', arm 'plain', seed 0"):
        compare_arms(pd.concat([table, table.head(1)]), "plain")
    with pytest.raises(DataError, match="rename the task"):
        compare_arms(table.assign(task="average"), "plain")


def test_one_seed_is_compared_without_intervals() -> None:
    result = compare_arms(table_of({key: seeds[:1] for key, seeds in VALUES.items()}), "plain")
    assert result[["low", "high", "p", "p_holm", "effect"]].isna().all(axis=None)
    assert result["difference"].tolist() == pytest.approx([0.03, 0.01, 0.04, -0.02, 0.035, -0.005])


def test_a_run_without_a_number_leaves_no_verdict() -> None:
    values = {**VALUES, ("rte", "sage"): [0.6, np.nan, 0.7, 0.7]}
    result = compare_arms(table_of(values), "plain").set_index(["task", "arm"])
    assert result.loc[("rte", "sage"), ["difference", "low", "high", "p", "p_holm", "effect"]].isna().all()
    assert result.loc[("rte", "smote"), "p_holm"] == result.loc[("rte", "smote"), "p"]


def test_arms_are_summarised() -> None:
    result = summarize(table_of(VALUES), by=["arm", "task"])
    assert result.columns.tolist() == ["arm", "task", "n_seeds", "mean", "low", "high"]
    row = result.set_index(["arm", "task"]).loc[("sage", "cola")]
    expected = t_interval(np.array(VALUES["cola", "sage"]))
    assert row.tolist() == pytest.approx([4, expected.value, expected.low, expected.high])
    by_arm = summarize(table_of(VALUES), by=["arm"])
    assert by_arm["arm"].tolist() == ["plain", "sage", "smote"]
    assert by_arm["n_seeds"].tolist() == [8, 8, 8]
    with pytest.raises(ConfigError, match="no column 'rounds'"):
        summarize(table_of(VALUES), "rounds")


def test_predictions_are_compared() -> None:
    rng = np.random.default_rng(0)
    labels = {"rte": rng.integers(0, 2, 60), "stsb": rng.uniform(0, 5, 50)}
    predictions: dict[tuple[str, str], Array] = {}
    for arm, right, noise in (("plain", 0.6, 2.0), ("sage", 0.8, 1.0), ("smote", 0.7, 1.5)):
        hit = rng.random((5, 60)) < right
        predictions["rte", arm] = np.where(hit, labels["rte"], 1 - labels["rte"])
        predictions["stsb", arm] = labels["stsb"] + rng.normal(0, noise, (5, 50))
    metrics = {"rte": "accuracy", "stsb": "spearman"}
    result = compare_predictions(predictions, labels, metrics, "plain", resamples=300).set_index(["task", "arm"])
    assert len(result) == 6
    table = table_of(
        {
            (task, arm): [METRICS[metrics[task]](labels[task], row) for row in array]
            for (task, arm), array in predictions.items()
        }
    )
    scored = compare_arms(table, "plain").set_index(["task", "arm"])
    for column in ("n_seeds", "mean", "baseline_mean", "difference", "p", "p_holm", "effect"):
        assert result[column].tolist() == pytest.approx(scored[column].tolist())
    assert result["seeds_low"].tolist() == pytest.approx(scored["low"].tolist())
    # Examples add their chance to that of seeds, and the average over tasks has less of it.
    assert (result["high"] - result["low"] > 0.05).all()
    widths = (result["high"] - result["low"])[:, "sage"]
    assert widths["average"] < np.sqrt(widths["rte"] ** 2 + widths["stsb"] ** 2) / 2 * 1.1
    # One task alone has the interval it has beside another.
    alone = compare_predictions(
        {key: array for key, array in predictions.items() if key[0] == "stsb"}, labels, metrics, "plain", resamples=300
    ).set_index(["task", "arm"])  # fmt: skip
    assert alone.loc[("stsb", "sage"), "low"] == result.loc[("stsb", "sage"), "low"]


def test_unusable_predictions_are_named() -> None:
    labels, metrics = {"rte": np.ones(20, int)}, {"rte": "accuracy"}
    predictions = {("rte", "plain"): runs(3, 20, 0.5), ("rte", "sage"): runs(2, 20, 0.5)}
    with pytest.raises(DataError, match="task 'rte' has 2 seeds of arm 'sage' and 3 of 'plain'"):
        compare_predictions(predictions, labels, metrics, "plain")
    with pytest.raises(DataError, match="arm 'sage', have shape"):
        compare_predictions({**predictions, ("rte", "sage"): runs(3, 9, 0.5)}, labels, metrics, "plain")
    with pytest.raises(DataError, match="'rte' has predictions but no metric"):
        compare_predictions(predictions, labels, {}, "plain")
    alone = {**predictions, ("rte", "sage"): runs(3, 20, 0.5), ("cola", "sage"): runs(3, 20, 0.5)}
    with pytest.raises(DataError, match="'cola' has no predictions of the baseline 'plain'"):
        compare_predictions(alone, dict.fromkeys(("rte", "cola"), labels["rte"]),
                            dict.fromkeys(("rte", "cola"), "f1"), "plain")  # fmt: skip
    with pytest.raises(ConfigError, match="Unknown baseline arm 'none'"):
        compare_predictions(predictions, labels, metrics, "none")


# ---- sets, neighbours and ranks --------------------------------------------------------------------------------------


def test_jaccard() -> None:
    assert jaccard(np.array([1, 2, 3, 3]), np.array([2, 3, 4])) == 0.5
    assert jaccard(np.array([], int), np.array([1])) == 0
    assert jaccard(np.array([], int), np.array([], int)) == 1


def test_expected_jaccard_counts_all_subsets() -> None:
    for n, k, other in ((6, 2, 2), (5, 3, 2), (4, 3, 3), (5, 5, 1), (5, 0, 2)):
        pairs = [
            jaccard(np.array(a, int), np.array(b, int))
            for a in combinations(range(n), k)
            for b in combinations(range(n), other)
        ]
        assert expected_jaccard(n, k, other) == pytest.approx(np.mean(pairs))
    assert expected_jaccard(6, 2) == expected_jaccard(6, 2, 2)
    assert expected_jaccard(3, 0) == 1
    assert expected_jaccard(60_000, 6_000) == pytest.approx(1 / 19, rel=1e-3)
    with pytest.raises(DataError, match="must be between 0 and 5"):
        expected_jaccard(5, 6)


def places(n: int, k: int, seed: int = 0) -> tuple[Array, Array]:
    points = np.random.default_rng(seed).normal(size=(n, 2))
    distances = ((points[:, None] - points) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return points, np.argsort(distances, axis=1)[:, :k]


def naive_morans_i(values: Array, neighbors: Array) -> float:
    n, k = neighbors.shape
    weights = np.zeros((n, n))
    for i in range(n):
        weights[i, neighbors[i]] = 1 / k
    z = values.astype(np.float64) - values.astype(np.float64).mean()
    total = sum(weights[i, j] * z[i] * z[j] for i in range(n) for j in range(n))
    return n / weights.sum() * total / (z**2).sum()


def test_morans_i_is_its_definition() -> None:
    points, neighbors = places(40, 5)
    for values in (points[:, 0], np.random.default_rng(1).exponential(size=40).astype(np.float32)):
        assert morans_i(values, neighbors, permutations=9).value == pytest.approx(naive_morans_i(values, neighbors))


def test_morans_i_under_chance() -> None:
    points, neighbors = places(40, 5)
    smooth = morans_i(points[:, 0], neighbors)
    assert smooth.value > 0.6
    assert smooth.p == pytest.approx(1 / 1000)
    rng = np.random.default_rng(0)
    shuffled = [morans_i(rng.permutation(points[:, 0]), neighbors, permutations=99) for _ in range(300)]
    assert smooth.expected == pytest.approx(-1 / 39)
    assert np.mean([result.value for result in shuffled]) == pytest.approx(-1 / 39, abs=0.015)
    assert stats.kstest([result.p for result in shuffled], "uniform").pvalue > 0.01


def test_morans_i_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values, neighbors = np.random.default_rng(1).normal(size=40), places(40, 5)[1]
    whole = morans_i(values, neighbors)
    monkeypatch.setattr(statistics, "CHUNK", 1000)
    assert morans_i(values, neighbors) == whole


def test_morans_i_of_constants_and_bad_neighbors() -> None:
    neighbors = places(10, 3)[1]
    assert np.isnan(morans_i(np.full(10, 0.1), neighbors).value)
    with pytest.raises(DataError, match="no row its own neighbour"):
        morans_i(np.arange(10.0), np.zeros((10, 3), int))
    with pytest.raises(DataError, match="indices from 0 to 9"):
        morans_i(np.arange(10.0), neighbors + 5)
    with pytest.raises(DataError, match="do not fit"):
        morans_i(np.arange(9.0), neighbors)


def test_correlation_is_scipys() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=25)
    y = (x + rng.normal(size=25)).round(1)
    interval = correlation(x, y)
    assert interval.value == pytest.approx(stats.spearmanr(x, y).statistic)
    expected = stats.bootstrap(
        (x, y), lambda a, b: stats.spearmanr(a, b).statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=1500, rng=rng,
    ).confidence_interval  # fmt: skip
    assert ends(interval) == pytest.approx(ends(expected), abs=0.05)
    np.testing.assert_equal(ends(correlation(x[:3], y[:3])), (np.nan, np.nan))
    with pytest.raises(DataError, match="y values have shape"):
        correlation(x, y[:4])
