"""When a trial is ended before its last round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from toyrun import toy_config

from sage_kit.distill import run
from sage_kit.searching.pruning import BEHIND, WatchedPlugins, Watcher, is_behind


def finished(*curves: dict[int, float]) -> list[Any]:
    return [optuna.trial.create_trial(value=0.0, intermediate_values=curve) for curve in curves]


def test_the_median_of_the_best_so_far_decides() -> None:
    others = finished(*({10: level, 20: level + 0.2} for level in (0.1, 0.2, 0.3, 0.4)))
    assert is_behind({10: 0.24}, others, is_minimized=False)
    assert not is_behind({10: 0.26}, others, is_minimized=False)
    # its best so far, not its last
    assert not is_behind({10: 0.46, 20: 0.1}, others, is_minimized=False)
    assert is_behind({10: 0.26}, others, is_minimized=True)
    assert not is_behind({10: 0.24}, others, is_minimized=True)


def test_others_count_as_far_as_they_had_come_after_as_many_steps() -> None:
    others = finished(*({12: level, 24: 0.9} for level in (0.1, 0.2, 0.3, 0.4)))
    assert not is_behind({20: 0.26}, others, is_minimized=False)
    assert is_behind({25: 0.26}, others, is_minimized=False)
    # none of them had ended a round by then
    assert not is_behind({10: 0.0}, others, is_minimized=False)


def test_few_trials_end_none() -> None:
    others = finished({10: 0.9}, {10: 0.9}, {10: 0.9}, {10: float("nan")})
    assert not is_behind({10: 0.1}, others, is_minimized=False)


@pytest.mark.parametrize("may_end", [True, False])
def test_a_run_that_is_behind_ends_after_its_round(folder: Path, tiny_bert: Path, may_end: bool) -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    plugins = WatchedPlugins(allow="")
    unbeatable = finished(*({1: 2.0} for _ in range(4)))
    plugins.watcher = Watcher(
        trial, lambda run, result: result.dev["agreement"], lambda: unbeatable, is_minimized=False, may_end=may_end
    )
    _, summary = run(toy_config(folder, tiny_bert, rounds=3), plugins)
    assert summary["disabled_observers"] == {}
    reports = study.get_trials()[0].intermediate_values
    assert reports == {result["total_steps"]: result["dev"]["agreement"] for result in summary["rounds"]}
    if may_end:
        assert summary["stopped"].startswith(BEHIND)
        assert len(reports) == 2  # the first round ends before a quarter of the steps
    else:
        assert len(reports) == 3
    # the next run has another watcher, or none
    plugins.watcher = None
    _, summary = run(toy_config(folder, tiny_bert, rounds=2), plugins)
    assert len(summary["rounds"]) == 2
    assert len(study.get_trials()[0].intermediate_values) == len(reports)
