"""Files of texts that need no labels: `transfer_file` and `evaluation_file`, of any task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.config import RunConfig
from sage_kit.data.classes import MISSING_CODES, ClassFinder, Label, read_labels
from sage_kit.data.formats import Dialect
from sage_kit.data.row_checks import class_indices, complain, parse_numbers, require_rows
from sage_kit.data.sources import Table, read_file, scratch_folder
from sage_kit.data.user_files import TASK

NO_CLASS = -1
"""What stands for a missing label among class indices; among the numbers of a regression it is NaN."""


def count_unlabelled(labels: NDArray[Any]) -> int:
    """How many of the labels are missing: negative class indices, or numbers that are NaN."""
    if labels.dtype.hasobject:
        return sum(label is None for label in labels)
    missing = np.isnan(labels) if np.issubdtype(labels.dtype, np.floating) else labels < 0
    if missing.ndim > 1:
        missing = missing.any(1)
    return int(np.count_nonzero(missing))


def read_texts(file: str, spec: TaskSpec, config: RunConfig, announce: Callable[[str], None]) -> Table:
    """Read a file of texts with the task's columns; it may lack the column of the label.

    Where the texts of a pair are read one by one, it may lack that of the second text, too: it holds single texts.

    Parameters
    ----------
    file : str
        Of the types that `train_file` may have.
    spec : TaskSpec
        Complete.
    config : RunConfig
    announce : callable
        Shows one line of text to the user.

    Returns
    -------
    Table
        With the column of the label where the file has one.

    Raises
    ------
    DataError
        When the file is missing, malformed, empty or of another type, or lacks a column of texts.
    """
    path, dialect = Path(file).expanduser(), Dialect.of(config)
    columns = spec.text_columns
    if spec.handling is not None and spec.handling.spec.splits_pairs:
        others = read_file(path, columns[:1], dialect=dialect).others
        columns = tuple(column for column in columns if column == columns[0] or column in others)
    given: dict[str, Any] = {"dialect": dialect, "texts": spec.text_columns, "folder": scratch_folder(config)}
    table = read_file(path, columns, **given)
    require_rows(table)
    if spec.label_column in table.others and len(columns) == len(spec.text_columns):
        return read_file(path, (*columns, spec.label_column), spec.label_column, **given)
    if spec.label_column:
        announce(f"{table.where} has no column {spec.label_column!r}: its {len(table):,} texts have no labels")
    return table


def known_labels(table: Table, spec: TaskSpec) -> NDArray[Any]:
    """The labels of a table of which some or all may be missing.

    Parameters
    ----------
    table : Table
        As `read_texts` returns it.
    spec : TaskSpec
        Complete.

    Returns
    -------
    array of shape (n,)
        int64 indices into ``spec.labels``, -1 for none; or float32 numbers for regression, NaN for none.

    Raises
    ------
    DataError
        For the first label that is there and is no class, no finite number, or outside the task's range.
    """
    found = np.full(len(table), np.nan, np.float32) if spec.is_regression else np.full(len(table), NO_CLASS, np.int64)
    if spec.label_column not in table.columns:
        return found
    is_users = spec.name == TASK
    embedded = table.class_names if set(table.class_names) & set(spec.labels) else ()
    labels = read_labels(table.columns[spec.label_column], embedded)
    finder = ClassFinder(spec.labels, integers_count=not is_users)
    rows = [row for row, label in enumerate(labels) if not _is_missing(label, spec, finder)]
    if not rows:
        return found
    part = table.take(rows)
    remedy = "correct such labels, or leave them empty"
    if not spec.is_regression:
        found[rows] = class_indices(part, spec.label_column, [labels[row] for row in rows], finder, remedy)
        return found
    numbers = parse_numbers(part, spec.label_column)
    low, high = spec.label_range
    # the range of the user's own task is that of the labels in the other files, and binds nobody
    outside = np.flatnonzero((numbers < low) | (numbers > high)) if not is_users else ()
    if len(outside):
        problems = {int(row): f"label {numbers[row]:g} is outside {low:g} to {high:g}" for row in outside}
        complain(part, spec.label_column, problems, remedy)
    found[rows] = numbers
    return found


def _is_missing(label: Label, spec: TaskSpec, finder: ClassFinder) -> bool:
    """Whether a label says that there is none; a class of that name is one."""
    if spec.is_regression:
        low, high = spec.label_range
        return label.is_missing or (label.number in MISSING_CODES and not low <= float(label.number or 0) <= high)
    if finder.names_it(label) if spec.name == TASK else label.text in spec.labels:
        return False
    return label.is_missing or (label.number in MISSING_CODES and not label.is_boolean)
