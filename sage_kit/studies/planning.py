"""What a study will run, and on how many rows it compares: for its plan, which is told before the first run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sage_kit.data.splits import EVALUATION
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.studies.arms import Arm, at_rates, for_choice, run_config, step_limits
from sage_kit.studies.effort import Planned
from sage_kit.studies.predictions import VALIDATION
from sage_kit.studies.tuning import TUNING_SEED

if TYPE_CHECKING:
    from sage_kit.studies.study import Study


def compared_rows(study: Study, task: str, split: str) -> int:
    """Rows of a task's split, named as in `Study.plan`."""
    data = study.store.data(study.config(task))
    name = next(iter(data.validation)) if split == VALIDATION else split
    if name not in data.splits:
        names = ["dev", *data.validation, *([EVALUATION] if data.evaluation is not None else [])]
        raise StudyError(f"task {task!r} has no split {name!r}.{did_you_mean(name, names, 'Splits')}")
    return len(data.splits[name])


def planned_runs(
    study: Study,
    arms: Sequence[Arm],
    tasks: Sequence[str],
    seeds: Sequence[int] | None,
    tuned: bool,
    equal_steps: bool,
    steps: Mapping[str, int] | None,
) -> list[Planned]:
    """The runs of arms: tries, and those that are compared, at whichever rate they are found; as in `Study.plan`."""
    compared = range(study.seeds) if seeds is None else seeds
    tries = range(TUNING_SEED, TUNING_SEED + study.size.tuning_seeds)
    planned = []
    for task, limit in step_limits(study, tasks, equal_steps, steps).items():
        for arm in arms:
            if not tuned or len(study.rates) < 2:
                groups = [[run_config(study, task, arm, seed, limit)] for seed in compared]
            else:
                rated = [at_rates(arm, {task: rate}) for rate in study.rates]
                groups = [[run_config(study, task, for_choice(one), seed, limit)] for one in rated for seed in tries]
                groups += [[run_config(study, task, one, seed, limit) for one in rated] for seed in compared]
            for configs in groups:
                is_found = any(study.store.has(config, arm.loop) for config in configs)
                planned.append(Planned(configs[0], configs[0].max_steps or study.steps(task), is_found))
    return planned
