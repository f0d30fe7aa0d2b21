"""Learning rates, chosen alike for every arm of a comparison: as many tries each, by the dev split.

A try is a run of an arm at one rate, under a seed and on a transfer set that no comparison uses. Its mean divergence
from the teacher on dev decides; held-out rows and official validation data are not read. Of an arm with choices each is
tried at every rate, and arms without them get as many tries by more rates.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sage_kit.errors import StudyError
from sage_kit.studies.arms import Arm, at_rates, check_arms, for_choice, make_runs, run_config, step_limits

if TYPE_CHECKING:
    from pandas import DataFrame

    from sage_kit.studies.runs import ArmRun
    from sage_kit.studies.study import Study

TUNING_SEED = 1000
"""First seed, of run and of transfer set, for tries of learning rates; comparisons take those below it."""

SEARCH_SEED = 2000  # first seed of a search for other settings

COLUMNS = ("task", "arm", "learning_rate", "seed", "steps", "dev_divergence", "dev", "dev_agreement", "taken",
           "at_end", "run")  # fmt: skip


class Try(NamedTuple):
    """One run of an arm at one learning rate."""

    task: str
    arm: str
    rate: float  # peak learning rate of the student
    seed: int  # of the run and, where there is one, of its transfer set
    steps: int  # student steps
    divergence: float  # mean divergence from the teacher on dev; NaN where the student's outputs are no numbers
    score: float  # the task's primary metric on dev: shown, and nothing is chosen by it, nor by the next
    agreement: float  # with the teacher on dev
    run: str  # name of the run's folder
    choice: str = ""  # which of the arm's choices; "" where it has none


class Tuning:
    """All tries of a study."""

    def __init__(self) -> None:
        self._tries: dict[tuple[str, str, str, float, int], Try] = {}
        self._choosing: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._tries)

    def add(self, one: Try) -> None:
        """Keep a try."""
        self._tries[one.task, one.arm, one.choice, one.rate, one.seed] = one

    def of(self, task: str, arm: str) -> list[Try]:
        """The tries of an arm on a task, by choice, rate and seed."""
        found = [one for one in self._tries.values() if (one.task, one.arm) == (task, arm)]
        return sorted(found, key=lambda one: (one.choice, one.rate, one.seed))

    @property
    def has_choices(self) -> bool:
        """Whether an arm has had choices to try."""
        return any(one.choice for one in self._tries.values())

    def rates(self, task: str) -> tuple[float, ...]:
        """The learning rates that have been tried on a task, in rising order."""
        return tuple(sorted({one.rate for one in self._tries.values() if one.task == task}))

    def means(self, task: str, arm: str) -> dict[tuple[str, float], float]:
        """Mean divergence on dev by choice and rate; infinite where a student's outputs are no numbers."""
        found: dict[tuple[str, float], list[float]] = {}
        for one in self.of(task, arm):
            found.setdefault((one.choice, one.rate), []).append(one.divergence)
        means = {place: float(np.mean(values)) for place, values in found.items()}
        return {place: mean if math.isfinite(mean) else math.inf for place, mean in means.items()}

    def taken(self, task: str, arm: str) -> tuple[str, float]:
        """The choice and the rate with the lowest mean divergence; of several the first choice and smallest rate."""
        means = self.means(task, arm)
        place = min(means, key=lambda one: means[one])
        if math.isinf(means[place]):
            tried = rates_text(sorted({rate for _, rate in means}))
            raise StudyError(f"arm {arm!r} on {task}: no learning rate of {tried} trains it; try smaller")
        return place

    def best(self, task: str, arm: str) -> float:
        """The rate that is taken."""
        return self.taken(task, arm)[1]

    def at_ends(self, task: str, arms: Iterable[str]) -> dict[str, float]:
        """Of these arms, those whose best rate on a task is the smallest or the largest that was tried."""
        found = {}
        for arm in arms:
            has_choices = any(one.choice for one in self.of(task, arm))
            tried = sorted({one.rate for one in self.of(task, arm)}) if has_choices else self.rates(task)
            rate = self.best(task, arm)
            if rate in (tried[0], tried[-1]):
                found[arm] = rate
        return found

    def choose_on(self, seeds: Iterable[int]) -> None:
        """Keep seeds for choices: see `sage_kit.studies.Study.choose_on`."""
        seeds = set(seeds)
        if seeds and min(seeds) < TUNING_SEED:
            raise StudyError(
                f"seed {min(seeds)} is one of those that are compared: choose settings on {TUNING_SEED:,} and up"
            )
        self._choosing |= seeds

    def check_fair(self, runs: Sequence[ArmRun]) -> None:
        """Check that no run of a comparison is of a seed that chose something, and that its arms are tuned alike."""
        chosen_by = next((run.seed for run in runs if run.seed in self._choosing), None)
        if chosen_by is not None:
            raise StudyError(f"seed {chosen_by} chose settings in this study: compare runs under other seeds")
        for task in dict.fromkeys(run.task for run in runs):
            self.check_alike(task, [run.arm for run in runs if run.task == task])

    def check_alike(self, task: str, arms: Sequence[str]) -> None:
        """Check that arms that are compared on a task have had the same tries, or none of them any."""
        own = {arm: self.of(task, arm) for arm in dict.fromkeys(arms)}
        tried = {arm: {(one.choice, one.rate, one.seed) for one in tries} for arm, tries in own.items()}
        if len({frozenset(tries) for tries in tried.values()}) < 2:
            return
        if any(one.choice for tries in own.values() for one in tries):
            # rates and choices are different things to try: as many of them, under each seed, are as good a chance
            counts = [Counter(one.seed for one in tries) for tries in own.values()]
            if all(count == counts[0] for count in counts):
                return
        least, most = (pick(tried, key=lambda arm: len(tried[arm])) for pick in (min, max))
        raise StudyError(
            f"arms of one comparison are tuned by unlike tries on {task}: {most!r} by {_tries_text(tried[most])}, "
            f"{least!r} by {_tries_text(tried[least])}; hand all of them to Study.tune"
        )

    def table(self) -> DataFrame:
        """Every try, one row each, and whether its rate was taken, and stands at an end of the list. The column
        "choice" is there where an arm has any.
        """
        from pandas import DataFrame

        rows, choices = [], []
        for task, arm in dict.fromkeys((one.task, one.arm) for one in self._tries.values()):
            taken, is_end = self.taken(task, arm), bool(self.at_ends(task, [arm]))
            for one in self.of(task, arm):
                is_taken = (one.choice, one.rate) == taken
                rows.append((*one[:8], is_taken, is_taken and is_end, one.run))
                choices.append(one.choice)
        table = DataFrame(rows, columns=list(COLUMNS))
        if any(choices):
            table.insert(2, "choice", choices)
        return table


