"""What a study will run, and what its design can find by earlier results or assumptions: told before the first run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.data.splits import EVALUATION
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.studies import statistics
from sage_kit.studies.arms import Arm, at_rates, for_choice, run_config, step_limits
from sage_kit.studies.effort import Planned
from sage_kit.studies.predictions import VALIDATION
from sage_kit.studies.result import RESULT, StudyResult, find_folders, read_tables
from sage_kit.studies.tuning import TUNING_SEED, tries_of
from sage_kit.studies.verdicts import LEAST_SEEDS, POINTS, detectable_text

if TYPE_CHECKING:
    from pandas import DataFrame

    from sage_kit.studies.study import Study

DIFFERING = 0.04
"""Share of examples on which one arm is right and the other wrong, as measured of students of one teacher."""

SHARED = 1 / 3
"""Part of the variance of these that an example has under all seeds alike; the rest belongs to seed and example."""

SEED_DEVIATION = 0.004  # standard deviation of a seed's difference in accuracy beyond what the drawn examples explain

ASSUMED = (
    f"assuming that one arm is right and the other wrong on {100 * DIFFERING:.0f} % of the examples, a third of it "
    f"under all seeds alike, and that seeds differ by {100 * SEED_DEVIATION:g} points"
)
MEASURED = "as differences varied in earlier results"


def expected_table(results_dir: Path, examples: Mapping[str, int], seeds: int, split: str) -> DataFrame:
    """Per task and for the average, the standard error to be expected of a difference, and what can be found with it.
    Columns task, n_seeds, n_examples, se, df, detectable (with 80 % chance, by one finding alone), source.
    """
    from pandas import DataFrame

    earlier = _earlier(results_dir, split)
    parts: dict[str, tuple[int, statistics.Interval, str]] = {}
    for task, n in examples.items():
        found = [row for row in earlier if (row["task"], row["n_examples"], row["n_seeds"]) == (task, n, seeds)]
        if found:
            se, df = (float(np.median([row[name] for row in found])) for name in ("se", "df"))
            parts[task] = n, statistics.Interval(0.0, np.nan, np.nan, df, se), MEASURED
        else:
            parts[task] = n, assumed(n, seeds), ASSUMED
    if len(parts) > 1:
        sources = {source for *_, source in parts.values()}
        mean = statistics.average([part for _, part, _ in parts.values()])
        parts[statistics.AVERAGE] = sum(examples.values()), mean, min(sources)
    columns = ("task", "n_seeds", "n_examples", "se", "df", "detectable", "source")
    rows = [
        (task, seeds, n, part.se, part.df, statistics.detectable(part.se, part.df), source)
        for task, (n, part, source) in parts.items()
    ]
    return DataFrame(rows, columns=list(columns))


def assumed(examples: int, seeds: int) -> statistics.Interval:
    """The expected interval of a difference in accuracy under the assumptions, about 0."""
    of_example, of_rest = DIFFERING * SHARED, DIFFERING * (1 - SHARED)
    ms_rest = of_rest
    ms_seeds, ms_examples = ms_rest + examples * SEED_DEVIATION**2, ms_rest + seeds * of_example
    total = ms_seeds + ms_examples - ms_rest
    squares = ms_examples**2 / max(examples - 1, 1)
    if seeds > 1:
        squares += ms_seeds**2 / (seeds - 1) + ms_rest**2 / ((seeds - 1) * max(examples - 1, 1))
    return statistics.around(0.0, total / (seeds * examples), total**2 / squares)


def plan_text(table: DataFrame, seeds: int) -> str:
    """The table in words, for a notebook to print."""
    rows: list[dict[str, Any]] = table.to_dict("records")
    found = ", ".join(
        f"{detectable_text(row['detectable'], POINTS)} points on {row['task']} ({row['n_examples']:,} examples)"
        for row in rows
    )
    text = f"Design: {seeds} {'seed' if seeds == 1 else 'seeds'}; differences that it finds with 80 % chance: {found}"
    text += f"; {rows[-1]['source']}."
    if seeds < LEAST_SEEDS:
        text += f" A decision needs {LEAST_SEEDS} seeds, so every finding will be undecided."
    return text


def _earlier(results_dir: Path, split: str) -> list[dict[str, Any]]:
    """Rows of single tasks in tables of earlier results that compare arms by the primary metric on that split."""
    rows: list[dict[str, Any]] = []
    needed = {"metric", "split", *statistics.COLUMNS}
    for folder in find_folders(results_dir) if results_dir.is_dir() else ():
        if not (folder / RESULT).is_file():
            continue
        try:
            tables = read_tables(StudyResult.load(folder))
        except StudyError:
            continue  # of an older format, or damaged: the report tells
        for table in tables.values():
            if needed <= set(table.columns):
                chosen = table[(table["metric"] == "primary") & (table["split"] == split) & ~table["identical"]]
                rows += chosen[chosen["se"].notna()].to_dict("records")
    return rows


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
    arms: Sequence[Arm] | Mapping[str, Sequence[Arm]],
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
        own = arms[task] if isinstance(arms, Mapping) else arms
        every_try = tries_of(own, study.rates)
        is_tuned = tuned and (len(study.rates) > 1 or any(arm.choices for arm in own))
        for arm in own:
            places = [(choice, rate) for one, choice, rate in every_try if one is arm]
            if not is_tuned:
                groups = [[run_config(study, task, arm, seed, limit)] for seed in compared]
            else:
                rated = [at_rates(arm, {task: rate}, {task: choice}) for choice, rate in places]
                groups = [[run_config(study, task, for_choice(one), seed, limit)] for one in rated for seed in tries]
                groups += [[run_config(study, task, one, seed, limit) for one in rated] for seed in compared]
            for configs in groups:
                is_found = any(study.store.has(config, arm.loop) for config in configs)
                planned.append(Planned(configs[0], configs[0].max_steps or study.steps(task), is_found))
    return planned
