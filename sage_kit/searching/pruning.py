"""Ending a trial before its last round: what the loop tells and asks while a trial runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from sage_kit import hookimpl
from sage_kit.components import Control
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import RoundResult, RunInfo

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

BEHIND = "behind the median of other trials"
LEAST_FINISHED = 4  # trials to be held against
FIRST_SHARE = 0.25
"""Share of its steps that a trial has in any case: before, scores say more of the learning rate's rise than of it."""


class Watcher:
    """Reports the rounds of a run to its trial, and ends the run where the trial is behind.

    Parameters
    ----------
    trial : Trial
    value : callable
        What of a round counts, as the search's direction has it.
    finished : callable
        The trials that are complete.
    is_minimized : bool
    may_end : bool
        Whether the trial may be ended.
    """

    def __init__(
        self,
        trial: Trial,
        value: Callable[[RunInfo, RoundResult], float],
        finished: Callable[[], Sequence[FrozenTrial]],
        *,
        is_minimized: bool,
        may_end: bool,
    ) -> None:
        self._trial = trial
        self._value = value
        self._finished = finished
        self._is_minimized = is_minimized
        self._may_end = may_end
        self._values: dict[int, float] = {}
        self._is_new = False

    @hookimpl
    def sage_run_started(self, run: RunInfo) -> None:
        """Take over the rounds that a run has behind it which another process had begun."""
        for result in run.history:
            self._report(run, result)

    @hookimpl
    def sage_round_finished(self, run: RunInfo, result: RoundResult) -> None:
        """Report a round."""
        self._report(run, result)

    def _report(self, run: RunInfo, result: RoundResult) -> None:
        value = self._value(run, result)
        if value != value:  # a round without a score
            return
        steps = result.total_steps
        if steps not in reported(self._trial):
            self._trial.report(value, steps)
        self._values[steps] = value
        self._is_new = True

    @hookimpl
    def sage_control(self, done: int, total: int) -> Control | None:
        """End the run after a round whose trial is behind."""
        if not (self._may_end and self._is_new):
            return None
        self._is_new = False
        if done < FIRST_SHARE * total or not is_behind(self._values, self._finished(), self._is_minimized):
            return None
        return Control(stop=f"{BEHIND} after {done} steps")


def reported(trial: Trial) -> dict[int, float]:
    """What a trial has reported so far, by step, also in another process."""
    found = next(one for one in trial.study.get_trials(deepcopy=False) if one.number == trial.number)
    return dict(found.intermediate_values)


def is_behind(values: dict[int, float], others: Sequence[FrozenTrial], is_minimized: bool) -> bool:
    """Whether the best that a run had reached is worse than the median of the best of others after as many steps.

    The rule of Vizier's median stopping (Golovin et al. 2017), which Optuna's MedianPruner follows. That holds values
    of equal step numbers against each other; here rounds end at steps of their own, since a round's length is searched,
    too, so that of others the reports up to the same step count.
    """
    step, better = max(values), min if is_minimized else max
    found = []
    for other in others:
        early = [value for at, value in other.intermediate_values.items() if at <= step and value == value]
        if early:
            found.append(better(early))
    if len(found) < LEAST_FINISHED:
        return False
    ours, middle = better(values.values()), median(found)
    return bool(ours > middle if is_minimized else ours < middle)


class WatchedPlugins(Plugins):
    """Plugins with one further observer, that no setting names; parameters as of `Plugins`.

    Attributes
    ----------
    watcher : Watcher or None
        Observes the runs that begin from now on.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]] = (), allow: str | None = None) -> None:
        self.watcher: Any = None
        super().__init__(files, allow)

    def remove_observers(self) -> None:
        """Drop the observers of the last run; a run calls this first, and then has the watcher alone."""
        super().remove_observers()
        if self.watcher is not None:
            self.add_observer("search of settings", self.watcher)
