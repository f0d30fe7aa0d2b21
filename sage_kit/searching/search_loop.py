"""The search itself: trials run one after another, by each process that is asked to, until there are enough."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock

from sage_kit.components.records import RoundResult, RunInfo
from sage_kit.errors import (
    CompatibilityError,
    ConfigError,
    DataError,
    ModelError,
    PluginError,
    SageError,
    StudyError,
    one_line,
)
from sage_kit.searching.pruning import BEHIND, WatchedPlugins, Watcher
from sage_kit.searching.search_plan import AGREEMENT, DIVERGENCE, RECORD, SearchPlan
from sage_kit.searching.search_space import check_space, label_of
from sage_kit.searching.search_trials import JOURNAL, LOCKS, PASSED_OVER, Claim, Trials, require_optuna
from sage_kit.storage.files import disk_errors
from sage_kit.studies.run_store import RunStore
from sage_kit.studies.runs import ArmRun
from sage_kit.training.optimizer import check_optimizer

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RUNS = "runs"
WAIT = 0.5  # seconds between looks at what other processes do

Say = Callable[[str], None]


def open_search(folder: Path, plan: SearchPlan | None, plugins: WatchedPlugins) -> tuple[SearchPlan, RunStore]:
    """Begin a search in a folder, or go on with the one that is there.

    Parameters
    ----------
    folder : Path
    plan : SearchPlan or None
        What is asked for (`asked_plan`); None takes that of the folder.
    plugins : WatchedPlugins
        With the files that the plan names.

    Returns
    -------
    plan : SearchPlan
        That of the folder.
    store : RunStore
        Where the runs of its trials are.

    Raises
    ------
    SageError
        Of the kind that fits what is wrong: nothing is written then.
    """
    require_optuna()
    folder = folder.absolute()
    store = RunStore(folder / RUNS, plugins, plan.plugin_files if plan else ())
    is_there = (folder / RECORD).is_file()
    if not is_there and folder.exists() and (not folder.is_dir() or _is_used(folder)):
        raise StudyError(f"{folder} holds something other than a search: name a new folder")
    if plan is None:
        found = SearchPlan.read(folder)
        store.plugin_files = list(found.plugin_files)
        return found, store
    if not is_there:
        check_space(plan.base, plan.space, plugins)
        _check_optimizers(plan)
        plan = plan.with_steps(store)
        try:
            with disk_errors(str(folder)):
                (folder / LOCKS).mkdir(parents=True, exist_ok=True)
                with FileLock(folder / LOCKS / "folder.lock"):  # another process may begin the same
                    if not (folder / RECORD).is_file():
                        plan.write(folder)
                        return plan, store
        except OSError as error:
            raise StudyError(f"{folder} cannot be written ({error.strerror or error}): name another folder") from None
    found = SearchPlan.read(folder)
    if not plan.base.max_steps and plan.has_equal_steps:
        plan = plan.with_steps(store)
    plan.check_same(found, folder)
    return found, store


def _check_optimizers(plan: SearchPlan) -> None:
    """Refuse an optimizer that torch has not: no setting's type and no component knows which there are."""
    dimension = plan.space.get("optimizer")
    for name in dimension.probes if dimension else ():
        if name != plan.base.optimizer:
            check_optimizer(name, {})


def _is_used(folder: Path) -> bool:
    """Whether there is something in a folder beside what a process has that is about to begin a search in it."""
    return any(path.name != LOCKS for path in folder.iterdir())


