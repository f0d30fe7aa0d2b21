"""Checking: a table's columns become texts and labels, or one line says which row of which column is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.data.classes import MISSING_CODES, ClassFinder, Label, is_blank, read_label, read_labels
from sage_kit.data.sources import Table
from sage_kit.data.text_columns import TextColumn, count_different
from sage_kit.errors import DataError, did_you_mean

NO_LABEL = "there is no label"

LONGEST_NAMES = 25
"""Most names of classes that a remedy spells out."""

LONGEST_WORD = 16
"""Longest text that may stand for a missing one."""

TOLD_ROWS = 3
"""Most rows that are named for one kind of missing label."""

DROP = "set missing_labels to 'drop' to leave such rows out"


def complain(table: Table, column: str, problems: Mapping[int, str], remedy: str) -> NoReturn:
    """Raise DataError for the first row that has a problem, saying how many more rows have one.

    Parameters
    ----------
    table : Table
    column : str
    problems : mapping of int to str
        What is wrong, by row index in the table from 0, in order; not empty.
    remedy : str
        What to do about it.
    """
    row, problem = next(iter(problems.items()))
    others = len(problems) - 1
    more = f" (and {others:,} more row{'s' if others > 1 else ''})" if others else ""
    raise DataError(f"{table.where}, row {table.row(row)}, column {column!r}: {problem}{more}; {remedy}")


def require_rows(table: Table) -> None:
    """Raise DataError when a table has no rows."""
    if not len(table):
        raise DataError(f"{table.where} has no rows")


# ---- texts ----------------------------------------------------------------------------------------------------------


def check_texts(table: Table, columns: Sequence[str], *, may_be_half_empty: bool = False) -> list[Sequence[str]]:
    """The texts of one or two columns.

    Parameters
    ----------
    table : Table
    columns : sequence of one or two str
    may_be_half_empty : bool
        One text of a pair may be empty or missing, but not both.

    Returns
    -------
    list of sequence of str
        One per column.

    Raises
    ------
    DataError
        For the first value that is not text, is not valid Unicode, or is a text of which nothing shows.
    """
    is_pair = len(columns) == 2
    texts: list[Sequence[str]] = []
    for column in columns:
        values = table.columns[column]
        if isinstance(values, TextColumn):  # of valid texts alone
            texts.append(values)
            continue
        if may_be_half_empty and is_pair:
            values = ["" if _is_nothing(value) else value for value in values]
        problems = {row: f"expected text, got {_shown(v)}" for row, v in enumerate(values) if not isinstance(v, str)}
        if problems:
            complain(table, column, problems, _way_out_of_no_text([values[row] for row in problems], is_pair))
        try:
            "".join(values).encode()
        except UnicodeEncodeError:
            # JSON can spell half of a surrogate pair, which no tokenizer takes
            problems = {row: "the text is not valid Unicode" for row, v in enumerate(values) if not _is_unicode(v)}
            complain(table, column, problems, "remove the unpaired surrogate characters")
        texts.append(list(values))
    if may_be_half_empty and is_pair:
        both = {row: "both texts are empty" for row, pair in enumerate(zip(*texts, strict=True)) if _empty(*pair)}
        if both:
            complain(table, columns[0], both, "remove such rows")
        return texts
    for column, values in zip(columns, texts, strict=True):
        empty = {row: "the text is empty" for row, text in enumerate(values) if is_blank(text)}
        if empty:
            complain(table, column, empty, f"remove such rows{_HALF_EMPTY if is_pair else ''}")
    return texts


_HALF_EMPTY = ", or set may_be_half_empty to true, which admits one empty text in a pair"


def _way_out_of_no_text(values: Sequence[Any], is_pair: bool) -> str:
    if all(map(_is_nothing, values)):
        return f"every row needs a text: remove such rows{_HALF_EMPTY if is_pair else ''}"
    return "every row needs a text: name the column of the text, or write its values as text"


def _is_nothing(value: Any) -> bool:
    """Whether a value that should be text is none at all, as None and NaN."""
    return not isinstance(value, str) and read_label(value).is_missing


def _empty(*texts: str) -> bool:
    return all(map(is_blank, texts))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    if _is_nothing(value):
        return "nothing"
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"


def announce_little_content(
    table: Table, column: str, texts: Sequence[str], announce: Callable[[str], None], few: int = 20
) -> None:
    """Tell of texts that can hardly inform: a single one, few for many rows, numbers only, or words like "NaN".

    Parameters
    ----------
    table : Table
    column : str
    texts : sequence of str
    announce : callable
        Shows one line of text to the user.
    few : int
        Fewer different texts than one for so many rows are few.
    """
    where, different = table.where, count_different(texts)
    if len(texts) > 1 and different == 1:
        announce(f"{where}, column {column!r}: every row holds the same text, so it says nothing about the label")
    elif different * few < len(texts):
        announce(f"{where}, column {column!r}: only {different:,} different texts in {len(texts):,} rows")
    elif len(texts) > 1 and all(read_label(text).number is not None for text in texts):
        announce(f"{where}, column {column!r}: every text is a number or a truth value; is it the column of the text?")
    words: dict[Label, list[int]] = {}
    for row, text in enumerate(texts):
        if len(text) <= LONGEST_WORD and (label := read_label(text)).is_missing and label.is_word:
            words.setdefault(label, []).append(row)
    if words:
        announce(f"{where}, column {column!r}: {places(table, words)}: does it stand for a missing text?")


# ---- missing labels -------------------------------------------------------------------------------------------------


def settle_missing(
    table: Table,
    column: str,
    labels: Sequence[Label],
    is_missing: Callable[[Label], bool],
    announce: Callable[[str], None],
    *,
    drop: bool,
    remedy: Callable[[Collection[Label]], str],
) -> tuple[Table, list[Label]]:
    """Leave out the rows without a label and say so, or refuse them.

    Parameters
    ----------
    table : Table
    column : str
    labels : sequence of Label
        One per row.
    is_missing : callable
        Whether a label means that there is none.
    announce : callable
        Shows one line of text to the user.
    drop : bool
        Leave the rows out, rather than refuse them.
    remedy : callable
        What to do, from the different labels that mean that there is none.

    Returns
    -------
    table : Table
        Without these rows.
    labels : list of Label
        Of the rows that are left.

    Raises
    ------
    DataError
        When rows are refused, or none is left.
    """
    missing = [row for row, label in enumerate(labels) if is_missing(label)]
    if not missing:
        return table, list(labels)
    by_label: dict[Label, list[int]] = {}
    for row in missing:
        by_label.setdefault(labels[row], []).append(row)
    if not drop or len(missing) == len(labels):
        problems = dict.fromkeys(missing, _what_is_missing(labels[missing[0]]))
        way_out = remedy(by_label) if len(missing) < len(labels) else "no row has one: take data with labels"
        complain(table, column, problems, f"{way_out} ({places(table, by_label)})")
    told = places(table, by_label)
    announce(f"{table.where}, column {column!r}: {len(missing):,} of {len(labels):,} rows dropped ({told})")
    gone = set(missing)
    kept = [row for row in range(len(labels)) if row not in gone]
    return table.take(kept), [labels[row] for row in kept]


def _what_is_missing(label: Label) -> str:
    if label.number is not None:
        return f"label {label} marks an unlabelled row" + (
            ", as in the hub's test splits" if label.number == -1 else ""
        )
    return f"{label} means that there is no label" if label.is_word else NO_LABEL


def places(table: Table, by_label: Mapping[Label, Sequence[int]]) -> str:
    """Labels with the numbers of the rows in which they stand, from their indices in the table."""
    parts = []
    for label, rows in by_label.items():
        if not rows:
            continue
        told = ", ".join(f"{table.row(row)}" for row in rows[:TOLD_ROWS])
        more = f" and {len(rows) - TOLD_ROWS:,} more" if len(rows) > TOLD_ROWS else ""
        parts.append(f"{label} in row{'s' if len(rows) > 1 else ''} {told}{more}")
    return "; ".join(parts)


def as_setting(names: Sequence[str]) -> str:
    """The value of `label_names` for these classes, as TOML and the command line take it."""
    if len(names) > LONGEST_NAMES:
        return "all their names"
    return f"[{', '.join(json.dumps(name, ensure_ascii=max(map(ord, name), default=0) < 0x10000) for name in names)}]"


# ---- labels ---------------------------------------------------------------------------------------------------------


def leave_out_unlabelled(
    table: Table, spec: TaskSpec, announce: Callable[[str], None], *, drop: bool, label_range: tuple[float, float]
) -> Table:
    """A table of a task with known classes, or of numbers, without the rows that have no label.

    Parameters
    ----------
    table : Table
    spec : TaskSpec
    announce : callable
        Shows one line of text to the user.
    drop : bool
        Leave the rows out, rather than refuse them.
    label_range : tuple of two float
        Outside it, a number that is used as a code for "no label" is one (regression).

    Raises
    ------
    DataError
        When rows without a label are to be refused, or none has one.
    """
    column = spec.label_column
    low, high = label_range

    def is_missing(label: Label) -> bool:
        if spec.is_regression:
            return label.is_missing or (label.number in MISSING_CODES and not low <= float(label.number or 0) <= high)
        return label.text not in spec.labels and (label.is_missing or label.number in MISSING_CODES)

    def remedy(found: Collection[Label]) -> str:
        if spec.is_regression:
            return f"a regression label is a finite number; correct such rows, or {DROP}"
        return f"correct such rows, or {DROP}"

    labels = read_labels(table.columns[column])
    return settle_missing(table, column, labels, is_missing, announce, drop=drop, remedy=remedy)[0]


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
        For the first label that is unknown, outside its range or not a number; and when the data embed the task's class
        names in another order.
    """
    column = spec.label_column
    if spec.is_regression:
        numbers = parse_numbers(table, column)
        low, high = spec.label_range
        outside = np.flatnonzero((numbers < low) | (numbers > high))
        if len(outside):
            problems = {int(row): f"label {numbers[row]:g} is outside {low:g} to {high:g}" for row in outside}
            complain(table, column, problems, "correct the labels")
        return numbers.astype(np.float32)
    if table.class_names != spec.labels and sorted(table.class_names) == sorted(spec.labels):
        raise DataError(
            f"{table.where}, column {column!r}: its classes are {', '.join(table.class_names)} in this order, but task "
            f"{spec.name!r} has them as {', '.join(spec.labels)}; use data in the task's order"
        )
    finder = ClassFinder(spec.labels, integers_count=True)
    return class_indices(table, column, read_labels(table.columns[column]), finder, "correct or remove such rows")


