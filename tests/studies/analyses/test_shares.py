"""Shares of a round, and where a stop rule would have ended a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toyrun import toy_config

from sage_kit.errors import StudyError
from sage_kit.plugins import Plugins
from sage_kit.studies.analyses.shares import add_shares, read_shares, share_arms, stopped_at, stopping
from sage_kit.studies.runs import Runs, RunStore
from sage_kit.studies.study import Arm


def test_shares_rise_and_zero_is_left_out() -> None:
    assert read_shares("1, 0.25,0,.5, 1.0") == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("text", "match"), [("0.5,1.5", "'1.5'"), ("half", "'half'"), ("nan", "'nan'"), ("0", "no share")]
)
def test_what_is_no_share_is_told(text: str, match: str) -> None:
    with pytest.raises(StudyError, match=match):
        read_shares(text)


def test_arms_replace_and_their_rows_carry_the_share() -> None:
    arms = [Arm("plain", schedule="none"), *share_arms([0.25, 1.0])]
    assert [arm.name for arm in arms] == ["plain", "replace 25 %", "replace 100 %"]
    assert [arm.settings.get("synthetic_ratio") for arm in arms] == [None, 0.25, 1.0]
    assert {arm.settings.get("mix") for arm in arms[1:]} == {"replace"}
    table = pd.DataFrame({"arm": ["replace 100 %", "add", "plain", "replace 25 %"], "dev": [1, 2, 3, 4]})
    found = add_shares(table, arms)
    assert list(zip(found["dev"], found["share"], strict=True)) == [(1, 100.0), (3, 0.0), (4, 25.0)]


def test_a_run_that_the_rule_ends_is_the_beginning_of_one_that_goes_on(tmp_path: Path, tiny_bert: Path) -> None:
    store = RunStore(tmp_path / "store", Plugins(allow=""))
    settings = {"schedule": "none", "rounds": 4, "losses_from": "pass", "observers": []}
    whole = store.run("plain", toy_config(tmp_path, tiny_bert, **settings), announce=lambda text: None)
    measured = [one["train_agreement"] for one in whole.summary["rounds"]]
    level = max(measured[:3])
    first = next(number for number, one in enumerate(measured) if one >= level)
    rule = {**settings, "stop_on": "train", "stop_agreement": level}
    ended = store.run("plain", toy_config(tmp_path, tiny_bert, **rule), announce=lambda text: None)
    assert len(ended.summary["rounds"]) == first + 1 < 4

    table = stopped_at(Runs([whole]), level).set_index("end")
    assert table.loc["stop rule", "reached"] == 1
    assert table.loc["stop rule", "rounds"] == table.loc["stop rule", "rounds_needed"] == first + 1
    assert table.loc["stop rule", "steps"] == ended.summary["student_steps"]
    assert table.loc["stop rule", "score"] == ended.summary["dev"]["accuracy"]
    assert table.loc["all rounds", "score"] == whole.summary["dev"]["accuracy"]
    assert table.loc["all rounds", "rounds"] == 4
    never = stopped_at(Runs([whole]), 1.01)
    assert list(never["reached"]) == [0, 0]
    assert list(never["rounds"]) == [4, 4]
    assert list(never["rounds_needed"]) == [5, 5]
    assert never["score"].nunique() == 1


def test_stopping_pairs_each_run_with_itself() -> None:
    rows = [
        {"task": task, "arm": arm, "seed": seed, "end": end, "reached": float(seed > 0), "score": score + (arm == "x")}
        for task in ("a", "b")
        for arm in ("x", "y")
        for seed, gap in enumerate((0.0, 0.1, 0.2))
        for end, score in (("all rounds", 0.5), ("stop rule", 0.5 - gap))
    ]
    found = stopping(pd.DataFrame(rows), "x").set_index("task")
    np.testing.assert_allclose(found["difference"], -0.1)
    np.testing.assert_allclose(found["ended_percent"], 200 / 3)
    assert list(found.index) == ["a", "b", "average"]
    assert set(found["arm"]) == {"x"}
