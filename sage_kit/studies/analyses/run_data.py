"""What several analyses read: runs by arm, their synthetic sets, what they started from, and labels in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.unlabelled import count_unlabelled
from sage_kit.errors import StudyError
from sage_kit.recipe import resolve
from sage_kit.studies.runs import ArmRun, Runs
from sage_kit.synthesis.synthetic_set import SyntheticSet
from sage_kit.system.devices import make_accelerator
from sage_kit.training.preparation import prepare
from sage_kit.training.prepared import Prepared


def by_arm(runs: Runs) -> Iterator[tuple[str, str, list[ArmRun]]]:
    """Task, arm and its runs by seed, of every arm that has any on the task."""
    for task in runs.tasks:
        for arm in runs.arms:
            if its := runs.of(task=task, arm=arm):
                yield task, arm, its


def prepared_for(config: RunConfig, plugins: Plugins) -> Prepared:
    """Vectors, token states and all else that a run starts from; mostly found in the cache."""
    return prepare(resolve(config, plugins), make_accelerator(config), Costs())


def synthetic_sets(run: ArmRun) -> list[SyntheticSet]:
    """The synthetic sets that a run has kept, by round."""
    rounds = run.directory.rounds_with_synthetic()
    if not rounds:
        raise StudyError(f"the run of arm {run.arm!r} has kept no synthetic examples: run it with keep=['synthetic']")
    return [SyntheticSet.load(run.directory.synthetic(number)) for number in rounds]


def label_text(value: Any, spec: TaskSpec) -> str:
    """A label in words, or a number; "none" where there is none."""
    if count_unlabelled(np.asarray(value)):
        return "none"
    return f"{float(value):.2f}" if spec.is_regression else str(spec.labels[int(value)])
