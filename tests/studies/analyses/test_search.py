"""The search for settings: which levels are tried against which, and when one is taken."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd
import pytest

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import StudyError
from sage_kit.recipe import resolve
from sage_kit.studies.analyses.search import (
    FACTORS,
    Factor,
    Search,
    changed,
    first_settings,
    read_factors,
    search,
)
from sage_kit.studies.arms import Arm

TEMPERATURE = Factor("temperature", {"2": {"temperature": 2.0}, "1": {"temperature": 1.0}, "4": {"temperature": 4.0}})
SHARE = Factor("share", {"0.3": {"lift_options": {}}, "0.5": {"lift_options": {"share": 0.5}}}, {"lift": ("replace",)})
LIFT = Factor("lift", {"shift": {"lift": "shift"}, "replace": {"lift": "replace"}})


class ToyRuns:
    """Runs whose divergence is 0.2 times what was written down for their arm, in each task and seed."""

    def __init__(self, arms: Sequence[Arm], seeds: Sequence[int], factors: dict[str, tuple[float, float]]) -> None:
        self.rows = [
            {"task": task, "arm": arm.name, "seed": seed, "dev": 0.5 + place, "dev_agreement": 0.9 - place,
             "dev_divergence": 0.2 * factors.get(arm.name, (1.0, 1.0))[number] * (1 + seed)}
            for number, task in enumerate(("a", "b"))
            for place, arm in enumerate(arms)
            for seed in seeds
        ]  # fmt: skip

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows)


class ToyStudy:
    """Knows how each arm does, and remembers what it was asked for."""

    overall = "average"

    def __init__(self, factors: dict[str, tuple[float, float]]) -> None:
        self.factors = factors
        self.asked: list[tuple[list[Arm], list[int]]] = []
        self.kept: list[int] = []

    def choose_on(self, seeds: Sequence[int]) -> None:
        self.kept = list(seeds)

    def run(self, arms: Sequence[Arm], *, seeds: Sequence[int], steps: Mapping[str, int] | None = None) -> ToyRuns:
        self.asked.append((list(arms), list(seeds)))
        return ToyRuns(arms, seeds, self.factors)

    def steps(self, task: str) -> int:
        return 400

    def equal_flops_steps(self, runs: ToyRuns, arm: str, like: str) -> dict[str, int]:
        return {"a": 390, "b": 410}


def run_search(
    factors: dict[str, tuple[float, float]], what: Sequence[Factor], seeds: Sequence[int] = (0, 1), least: float = 0.03
) -> tuple[Search, ToyStudy]:
    study = ToyStudy(factors)
    return search(study, what, seeds, least=least), study  # type: ignore[arg-type]


def test_a_level_is_taken_if_it_lowers_the_divergence_enough() -> None:
    found, _ = run_search({"temperature: 1": (0.98, 0.98), "temperature: 4": (2, 2)}, [TEMPERATURE])
    assert found.chosen == {"temperature": "2"}
    found, _ = run_search({"temperature: 1": (0.96, 0.96), "temperature: 4": (0.95, 0.94)}, [TEMPERATURE])
    assert found.chosen == {"temperature": "1"}  # as good as the best but for so little, and before it
    found, study = run_search(
        {"temperature: 1": (0.96, 0.96), "temperature: 4": (0.92, 0.91)}, [TEMPERATURE], [3, 4, 5]
    )
    assert found.chosen == {"temperature": "4"}
    assert found.settings["temperature"] == 4.0
    assert study.kept == [3, 4, 5]
    assert [seeds for _, seeds in study.asked] == [[3], [3, 4, 5]]
    taken = found.steps[found.steps["taken"]]
    assert set(taken["arm"]) == {"temperature: 4"}
    assert list(taken["task"]) == ["a", "b", "average"]
    assert found.steps["n_seeds"].tolist() == [3] * 6


def test_a_level_that_loses_under_the_first_seed_is_not_run_again_and_one_that_wins_is_confirmed() -> None:
    found, study = run_search({"temperature: 1": (0.9, 0.9), "temperature: 4": (0.98, 0.98)}, [TEMPERATURE])
    assert [([arm.name for arm in arms], seeds) for arms, seeds in study.asked] == [
        (["temperature: 2", "temperature: 1", "temperature: 4"], [0]),
        (["temperature: 2", "temperature: 1"], [0, 1]),
    ]
    assert dict(zip(found.steps["arm"], found.steps["n_seeds"], strict=False)) == {
        "temperature: 1": 2, "temperature: 4": 1,
    }  # fmt: skip
    assert found.chosen == {"temperature": "1"}

    class Luck(ToyStudy):
        def run(self, arms: Sequence[Arm], *, seeds: Sequence[int], steps: Mapping[str, int] | None = None) -> ToyRuns:
            made = super().run(arms, seeds=seeds)
            for row in made.rows:  # under any other seed it is no better
                if row["arm"] == "temperature: 1" and row["seed"] == 1:
                    row["dev_divergence"] /= 0.8
            return made

    lucky = search(Luck({"temperature: 1": (0.9, 0.9)}), [TEMPERATURE], (0, 1), least=0.03)  # type: ignore[arg-type]
    assert lucky.chosen == {"temperature": "2"}


@pytest.mark.parametrize(("shorter", "chosen"), [(0.95, "1"), (0.99, "2")])
@pytest.mark.parametrize("seeds", [(0, 1), (0,)])
def test_a_level_that_costs_more_is_confirmed_at_equal_flops(
    shorter: float, chosen: str, seeds: tuple[int, ...]
) -> None:
    class Dear(ToyStudy):
        def equal_flops_steps(self, runs: ToyRuns, arm: str, like: str) -> dict[str, int]:
            assert like == "temperature: 2"
            return {"a": 200, "b": 300} if arm == "temperature: 1" else {"a": 400, "b": 400}

        def run(self, arms: Sequence[Arm], *, seeds: Sequence[int], steps: Mapping[str, int] | None = None) -> ToyRuns:
            assert steps in (None, {"a": 200, "b": 300})
            self.factors["temperature: 1"] = (0.9, 0.9) if steps is None else (shorter, shorter)
            return super().run(arms, seeds=seeds)

    found = search(Dear({"temperature: 4": (0.98, 0.98)}), [TEMPERATURE], seeds, least=0.03)  # type: ignore[arg-type]
    assert found.chosen == {"temperature": chosen}
    steps = found.steps.set_index(["task", "arm"])
    assert steps.loc[("average", "temperature: 1"), "change"] == pytest.approx(shorter - 1)
    assert steps.loc[("average", "temperature: 1"), "equal"] == "FLOPs"
    assert steps.loc[("average", "temperature: 4"), "equal"] == "steps"


def test_tasks_count_by_their_relative_change() -> None:
    found, _ = run_search({"temperature: 1": (0.5, 2.0), "temperature: 4": (0.8, 1.1)}, [TEMPERATURE], [0])
    steps = found.steps.set_index(["task", "arm"])
    assert steps.loc[("average", "temperature: 1"), "change"] == pytest.approx(0.0)
    assert steps.loc[("average", "temperature: 4"), "change"] == pytest.approx((0.8 * 1.1) ** 0.5 - 1)
    assert steps.loc[("b", "temperature: 4"), "change"] == pytest.approx(0.1)
    assert found.chosen == {"temperature": "4"}
    # what other measures say stands beside it
    assert steps["score"].tolist() == pytest.approx([1, 2] * 3)
    assert steps["agreement"].tolist() == pytest.approx([-1, -2] * 3)


def test_later_factors_stand_on_what_was_chosen_before() -> None:
    better = {"lift: replace": (0.8, 0.9), "share: 0.5": (0.9, 0.9)}
    found, study = run_search(better, [LIFT, SHARE, TEMPERATURE])
    settings = [[arm.settings for arm in arms] for arms, seeds in study.asked if len(seeds) == 1]
    assert [one["lift"] for one in settings[0]] == ["shift", "replace"]
    assert [(one["lift"], one["lift_options"]) for one in settings[1]] == [("replace", {}), ("replace", {"share": 0.5})]
    assert all(one["lift_options"] == {"share": 0.5} for one in settings[2])
    assert [one["temperature"] for one in settings[2]] == [2.0, 1.0, 4.0]
    assert found.chosen == {"lift": "replace", "share": "0.5", "temperature": "2"}


def test_a_factor_that_makes_no_sense_is_left_out_and_told() -> None:
    found, study = run_search({}, [LIFT, SHARE])
    assert len(study.asked) == 1
    assert found.skipped == {"share": "needs lift to be replace, and it is shift"}
    assert set(found.steps["factor"]) == {"lift"}
    with pytest.raises(StudyError, match="nothing was searched: share needs lift"):
        run_search({}, [SHARE])


def test_a_factor_may_need_an_option() -> None:
    spans = Factor("spans", {"1": {"lift_options": {}}, "3": {"lift_options": {"span": 3}}},
                   {"lift_options.temperature": ("inf",), "lift_options.span": (None, 1)})  # fmt: skip
    at_random = Factor("lift", {"shift": {"lift": "shift", "lift_options": {}},
                                "any": {"lift": "replace", "lift_options": {"temperature": "inf"}}})  # fmt: skip
    found, study = run_search({"lift: any": (0.5, 0.5), "spans: 3": (0.5, 0.5)}, [at_random, spans, spans], [0])
    assert study.asked[1][0][1].settings["lift_options"] == {"temperature": "inf", "span": 3}
    assert found.skipped == {"spans": "needs lift_options.span to be None or 1, and it is 3"}
    found, _ = run_search({}, [at_random, spans])
    assert found.skipped == {"spans": "needs lift_options.temperature to be inf, and it is None"}


def test_all_levels_learn_at_the_rate_of_the_start() -> None:
    study = ToyStudy({})
    search(study, [LIFT], [2000], least=0.03, by_task={"a": {"learning_rate": 3e-4}})  # type: ignore[arg-type]
    assert [arm.on("a")["learning_rate"] for arm in study.asked[0][0]] == [3e-4, 3e-4]


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
    replacing = FACTORS[0].levels["replace, at random"]
    start = {**first_settings(), "reducer": "pca"}  # the default one is a package of its own
    for factor in FACTORS:
        assert len(factor.levels) > 1
        for level in factor.levels.values():
            config = load_config(changed(changed(start, replacing if factor.needs else {}), level))
            resolve(config, Plugins())
            json.dumps(config.model_dump(mode="json"), allow_nan=False)  # a result holds it
