"""Rows whose labels are neither classes nor numbers: their texts, their labels, and the names that these have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import LabelColumn, TaskSpec, handling_of
from sage_kit.config import RunConfig
from sage_kit.data.classes import read_label
from sage_kit.data.row_checks import DROP, complain
from sage_kit.data.sources import Table
from sage_kit.data.structured_labels import read_words
from sage_kit.data.user_files import Announce
from sage_kit.errors import DataError


def join_words(table: Table, columns: Sequence[str]) -> Table:
    """The table with a text in the place of each list of words: the words with a space between.

    Within a word, white space is left out, and a word of nothing else becomes the replacement character, so that the
    words of the text are as many as those of the list.

    Raises
    ------
    DataError
        For the first row with a list of anything else than words, or of none.
    """
    changed = dict(table.columns)
    for column in columns:
        values = table.columns[column]
        if any(isinstance(value, list | tuple) for value in values):
            words = read_words(values, table.where, column, rows=table.rows)
            changed[column] = [" ".join("".join(word.split()) or "\ufffd" for word in own) for own in words]
    return replace(table, columns=changed)


def settle_names(spec: TaskSpec, tables: Mapping[str, Table], config: RunConfig) -> TaskSpec:
    """The spec with the names of its labels: the setting's, those that the file embeds, or those of the training split.

    Raises
    ------
    DataError
        When there are not two, or a label has no name.
    """
    handling = handling_of(spec)
    if spec.labels or not handling.spec.needs_names:
        return spec
    train = tables[spec.train_split]
    rows = [row for row, value in enumerate(train.columns[spec.label_column]) if not _is_missing(value)]
    names = (
        tuple(config.label_names)
        or train.item_names
        or train.class_names
        or handling.find_names(_column(train, spec, rows))
    )
    if len(names) < 2:
        raise DataError(
            f"{train.where}, column {spec.label_column!r}: "
            f"{f'every label is {names[0]!r}' if names else 'no row has a label'}; a task of kind "
            f"{spec.kind_name!r} needs at least two different ones"
        )
    return replace(spec, labels=names)


def settle_unanswered(
    spec: TaskSpec, train: NDArray[Any], others: Mapping[str, NDArray[Any]], announce: Announce
) -> TaskSpec:
    """The spec with what the training split says: whether a question may have no answer.

    Where it may not, a model always answers; how many questions of other splits that costs is told.
    """
    counts = {name: sum(not answers.texts for answers in labels) for name, labels in others.items()}
    unanswered = any(not answers.texts for answers in train)
    for name, count in counts.items():
        if count and not unanswered:
            announce(
                f"{count:,} of the {len(others[name]):,} questions of {name} have no answer, and none of the training "
                "split's: the models answer every question, so these count as wrong"
            )
    return replace(spec, unanswered=unanswered)


def _column(
    table: Table, spec: TaskSpec, rows: Sequence[int], texts: Sequence[str] = (), pairs: Sequence[str] | None = None
) -> LabelColumn:
    """Some rows of the label column, with their texts, which are the table's own where none are given."""
    found = [list(table.columns[column]) for column in spec.text_columns]
    if texts:
        found = [list(texts), *([] if pairs is None else [list(pairs)])]
    taken = [[own[row] for row in rows] for own in found]
    values = table.columns[spec.label_column]
    embedded = table.item_names or table.class_names
    return LabelColumn(
        [values[row] for row in rows], taken[0], taken[1] if len(taken) > 1 else None, tuple(spec.labels), embedded,
        table.where, spec.label_column, [table.row(row) for row in rows],
    )  # fmt: skip


def read_structured(
    table: Table, spec: TaskSpec, texts: Sequence[str], pairs: Sequence[str] | None, *, may_be_missing: bool
) -> NDArray[Any]:
    """The labels of a table, as the kind of task reads them: None, or -1 throughout, for a missing one.

    Raises
    ------
    DataError
        For the first value that is none of the kind's labels, or missing where it may not be.
    """
    column = spec.label_column
    is_vectors = spec.label_kind == "embeddings"
    if is_vectors and column not in table.columns:
        return np.full(len(table), np.nan, np.float32)
    values = table.columns.get(column, [None] * len(table))
    rows = [row for row, value in enumerate(values) if not _is_missing(value)]
    if len(rows) < len(values) and not may_be_missing:
        problems = dict.fromkeys(sorted(set(range(len(values))) - set(rows)), "there is no label")
        complain(table, column, problems, f"correct such rows, or {DROP}")
    if not rows:
        return np.full(len(values), np.nan, np.float32) if is_vectors else np.full(len(values), None, object)
    known = handling_of(spec).read(_column(table, spec, rows, texts, pairs))
    if len(rows) == len(values):
        return known
    missing = None if known.dtype.hasobject else np.nan if known.dtype.kind == "f" else -1
    found = np.full((len(values), *known.shape[1:]), missing, known.dtype)
    found[rows] = known
    return found


def without_missing(table: Table, spec: TaskSpec, announce: Announce) -> Table:
    """The table without the rows that have no label; how many they are is told."""
    if not spec.label_column:
        return table
    values = table.columns[spec.label_column]
    kept = [row for row, value in enumerate(values) if not _is_missing(value)]
    if len(kept) == len(values):
        return table
    if not kept:
        raise DataError(f"{table.where}, column {spec.label_column!r}: no row has a label")
    announce(f"{table.where}: {len(values) - len(kept):,} of {len(values):,} rows left out, which have no label")
    return table.take(kept)


def _is_missing(value: Any) -> bool:
    """Whether a value stands for no label: lists and mappings never do."""
    return not isinstance(value, list | tuple | Mapping) and read_label(value).is_missing
