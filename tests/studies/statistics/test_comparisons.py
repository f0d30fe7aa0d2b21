"""Tables of arms, against scipy and the functions that they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from studies.statistics.pairedruns import ends, runs

from sage_kit.errors import ConfigError, DataError
from sage_kit.evaluate import METRICS
from sage_kit.studies.statistics import compare_arms, compare_predictions, effect_size, holm, summarize, t_interval

Array = NDArray[Any]


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
