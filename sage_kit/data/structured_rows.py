"""Rows whose labels are neither classes nor numbers: their texts, their labels, and the names that these have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from sage_kit.components import TaskSpec, handling_of
from sage_kit.config import RunConfig
from sage_kit.data.classes import read_label
from sage_kit.data.row_checks import DROP, complain
from sage_kit.data.sources import Table
from sage_kit.data.structured_labels import listed, names_in
from sage_kit.data.user_files import Announce
from sage_kit.errors import DataError


def join_words(table: Table, columns: Sequence[str]) -> Table:
    """The table with a text in the place of each list of words: the words with a space between.

    Within a word, white space is left out, and a word of nothing else becomes the replacement character, so that the
    words of the text are as many as those of the list.
    """
    changed = dict(table.columns)
    for column in columns:
        values = table.columns[column]
        if any(isinstance(value, list | tuple) for value in values):
            changed[column] = [_joined(value) for value in values]
    return replace(table, columns=changed)


def _joined(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        return value
    return " ".join("".join(word.split()) or "\ufffd" for word in value)


def settle_names(spec: TaskSpec, tables: Mapping[str, Table], config: RunConfig) -> TaskSpec:
    """The spec with the names of its labels: the setting's, those that the file embeds, or those of the training split.

    Raises
    ------
    DataError
        When there are not two.
    """
    if spec.labels or not handling_of(spec).spec.needs_names:
        return spec
    train = tables[spec.train_split]
    names = tuple(config.label_names) or train.class_names or names_in(train.columns[spec.label_column])
    if len(names) < 2:
        raise DataError(
            f"{train.where}, column {spec.label_column!r}: "
            f"{f'every label is {names[0]!r}' if names else 'no row has a list of labels'}; a task of kind "
            f"{spec.kind_name!r} needs lists of at least two different ones"
        )
    return replace(spec, labels=names)


def read_structured(
    table: Table, spec: TaskSpec, texts: Sequence[str], pairs: Sequence[str] | None, *, may_be_missing: bool
) -> NDArray[Any]:
    """The labels of a table, as the kind of task reads them.

    Raises
    ------
    DataError
        For the first value that is none of the kind's labels, or missing where it may not be.
    """
    column, problems = spec.label_column, dict[int, str]()
    values = [_or_none(value) for value in table.columns.get(column, [None] * len(table))]
    missing = {row: "there is no label" for row, value in enumerate(values) if value is None}
    if missing and not may_be_missing:
        complain(table, column, missing, f"correct such rows, or {DROP}")

    def note(row: int, problem: str) -> None:
        problems.setdefault(row, problem)

    found = handling_of(spec).read(values, texts, pairs, tuple(spec.labels), note)
    if problems:
        complain(table, column, dict(sorted(problems.items())), "correct or remove such rows")
    return found


def without_missing(table: Table, spec: TaskSpec, announce: Announce) -> Table:
    """The table without the rows that have no label; how many they are is told."""
    values = table.columns[spec.label_column]
    kept = [row for row, value in enumerate(values) if _or_none(value) is not None]
    if len(kept) == len(values):
        return table
    if not kept:
        raise DataError(f"{table.where}, column {spec.label_column!r}: no row has a label")
    announce(f"{table.where}: {len(values) - len(kept):,} of {len(values):,} rows left out, which have no label")
    return table.take(kept)


def _or_none(value: Any) -> Any:
    """A value, None where it is a missing one: lists and mappings never are."""
    if listed(value) is not None or isinstance(value, Mapping):
        return value
    return None if value is None or read_label(value).is_missing else value
