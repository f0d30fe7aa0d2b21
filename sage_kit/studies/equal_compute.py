"""Equal compute: what runs of arms cost, and how many steps of an arm cost the FLOPs of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.errors import StudyError, did_you_mean

if TYPE_CHECKING:
    from pandas import DataFrame

    from sage_kit.studies.runs import Runs


def equal_flops_steps(runs: Runs, arm: str, like: str) -> dict[str, int]:
    """How many student steps of an arm cost as many FLOPs as another arm's whole runs, by task.

    FLOPs are those of costs.json, means over seeds: of the student's training, and of the teacher on synthetic
    examples; evaluation does not count. Reducers and inverters are not models whose FLOPs are counted: see the seconds.
    The result is ``steps(arm) * flops(like) / flops(arm)``, rounded: an arm's FLOPs grow with its steps. For
    `Study.run`'s `steps`.
    """
    steps = {}
    for task in runs.tasks:
        found = {name: runs.of(task=task, arm=name) for name in (arm, like)}
        lacking = next((name for name, own in found.items() if not own), None)
        if lacking is not None:
            raise StudyError(f"task {task!r} has no run of arm {lacking!r}.{did_you_mean(lacking, runs.arms, 'Arms')}")
        flops = {
            name: np.mean([sum(run.costs["flops"].values()) - run.costs["flops"].get("evaluate", 0) for run in own])
            for name, own in found.items()
        }
        own_steps = np.mean([run.summary["student_steps"] for run in found[arm]])
        steps[task] = max(1, round(own_steps * flops[like] / flops[arm]))
    return steps


def compute_table(runs: Runs) -> DataFrame:
    """Per task and arm, means over seeds of what it cost: steps, teacher tokens, FLOPs, seconds.

    Equal compute means equal student steps and equal teacher tokens; the column `equal` says whether both are those
    of the arm with the most, to within 2 %: a last batch that is not full, and the lengths of other anchors.
    """
    columns = ["student_steps", "teacher_tokens", "student_flops", "teacher_flops", "seconds"]
    means = runs.table().groupby(["task", "arm"], sort=False)[columns].mean().reset_index()
    most = means.groupby("task")[["student_steps", "teacher_tokens"]].transform("max")
    near = [np.isclose(means[name], most[name], rtol=0.02) for name in ("student_steps", "teacher_tokens")]
    return means.assign(equal=near[0] & near[1])
