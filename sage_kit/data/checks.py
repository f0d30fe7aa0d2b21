"""Checking: a table's columns become texts and labels, or one line says which row of which column is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.data.sources import Table
from sage_kit.errors import DataError, did_you_mean

INTEGER = re.compile(r"[+-]?\d{1,18}")
"""What counts as an integer in text, as a full match."""

NO_LABEL = "there is no label"


def complain(where: str, column: str, problems: Mapping[int, str], remedy: str) -> NoReturn:
    """Raise DataError for the first row that has a problem, saying how many more rows have one.

    Parameters
    ----------
    where : str
        File or split.
    column : str
    problems : mapping of int to str
        What is wrong, by row index from 0, in order; not empty.
    remedy : str
        What to do about it.
    """
    row, problem = next(iter(problems.items()))
    others = len(problems) - 1
    more = f" (and {others:,} more row{'s' if others > 1 else ''})" if others else ""
    raise DataError(f"{where}, row {row + 1}, column {column!r}: {problem}{more}; {remedy}")


def require_rows(table: Table) -> None:
    """Raise DataError when a table has no rows."""
    if not len(table):
        raise DataError(f"{table.where} has no rows")


# ---- texts ----------------------------------------------------------------------------------------------------------


def check_texts(table: Table, columns: Sequence[str], *, may_be_half_empty: bool = False) -> list[list[str]]:
    """The texts of one or two columns.

    Parameters
    ----------
    table : Table
    columns : sequence of one or two str
    may_be_half_empty : bool
        One text of a pair may be empty, but not both.

    Returns
    -------
    list of list of str
        One list per column.

    Raises
    ------
    DataError
        For the first value that is not text, is not valid Unicode, or is empty or white space only.
    """
    texts: list[list[str]] = []
    for column in columns:
        values = table.columns[column]
        problems = {row: f"expected text, got {_shown(v)}" for row, v in enumerate(values) if not isinstance(v, str)}
        if problems:
            complain(table.where, column, problems, "every row needs a text")
        try:
            "".join(values).encode()
        except UnicodeEncodeError:
            # JSON can spell half of a surrogate pair, which no tokenizer takes
            problems = {row: "the text is not valid Unicode" for row, v in enumerate(values) if not _is_unicode(v)}
            complain(table.where, column, problems, "remove the unpaired surrogate characters")
        texts.append(list(values))
    if may_be_half_empty and len(texts) == 2:
        both = {row: "both texts are empty" for row, pair in enumerate(zip(*texts, strict=True)) if _empty(*pair)}
        if both:
            complain(table.where, columns[0], both, "remove such rows")
        return texts
    for column, values in zip(columns, texts, strict=True):
        empty = {row: "the text is empty" for row, text in enumerate(values) if _empty(text)}
        if empty:
            complain(table.where, column, empty, "remove such rows")
    return texts


def _empty(*texts: str) -> bool:
    return not any(text and not text.isspace() for text in texts)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"


# ---- labels ---------------------------------------------------------------------------------------------------------


def check_labels(table: Table, spec: TaskSpec) -> NDArray[Any]:
    """The labels of a table.

    Parameters
    ----------
    table : Table
    spec : TaskSpec

    Returns
    -------
    array of shape (n,)
        int64 indices into ``spec.labels``, or float32 numbers for regression.

    Raises
    ------
    DataError
        For the first label that is missing, unknown, outside its range or not a number; and when the data embed the
        task's class names in another order.
    """
    column = spec.label_column
    if spec.is_regression:
        numbers = parse_numbers(table, column)
        low, high = spec.label_range
        outside = np.flatnonzero((numbers < low) | (numbers > high))
        if len(outside):
            problems = {int(row): f"label {numbers[row]:g} is outside {low:g} to {high:g}" for row in outside}
            complain(table.where, column, problems, "correct the labels")
        return numbers.astype(np.float32)
    if table.class_names != spec.labels and sorted(table.class_names) == sorted(spec.labels):
        raise DataError(
            f"{table.where}, column {column!r}: its classes are {', '.join(table.class_names)} in this order, but task "
            f"{spec.name!r} has them as {', '.join(spec.labels)}; use data in the task's order"
        )
    return _class_indices(table, column, spec.labels)


def parse_numbers(table: Table, column: str) -> NDArray[np.float64]:
    """A column's numbers, of shape (n,); text that spells a number counts as one.

    Raises
    ------
    DataError
        For the first value that is missing, no number, NaN or infinite.
    """
    values = table.columns[column]
    numbers = np.fromiter((_number(value) for value in values), np.float64, len(values))
    bad = np.flatnonzero(~np.isfinite(numbers)).tolist()
    if bad:
        problems = {row: _not_a_number(values[row]) for row in bad}
        complain(table.where, column, problems, "a regression label is a finite number")
    return numbers


def _number(value: Any) -> float:
    """The value as a number; NaN when it is none."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _not_a_number(value: Any) -> str:
    return NO_LABEL if is_missing(value) else f"label {_shown(value)} is not a number"


def is_missing(value: Any) -> bool:
    """Whether a label is absent: nothing, NaN, or text without a character in it."""
    if isinstance(value, str):
        return _empty(value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def _class_indices(table: Table, column: str, labels: Sequence[str]) -> NDArray[np.int64]:
    names = {name: index for index, name in enumerate(labels)}
    # where a class is named "1", the text "1" is that name and never an index
    digits_are_names = any(INTEGER.fullmatch(name) for name in labels)
    values = table.columns[column]
    indices = np.empty(len(values), np.int64)
    problems: dict[int, str] = {}
    for row, value in enumerate(values):
        index = _class_index(value, names, digits_are_names)
        if index is None or not 0 <= index < len(labels):
            problems[row] = _not_a_class(value, index, labels)
        else:
            indices[row] = index
    if problems:
        complain(table.where, column, problems, "correct or remove such rows")
    return indices


def _class_index(value: Any, names: Mapping[str, int], digits_are_names: bool) -> int | None:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        if value in names:
            return names[value]
        return int(value) if INTEGER.fullmatch(value) and not digits_are_names else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None


def _not_a_class(value: Any, index: int | None, labels: Sequence[str]) -> str:
    if is_missing(value):
        return NO_LABEL
    if index == -1:
        return "label -1 marks an unlabelled row, as in the hub's test splits"
    if index is not None:
        return f"label {index} is outside 0 to {len(labels) - 1} ({', '.join(labels)})"
    return f"label {_shown(value)} is no class.{did_you_mean(str(value), labels, 'Classes')}"[:-1]
