"""Arms: the configurations that a study compares, their settings on a task under a seed, and their runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sage_kit.config import RunConfig
from sage_kit.errors import RunHeldError, StudyError, did_you_mean
from sage_kit.recipe import resolve
from sage_kit.studies.plan_only import end_of_plan
from sage_kit.studies.run_count import tell
from sage_kit.studies.run_store import RunStore
from sage_kit.studies.runs import ArmRun, Loop

if TYPE_CHECKING:
    from sage_kit.studies.study import Study


class Arm:
    """One configuration in a comparison.

    Parameters
    ----------
    name : str
        As tables and figures show it.
    about : str
        One line: what it is there for.
    loop : callable or None
        What makes its runs (`sage_kit.studies.runs.Loop`); None takes the distillation loop.
    by_task : mapping of task to mapping, or None
        Settings that go over the others on a task, such as a learning rate that `Study.tune` found there.
    choices : mapping of str to mapping, or None
        By name, settings that go over all these. `Study.tune` tries each with every learning rate, and takes one.
    **settings
        Settings of `RunConfig` that make it differ from the study's other arms.
    """

    def __init__(
        self,
        name: str,
        about: str = "",
        *,
        loop: Loop | None = None,
        by_task: Mapping[str, Mapping[str, Any]] | None = None,
        choices: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        others = [*(by_task or {}).values(), *(choices or {}).values()]
        named = [*settings, *(key for own in others for key in own)]
        unknown = [key for key in named if key not in RunConfig.model_fields]
        if unknown:
            hint = did_you_mean(unknown[0], RunConfig.model_fields, elsewhere="`sage-kit config` lists them.")
            raise StudyError(f"arm {name!r}: there is no setting {unknown[0]!r}.{hint}")
        self.name = name
        self.about = about
        self.loop = loop
        self.settings = settings
        self.by_task = {task: dict(own) for task, own in (by_task or {}).items()}
        self.choices = {name: dict(own) for name, own in (choices or {}).items()}

    def on(self, task: str, choice: str = "") -> dict[str, Any]:
        """Its settings on a task, with one of its choices."""
        return {**self.settings, **self.by_task.get(task, {}), **self.choices.get(choice, {})}

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"Arm({self.name!r}{settings})"


def for_choice(arm: Arm) -> Arm:
    """The arm as it is tried for a choice: by dev alone, and without the time for other splits."""
    return Arm(
        arm.name, arm.about, loop=arm.loop, by_task=arm.by_task, **{**arm.settings, "evaluate_validation": "never"}
    )


def at_rates(arm: Arm, rates: Mapping[str, float], choices: Mapping[str, str] | None = None) -> Arm:
    """The arm with a learning rate and, where it has choices, one of them by task."""
    by_task = dict(arm.by_task)
    for task, rate in rates.items():
        chosen = arm.choices.get((choices or {}).get(task, ""), {})
        by_task[task] = {**arm.by_task.get(task, {}), **chosen, "learning_rate": rate}
    return Arm(arm.name, arm.about, loop=arm.loop, by_task=by_task, **arm.settings)


def check_arms(study: Study, arms: Sequence[Arm], tasks: Sequence[str]) -> None:
    """Check that arms have different names and lack nothing on any task, before the first one is trained."""
    names = [arm.name for arm in arms]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise StudyError(f"two arms are called {double!r}: give each a name of its own")
    for task in tasks:
        for arm in arms:
            for choice in arm.choices or [""]:
                resolve(study.config(task, **arm.on(task, choice)), study.plugins)


def step_limits(
    study: Study, tasks: Sequence[str], equal_steps: bool, steps: Mapping[str, int] | None
) -> dict[str, dict[str, int]]:
    """By task the setting that limits student steps, as `Study.run` takes them; none where rounds decide."""
    is_limited = equal_steps or bool(steps)
    return {task: {"max_steps": (steps or {}).get(task) or study.steps(task)} if is_limited else {} for task in tasks}


def run_config(study: Study, task: str, arm: Arm, seed: int, limit: Mapping[str, int]) -> RunConfig:
    """The settings of a run: each seed also draws a transfer set of its own, where there is something to draw."""
    own = {**limit, **arm.on(task), "seed": seed}
    if "transfer_seed" not in own and study.config(task, **arm.on(task)).transfer_rows:
        own["transfer_seed"] = seed
    return study.config(task, **own)


def make_runs(store: RunStore, asked: Sequence[tuple[Arm, RunConfig, str]], keep: Sequence[str] = ()) -> list[ArmRun]:
    """The runs of arms with these settings, and a note for the line about each, in their order.

    A run that another process is making at the moment is left for later, so that several processes that execute the
    same study share its runs.
    """
    end_of_plan()
    found: dict[int, ArmRun] = {}
    store.count.ask(len(asked))

    def make(number: int, *, wait: bool) -> None:
        arm, config, note = asked[number]
        lines: list[str] = []
        started = time.perf_counter()
        run = found[number] = store.run(
            arm.name, config, keep=keep, announce=lines.append, loop=arm.loop, wait=wait
        )  # fmt: skip
        tail = store.count.add(None if run.found else time.perf_counter() - started)
        tell(f"{' '.join(lines)}{note}{tail}")

    waiting = list(range(len(asked)))
    while waiting:
        for number in waiting:
            with contextlib.suppress(RunHeldError):
                make(number, wait=False)
        held = [number for number in waiting if number not in found]
        if len(held) == len(waiting):  # nothing else to do meanwhile
            make(held.pop(0), wait=True)
        waiting = held
    return [found[number] for number in range(len(asked))]
