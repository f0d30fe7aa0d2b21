"""The search for settings: which levels are tried against which, and when one is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest

from sage_kit.config import load_config
from sage_kit.errors import StudyError
from sage_kit.studies.analyses.search import (
    FACTORS,
    NINETY_FIVE,
    Factor,
    changed,
    first_settings,
    read_factors,
    search,
)
from sage_kit.studies.study import Arm

COLOR = Factor("temperature", {"2": {"temperature": 2.0}, "1": {"temperature": 1.0}, "4": {"temperature": 4.0}})
SHARE = Factor("share", {"0.3": {"lift_options": {}}, "0.5": {"lift_options": {"share": 0.5}}}, {"lift": ("replace",)})
LIFT = Factor("lift", {"shift": {"lift": "shift"}, "replace": {"lift": "replace"}})


class ToyStudy:
    """Answers with differences that were written down, each with a standard error of 0.01."""

    tasks = ("a", "b")
    overall = "average"

    def __init__(self, differences: dict[str, float]) -> None:
        self.differences = differences
        self.asked: list[tuple[list[Arm], list[int]]] = []

    def run(self, arms: Sequence[Arm], *, seeds: Sequence[int]) -> list[Arm]:
        self.asked.append((list(arms), list(seeds)))
        return list(arms)

    def compare(self, runs: list[Arm], baseline: str, *, metric: str) -> pd.DataFrame:
        assert metric == "agreement"
        assert baseline == runs[0].name
        half = 0.01 * NINETY_FIVE / 2
        return pd.DataFrame(
            [
                {"task": task, "arm": arm.name, "difference": value, "low": value - half, "high": value + half}
                for task in (*self.tasks, self.overall)
                for arm in runs[1:]
                # what a single task says is of no account
                for value in [self.differences[arm.name] if task == self.overall else 0.5]
            ]
        )


def run_search(differences: dict[str, float], factors: Sequence[Factor], seeds: Sequence[int] = (0, 1)) -> Any:
    study = ToyStudy(differences)
    return search(study, factors, seeds), study  # type: ignore[arg-type]


def test_a_level_is_taken_if_it_is_ahead_by_more_than_its_standard_error() -> None:
    found, _ = run_search({"temperature: 1": 0.009, "temperature: 4": -0.2}, [COLOR])
    assert found.chosen == {"temperature": "2"}
    found, study = run_search({"temperature: 1": 0.011, "temperature: 4": 0.012}, [COLOR], seeds=[3, 4, 5])
    assert found.chosen == {"temperature": "4"}
    assert found.settings["temperature"] == 4.0
    assert study.asked[0][1] == [3, 4, 5]
    taken = found.steps[found.steps["taken"]]
    assert set(taken["arm"]) == {"temperature: 4"}
    assert list(taken["task"]) == ["a", "b", "average"]
    assert found.steps["error"].to_numpy() == pytest.approx(0.01)


def test_later_factors_stand_on_what_was_chosen_before() -> None:
    found, study = run_search({"lift: replace": 0.1, "share: 0.5": 0.1, "temperature: 1": 0, "temperature: 4": 0},
                              [LIFT, SHARE, COLOR])  # fmt: skip
    settings = [[arm.settings for arm in arms] for arms, _ in study.asked]
    assert [one["lift"] for one in settings[0]] == ["shift", "replace"]
    assert [(one["lift"], one["lift_options"]) for one in settings[1]] == [("replace", {}), ("replace", {"share": 0.5})]
    assert all(one["lift_options"] == {"share": 0.5} for one in settings[2])
    assert [one["temperature"] for one in settings[2]] == [2.0, 1.0, 4.0]
    assert found.chosen == {"lift": "replace", "share": "0.5", "temperature": "2"}


def test_a_factor_that_makes_no_sense_is_left_out_and_told() -> None:
    found, study = run_search({"lift: replace": 0.0}, [LIFT, SHARE])
    assert len(study.asked) == 1
    assert found.skipped == {"share": "needs lift to be replace, and it is shift"}
    assert set(found.steps["factor"]) == {"lift"}
    with pytest.raises(StudyError, match="nothing was searched: share needs lift"):
        run_search({}, [SHARE])


def test_options_stay_with_their_component_and_leave_with_it() -> None:
    start = {"sampler": "high_loss", "sampler_options": {"k": 5}}
    same = changed(start, {"sampler": "high_loss", "sampler_options": {"fraction": 1.0}})
    assert same["sampler_options"] == {"k": 5, "fraction": 1.0}
    assert changed(start, {"sampler": "random", "sampler_options": {"k": 9}})["sampler_options"] == {"k": 9}
    assert changed(start, {"sampler": "random", "sampler_options": {}})["sampler_options"] == {}
    assert start == {"sampler": "high_loss", "sampler_options": {"k": 5}}


def test_factors_are_chosen_by_name_and_order() -> None:
    assert [factor.name for factor in read_factors("mix, lift,mix")] == ["mix", "lift"]
    with pytest.raises(StudyError, match=r"'lfit'.*lift"):
        read_factors("lift,lfit")
    with pytest.raises(StudyError, match="names none"):
        read_factors(" , ")


def test_every_level_is_a_setting_that_a_run_takes() -> None:
    for factor in FACTORS:
        assert len(factor.levels) > 1
        for level in factor.levels.values():
            load_config(changed(first_settings(), level))
