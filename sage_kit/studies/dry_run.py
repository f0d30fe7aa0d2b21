"""What a command would execute, and about how long that takes by cells that were executed before. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sage_kit.studies.runner import NOTEBOOK, Cell, find_cells, is_held, read_record

DONE, MISSING, RUNNING = "done", "not run", "running"


@dataclass(frozen=True)
class Expected:
    """A cell that is asked for.

    Attributes
    ----------
    cell : Cell
    state : str
        "done", "not run", "running" (by another process), "failed" or "interrupted".
    is_due : bool
        Whether it would be executed.
    seconds : float or None
        Wall time of its execution, or what is expected of it; None where nothing is known [s].
    source : str
        Where that is known from; "" where nothing is.
    """

    cell: Cell
    state: str
    is_due: bool
    seconds: float | None
    source: str


def expected_cells(cells: Sequence[Cell], *, again: bool = False) -> list[Expected]:
    """The state of each cell, and how long those that are due may take.

    The time of a cell is the median of the cells of its study that are done, with the same parameters if there are
    such (made by other code, say), else of the same profile. One that finds the runs it needs takes seconds instead.
    """
    records: dict[Path, list[dict[str, Any]]] = {}
    found = []
    for cell in cells:
        if cell.out not in records:
            records[cell.out] = [record for record in find_cells(cell.out) if record["state"] == DONE]
        found.append(_expected(cell, records[cell.out], again=again))
    return found


def _expected(cell: Cell, done: Sequence[Mapping[str, Any]], *, again: bool) -> Expected:
    record = read_record(cell.directory)
    state = str(record.get("state", MISSING))
    if state == DONE and not (cell.directory / NOTEBOOK).is_file():
        state = MISSING
    if state == DONE and not again:
        return Expected(cell, state, False, record.get("seconds"), "its execution")
    if cell.directory.is_dir() and is_held(cell.directory):
        state = RUNNING
    own = [item for item in done if item["study"] == cell.study and item.get("seconds")]
    same = [item for item in own if item["parameters"] == dict(cell.parameters)]
    profile = cell.parameters.get("profile")
    of_size = [item for item in own if item["parameters"].get("profile") == profile]
    for items, what in ((same, "the same parameters"), (of_size, f"profile {profile}")):
        if items:
            source = f"{len(items)} cell{'s' * (len(items) > 1)} with {what}"
            return Expected(cell, state, True, median(item["seconds"] for item in items), source)
    return Expected(cell, state, True, None, "")


def total_text(expected: Sequence[Expected], jobs: int) -> str:
    """How many cells there are and are due, and about how long those take; nothing is known of some, it says so."""
    due = [one for one in expected if one.is_due]
    noun = "cell" if len(expected) == 1 else "cells"
    head = f"{len(expected)} {noun}: {len(expected) - len(due)} done, {len(due)} to execute"
    known = [one.seconds for one in due if one.seconds is not None]
    if not due or not known:
        return f"{head}; nothing was started." if not due else f"{head}, of no known time; nothing was started."
    seconds = max(sum(known) / max(jobs, 1), max(known))
    about = f"{seconds / 60:,.0f} minutes" if seconds >= 90 else f"{seconds:,.0f} s"
    unknown = len(due) - len(known)
    tail = f", without {unknown} of no known time" if unknown else ""
    return f"{head}, in about {about} with {jobs} at a time{tail}; nothing was started."