class Search:
    """One process of a search.

    Parameters
    ----------
    folder : Path
    plan : SearchPlan
    store : RunStore
        As `open_search` returns them.
    trials : int
        How many trials all processes make together.
    say : callable
        Shows one line to the user.
    """

    def __init__(self, folder: Path, plan: SearchPlan, store: RunStore, trials: int, say: Say) -> None:
        require_optuna()
        assert isinstance(store.plugins, WatchedPlugins)
        self.folder = folder.absolute()
        self.plan = plan
        self.store = store
        self.plugins: WatchedPlugins = store.plugins
        self.limit = trials
        self.trials = Trials(self.folder, plan, store.plugins)
        self._say = say

    def run(self, trials: int | None = None) -> None:
        """Make trials until there are enough, together with whatever other processes do the same in this folder.

        Parameters
        ----------
        trials : int or None
            How many are enough here; None takes those of the search.

        Raises
        ------
        SageError
            When a run ends with an error that is none of its values' alone. What other trials have found stays, and the
            trial that failed is begun again by whoever goes on.
        """
        enough = self.limit if trials is None else min(trials, self.limit)
        while len(self.trials.finished()) < enough:
            claim = self.trials.claim(enough)
            if claim is None:
                if self.trials.is_exhausted and not self.trials.running():
                    self._say("every combination of these values that goes together has been tried")
                    return
                time.sleep(WAIT)
                continue
            try:
                self._run_trial(claim)
            except SageError as error:
                self._abandon_if_unused(claim)
                raise type(error)(f"trial {claim.number} ({self._values_text(claim)}): {error}") from error
            finally:
                claim.lock.release()

    # ---- a trial

    def _run_trial(self, claim: Claim) -> None:
        if claim.is_taken_over:
            self._say(f"trial {claim.number} goes on where its process left it")
        elif claim.is_default:
            self._say("trial 0 begins, the default; it makes what all trials share: teacher, vectors, map")
        started, runs = time.monotonic(), list[ArmRun]()
        try:
            for number in range(self.plan.seeds):
                self.plugins.watcher = self._watcher(claim) if number == 0 else None
                config = self.plan.run_config(claim.values, number)
                runs.append(self.store.run(f"trial {claim.number}", config, announce=lambda text: None))
                if runs[-1].summary["stopped"].startswith(BEHIND):
                    break
        except (CompatibilityError, ConfigError, DataError, ModelError, PluginError, torch.OutOfMemoryError) as error:
            if claim.is_default:
                raise
            # beside the default's data and teacher it is for the values of the trial, as more blocks than there are; it
            # counts, so that a search of nothing but such values ends
            is_broken = isinstance(error, PluginError | torch.OutOfMemoryError)
            self.trials.end(claim, None, one_line(error, 300), failed=is_broken, **self._told(runs, started))
            self._say(self._line(claim, f"failed: {one_line(error, 300)}"))
            return
        finally:
            self.plugins.watcher = None
        self._end(claim, runs, started)

    def _end(self, claim: Claim, runs: list[ArmRun], started: float) -> None:
        told = self._told(runs, started)
        stopped = runs[-1].summary["stopped"]
        if stopped.startswith(BEHIND):
            self.trials.end(claim, None, stopped, **told)
            self._say(self._line(claim, f"ended early, {stopped}"))
            return
        values = [measured(run, self.plan.measure) for run in runs]
        if not all(math.isfinite(value) for value in values):
            why = f"its {self.plan.measure} is no number, as of outputs that are none"
            self.trials.end(claim, None, why, **told)
            self._say(self._line(claim, why))
            return
        value = sum(values) / len(values)
        self.trials.end(claim, value, **told, by_seed=values)
        self._say(self._line(claim, f"{measure_name(self.plan, runs[0])} {value:.4g}"))

    def _told(self, runs: list[ArmRun], started: float) -> dict[str, Any]:
        """What the journal keeps of the runs of a trial."""
        return {
            "seconds": round(time.monotonic() - started, 1),
            "steps": [run.summary["student_steps"] for run in runs],
            "runs": [f"{RUNS}/{run.config.task}/{run.directory.path.name}" for run in runs],
            "metric": runs[0].metric if runs else "",
            "scores": [run.summary["dev"].get(run.metric) for run in runs],
            "agreements": [run.summary["dev"].get(AGREEMENT) for run in runs],
        }

    def _watcher(self, claim: Claim) -> Watcher:
        """Reports rounds by agreement with the teacher, or by the metric; the divergence of a round is not told."""
        plan, is_minimized = self.plan, self.plan.direction == "minimize"

        def value(run: RunInfo, result: RoundResult) -> float:
            name = AGREEMENT if plan.measure in (AGREEMENT, DIVERGENCE) else run.primary_metric
            found = float(result.dev.get(name, math.nan))
            return -found if is_minimized else found

        return Watcher(
            claim.trial, value, self.trials.complete, is_minimized=is_minimized,
            may_end=plan.prune and not claim.is_default,
        )  # fmt: skip

    def _abandon_if_unused(self, claim: Claim) -> None:
        """Remove the search where it failed before any trial ended, so that the user can begin it otherwise."""
        begun = any((self.folder / RUNS).glob("*/*/checkpoints/round-*"))
        if begun or self.trials.finished() or self.trials.has_others(claim):
            return
        (self.folder / RECORD).unlink(missing_ok=True)
        (self.folder / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(self.folder / RUNS, ignore_errors=True)
        claim.lock.release()
        shutil.rmtree(self.folder / LOCKS, ignore_errors=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    # ---- what is told

    def _values_text(self, claim: Claim) -> str:
        return "the default" if claim.is_default else values_text(claim.values)

    def _line(self, claim: Claim, outcome: str) -> str:
        """The line of a try: its values, what came out, the best so far, and how long the others may take."""
        finished, best = self.trials.finished(), self.trials.best()
        head = f"trial {claim.number} ({len(finished)} of {self.limit}), {self._values_text(claim)}: {outcome}"
        parts = [f"best {best.value:.4g} of trial {best.number}"] if best is not None else []
        seconds = [one.user_attrs.get("seconds", 0.0) for one in finished]
        left = self.limit - len(finished)
        if left > 0 and seconds:
            each = sum(seconds) / len(seconds)
            parts.append(f"about {duration(each * left / max(1, self.trials.running() + 1))} left")
        return "; ".join([f"{head}, {duration(seconds_of(finished, claim))}", *parts])


def seconds_of(finished: list[FrozenTrial], claim: Claim) -> float:
    """How long a finished trial took."""
    return next((float(one.user_attrs.get("seconds", 0)) for one in finished if one.number == claim.number), 0.0)


def measured(run: ArmRun, measure: str) -> float:
    """What a run reached on dev; NaN where that is no number."""
    if measure == DIVERGENCE:
        return run.divergence("dev")
    found = run.summary["dev"].get(AGREEMENT if measure == AGREEMENT else run.metric)
    return math.nan if found is None else float(found)


def measure_name(plan: SearchPlan, run: ArmRun) -> str:
    """What is searched for, by its name."""
    return plan.measure if plan.measure in (AGREEMENT, DIVERGENCE) else run.metric


def values_text(values: Mapping[str, Any]) -> str:
    """Values as a person reads them: ``learning_rate 2.1e-04, sampler random``."""
    shown = (f"{value:.3g}" if isinstance(value, float) else label_of(value) for value in values.values())
    return ", ".join(f"{name} {text}" for name, text in zip(values, shown, strict=True))


def duration(seconds: float) -> str:
    """A duration as a person reads it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def passed_over(trials: Trials) -> dict[str, int]:
    """Why trials were passed over, and how many of them."""
    found: dict[str, int] = {}
    for one in trials.study.get_trials(deepcopy=False):
        why = one.user_attrs.get(PASSED_OVER)
        if why and not why.startswith("as trial "):
            found[why] = found.get(why, 0) + 1
    return found
