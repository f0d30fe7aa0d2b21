"""Losses as arms: which there are on a task, what is tried, what dev tells of them, and averages over some tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sage_kit.components.plugins import Plugins
from sage_kit.config import PRESETS, load_config
from sage_kit.errors import StudyError
from sage_kit.recipe import resolve
from sage_kit.studies import statistics
from sage_kit.studies.analyses.loss_arms import (
    KL,
    USUAL_WEIGHTS,
    WAYS,
    WEIGHTS,
    arm_name,
    best_beside_kl,
    loss_arm,
    losses_by_task,
    on_dev,
    over_all,
    over_kl,
    shared,
)
from sage_kit.studies.runs import Runs
from sage_kit.studies.tuning import TUNING_SEED, Try, Tuning

TASKS = ("a", "b", "numbers")
PAIR, SQUARE, OF_CLASSES = (KL, "rkd"), (KL, "logits_mse"), (KL, "dist")


class ToyStudy:
    """Two tasks of classes and one of numbers; compares made-up cells."""

    tasks = TASKS
    overall = statistics.AVERAGE

    def __init__(self) -> None:
        self.plugins = Plugins(allow="")
        self.tuning = Tuning()
        self.store = SimpleNamespace(
            data=lambda task: SimpleNamespace(spec=SimpleNamespace(is_regression=task == "numbers"))
        )

    def config(self, task: str, **settings: Any) -> str:
        return task

    def compare(self, runs: Runs, baseline: str, *, metric: str, arms: Sequence[str]) -> pd.DataFrame:
        assert metric == "agreement"
        shape = (len({run.seed for run in runs}), 12)
        cells = {
            (run.task, run.arm): np.full(shape, len(run.arm) + TASKS.index(run.task))
            + np.random.default_rng(0).random(shape)
            for run in runs
            if run.arm in (baseline, *arms)
        }
        return statistics.compare_cells(cells, baseline)


@pytest.fixture
def study() -> Any:
    return ToyStudy()


def test_every_built_in_loss_has_two_weights_beside_kl() -> None:
    built_in = {item.spec.name for item in Plugins(allow="").components("loss")}
    assert set(WEIGHTS) == built_in - {KL}
    assert all(large == pytest.approx(10 * small) for small, large in (*WEIGHTS.values(), USUAL_WEIGHTS))


@pytest.mark.parametrize("way", WAYS)
def test_every_arm_is_a_run_that_settings_allow(way: str) -> None:
    plugins = Plugins(allow="")
    for losses in [("logits_mse",), *((KL, name) for name in WEIGHTS), (KL, *WEIGHTS)]:
        arm = loss_arm(way, losses)
        names = set()
        for choice in arm.choices or [""]:
            recipe = resolve(load_config({"task": "sst2", "reducer": "pca", **arm.on("sst2", choice)}), plugins)
            assert tuple(recipe.losses) == losses
            names.add(str(recipe.config.losses))
        assert len(names) == len(arm.choices or [""])
    assert len(loss_arm(way, (KL, "pkd", "rkd")).choices) == 2
    assert loss_arm(way, ("logits_mse",)).choices == {}


def test_kl_alone_is_the_run_of_other_studies() -> None:
    assert loss_arm("plain", (KL,)).settings == {"schedule": "none"}
    assert loss_arm("synthesis", (KL,)).settings == PRESETS["default"]


def test_weights_go_up_together_and_the_larger_one_stands_alone() -> None:
    small, large = ((WEIGHTS["pkd"][place], WEIGHTS["rkd"][place]) for place in (0, 1))
    choices = loss_arm("plain", (KL, "pkd", "rkd")).choices
    assert list(choices) == [f"pkd {one:g}, rkd {two:g}" for one, two in (small, large)]
    assert [own["losses"] for own in choices.values()] == [
        {KL: 1.0, "pkd": one, "rkd": two} for one, two in (small, large)
    ]
    assert list(loss_arm("plain", (KL, "pkd"), weights=1).choices) == [f"pkd {large[0]:g}"]
    assert list(loss_arm("plain", (KL, "mine")).choices) == [f"mine {one:g}" for one in USUAL_WEIGHTS]


def test_what_makes_no_sense_of_numbers_has_no_arm_there_and_is_told(
    study: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = losses_by_task(study, ["logits_mse", KL], ["logits_mse", "dist", KL, "rkd", "rkd"])
    assert found["a"] == found["b"] == [(KL,), ("logits_mse",), SQUARE, OF_CLASSES, PAIR]
    assert found["numbers"] == [(KL,), PAIR]
    assert capsys.readouterr().out.splitlines() == [
        "numbers: no arm logits_mse: kl of numbers is the same squared error",
        "numbers: no arm kl + logits_mse: kl of numbers is the same squared error",
        "numbers: no arm kl + dist: dist looks at classes, and the labels are numbers",
    ]
    assert shared(found) == ["rkd"]
    with pytest.raises(StudyError, match=r"added is dist: name a loss beside kl that goes with every task \(a, b, num"):
        losses_by_task(study, [], ["dist"])
    with pytest.raises(StudyError, match="alone names 'pkd', which does not teach the head: name it in added"):
        losses_by_task(study, ["logits_mse", "pkd"], ["rkd"])


def tried(study: Any, way: str, losses: Sequence[str], changes: Sequence[float]) -> None:
    """Tries on the first tasks whose best divergence is 0.2 times these."""
    for task, change in zip(TASKS, changes, strict=False):
        for choice, worse in (("small", 1.0), ("large", 1.5)):
            divergence = 0.2 * change * worse
            study.tuning.add(
                Try(task, arm_name(way, losses), 1e-4, TUNING_SEED, 10, divergence, 0.5, 0.5, "run", choice)
            )


def test_dev_ranks_losses_by_their_mean_over_tasks_and_ways(study: Any) -> None:
    other = (KL, "pkd")
    losses = {
        "a": [(KL,), PAIR, other, OF_CLASSES],
        "b": [(KL,), PAIR, other, OF_CLASSES],
        "numbers": [(KL,), PAIR, other],
    }
    for way in WAYS:
        tried(study, way, (KL,), [1, 1, 1])
        tried(study, way, OF_CLASSES, [0.1, 0.1])
        tried(study, way, other, [0.8, 0.8, 0.8] if way == "plain" else [1, 1, 1])
    tried(study, "plain", PAIR, [0.9, 0.9, 0.9])
    tried(study, "synthesis", PAIR, [0.5, 0.9, 2.0])
    table = on_dev(study, losses)
    assert len(table) == 2 * (3 * 4 + 2 + 1)
    row = table.set_index(["way", "losses", "task"]).loc
    assert row["synthesis", "kl + rkd", "a"].tolist() == ["small", 1e-4, pytest.approx(0.1), pytest.approx(-0.5)]
    assert row["synthesis", "kl + rkd", "average"]["change"] == pytest.approx(0.9 ** (1 / 3) - 1)
    assert row["plain", "kl + dist", "average"]["change"] == pytest.approx(-0.9)
    assert row["plain", "kl", "average"]["change"] == 0
    # .8 and 1 against .9 and .97: and what a task lacks is no candidate, however good
    assert best_beside_kl(table, losses) == ["pkd", "rkd"]
    assert math.sqrt(0.8) < math.sqrt(0.9 * 0.9 ** (1 / 3))


def test_an_arm_that_a_task_lacks_is_averaged_over_the_others(study: Any) -> None:
    runs = Runs(
        [
            SimpleNamespace(task=task, arm=arm_name(way, losses), seed=seed)  # type: ignore[list-item]
            for task in TASKS
            for way in WAYS
            for losses in [(KL,), OF_CLASSES, PAIR]
            for seed in range(3)
            if task != "numbers" or losses != OF_CLASSES
        ]
    )
    table = over_kl(study, runs, "plain", metric="agreement")
    assert list(zip(table["task"], table["losses"], strict=True)) == [
        ("a", "kl + dist (a, b)"), ("a", "kl + rkd"), ("b", "kl + dist (a, b)"), ("b", "kl + rkd"),
        ("numbers", "kl + rkd"), ("average", "kl + dist (a, b)"), ("average", "kl + rkd"),
    ]  # fmt: skip
    assert set(table["arm"]) == {"plain, kl + dist", "plain, kl + rkd"}
    means = table[table["task"] == "average"].set_index("arm")["mean"]
    assert means["plain, kl + rkd"] - means["plain, kl + dist"] == pytest.approx(
        0.5 - 1
    )  # the names' lengths differ by 1
    assert over_all(table)["task"].tolist() == ["average", "average"]


def test_an_arm_of_one_task_has_no_average(study: Any) -> None:
    runs = Runs(
        [
            SimpleNamespace(task=task, arm=arm_name("plain", losses), seed=seed)  # type: ignore[list-item]
            for task in ("a", "numbers")
            for losses in [(KL,), OF_CLASSES, PAIR]
            for seed in range(3)
            if task != "numbers" or losses != OF_CLASSES
        ]
    )
    study.tasks = ("a", "numbers")
    table = over_all(over_kl(study, runs, "plain", metric="agreement"))
    assert dict(zip(table["losses"], table["task"], strict=True)) == {"kl + dist (a)": "a", "kl + rkd": "average"}
