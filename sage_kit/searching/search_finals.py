"""The end of a search: its best few again under new seeds, then the winner held against the default under others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sage_kit.searching.search_loop import Search, measured
from sage_kit.searching.search_plan import AGREEMENT, DIVERGENCE, Ending
from sage_kit.searching.search_trials import DEFAULT
from sage_kit.studies.arms import Arm, make_runs
from sage_kit.studies.effort import counted
from sage_kit.studies.predictions import compare_outputs
from sage_kit.studies.runs import Runs
from sage_kit.studies.verdicts import (
    ALPHA,
    PERCENT_CHANGE,
    POINTS,
    Direction,
    can_decide,
    number_text,
    state_of,
    unit_text,
)

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

BASELINE, CHOSEN = "default", "best"


@dataclass(frozen=True)
class Final:
    """What a trial reached under the seeds of the finals.

    Attributes
    ----------
    trial : optuna.trial.FrozenTrial
    mean : float
        Over the new seeds alone, of what was searched for on dev: its first result is what it was picked by, and so
        partly luck.
    """

    trial: FrozenTrial
    mean: float


@dataclass(frozen=True)
class Finals:
    """The trials that ran again, the best first; empty where none did.

    Attributes
    ----------
    best : optuna.trial.FrozenTrial or None
        The best complete trial of the search itself.
    standing : sequence of Final
        Where all are no numbers, in the order of the search.
    """

    best: FrozenTrial | None
    standing: Sequence[Final] = ()

    @property
    def winner(self) -> FrozenTrial | None:
        """The trial that the search ends with."""
        return self.standing[0].trial if self.standing else self.best


def choose(search: Search, ending: Ending, say: Callable[[str], None] = lambda line: None) -> Finals:
    """Run the best trials and the default again under new seeds; the best mean over these wins.

    Processes that do this at once share the runs. Of results alike the earlier of the search wins, so that the default
    stays where nothing is better.
    """
    plan, trials = search.plan, search.trials
    sign = 1.0 if plan.direction == "minimize" else -1.0
    best = trials.best()
    default = [one for one in trials.complete() if one.user_attrs.get(DEFAULT)]
    others = [one for one in trials.complete() if not one.user_attrs.get(DEFAULT)]
    # by result and, of trials alike, by number: a stable sort
    picked = [*default, *sorted(others, key=lambda one: sign * float(one.value or 0.0))[: ending.finalists]]
    numbers = ending.final_numbers(plan)
    if not numbers or len(picked) < 2:
        return Finals(best)
    say(f"the best {counted(len(picked) - len(default), 'trial')} and the default run under {len(numbers)} new seeds")
    runs = _runs(search, {str(one.number): trials.values(one) for one in picked}, numbers)
    found = [Final(one, _mean(runs, str(one.number), plan.measure)) for one in picked]
    return Finals(best, sorted(found, key=lambda one: math.inf if math.isnan(one.mean) else sign * one.mean))


def _runs(search: Search, values: Mapping[str, Mapping[str, Any]], numbers: Sequence[int]) -> Runs:
    asked = [(Arm(name), search.plan.run_config(own, one), "") for one in numbers for name, own in values.items()]
    return Runs(make_runs(search.store, asked))


def _mean(runs: Runs, arm: str, measure: str) -> float:
    values = [measured(run, measure) for run in runs.of(arm=arm)]
    return sum(values) / len(values)


# ---- the check ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """The best against the default, on dev, under seeds that the search did not use.

    Attributes
    ----------
    seeds : list of int
    default, best : float
        Means over the seeds of what was searched for.
    difference, low, high, p : float
        Of best less default, with its 95 % interval over seeds and rows; of divergence in its logarithm.
    unit : str
        As in `sage_kit.studies.verdicts`.
    steps : list of int
        The student steps of the runs, each number once.
    """

    seeds: list[int]
    default: float
    best: float
    difference: float
    low: float
    high: float
    p: float
    unit: str
    steps: list[int]

    @property
    def interval_text(self) -> str:
        """The difference and its interval in words."""
        value, low, high = (number_text(x, self.unit, signed=True) for x in (self.difference, self.low, self.high))
        return f"{value} {unit_text(self.unit)} (95 % interval {low} to {high})".replace("  ", " ")

    def verdict(self, name: str) -> str:
        """By rule one sentence: better or worse where the interval leaves zero out, with five seeds or more."""
        if not math.isfinite(self.difference):
            return f"Under {len(self.seeds)} new seeds, outputs of a run are no numbers: there is no comparison."
        direction: Direction = "below" if self.unit == PERCENT_CHANGE else "above"
        state = state_of(self.difference, 0.0, direction, self.p if can_decide(len(self.seeds)) else math.nan)
        head = (
            f"Under {len(self.seeds)} new seeds, on dev, the best settings have {name} {self.best:.4g} and the default "
        )
        head += f"{self.default:.4g}: {self.interval_text}. "
        if state == "yes":
            return f"{head}The best beat the default."
        if state == "no":
            return (
                f"{head}The best are worse than the default: the search took chance for a gain; try more --final-seeds."
            )
        if not can_decide(len(self.seeds)) and self.p < ALPHA:
            return f"{head}That points one way, but fewer than 5 seeds decide nothing (`--check-seeds 5`)."
        return f"{head}That shows no difference."


def check_best(
    search: Search, winner: FrozenTrial | None, ending: Ending, say: Callable[[str], None] = lambda line: None
) -> Check | None:
    """Run the winner and the default under seeds that nothing had, and compare them on dev, paired by seed and row.

    Processes that do this at once share the runs. None where no seeds are asked for, or the default won.
    """
    plan, numbers = search.plan, ending.check_numbers(search.plan)
    if not numbers or winner is None or winner.user_attrs.get(DEFAULT):
        return None
    say(f"the best, trial {winner.number}, is held against the default under {len(numbers)} new seeds")
    runs = _runs(search, {BASELINE: {}, CHOSEN: search.trials.values(winner)}, numbers)
    task = plan.base.task
    metric = plan.measure if plan.measure in (AGREEMENT, DIVERGENCE) else ""
    specs = {task: search.store.data(plan.base).spec}
    row = compare_outputs(runs, specs, BASELINE, split="dev", metric=metric).iloc[0]
    means = [row["baseline_mean"], row["mean"]]
    if metric == DIVERGENCE:  # compared in its logarithm
        means = [_mean(runs, name, DIVERGENCE) for name in (BASELINE, CHOSEN)]
    return Check(
        seeds=sorted({run.seed for run in runs}),
        default=float(means[0]),
        best=float(means[1]),
        difference=float(row["difference"]),
        low=float(row["low"]),
        high=float(row["high"]),
        p=float(row["p"]),
        unit=PERCENT_CHANGE if metric == DIVERGENCE else POINTS,
        steps=sorted({run.summary["student_steps"] for run in runs}),
    )
