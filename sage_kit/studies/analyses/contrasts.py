"""Planned comparisons of chosen pairs of arms, each with its own baseline."""

from __future__ import annotations

from collections.abc import Sequence

from pandas import DataFrame, concat

from sage_kit.errors import StudyError
from sage_kit.studies.runs import Runs
from sage_kit.studies.study import Study


def contrasts(
    study: Study, runs: Runs, pairs: Sequence[tuple[str, str]], *, split: str | None = None, metric: str = ""
) -> DataFrame:
    """Each pair's first arm less its second, paired by seed and example. As `Study.compare` returns it, with the column
    "against" behind "arm".
    """
    if not pairs or len(set(pairs)) != len(pairs):
        raise StudyError(f"pairs to compare are {list(pairs)}: name at least one, and each once")
    parts = []
    for arm, against in pairs:
        part = study.compare(runs, against, split=split, metric=metric, arms=[arm])
        if part.empty:
            raise StudyError(f"there is no arm {arm!r} to compare with {against!r}: run it first")
        part.insert(2, "against", against)
        parts.append(part)
    table = concat(parts, ignore_index=True)
    # all pairs of a task stand together
    order = {task: number for number, task in enumerate(dict.fromkeys(table["task"]))}
    return table.sort_values("task", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def closest(table: DataFrame, task: str, *, lower_is_better: bool = False) -> str:
    """Against which arm the difference of a table of `contrasts` is smallest: the strongest of those on a task.

    With `lower_is_better` a small number is a good one, as a divergence is: then the largest difference is of the
    strongest. The first of several.
    """
    rows = table[table["task"] == task]
    best = rows["difference"].idxmax() if lower_is_better else rows["difference"].idxmin()
    return str(rows.loc[best, "against"])