def parse_numbers(table: Table, column: str, remedy: str = "") -> NDArray[np.float64]:
    """A column's numbers, of shape (n,); text that spells a number counts as one.

    `remedy` says what to do about another value, where that is no label of a regression.

    Raises
    ------
    DataError
        For the first value that is no number, or not finite.
    """
    labels = read_labels(table.columns[column])
    numbers = np.fromiter((_number(label) for label in labels), np.float64, len(labels))
    bad = np.flatnonzero(~np.isfinite(numbers)).tolist()
    if bad:
        problems = {row: _not_a_number(labels[row]) for row in bad}
        usual = "a regression label is a finite number, written like 1.5"
        if len(bad) == len(labels):
            usual += "; for classes, set task_kind to 'classification'"
        remedy = remedy or usual
        complain(table, column, problems, remedy)
    return numbers


def _number(label: Label) -> float:
    """The label as a number; NaN when it is none."""
    if label.number is None or label.is_boolean:
        return math.nan
    try:
        return float(label.number)
    except OverflowError:
        return math.nan


def _not_a_number(label: Label) -> str:
    return NO_LABEL if label.is_missing else f"label {describe(label)} is not a number"


def describe(label: Label) -> str:
    """A label and its type, for messages."""
    if label.type_name:
        return str(label)
    if label.is_word:
        return f"{label if label.number is None else repr(label.text)} (str)"
    kind = "bool" if label.is_boolean else "int" if isinstance(label.number, int) else "float"
    return f"{label.text.capitalize() if label.is_boolean else label.text} ({kind})"


def class_indices(
    table: Table, column: str, labels: Sequence[Label], finder: ClassFinder, remedy: str
) -> NDArray[np.int64]:
    """The index of each label's class, of shape (n,).

    Raises
    ------
    DataError
        For the first label that is no class.
    """
    known = {label: finder.index(label) for label in dict.fromkeys(labels)}
    problems = {
        row: _not_a_class(label, known[label], finder.names)
        for row, label in enumerate(labels)
        if known[label] is None or not 0 <= known[label] < len(finder.names)  # type: ignore[operator]
    }
    if problems:
        complain(table, column, problems, remedy)
    return np.array([known[label] for label in labels], np.int64)


def _not_a_class(label: Label, index: int | None, names: Sequence[str]) -> str:
    if label.is_missing and not label.is_word:
        return NO_LABEL
    if index is not None:
        return f"label {index} is outside 0 to {len(names) - 1} ({', '.join(names)})"
    return f"label {describe(label)} is no class.{did_you_mean(label.text, names, 'Classes')}"[:-1]
