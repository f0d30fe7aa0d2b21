"""Tables of arms: how each did, and every arm against the baseline, paired by seed and by example."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sage_kit.errors import ConfigError, DataError, did_you_mean
from sage_kit.studies.statistics.checks import check_choice, check_level, check_rows
from sage_kit.studies.statistics.intervals import interval_of, t_interval
from sage_kit.studies.statistics.resampling import Over, average_over_tasks, mean_over_seeds, seed_metrics
from sage_kit.studies.statistics.significance import effect_size, holm, paired_p, sign_flip_p

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]
Floats = NDArray[np.float64]

Test = Literal["t", "sign_flip"]

AVERAGE = "average"
"""Name of the row that averages over the tasks."""


def summarize(
    table: pd.DataFrame, value: str = "value", by: Sequence[str] = ("task", "arm"), *, level: float = 0.95
) -> pd.DataFrame:
    """Means over seeds with Student's intervals, a row per group: how each arm did, not how arms differ.

    Parameters
    ----------
    table : pandas DataFrame
        One row per run.
    value : str
        Column to summarise.
    by : sequence of str
        Columns that make a group.
    level : float
        Coverage of the intervals.

    Returns
    -------
    pandas DataFrame
        Columns of `by`, then n_seeds (rows of the group), mean, low and high; groups in the order of the table.

    Raises
    ------
    ConfigError
        If a column is missing, or the level is out of range.
    """
    import pandas as pd

    check_level(level)
    _check_columns(table, (*by, value))
    rows = []
    for key, group in table.groupby(list(by), sort=False, dropna=False):
        interval = t_interval(group[value].to_numpy(), level)
        rows.append((*key, len(group), interval.value, interval.low, interval.high))
    return pd.DataFrame(rows, columns=[*by, "n_seeds", "mean", "low", "high"])


def compare_arms(
    table: pd.DataFrame,
    baseline: str,
    *,
    value: str = "value",
    level: float = 0.95,
    test: Test = "t",
    average: bool = True,
    replicates: Mapping[tuple[str, str], Array] | None = None,
) -> pd.DataFrame:
    """Every arm against the baseline, paired by seed: a row per task and arm, and one for the average over tasks.

    Parameters
    ----------
    table : pandas DataFrame
        One row per run, with columns "task", "arm", "seed" and the value.
    baseline : str
        The arm to compare with.
    value : str
        Column of the metric.
    level : float
        Coverage of the intervals.
    test : str
        "t" (`paired_p`) or "sign_flip" (`sign_flip_p`).
    average : bool
        Whether to add the average over tasks, where there are several: per seed, the mean of the tasks' differences,
        each task weighing the same. It needs the same arms and seeds in every task.
    replicates : mapping of (task, arm) to array of shape (resamples,), or None
        Replicates of the difference from the baseline (`paired_replicates`): "low" and "high" are taken from them, and
        Student's interval moves to "seeds_low" and "seeds_high". Those of the average are averaged from the tasks'.

    Returns
    -------
    pandas DataFrame
        Columns task, arm, n_seeds, mean, baseline_mean, difference (mean minus baseline_mean), low, high, with
        `replicates` seeds_low, seeds_high, then p, p_holm (Holm's, across the arms of a task) and effect
        (`effect_size`). Tasks and arms come in the order of the table.

    Raises
    ------
    ConfigError
        For an unknown baseline, test or column.
    DataError
        If a pair is incomplete (a seed that only one of the arms has), a run comes twice, or replicates are missing.
    """
    import pandas as pd

    check_level(level)
    check_choice("test", test, Test)
    _check_columns(table, ("task", "arm", "seed", value))
    tasks, arms = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["arm"]))
    if baseline not in arms:
        raise ConfigError(f"Unknown baseline arm {baseline!r}.{did_you_mean(baseline, map(str, arms), 'Arms')}")
    if AVERAGE in tasks:
        raise DataError(f"A task is named {AVERAGE!r}, which is the name of the average over tasks: rename the task.")
    values = _by_run(table, value)
    groups = {task: _pairs(values, task, arms, baseline) for task in tasks}
    if average and len(tasks) > 1:
        groups[AVERAGE] = _average_pairs(groups)
    shares = dict(replicates) if replicates is not None else None
    if shares is not None:
        for arm in groups.get(AVERAGE, ()):
            shares[AVERAGE, arm] = average_over_tasks([_replicates_of(shares, task, arm) for task in tasks])
    p_of = paired_p if test == "t" else sign_flip_p
    rows: list[dict[str, Any]] = []
    for task, group in groups.items():
        p_values = np.array([p_of(pair.differences) for pair in group.values()])
        for (arm, pair), p, adjusted in zip(group.items(), p_values, holm(p_values), strict=True):
            seeds = t_interval(pair.differences, level)
            row: dict[str, Any] = {
                "task": task, "arm": arm, "n_seeds": len(pair.seeds), "mean": pair.ours.mean(),
                "baseline_mean": pair.base.mean(), "difference": seeds.value, "low": seeds.low, "high": seeds.high,
            }  # fmt: skip
            if shares is not None:
                both = interval_of(seeds.value, _replicates_of(shares, task, arm), level)
                row |= {"low": both.low, "high": both.high, "seeds_low": seeds.low, "seeds_high": seeds.high}
            rows.append(row | {"p": p, "p_holm": adjusted, "effect": effect_size(pair.differences)})
    columns = ["task", "arm", "n_seeds", "mean", "baseline_mean", "difference", "low", "high"]
    columns += ["seeds_low", "seeds_high"] if shares is not None else []
    return pd.DataFrame(rows, columns=[*columns, "p", "p_holm", "effect"])


def compare_predictions(
    predictions: Mapping[tuple[str, str], Array],
    labels: Mapping[str, Array],
    metrics: Mapping[str, str],
    baseline: str,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    test: Test = "t",
    over: Over = "both",
    average: bool = True,
    tolerances: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Every arm against the baseline, from each run's predictions: `compare_arms` with `paired_bootstrap`'s intervals.

    All arms of a task share their resamples; tasks draw independent ones, by their names.

    Parameters
    ----------
    predictions : mapping of (task, arm) to array of shape (seeds, n)
        Predicted classes or values; row s of each arm of a task comes from the same seed.
    labels : mapping of task to array of shape (n,)
        Gold labels; for "agreement" the teacher's predictions.
    metrics : mapping of task to str
        A metric of `sage_kit.evaluate.METRICS`, or "agreement".
    baseline : str
        The arm to compare with.
    resamples : int
    seed : int
        Of the resamples.
    level : float
        Coverage of the intervals.
    test : str
        "t" (`paired_p`) or "sign_flip" (`sign_flip_p`).
    over : str
        What "low" and "high" resample: "both", "seeds" or "examples".
    average : bool
        Whether to add the average over tasks.
    tolerances : mapping of task to float, or None
        For "agreement" in regression: two values are alike when they differ by at most this; 0 where not given.

    Returns
    -------
    pandas DataFrame
        As that of `compare_arms`: "low" and "high" by the bootstrap, "seeds_low" and "seeds_high" by `t_interval`.

    Raises
    ------
    ConfigError
        For an unknown baseline, metric, test or `over`.
    DataError
        If labels or a metric are missing, or the arms of a task differ in their seeds or examples.
    """
    import pandas as pd

    tasks, arms = (
        list(dict.fromkeys(task for task, _ in predictions)),
        list(dict.fromkeys(arm for _, arm in predictions)),
    )
    if baseline not in arms:
        raise ConfigError(f"Unknown baseline arm {baseline!r}.{did_you_mean(baseline, arms, 'Arms')}")
    runs: list[dict[str, Any]] = []
    replicates: dict[tuple[str, str], Array] = {}
    for task in tasks:
        if task not in labels or task not in metrics:
            lacking = "metric" if task in labels else "labels"
            raise DataError(f"Task {task!r} has predictions but no {lacking}: give them.")
        own = [arm for arm in arms if (task, arm) in predictions]
        if baseline not in own:
            raise DataError(f"Task {task!r} has no predictions of the baseline {baseline!r}: run that arm too.")
        gold = np.asarray(labels[task])
        stacked = [np.asarray(predictions[task, arm]) for arm in own]
        for arm, array in zip(own, stacked, strict=True):
            check_rows(gold, array, f"predictions of task {task!r}, arm {arm!r},")
            if len(array) != len(stacked[0]):
                raise DataError(
                    f"task {task!r} has {len(array)} seeds of arm {arm!r} and {len(stacked[0])} of {own[0]!r}: "
                    "run the same seeds of both."
                )
        # By its name, so that a task's interval does not depend on the tasks beside it.
        stream = [seed, zlib.crc32(task.encode())]
        tolerance = (tolerances or {}).get(task, 0.0)
        values, resampled = seed_metrics(gold, np.stack(stacked), metrics[task], resamples, stream, over, tolerance)
        base = own.index(baseline)
        for index, arm in enumerate(own):
            replicates[task, arm] = mean_over_seeds(resampled[index] - resampled[base], stream, over)
            runs += [{"task": task, "arm": arm, "seed": s, "value": value} for s, value in enumerate(values[index])]
    return compare_arms(pd.DataFrame(runs), baseline, level=level, test=test, average=average, replicates=replicates)


def _check_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    known = [str(column) for column in table.columns]
    for column in columns:
        if column not in known:
            raise ConfigError(f"The table of runs has no column {column!r}.{did_you_mean(column, known)}")


_Runs = Mapping[tuple[Any, Any], Mapping[Any, float]]
"""Values by (task, arm), then by seed."""


def _by_run(table: pd.DataFrame, value: str) -> _Runs:
    runs: dict[tuple[Any, Any], dict[Any, float]] = {}
    columns = (table[column].tolist() for column in ("task", "arm", "seed", value))
    for task, arm, seed, number in zip(*columns, strict=True):
        seeds = runs.setdefault((task, arm), {})
        if seed in seeds:
            raise DataError(f"The table has two runs of task {task!r}, arm {arm!r}, seed {seed}: keep one.")
        seeds[seed] = float(number)
    return runs


@dataclass(frozen=True)
class _Pair:
    """Values of an arm and of the baseline, seed by seed."""

    seeds: list[Any]
    ours: Floats
    base: Floats

    @property
    def differences(self) -> Floats:
        return self.ours - self.base


def _pairs(values: _Runs, task: Any, arms: Sequence[Any], baseline: Any) -> dict[Any, _Pair]:
    """The arms of a task beside the baseline, where both have exactly the same seeds."""
    base = values.get((task, baseline), {})
    pairs: dict[Any, _Pair] = {}
    for arm in arms:
        ours = values.get((task, arm))
        if arm == baseline or ours is None:
            continue
        for seed in sorted(ours.keys() ^ base.keys()):
            has, lacks = (arm, baseline) if seed in ours else (baseline, arm)
            raise DataError(
                f"Task {task!r}, seed {seed}: there is a run of arm {has!r} and none of arm {lacks!r}, so they cannot "
                "be paired. Run the missing one or leave the seed out."
            )
        seeds = sorted(ours)
        pairs[arm] = _Pair(seeds, np.array([ours[seed] for seed in seeds]), np.array([base[seed] for seed in seeds]))
    return pairs


def _average_pairs(groups: Mapping[Any, Mapping[Any, _Pair]]) -> dict[Any, _Pair]:
    """Per arm and seed the means over tasks, where each task has the same arms and seeds."""
    averages: dict[Any, _Pair] = {}
    for arm in dict.fromkeys(arm for group in groups.values() for arm in group):
        seeds = sorted({seed for group in groups.values() if arm in group for seed in group[arm].seeds})
        for task, group in groups.items():
            for seed in seeds:
                if arm not in group or seed not in group[arm].seeds:
                    raise DataError(
                        f"Task {task!r}, seed {seed}: there is no run of arm {arm!r}, and another task has one, so "
                        "tasks cannot be averaged. Run it, leave it out everywhere, or ask for no average."
                    )
        pairs = [group[arm] for group in groups.values()]
        ours, base = (np.mean([getattr(pair, side) for pair in pairs], axis=0) for side in ("ours", "base"))
        averages[arm] = _Pair(seeds, ours, base)
    return averages


def _replicates_of(replicates: Mapping[tuple[str, str], Array], task: str, arm: str) -> Array:
    if (task, arm) not in replicates:
        raise DataError(f"There are no replicates of task {task!r}, arm {arm!r}: give them for every arm, or for none.")
    return np.asarray(replicates[task, arm])
