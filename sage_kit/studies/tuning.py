"""Learning rates, chosen alike for every arm of a comparison: as many tries each, by the part carved for choices.

A try is a run of an arm at one rate, under a seed and on a transfer set that no comparison uses. Its mean divergence
from the teacher on dev decides; held-out rows and official validation data are not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sage_kit.errors import StudyError

if TYPE_CHECKING:
    from pandas import DataFrame

TUNING_SEED = 1000
"""First seed, of run and of transfer set, for tries of learning rates; comparisons take those below it."""

SEARCH_SEED = 2000
"""First seed of a search for other settings."""

COLUMNS = ("task", "arm", "learning_rate", "seed", "steps", "dev_divergence", "dev", "dev_agreement", "taken",
           "at_end", "run")  # fmt: skip


@dataclass(frozen=True)
class Try:
    """One run of an arm at one learning rate.

    Attributes
    ----------
    task, arm : str
    rate : float
        Peak learning rate of the student.
    seed : int
        Of the run and, where there is one, of its transfer set.
    steps : int
        Student steps.
    divergence : float
        Mean divergence from the teacher on dev; NaN where the student's outputs are no numbers.
    score, agreement : float
        The task's primary metric and agreement with the teacher on dev: shown, and nothing is chosen by them.
    run : str
        Name of the run's folder.
    """

    task: str
    arm: str
    rate: float
    seed: int
    steps: int
    divergence: float
    score: float
    agreement: float
    run: str


class Tuning:
    """All tries of a study."""

    def __init__(self) -> None:
        self._tries: dict[tuple[str, str, float, int], Try] = {}

    def __bool__(self) -> bool:
        return bool(self._tries)

    def add(self, one: Try) -> None:
        """Keep a try."""
        self._tries[one.task, one.arm, one.rate, one.seed] = one

    def of(self, task: str, arm: str) -> list[Try]:
        """The tries of an arm on a task, by rate and seed."""
        found = [one for one in self._tries.values() if (one.task, one.arm) == (task, arm)]
        return sorted(found, key=lambda one: (one.rate, one.seed))

    def rates(self, task: str) -> tuple[float, ...]:
        """The learning rates that have been tried on a task, in rising order."""
        return tuple(sorted({one.rate for one in self._tries.values() if one.task == task}))

    def means(self, task: str, arm: str) -> dict[float, float]:
        """Mean divergence on dev by rate; infinite where a student's outputs are no numbers."""
        tries = self.of(task, arm)
        return {
            rate: _mean([one.divergence for one in tries if one.rate == rate])
            for rate in dict.fromkeys(one.rate for one in tries)
        }

    def best(self, task: str, arm: str) -> float:
        """The rate with the lowest mean divergence; the smallest of several.

        Raises
        ------
        StudyError
            When no rate leaves a student whose outputs are numbers.
        """
        means = self.means(task, arm)
        rate = min(means, key=lambda one: means[one])
        if math.isinf(means[rate]):
            raise StudyError(f"arm {arm!r} on {task}: no learning rate of {rates_text(means)} trains it; try smaller")
        return rate

    def at_ends(self, task: str, arms: Iterable[str]) -> dict[str, float]:
        """Of these arms, those whose best rate on a task is the smallest or the largest that was tried."""
        tried = self.rates(task)
        found = {arm: self.best(task, arm) for arm in arms}
        return {arm: rate for arm, rate in found.items() if rate in (tried[0], tried[-1])}

    def check_alike(self, task: str, arms: Sequence[str]) -> None:
        """Check that arms that are compared on a task have had the same tries, or none of them any.

        Raises
        ------
        StudyError
            When one has had others.
        """
        tried = {arm: {(one.rate, one.seed) for one in self.of(task, arm)} for arm in dict.fromkeys(arms)}
        if len({frozenset(tries) for tries in tried.values()}) < 2:
            return
        least, most = (pick(tried, key=lambda arm: len(tried[arm])) for pick in (min, max))
        raise StudyError(
            f"arms of one comparison are tuned by unlike tries on {task}: {most!r} by {_tries_text(tried[most])}, "
            f"{least!r} by {_tries_text(tried[least])}; hand all of them to Study.tune"
        )

    def table(self) -> DataFrame:
        """Every try, one row each, and whether its rate was taken, and stands at an end of the list."""
        from pandas import DataFrame

        rows = []
        for task, arm in dict.fromkeys((one.task, one.arm) for one in self._tries.values()):
            best, tried = self.best(task, arm), self.rates(task)
            rows += [
                (task, arm, one.rate, one.seed, one.steps, one.divergence, one.score, one.agreement, one.rate == best,
                 one.rate == best and best in (tried[0], tried[-1]), one.run)
                for one in self.of(task, arm)
            ]  # fmt: skip
        return DataFrame(rows, columns=list(COLUMNS))


def further(rates: Sequence[float], ends: Iterable[float]) -> list[float]:
    """Rates beyond the ends of a rising list at which the best ones of some arms lie, as far again as the last step.

    Parameters
    ----------
    rates : sequence of float
        At least two, in rising order.
    ends : iterable of float
        Best rates that are the first or the last of these.

    Returns
    -------
    list of float
        One below the list, one above it, or both.
    """
    ends = set(ends)
    below = [rates[0] * rates[0] / rates[1]] if rates[0] in ends else []
    above = [rates[-1] * rates[-1] / rates[-2]] if rates[-1] in ends else []
    return [float(f"{rate:.4g}") for rate in (*below, *above)]


def rates_text(rates: Iterable[float]) -> str:
    """Learning rates as a person reads them: ``5e-05, 0.0001``."""
    return ", ".join(f"{rate:g}" for rate in rates)


def _tries_text(tries: set[tuple[float, int]]) -> str:
    return f"{len(tries)} ({rates_text(sorted({rate for rate, _ in tries}))})" if tries else "none"


def _mean(values: Sequence[float]) -> float:
    mean = float(np.mean(values))
    return mean if math.isfinite(mean) else math.inf
