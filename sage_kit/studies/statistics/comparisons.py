"""Tables of arms: how each did, and every arm against the baseline, paired by seed and by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sage_kit.errors import ConfigError, DataError, did_you_mean
from sage_kit.studies.statistics.intervals import NEGLIGIBLE, Interval, average, check_rows, of_scores, t_interval
from sage_kit.studies.statistics.significance import count_interval, p_value

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]
Floats = NDArray[np.float64]

AVERAGE = "average"  # name of the row that averages over the tasks

COLUMNS = (
    "task", "arm", "n_seeds", "n_examples", "mean", "baseline_mean", "difference", "low", "high", "se", "df", "p",
    "identical",
)  # fmt: skip
"""Columns of a comparison: difference is mean less baseline_mean, low and high its 95 % interval, se and df the
standard error and degrees of freedom that these come from, p that of no difference, `identical` whether all pairs are
alike."""


def summarize(table: pd.DataFrame, value: str = "value", by: Sequence[str] = ("task", "arm")) -> pd.DataFrame:
    """Means over seeds with Student's intervals, a row per group: how each arm did, not how arms differ.

    Parameters
    ----------
    table : pandas DataFrame
        One row per run.
    value : str
        Column to summarise.
    by : sequence of str
        Columns that make a group.

    Returns
    -------
    pandas DataFrame
        Columns of `by`, then n_seeds (rows of the group), mean, low and high; groups in the order of the table.

    Raises
    ------
    ConfigError
        If a column is missing.
    """
    import pandas as pd

    rows = []
    for key, group in _groups(table, by, value):
        interval = t_interval(group.to_numpy())
        rows.append((*key, len(group), interval.value, interval.low, interval.high))
    return pd.DataFrame(rows, columns=[*by, "n_seeds", "mean", "low", "high"])


def reached_table(table: pd.DataFrame, value: str, by: Sequence[str] = ("task", "arm")) -> pd.DataFrame:
    """How many runs of each group reached what they were run for, and how long that took those which did.

    A run that did not get there is not known to need any number, so there is no mean over all runs.

    Parameters
    ----------
    table : pandas DataFrame
        One row per run.
    value : str
        Column of what a run needed, as rounds; NaN or infinite for one that did not get there.
    by : sequence of str
        Columns that make a group.

    Returns
    -------
    pandas DataFrame
        Columns of `by`, then n_seeds, k of n runs, share with its exact binomial interval low and high
        (`count_interval`), and the median of the k; NaN for none.

    Raises
    ------
    ConfigError
        If a column is missing.
    """
    import pandas as pd

    rows = []
    for key, group in _groups(table, by, value):
        numbers = group.to_numpy(dtype=np.float64)
        there = numbers[np.isfinite(numbers)]
        share = count_interval(len(there), len(numbers))
        median = float(np.median(there)) if len(there) else np.nan
        rows.append((*key, len(numbers), len(there), len(numbers), share.value, share.low, share.high, median))
    return pd.DataFrame(rows, columns=[*by, "n_seeds", "k", "n", "share", "low", "high", "median"])


def _groups(table: pd.DataFrame, by: Sequence[str], value: str) -> Any:
    """The values of each group, in the order of the table."""
    _check_columns(table, (*by, value))
    return table.groupby(list(by), sort=False, dropna=False)[value]


def compare_arms(
    table: pd.DataFrame, baseline: str, *, value: str = "value", average: bool = True, resolution: float | None = None
) -> pd.DataFrame:
    """Every arm against the baseline, paired by seed: a row per task and arm, and one for the average over tasks.

    For numbers that a run has as a whole, such as rounds or FLOPs; scores of examples are for `compare_cells`.

    Parameters
    ----------
    table : pandas DataFrame
        One row per run, with columns "task", "arm", "seed" and the value.
    baseline : str
        The arm to compare with.
    value : str
        Column of the number.
    average : bool
        Whether to add the average over tasks, where there are several, each weighing the same. It needs the same arms
        and seeds in every task.
    resolution : float or None
        The step in which the numbers are counted, as 1 of rounds (`t_interval`); None takes the smallest that two
        different numbers of a task are apart.

    Returns
    -------
    pandas DataFrame
        With `COLUMNS`, n_examples being 0. Tasks and arms come in the order of the table.

    Raises
    ------
    ConfigError
        For an unknown baseline or column.
    DataError
        If a pair is incomplete (a seed that only one of the arms has), or a run comes twice.
    """
    _check_columns(table, ("task", "arm", "seed", value))
    tasks, arms = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["arm"]))
    _check_names(tasks, arms, baseline)
    runs = _by_seed(table, value)
    pairs = []
    for task in tasks:
        step = _smallest_step(table.loc[table["task"] == task, value]) if resolution is None else resolution
        for arm in (arm for arm in arms if arm != baseline and (task, arm) in runs):
            ours, base = runs[task, arm], runs.get((task, baseline), {})
            for seed in sorted(ours.keys() ^ base.keys()):
                has, lacks = (arm, baseline) if seed in ours else (baseline, arm)
                raise DataError(
                    f"Task {task!r}, seed {seed}: there is a run of arm {has!r} and none of arm {lacks!r}, so they "
                    "cannot be paired. Run the missing one or leave the seed out."
                )
            own, other = (np.array(list(values.values())) for values in (ours, base))
            pairs.append(Pair(task, arm, tuple(ours), 0, own, other, t_interval(own - other, resolution=step)))
    return pairs_table(pairs, average=average)


def compare_cells(cells: Mapping[tuple[str, str], Array], baseline: str, *, average: bool = True) -> pd.DataFrame:
    """Every arm against the baseline, from what each example contributes to each run's score: `two_way` of differences.

    Parameters
    ----------
    cells : mapping of (task, arm) to array of shape (seeds, n)
        Contributions (`sage_kit.studies.statistics.contributions`, `log_mean`); row s of each arm of a task comes from
        the same seed.
    baseline : str
        The arm to compare with.
    average : bool
        Whether to add the average over tasks.

    Returns
    -------
    pandas DataFrame
        With `COLUMNS`. Tasks and arms come in the order of the mapping.

    Raises
    ------
    ConfigError
        For an unknown baseline.
    DataError
        If a task has no run of the baseline, or its arms differ in their seeds or examples.
    """
    tasks = list(dict.fromkeys(task for task, _ in cells))
    _check_names(tasks, list(dict.fromkeys(arm for _, arm in cells)), baseline)
    pairs = []
    for task in tasks:
        if (task, baseline) not in cells:
            raise DataError(f"Task {task!r} has no runs of the baseline {baseline!r}: run that arm too.")
        base = np.asarray(cells[task, baseline], dtype=np.float64)
        span = max(1.0, float(np.ptp(base)))  # of the baseline's own contributions, and of a hit at least
        for arm in (arm for other, arm in cells if other == task and arm != baseline):
            ours = np.asarray(cells[task, arm], dtype=np.float64)
            check_rows(base[0], ours, f"cells of task {task!r}, arm {arm!r},")
            if len(ours) != len(base):
                raise DataError(
                    f"task {task!r} has {len(ours)} seeds of arm {arm!r} and {len(base)} of {baseline!r}: "
                    "run the same seeds of both."
                )
            found = of_scores(ours - base, largest=span)
            seeds = tuple(range(len(ours)))
            pairs.append(Pair(task, arm, seeds, base.shape[1], ours.mean(axis=1), base.mean(axis=1), found))
    return pairs_table(pairs, average=average)


class Pair(NamedTuple):
    """An arm beside the baseline on one task: seeds, examples, scores by seed, and the interval of their difference."""

    task: Any
    arm: Any
    seeds: tuple[Any, ...]
    examples: int
    ours: Floats
    base: Floats
    interval: Interval


def pairs_table(pairs: Sequence[Pair], *, average: bool) -> pd.DataFrame:
    """A row per pair, and with `average` one per arm for the average over tasks."""
    import pandas as pd

    tasks = list(dict.fromkeys(pair.task for pair in pairs))
    means = _averages(pairs, tasks) if average and len(tasks) > 1 else []
    return pd.DataFrame([_row(pair) for pair in [*pairs, *means]], columns=list(COLUMNS))


def _row(pair: Pair) -> tuple[Any, ...]:
    found = pair.interval
    ours, base = float(pair.ours.mean()), float(pair.base.mean())
    return (pair.task, pair.arm, len(pair.seeds), pair.examples, ours, base, found.value, found.low, found.high,
            found.se, found.df, p_value(found), found.identical)  # fmt: skip


def _averages(pairs: Sequence[Pair], tasks: Sequence[Any]) -> list[Pair]:
    """Per arm the average over tasks, where each task has the same arms and seeds."""
    means = []
    for arm in dict.fromkeys(pair.arm for pair in pairs):
        own = {pair.task: pair for pair in pairs if pair.arm == arm}
        seeds = sorted({seed for pair in own.values() for seed in pair.seeds})
        for task in tasks:
            lacking = set(seeds) - set(own[task].seeds if task in own else ())
            if lacking:
                raise DataError(
                    f"Task {task!r}, seed {min(lacking)}: there is no run of arm {arm!r}, and another task has one, so "
                    "tasks cannot be averaged. Run it, leave it out everywhere, or ask for no average."
                )
        parts = list(own.values())
        ours, base = (np.array([getattr(part, side).mean() for part in parts]) for side in ("ours", "base"))
        examples = sum(part.examples for part in parts)
        means.append(Pair(AVERAGE, arm, tuple(seeds), examples, ours, base, average([part.interval for part in parts])))
    return means


def _check_names(tasks: Sequence[Any], arms: Sequence[Any], baseline: str) -> None:
    if AVERAGE in tasks:
        raise DataError(f"A task is named {AVERAGE!r}, which is the name of the average over tasks: rename the task.")
    if baseline not in arms:
        raise ConfigError(f"Unknown baseline arm {baseline!r}.{did_you_mean(baseline, map(str, arms), 'Arms')}")


def _check_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    known = [str(column) for column in table.columns]
    for column in columns:
        if column not in known:
            raise ConfigError(f"The table of runs has no column {column!r}.{did_you_mean(column, known)}")


def _smallest_step(values: pd.Series[Any]) -> float:
    """By how much two different numbers differ at least, but for rounding; 0 where all are the same."""
    numbers = np.unique(values.to_numpy(dtype=np.float64))
    numbers = numbers[np.isfinite(numbers)]
    steps = np.diff(numbers)
    steps = steps[steps > NEGLIGIBLE * max(1.0, float(np.abs(numbers).max(initial=0.0)))]
    return float(steps.min(initial=np.inf)) if len(steps) else 0.0


def _by_seed(table: pd.DataFrame, value: str) -> dict[tuple[Any, Any], dict[Any, float]]:
    """The values of each (task, arm) by seed, in rising order."""
    found = {}
    for (task, arm), own in table.groupby(["task", "arm"], sort=False):
        twice = own.loc[own["seed"].duplicated(), "seed"]
        if len(twice):
            raise DataError(f"The table has two runs of task {task!r}, arm {arm!r}, seed {twice.iloc[0]}: keep one.")
        found[task, arm] = own.set_index("seed")[value].astype(np.float64).sort_index().to_dict()
    return found
