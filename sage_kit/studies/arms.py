"""Arms: the configurations that a study compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage_kit.config import RunConfig
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.studies.runs import Loop


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
        **settings: Any,
    ) -> None:
        named = [*settings, *(key for own in (by_task or {}).values() for key in own)]
        unknown = [key for key in named if key not in RunConfig.model_fields]
        if unknown:
            hint = did_you_mean(unknown[0], RunConfig.model_fields, elsewhere="`sage-kit config` lists them.")
            raise StudyError(f"arm {name!r}: there is no setting {unknown[0]!r}.{hint}")
        self.name = name
        self.about = about
        self.loop = loop
        self.settings = settings
        self.by_task = {task: dict(own) for task, own in (by_task or {}).items()}

    def on(self, task: str) -> dict[str, Any]:
        """Its settings on a task."""
        return {**self.settings, **self.by_task.get(task, {})}

    def __repr__(self) -> str:
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        return f"Arm({self.name!r}{settings})"


def for_choice(arm: Arm) -> Arm:
    """The arm as it is tried for a choice: by dev alone, and without the time for other splits."""
    return Arm(
        arm.name, arm.about, loop=arm.loop, by_task=arm.by_task, **{**arm.settings, "evaluate_validation": "never"}
    )


def at_rates(arm: Arm, rates: Mapping[str, float]) -> Arm:
    """The arm with a learning rate by task."""
    by_task = {
        **arm.by_task,
        **{task: {**arm.by_task.get(task, {}), "learning_rate": rate} for task, rate in rates.items()},
    }
    return Arm(arm.name, arm.about, loop=arm.loop, by_task=by_task, **arm.settings)
