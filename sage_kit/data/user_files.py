"""Task `file`: the user's own JSONL, CSV or parquet, and the task spec that follows from the settings and the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sage_kit.components import TaskSpec
from sage_kit.config import RunConfig
from sage_kit.data.checks import INTEGER, NO_LABEL, complain, is_missing, parse_numbers, require_rows
from sage_kit.data.sources import Table, read_file
from sage_kit.errors import ConfigError, DataError

TASK = "file"
"""Name of the task whose spec is a template."""


def read_user_files(template: TaskSpec, config: RunConfig) -> tuple[TaskSpec, dict[str, Table]]:
    """Read ``train_file`` and ``validation_file`` and complete the task's spec from the settings and the data.

    With no ``label_names``, the classes are the names that a parquet file written by Hugging Face datasets embeds, or
    else the different labels of both files, sorted (as numbers when all of them are integers).

    Parameters
    ----------
    template : TaskSpec
        The spec that the hook contributes; its columns, labels, label range and metrics are replaced.
    config : RunConfig

    Returns
    -------
    spec : TaskSpec
        Complete.
    tables : dict of str to Table
        The training split and, when ``validation_file`` is set, the validation split.

    Raises
    ------
    ConfigError
        When the settings of the task are missing or contradict each other.
    DataError
        When a file or column is missing or malformed, or the labels are none.
    """
    _check_settings(config)
    texts = tuple(filter(None, (config.text_column, config.text_pair_column)))
    files = {template.train_split: config.train_file, template.validation_splits[0]: config.validation_file}
    tables = {
        split: read_file(Path(file).expanduser(), (*texts, config.label_column), config.label_column)
        for split, file in files.items()
        if file
    }
    for table in tables.values():
        require_rows(table)
    spec = replace(template, text_columns=texts, label_column=config.label_column)
    if config.task_kind == "regression":
        return _complete_regression(spec, tables), tables
    return _complete_classification(spec, tables, config)


def _check_settings(config: RunConfig) -> None:
    if not config.train_file:
        raise ConfigError(f"task {TASK!r} needs train_file: a .jsonl, .csv or .parquet file")
    columns = [name for name in (config.text_column, config.text_pair_column, config.label_column) if name]
    if len(set(columns)) < len(columns):
        raise ConfigError("text_column, text_pair_column and label_column must be different columns")
    if not config.text_column or not config.label_column:
        raise ConfigError(f"task {TASK!r} needs text_column and label_column")
    if config.validation_file and _same_file(config.train_file, config.validation_file):
        raise ConfigError(
            "validation_file is the train_file: leave it empty, and validation_fraction of the rows is set apart"
        )
    names = config.label_names
    if names and config.task_kind == "regression":
        raise ConfigError("label_names is set, but task_kind is 'regression', which has no classes: empty one of them")
    if len(set(names)) < len(names):
        raise ConfigError(f"label_names lists a class twice: {', '.join(names)}")
    if len(names) == 1:
        raise ConfigError(f"label_names lists only {names[0]!r}: a task needs two classes")


def _same_file(one: str, other: str) -> bool:
    first, second = Path(one).expanduser(), Path(other).expanduser()
    return first.exists() and second.exists() and first.samefile(second)


def _complete_regression(spec: TaskSpec, tables: Mapping[str, Table]) -> TaskSpec:
    numbers = [parse_numbers(table, spec.label_column) for table in tables.values()]
    low, high = min(float(n.min()) for n in numbers), max(float(n.max()) for n in numbers)
    if low == high:
        raise DataError(f"{_files(tables)}, column {spec.label_column!r}: every label is {low:g}; none can be learned")
    return replace(spec, labels=(), label_range=(low, high), metrics=("pearson", "spearman"))


def _complete_classification(
    spec: TaskSpec, tables: Mapping[str, Table], config: RunConfig
) -> tuple[TaskSpec, dict[str, Table]]:
    column = spec.label_column
    embedded = {table.class_names for table in tables.values()} - {()}
    if config.label_names:
        names = list(config.label_names)
        # where a class is named "1", an integer 1 in the file is that name as well
        as_text = any(INTEGER.fullmatch(name) for name in names)
    elif len(embedded) > 1:
        raise DataError(f"{_files(tables)} embed different class names for column {column!r}: make them the same")
    elif embedded:
        names, as_text = list(embedded.pop()), False
    else:
        found = {name for table in tables.values() for name in _class_names(table, column)}
        names = sorted(found, key=int if all(INTEGER.fullmatch(name) for name in found) else None)
        as_text = True
    if len(names) < 2:
        raise DataError(f"{_files(tables)}, column {column!r}: every label is {names[0]!r}; a task needs two classes")
    if as_text:
        tables = {
            split: replace(table, columns={**table.columns, column: _class_names(table, column)}, class_names=())
            for split, table in tables.items()
        }
    metrics = ("accuracy", "f1") if len(names) == 2 else ("accuracy",)
    return replace(spec, labels=tuple(names), metrics=metrics), dict(tables)


def _class_names(table: Table, column: str) -> list[str]:
    """Every label of a column as the name of a class."""
    names: list[str] = []
    problems: dict[int, str] = {}
    for row, value in enumerate(table.columns[column]):
        name = _class_name(value)
        if name is None:
            problems[row] = NO_LABEL if is_missing(value) else f"label {value!r} is not the name or number of a class"
        else:
            names.append(name)
    if problems:
        complain(table.where, column, problems, "correct or remove such rows, or set task_kind to 'regression'")
    return names


def _class_name(value: Any) -> str | None:
    if is_missing(value):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value) and value.is_integer()):
        return str(int(value))
    return None


def _files(tables: Mapping[str, Table]) -> str:
    return " and ".join(table.where for table in tables.values())
