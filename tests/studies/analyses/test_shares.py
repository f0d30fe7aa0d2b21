"""Shares of a round, and where a stop rule would have ended a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from toyrun import toy_config

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import StudyError
from sage_kit.studies.analyses.shares import add_shares, read_shares, share_arms, sooner, stopped_at, stopping
from sage_kit.studies.arms import Arm
from sage_kit.studies.run_store import RunStore
from sage_kit.studies.runs import ArmRun, Runs
from sage_kit.studies.statistics import reached_table


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
    assert table.loc["stop rule", "rounds"] == first + 1
    assert list(table["rounds_needed"]) == [first + 1, first + 1]
    assert table.loc["stop rule", "steps"] == ended.summary["student_steps"]
    assert table.loc["stop rule", "score"] == ended.summary["dev"]["accuracy"]
    assert table.loc["all rounds", "score"] == whole.summary["dev"]["accuracy"]
    assert table.loc["all rounds", "rounds"] == 4


def made(task: str, arm: str, seed: int, agreement: Sequence[float | None]) -> Any:
    """A run that agreed so far with its teacher on the training examples, round by round."""
    rounds = [
        {"train_agreement": share, "total_steps": 10 * number, "seconds": 1.0,
         "dev": {"accuracy": 0.5 + 0.01 * number, "agreement": 0.9}}
        for number, share in enumerate(agreement, start=1)
    ]  # fmt: skip
    directory: Any = SimpleNamespace(path=Path("run"))
    summary = {"rounds": rounds, "primary_metric": "accuracy"}
    return ArmRun(arm, task, seed, directory, RunConfig(), summary, found=False)


def test_of_a_run_that_the_rule_does_not_end_nobody_knows_the_rounds() -> None:
    table = stopped_at(Runs([made("a", "x", 0, (0.8, 0.9, 0.98))]), 0.99)
    assert list(table["end"]) == ["all rounds"]
    assert list(table["rounds"]) == [3]
    assert table["rounds_needed"].isna().all()
    reached = reached_table(table, "rounds_needed")
    assert (reached["k"].item(), reached["n"].item()) == (0, 1)
    assert reached["median"].isna().all()


def test_an_agreement_that_was_not_measured_is_told() -> None:
    with pytest.raises(StudyError, match="no agreement on training examples in round 2"):
        stopped_at(Runs([made("a", "x", 0, (0.8, None, 0.99))]), 0.99)


def test_stopping_pairs_each_run_that_the_rule_ends_with_itself() -> None:
    quick, slow = (0.9, 0.99, 0.995, 0.999), (0.7, 0.8, 0.9, 0.95)
    runs = [made("a", "x", seed, quick if seed else slow) for seed in range(4)]
    runs += [made("a", "y", seed, quick) for seed in range(4)] + [made("b", "x", seed, slow) for seed in range(4)]
    ends = stopped_at(Runs(runs), 0.99)
    (row,) = stopping(ends, "x").to_dict("records")
    assert (row["task"], row["arm"], row["ended"], row["runs"], row["n_seeds"]) == ("a", "x", 3, 4, 3)
    assert row["difference"] == pytest.approx(-0.02)  # round 2 against round 4; the run that goes on counts for nothing
    assert stopping(stopped_at(Runs([made("b", "x", 0, slow)]), 0.99), "x").empty


def test_rounds_are_compared_by_which_run_gets_there_first() -> None:
    needed = {"x": (1, 2, 3, None, None, 2), "y": (2, 2, None, 3, None, None)}
    runs = [
        made("a", arm, seed, tuple(0.99 if at and number >= at else 0.5 for number in (1, 2, 3)))
        for arm, rounds in needed.items()
        for seed, at in enumerate(rounds)
    ]
    (row,) = sooner(stopped_at(Runs(runs), 0.99), "x", "y").to_dict("records")
    assert {name: row[name] for name in ("pairs", "k", "n", "equal", "neither")} == {
        "pairs": 6, "k": 3, "n": 4, "equal": 1, "neither": 1,
    }  # fmt: skip
    exact = binomtest(3, 4).proportion_ci(0.95)
    assert (row["share"], row["low"], row["high"]) == (0.75, pytest.approx(exact.low), pytest.approx(exact.high))
    never = [made("a", arm, 0, (0.5, 0.6)) for arm in ("x", "y")]
    (row,) = sooner(stopped_at(Runs(never), 0.99), "x", "y").to_dict("records")
    assert (row["k"], row["n"], row["neither"]) == (0, 0, 1)
    assert np.isnan([row["share"], row["low"], row["high"]]).all()