def tune_arms(
    study: Study,
    arms: Sequence[Arm],
    rates: Sequence[float],
    seeds: Sequence[int] | None,
    tasks: Sequence[str],
    equal_steps: bool,
    steps: Mapping[str, int] | None,
    extensions: int,
) -> list[Arm]:
    """The arms at the learning rates that are best for them: see `sage_kit.studies.Study.tune`."""
    for arm in arms:
        if any("learning_rate" in own for own in (arm.settings, *arm.by_task.values(), *arm.choices.values())):
            raise StudyError(f"arm {arm.name!r} sets learning_rate: leave it out, for it is tuned")
    check_arms(study, arms, tasks)
    rates = tuple(sorted(set(rates)))
    if len(rates) < 2 and not any(arm.choices for arm in arms) and not study.tuning.has_choices:
        print(f"All arms learn at a rate of {rates_text(rates)}: none is tuned.", flush=True)
        return [at_rates(arm, dict.fromkeys(tasks, rates[0])) for arm in arms]
    tuning, names = study.tuning, [arm.name for arm in arms]
    tried = tuple(TUNING_SEED + number for number in range(study.size.tuning_seeds)) if seeds is None else seeds
    tuning.choose_on(tried)
    if not study.is_planned:
        study.plan(arms=arms, tasks=tasks, tuned=True, equal_steps=equal_steps, steps=steps)
    for task, limit in step_limits(study, tasks, equal_steps, steps).items():
        before = tuning.rates(task)
        _try(study, tries_of(arms, rates, before), task, tried, limit)
        # of two rates each is at an end; and arms of earlier comparisons, and of choices, would miss later rates
        is_fixed = before or len(rates) < 3 or any(arm.choices for arm in arms)
        for _ in range(0 if is_fixed else extensions):
            more = further(tuning.rates(task), tuning.at_ends(task, names).values())
            if not more:
                break
            print(f"{task}: a best learning rate is at an end of the list, so all arms try {rates_text(more)} too")
            _try(study, [(arm, "", rate) for arm in arms for rate in more], task, tried, limit)
        listed = [arm.name for arm in arms if not arm.choices] if len(tuning.rates(task)) > 1 else []
        for name, rate in tuning.at_ends(task, listed).items():
            print(
                f"{task}, {name}: the best learning rate, {rate:g}, is at an end of those tried "
                f"({rates_text(tuning.rates(task))}), for all arms alike"
            )
    study.add_table("tuning", tuning.table(), show=False)
    tuned = []
    for arm in arms:
        found = {task: tuning.taken(task, arm.name) for task in tasks}
        told = (f"{f'{choice} at ' if choice else ''}{rate:g} on {task}" for task, (choice, rate) in found.items())
        print(f"learning rate of {arm.name}: {', '.join(told)}")
        chosen = {task: choice for task, (choice, _) in found.items()}
        tuned.append(at_rates(arm, {task: rate for task, (_, rate) in found.items()}, chosen))
    return tuned


