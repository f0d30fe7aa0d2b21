"""Tables of arms, against scipy and the functions that they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from studies.statistics.pairedruns import ends

from sage_kit.errors import ConfigError, DataError
from sage_kit.studies.statistics import (
    COLUMNS,
    average,
    compare_arms,
    compare_cells,
    count_interval,
    reached_table,
    summarize,
    t_interval,
    two_way,
)

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
    assert list(result.reset_index().columns) == list(COLUMNS)
    assert set(result.index) == {(t, a) for t in ("rte", "cola", "average") for a in ("sage", "smote")}
    for arm in ("sage", "smote"):
        parts = []
        for task in ("rte", "cola"):
            differences = np.array(VALUES[task, arm]) - VALUES[task, "plain"]
            row, scipys = result.loc[task, arm], stats.ttest_1samp(differences, 0)
            assert (row["n_seeds"], row["n_examples"], row["df"]) == (4, 0, 3)
            assert row["difference"] == pytest.approx(differences.mean())
            assert row["mean"] - row["baseline_mean"] == pytest.approx(differences.mean())
            assert (row["low"], row["high"]) == pytest.approx(ends(scipys.confidence_interval()))
            assert row["p"] == pytest.approx(scipys.pvalue)
            parts.append(t_interval(differences))
        row, mean = result.loc["average", arm], average(parts)
        assert (row["difference"], row["low"], row["high"]) == pytest.approx((mean.value, mean.low, mean.high))
        assert row["mean"] - row["baseline_mean"] == pytest.approx(mean.value)
    assert result.loc[("rte", "sage"), "mean"] == pytest.approx(0.64)


def test_one_task_has_no_average() -> None:
    one = {key: seeds for key, seeds in VALUES.items() if key[0] == "rte"}
    assert compare_arms(table_of(one), "plain")["task"].tolist() == ["rte", "rte"]
    assert "average" not in set(compare_arms(table_of(VALUES), "plain", average=False)["task"])


def test_numbers_that_are_counted_have_an_interval_where_they_are_alike() -> None:
    table = table_of({("rte", "plain"): [3.0] * 5, ("rte", "sage"): [4.0] * 5})
    (exact,) = compare_arms(table, "plain", resolution=0.0).to_dict("records")
    assert (exact["low"], exact["high"], exact["p"], exact["identical"]) == (1, 1, 0, True)
    # the step is that of the task's own numbers: one round, or half a one where another arm needs 3.5
    (counted,) = compare_arms(table, "plain").to_dict("records")
    assert (counted["low"], counted["high"]) == pytest.approx(ends(t_interval(np.ones(5), resolution=1.0)))
    assert 0 < counted["low"] < 1
    more = table_of(
        {("rte", "plain"): [3.0] * 5, ("rte", "sage"): [4.0] * 5, ("rte", "smote"): [3.5] * 4 + [3 + 1e-14]}
    )
    finer = compare_arms(more, "plain").iloc[0]
    assert (finer["low"], finer["high"]) == pytest.approx(ends(t_interval(np.ones(5), resolution=0.5)))
    # two arms that need as many are not known to be alike to the last digit
    same = compare_arms(pd.concat([more, more[more["arm"] == "plain"].assign(arm="twin")]), "plain").iloc[-1]
    assert (same["difference"], same["p"]) == (0, 1)
    assert same["high"] == -same["low"] > 0


def test_runs_that_get_there_are_counted() -> None:
    table = table_of({("rte", "sage"): [3.0, np.nan, 5.0, np.inf, 8.0], ("cola", "sage"): [np.nan] * 5})
    rte, cola = reached_table(table, "value").to_dict("records")
    share = count_interval(3, 5)
    assert rte == {
        "task": "rte", "arm": "sage", "n_seeds": 5, "k": 3, "n": 5, "share": 0.6, "low": share.low, "high": share.high,
        "median": 5.0,
    }  # fmt: skip
    assert (cola["k"], cola["n"], cola["share"]) == (0, 5, 0.0)
    assert np.isnan(cola["median"])
    with pytest.raises(ConfigError, match="no column 'needed'"):
        reached_table(table, "needed")


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
    with pytest.raises(DataError, match="two runs of task 'rte', arm 'plain', seed 0"):
        compare_arms(pd.concat([table, table.head(1)]), "plain")
    with pytest.raises(DataError, match="rename the task"):
        compare_arms(table.assign(task="average"), "plain")


def test_one_seed_is_compared_without_intervals() -> None:
    result = compare_arms(table_of({key: seeds[:1] for key, seeds in VALUES.items()}), "plain")
    assert result[["low", "high", "p"]].isna().all(axis=None)
    assert result["difference"].tolist() == pytest.approx([0.03, 0.01, 0.04, -0.02, 0.035, -0.005])


def test_a_run_without_a_number_leaves_no_verdict() -> None:
    values = {**VALUES, ("rte", "sage"): [0.6, np.nan, 0.7, 0.7]}
    result = compare_arms(table_of(values), "plain").set_index(["task", "arm"])
    assert result.loc[("rte", "sage"), ["difference", "low", "high", "p"]].isna().all()
    assert result.loc[("average", "sage"), ["difference", "low", "high", "p"]].isna().all()
    assert np.isfinite(result.loc[("rte", "smote"), "p"])


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


def test_contributions_are_compared() -> None:
    rng = np.random.default_rng(0)
    cells: dict[tuple[str, str], Array] = {}
    for arm, right, noise in (("plain", 0.6, 2.0), ("sage", 0.8, 1.0), ("smote", 0.7, 1.5)):
        cells["rte", arm] = (rng.random((5, 60)) < right).astype(float)
        cells["stsb", arm] = rng.normal(0, noise, (5, 50))
    result = compare_cells(cells, "plain").set_index(["task", "arm"])
    assert list(result.reset_index().columns) == list(COLUMNS)
    assert len(result) == 6
    for arm in ("sage", "smote"):
        parts = {task: two_way(cells[task, arm] - cells[task, "plain"]) for task in ("rte", "stsb")}
        for task, part in [*parts.items(), ("average", average(list(parts.values())))]:
            row = result.loc[task, arm]
            assert (row["difference"], row["low"], row["high"]) == pytest.approx((part.value, part.low, part.high))
            assert (row["se"], row["df"]) == pytest.approx((part.se, part.df))
            assert row["n_seeds"] == 5
            assert row["n_examples"] == {"rte": 60, "stsb": 50, "average": 110}[task]
    assert result.loc[("rte", "sage"), "mean"] == pytest.approx(cells["rte", "sage"].mean())
    # one task alone has the interval that it has beside another
    alone = compare_cells({key: array for key, array in cells.items() if key[0] == "stsb"}, "plain")
    assert alone["task"].tolist() == ["stsb", "stsb"]
    assert alone["low"].tolist() == result.loc["stsb", "low"].tolist()


def test_arms_that_say_the_same_are_bounded() -> None:
    cells = {("rte", "plain"): np.ones((5, 100)), ("rte", "sage"): np.ones((5, 100))}
    (row,) = compare_cells(cells, "plain").to_dict("records")
    assert row["identical"]
    assert (row["low"], row["high"], row["p"]) == pytest.approx((-0.0362, 0.0362, 1), abs=1e-4)
    # on the scale of the contributions
    cells = {key: np.linspace(0, 10, 100) * np.ones((5, 1)) for key in cells}
    (row,) = compare_cells(cells, "plain").to_dict("records")
    assert row["high"] == pytest.approx(0.362, abs=1e-3)


def test_unusable_contributions_are_named() -> None:
    cells = {("rte", "plain"): np.ones((3, 20)), ("rte", "sage"): np.ones((2, 20))}
    with pytest.raises(DataError, match="task 'rte' has 2 seeds of arm 'sage' and 3 of 'plain'"):
        compare_cells(cells, "plain")
    with pytest.raises(DataError, match="arm 'sage', have shape"):
        compare_cells({**cells, ("rte", "sage"): np.ones((3, 9))}, "plain")
    with pytest.raises(DataError, match="'cola' has no runs of the baseline 'plain'"):
        compare_cells({("rte", "plain"): np.ones((3, 20)), ("cola", "sage"): np.ones((3, 20))}, "plain")
    with pytest.raises(ConfigError, match="Unknown baseline arm 'none'"):
        compare_cells(cells, "none")
