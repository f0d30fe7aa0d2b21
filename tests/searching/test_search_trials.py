"""Who runs which trial, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import StudyError
from sage_kit.searching.search_plan import SearchPlan
from sage_kit.searching.search_space import read_space
from sage_kit.searching.search_trials import JOURNAL, PASSED_OVER, WHY, Trials, require_optuna

PLUGINS = Plugins(allow="")
SETTINGS = {"reducer": "pca", "sampler": "high_loss"}
TEXTS = ("learning_rate=log:1e-5:5e-4", "sampler=high_loss,random", "sampler_options.fraction=0.1:1.0")


def open_trials(folder: Path, texts: tuple[str, ...] = TEXTS, **settings: object) -> Trials:
    require_optuna()
    return Trials(folder, SearchPlan(load_config({**SETTINGS, **settings}), read_space(texts)), PLUGINS)


LEAVE = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_search_trials import open_trials
trials = open_trials(Path({folder!r}))
first = trials.claim(9)
second = trials.claim(9)
second.trial.report(0.5, 10)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_default_comes_first_and_no_more_than_asked(tmp_path: Path) -> None:
    ours, theirs = open_trials(tmp_path), open_trials(tmp_path)
    first, second = ours.claim(3), theirs.claim(3)
    assert first is not None
    assert second is not None
    assert first.is_default
    assert first.values == {}
    assert not second.is_default
    assert second.values.keys() <= set(theirs.plan.space)
    third = ours.claim(3)
    assert third is not None
    assert [claim.number for claim in (first, second, third)] == [0, 1, 2]
    # all three are under way, and held
    assert theirs.claim(3) is None
    assert not theirs.is_exhausted
    ours.end(first, 0.25, seconds=1.0)
    theirs.end(second, None, "behind")
    ours.end(third, None, "broken", failed=True)
    assert [one.state for one in theirs.finished()] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert [one.user_attrs.get(WHY) for one in theirs.finished()] == [None, "behind", "broken"]
    best = theirs.best()
    assert best is not None
    assert (best.number, best.value, theirs.values(best)) == (0, 0.25, {})
    assert theirs.claim(3) is None


def test_trials_of_a_killed_process_are_taken_over_with_what_they_have(tmp_path: Path) -> None:
    code = LEAVE.format(path=[str(Path(__file__).parent), *sys.path], folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    trials = open_trials(tmp_path)
    left = {one.number: one.params for one in trials.all()}
    claims = [trials.claim(9) for _ in range(3)]
    assert [claim.number for claim in claims if claim] == [0, 1, 2]
    assert [claim.is_taken_over for claim in claims if claim] == [True, True, False]
    assert {claim.number: claim.trial.params for claim in claims[:2] if claim} == left
    assert trials.all()[1].intermediate_values == {10: 0.5}


def test_a_trial_that_was_left_without_its_values_gets_them(tmp_path: Path) -> None:
    trials = open_trials(tmp_path)
    default = trials.claim(9)
    assert default is not None
    trials.study.ask()  # as a process leaves it that is killed before it draws
    found = open_trials(tmp_path).claim(9)
    assert found is not None
    assert found.is_taken_over
    assert {"learning_rate", "sampler"} <= found.values.keys()
    assert ("sampler_options.fraction" in found.values) == (found.values["sampler"] == "high_loss")


def test_half_a_line_at_the_end_of_the_journal_is_taken_away(tmp_path: Path) -> None:
    trials = open_trials(tmp_path)
    claim = trials.claim(9)
    assert claim is not None
    trials.end(claim, 0.5)
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + b'{"op_code":4,"worker')
    again = open_trials(tmp_path)
    assert [one.value for one in again.complete()] == [0.5]
    again.claim(9)
    assert len(open_trials(tmp_path).all()) == 2


def test_a_journal_of_something_else_is_one_line(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("no journal\nat all\n")
    with pytest.raises(StudyError, match="is not readable"):
        open_trials(tmp_path)


def test_values_that_do_not_go_together_do_not_count(tmp_path: Path) -> None:
    trials = open_trials(tmp_path, ("mix=add,replace", "synthetic_ratio=0.5,2.0"), synthetic_ratio=0.5)
    found = []
    while claim := trials.claim(9):
        found.append(trials.plan.run_config(claim.values, 0))
        trials.end(claim, 0.5)
    # of four combinations one has a share above 1
    assert {(config.mix, config.synthetic_ratio) for config in found} == {("add", 0.5), ("add", 2.0), ("replace", 0.5)}
    assert len(found) == 3
    assert trials.is_exhausted
    reasons = {one.user_attrs[PASSED_OVER] for one in trials.study.get_trials() if PASSED_OVER in one.user_attrs}
    assert {reason for reason in reasons if not reason.startswith("as trial ")} <= {
        "synthetic_ratio is 2, but with mix='replace' it is a share and at most 1"
    }


def test_processes_that_go_on_do_not_draw_alike(tmp_path: Path) -> None:
    rates = []
    for _ in range(4):
        trials = open_trials(tmp_path)  # a new process each time, with the same seed of the search
        claim = trials.claim(9)
        assert claim is not None
        trials.end(claim, 0.5)
        rates.append(trials.plan.run_config(claim.values, 0).learning_rate)
    assert len(set(rates)) == 4
    (tmp_path / "other").mkdir()
    other = open_trials(tmp_path / "other")
    again = []
    for _ in range(4):
        claim = other.claim(9)
        assert claim is not None
        other.end(claim, 0.5)
        again.append(other.plan.run_config(claim.values, 0).learning_rate)
    assert again == rates  # the seed and what came before decide