def tries_of(arms: Sequence[Arm], rates: Sequence[float], before: Sequence[float] = ()) -> list[tuple[Arm, str, float]]:
    """Arms, each with its choices and rates to try: as many for all. An arm without choices takes the rates that others
    had before it or, where there are none, the list made longer by `widened`.
    """
    choices = max((len(arm.choices) for arm in arms), default=0)
    alone = before or (widened(rates, choices * len(rates)) if choices else rates)
    return [
        (arm, choice, rate)
        for arm in arms
        for choice in arm.choices or [""]
        for rate in (rates if arm.choices else alone)
    ]


def _try(
    study: Study,
    tries: Sequence[tuple[Arm, str, float]],
    task: str,
    seeds: Sequence[int],
    limit: Mapping[str, int],
) -> None:
    """Run every arm at every choice and rate under every seed."""
    seeded = [(*one, seed) for one in tries for seed in seeds]
    asked = []
    for arm, choice, rate, seed in seeded:
        one = for_choice(at_rates(arm, {task: rate}, {task: choice}))
        note = f", {choice}" if choice else ""
        asked.append((one, run_config(study, task, one, seed, limit), f"{note}, learning rate {rate:g}"))
    for (_, choice, rate, _), run in zip(seeded, make_runs(study.store, asked), strict=True):
        row = run.row()
        study.tries[row["run"]] = run
        told = (row[name] for name in ("student_steps", "dev_divergence", "dev", "dev_agreement", "run"))
        study.tuning.add(Try(task, run.arm, rate, run.seed, *told)._replace(choice=choice))


def widened(rates: Sequence[float], count: int) -> list[float]:
    """A rising list of `count` rates, that goes on in turn below and above the ends of a shorter one."""
    found = list(rates) if len(rates) > 1 or count < 2 else [rates[0], 2 * rates[0]]
    while len(found) < count:
        end = found[0] if (len(found) - len(rates)) % 2 == 0 else found[-1]
        found = sorted([*found, *further(found, [end])])
    return found


def further(rates: Sequence[float], ends: Iterable[float]) -> list[float]:
    """Rates beyond the ends of a rising list at which the best ones of some arms lie, as far again as the last step."""
    ends = set(ends)
    below = [rates[0] * rates[0] / rates[1]] if rates[0] in ends else []
    above = [rates[-1] * rates[-1] / rates[-2]] if rates[-1] in ends else []
    return [float(f"{rate:.4g}") for rate in (*below, *above)]


def rates_text(rates: Iterable[float]) -> str:
    """Learning rates as a person reads them: ``5e-05, 0.0001``."""
    return ", ".join(f"{rate:g}" for rate in rates)


def _tries_text(tries: set[tuple[str, float, int]]) -> str:
    return f"{len(tries)} ({rates_text(sorted({rate for _, rate, _ in tries}))})" if tries else "none"
