"""Task `file`: the user's own files, and the task spec that follows from the settings and the data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sage_kit.components import TaskSpec
from sage_kit.config import RunConfig
from sage_kit.data.classes import (
    ClassFinder,
    FoundClasses,
    Label,
    difference,
    find_classes,
    missing_codes,
    read_labels,
    shown,
)
from sage_kit.data.formats import Dialect
from sage_kit.data.row_checks import (
    DROP,
    LONGEST_NAMES,
    as_setting,
    class_indices,
    complain,
    describe,
    leave_out_unlabelled,
    parse_numbers,
    places,
    require_rows,
    settle_missing,
)
from sage_kit.data.sources import Table, read_file, scratch_folder
from sage_kit.data.structured_labels import read_label_columns
from sage_kit.errors import ConfigError, DataError, did_you_mean

TASK = "file"
"""Name of the task whose spec is a template."""

FEWEST_CLASSES_TO_ASK = 10
"""With fewer classes, few rows of each are a small file rather than the wrong column."""

Announce = Callable[[str], None]


def read_user_files(template: TaskSpec, config: RunConfig, announce: Announce) -> tuple[TaskSpec, dict[str, Table]]:
    """Read ``train_file`` and ``validation_file`` and complete the task's spec from the settings and the data.

    With no ``label_names``, the classes are the names that a parquet file written by Hugging Face datasets embeds, or
    else the different labels of both files, sorted: numbers by value and before names. A number is one class however it
    is spelled.

    Parameters
    ----------
    template : TaskSpec
        The spec that the hook contributes; its columns, labels, label range and metrics are replaced.
    config : RunConfig
    announce : callable
        Shows one line of text to the user.

    Returns
    -------
    spec : TaskSpec
        Complete.
    tables : dict of str to Table
        The training split and, when ``validation_file`` is set, the validation split, with the labelled rows only; a
        class stands as its index.

    Raises
    ------
    ConfigError
        When the settings of the task are missing or contradict each other.
    DataError
        When a file or column is missing or malformed, labels are missing or none, or names of classes are nearly alike.
    """
    spec, tables = read_plain(template, config)
    for table in tables.values():
        require_rows(table)
    if template.is_regression:
        return _complete_regression(spec, tables, config, announce)
    return _Classification(spec, tables, config, announce).complete()


def read_plain(template: TaskSpec, config: RunConfig) -> tuple[TaskSpec, dict[str, Table]]:
    """The files with their columns, nothing of which is checked yet; parameters and errors as in `read_user_files`."""
    of_vectors, of_sets = (template.label_kind == kind for kind in ("embeddings", "label_sets"))
    _check_settings(template, config)
    texts = tuple(filter(None, (config.text_column, config.text_pair_column)))
    files = {template.train_split: config.train_file, template.validation_splits[0]: config.validation_file}
    # a label of embeddings says how alike two texts are, so single texts have none
    label = "" if of_vectors and len(texts) == 1 else config.label_column
    several = _label_columns(template, config)
    columns = (*texts, *(several or filter(None, [label])))
    tables = {}
    for split, file in files.items():
        if file:
            path = Path(file).expanduser()
            if of_vectors and label:
                _require_similarities(path, texts, label, config)
            found = read_file(path, columns, label, Dialect.of(config), texts=texts, folder=scratch_folder(config))
            tables[split] = _with_sets(found, several, label, config.label_separator) if of_sets else found
    # questions about one text go to one split
    group = config.text_pair_column if template.label_kind == "spans" else ""
    return replace(template, text_columns=texts, label_column=label, group_column=group), tables


def _label_columns(template: TaskSpec, config: RunConfig) -> tuple[str, ...]:
    """The columns of 0 and 1 of label sets; empty where a column holds the sets."""
    names = tuple(name.strip() for name in config.label_column.split(","))
    if template.label_kind != "label_sets" or len(names) < 2:
        return ()
    if config.label_separator or config.label_names:
        given = "label_separator" if config.label_separator else "label_names"
        raise ConfigError(f"label_column names {len(names)} columns, one for each label, and {given} is set: empty it")
    return names


def _with_sets(table: Table, columns: Sequence[str], label: str, separator: str) -> Table:
    """The table with a list of names in each row of the label column, from columns of 0 and 1 or from text."""
    if not columns and not separator:
        return table
    values = {name: column for name, column in table.columns.items() if name not in columns}
    if columns:
        flags = read_label_columns({name: table.columns[name] for name in columns}, table.where, rows=table.rows)
        values[label] = [[columns[int(i)] for i in np.flatnonzero(row)] for row in flags]
        return replace(table, columns=values, item_names=tuple(columns))
    values[label] = [_parted(value, separator) for value in table.columns[label]]
    return replace(table, columns=values)


def _parted(value: Any, separator: str) -> Any:
    """The labels of a text; nothing stands for none."""
    if value is None or value == "":
        return []
    return [part.strip() for part in value.split(separator) if part.strip()] if isinstance(value, str) else value


def _require_similarities(path: Path, texts: Sequence[str], label: str, config: RunConfig) -> None:
    """Raise DataError for a file of pairs without the column of labels, which it may do without."""
    others = read_file(path, texts, dialect=Dialect.of(config)).others
    if label not in others:
        raise DataError(
            f"{path} has no column {label!r}, which says how alike the two texts are: set label_column to '' for pairs "
            f"without labels.{did_you_mean(label, others, 'Other columns')}"
        )


def _check_settings(template: TaskSpec, config: RunConfig) -> None:
    may_lack_labels = template.label_kind == "embeddings"
    if not config.train_file:
        raise ConfigError(f"task {TASK!r} needs train_file: a .jsonl, .csv or .parquet file, or another that it takes")
    columns = [name for name in (config.text_column, config.text_pair_column, config.label_column) if name]
    if len(set(columns)) < len(columns):
        raise ConfigError("text_column, text_pair_column and label_column must be different columns")
    if not config.text_column or not (config.label_column or may_lack_labels):
        raise ConfigError(f"task {TASK!r} needs text_column and label_column")
    if template.label_kind == "spans" and not config.text_pair_column:
        raise ConfigError(
            f"task_kind is {config.task_kind!r}, and an answer is a piece of a second text: set text_column to the "
            "column of questions and text_pair_column to that of their contexts"
        )
    if config.may_be_half_empty and not config.text_pair_column:
        raise ConfigError("may_be_half_empty is set, but there are no pairs: set text_pair_column, or leave it out")
    if config.validation_file and _same_file(config.train_file, config.validation_file):
        raise ConfigError(
            "validation_file is the train_file: leave it empty, and validation_fraction of the rows is set apart"
        )
    if config.label_separator and template.label_kind != "label_sets":
        raise ConfigError(
            f"label_separator parts the labels of sets, and task_kind is {config.task_kind!r}: leave it empty, or set "
            "task_kind to 'label_sets'"
        )
    names = config.label_names
    if names and (config.task_kind == "regression" or may_lack_labels):
        kind = config.task_kind
        raise ConfigError(f"label_names is set, but task_kind is {kind!r}, which has no classes: empty one of them")
    if len(set(names)) < len(names):
        raise ConfigError(f"label_names lists a class twice: {', '.join(names)}")
    if len(names) == 1:
        raise ConfigError(f"label_names lists only {names[0]!r}: a task needs two classes")


def _same_file(one: str, other: str) -> bool:
    first, second = Path(one).expanduser(), Path(other).expanduser()
    return first.exists() and second.exists() and first.samefile(second)


def _complete_regression(
    spec: TaskSpec, tables: Mapping[str, Table], config: RunConfig, announce: Announce
) -> tuple[TaskSpec, dict[str, Table]]:
    spec = replace(spec, labels=())
    drop = config.missing_labels == "drop"
    everything = (-math.inf, math.inf)
    tables = {
        split: leave_out_unlabelled(table, spec, announce, drop=drop, label_range=everything)
        for split, table in tables.items()
    }
    numbers = [parse_numbers(table, spec.label_column) for table in tables.values()]
    codes = missing_codes(set(np.concatenate(numbers).tolist()))
    for table, values in zip(tables.values(), numbers, strict=True):
        rows = {Label(f"{code:g}", code): np.flatnonzero(values == code).tolist() for code in sorted(codes)}
        if any(rows.values()):
            announce(
                f"{table.where}, column {spec.label_column!r}: {places(table, rows)} counts as a number; if it marks a "
                "missing label, remove such rows"
            )
    low, high = min(float(n.min()) for n in numbers), max(float(n.max()) for n in numbers)
    if low == high:
        raise DataError(f"{_files(tables)}, column {spec.label_column!r}: every label is {low:g}; none can be learned")
    return replace(spec, label_range=(low, high), metrics=("pearson", "spearman")), dict(tables)


@dataclass
class _Part:
    """One file: its table and what its labels mean."""

    table: Table
    labels: list[Label]


class _Classification:
    """Finds the classes of the files and puts each label's index into the tables."""

    def __init__(self, spec: TaskSpec, tables: Mapping[str, Table], config: RunConfig, announce: Announce) -> None:
        self.spec = spec
        self.column = spec.label_column
        self.config = config
        self.announce = announce
        self.tables = dict(tables)
        self.given = tuple(config.label_names)
        self.embedded = self._embedded()
        self.parts = {
            split: _Part(table, read_labels(table.columns[self.column], self._class_names(table)))
            for split, table in tables.items()
        }

    def complete(self) -> tuple[TaskSpec, dict[str, Table]]:
        self._settle_missing()
        names = self.given or self.embedded
        if names:
            indices = self._find_among(names)
        else:
            found = self._discover()
            names = found.names
            of = {name: index for index, name in enumerate(names)}
            indices = {split: [of[found.of[label]] for label in part.labels] for split, part in self.parts.items()}
        self._require_used(names, indices)
        tables = {
            split: replace(part.table, columns={**part.table.columns, self.column: indices[split]}, class_names=())
            for split, part in self.parts.items()
        }
        metrics = ("accuracy", "f1") if len(names) == 2 else ("accuracy",)
        return replace(self.spec, labels=tuple(names), metrics=metrics), tables

    # ---- names that the files embed

    def _embedded(self) -> tuple[str, ...]:
        embedded = {table.class_names for table in self.tables.values()} - {()}
        if len(embedded) > 1 and not self.given:
            raise DataError(
                f"{_files(self.tables)} embed different class names for column {self.column!r}: make them the same, or "
                "list the classes in label_names"
            )
        return next(iter(embedded), ())

    def _class_names(self, table: Table) -> tuple[str, ...]:
        """What the integers of a file are called; with others in label_names, they are integers and no more."""
        return table.class_names if not self.given or set(table.class_names) & set(self.given) else ()

    # ---- missing labels

    def _settle_missing(self) -> None:
        known = ClassFinder(self.given or self.embedded)
        distinct = dict.fromkeys(label for part in self.parts.values() for label in part.labels)
        others = [label for label in distinct if not known.names_it(label)]
        # beside classes that are known by name, a number that none of them has is no class at all
        codes = missing_codes(
            {label.number for label in distinct if label.number is not None and not label.is_boolean},
            with_names=any(label.is_name for label in distinct),
        )
        missing = {label for label in others if label.is_missing or (label.number in codes and not label.is_boolean)}
        if not missing:
            if not known.names and codes == set() and self._numbers(distinct) == {-1, 1}:
                self.announce(f"{_files(self.tables)}, column {self.column!r}: -1 and 1 are two classes")
            return
        present = [label for label in distinct if label not in missing or not self._is_nothing(label)]

        def remedy(found: Collection[Label]) -> str:
            admissible = [label for label in found if not self._is_nothing(label)]
            if not admissible:
                return f"correct such rows, or {DROP}"
            names = find_classes([_as_class(label) for label in present if not label.type_name]).names
            if any(known.names_it(label) for label in distinct):
                names = (*(label.text for label in admissible), *known.names)
            them = "it is a class" if len(admissible) == 1 else "they are classes"
            return f"{DROP}, or, if {them}, set label_names to {as_setting(names)}"

        for part in self.parts.values():
            part.table, part.labels = settle_missing(
                part.table,
                self.column,
                part.labels,
                missing.__contains__,
                self.announce,
                drop=self.config.missing_labels == "drop",
                remedy=remedy,
            )

    @staticmethod
    def _is_nothing(label: Label) -> bool:
        """Whether a missing label is not even a word or a number that could be a class."""
        return label.is_missing and not label.is_word

    @staticmethod
    def _numbers(labels: Collection[Label]) -> set[int | float] | None:
        """The numbers that labels are, if all are numbers."""
        numbers = {label.number for label in labels if label.number is not None}
        return numbers if all(label.number is not None for label in labels) else None

    # ---- classes from the settings or the file

    def _find_among(self, names: Sequence[str]) -> dict[str, list[int]]:
        finder = ClassFinder(names)
        remedy = "correct or remove such rows"
        if self.given:
            remedy += ", or list the class in label_names"
            numbers = {label for part in self.parts.values() for label in part.labels if label.number is not None}
            if numbers and not finder.are_numbers:
                left = as_setting(find_classes(numbers).names)
                remedy += f"; numbers count the names from 0: to have them as names, set label_names to {left}"
        return {
            split: class_indices(part.table, self.column, part.labels, finder, remedy).tolist()
            for split, part in self.parts.items()
        }

    def _require_used(self, names: Sequence[str], indices: Mapping[str, Sequence[int]]) -> None:
        """Raise DataError for a class without rows, where training needs some of each."""
        used = {index for found in indices.values() for index in found}
        trained = set(indices[self.spec.train_split])
        if len(used) < 2 and not self.given:
            name = names[next(iter(used))]
            raise DataError(
                f"{_files(self.tables)}, column {self.column!r}: every label is {name!r}; a task needs two classes"
            )
        where = self.parts[self.spec.train_split].table.where
        absent = [index for index in range(len(names)) if index not in trained]
        if not absent:
            return
        listed = ", ".join(repr(names[index]) for index in absent[:LONGEST_NAMES])
        more = f" and {len(absent) - LONGEST_NAMES} more" if len(absent) > LONGEST_NAMES else ""
        raise DataError(
            f"{where}: no row of class {listed}{more} to train on; {self._remedy_of_absent(names, absent, indices)}"
        )

    def _remedy_of_absent(
        self, names: Sequence[str], absent: Sequence[int], indices: Mapping[str, Sequence[int]]
    ) -> str:
        for split, part in self.parts.items():
            rows = [row for row, index in enumerate(indices[split]) if index in absent]
            if rows:
                return (
                    f"{part.table.where} has {len(rows):,} (the first in row {part.table.row(rows[0])}): add such rows "
                    "to train_file, or remove them from validation_file"
                )
        if len(names) - len(absent) < 2:
            return "add rows of it"
        finder = ClassFinder(names)
        counted = {
            label: index
            for part in self.parts.values()
            for label in part.labels
            if (index := finder.index(label)) is not None and label.number is not None and not finder.names_it(label)
        }
        if counted:  # a shorter list would count them otherwise
            left = find_classes(list(counted)).names
            return f"add rows of it, or set label_names to {as_setting(left)}, the numbers that the file holds"
        left = tuple(name for index, name in enumerate(names) if index not in absent)
        return f"add rows of it, or leave it out: set label_names to {as_setting(left)}"

    # ---- classes from the data

    def _discover(self) -> FoundClasses:
        self._require_single_values()
        labels = [label for part in self.parts.values() for label in part.labels]
        found = find_classes(labels)
        self._require_whole_numbers(found)
        self._ask_for_the_column(found)
        groups = found.lookalikes()
        if groups:
            self._complain_of_lookalikes(found, groups)
        for name, texts in found.spellings().items():
            self.announce(f"{_files(self.tables)}, column {self.column!r}: {_joined(texts)} are one class, {name}")
        return found

    def _require_single_values(self) -> None:
        for part in self.parts.values():
            problems = {
                row: f"label {describe(label)} is not the name or number of a class"
                for row, label in enumerate(part.labels)
                if label.type_name
            }
            if problems:
                is_list = any(part.labels[row].type_name in ("list", "tuple", "dict", "set") for row in problems)
                remedy = (
                    "a row has one label: several at once are not supported"
                    if is_list
                    else "write the labels as valid text or whole numbers"
                )
                complain(part.table, self.column, problems, remedy)

    def _require_whole_numbers(self, found: FoundClasses) -> None:
        remedy = "correct such rows"
        if len(found.names) <= LONGEST_NAMES:
            remedy += f", or, if these are classes, set label_names to {as_setting(found.names)}"
        if all(label.number is not None and not label.is_boolean for label in found.of):
            remedy += ", or, if the labels measure something, set task_kind to 'regression'"
        for part in self.parts.values():
            problems = {
                row: f"label {label.text} is not the name or number of a class"
                for row, label in enumerate(part.labels)
                if isinstance(label.number, float)
            }
            if problems:
                complain(part.table, self.column, problems, remedy)

    def _ask_for_the_column(self, found: FoundClasses) -> None:
        """Raise DataError where nearly every row of the training file has a class of its own."""
        part = self.parts[self.spec.train_split]
        different = dict.fromkeys(found.of[label] for label in part.labels)
        if len(different) < FEWEST_CLASSES_TO_ASK or 2 * len(different) <= len(part.labels):
            return
        examples = ", ".join(shown(name) for name in list(different)[:3])
        others = ", ".join(map(repr, part.table.others[:LONGEST_NAMES]))
        remedy = "set label_column to another one" + (f" (the file also has {others})" if others else "")
        if self._numbers(found.of) is not None:
            remedy += ", or, if the labels measure something, set task_kind to 'regression'"
        remedy += ", or, if they are classes, list them in label_names and give more rows of each"
        raise DataError(
            f"{part.table.where}: is {self.column!r} the label column? It holds {len(different):,} different labels in "
            f"{len(part.labels):,} rows ({examples}, ...); {remedy}"
        )

    def _complain_of_lookalikes(self, found: FoundClasses, groups: Sequence[Sequence[str]]) -> None:
        counts: Counter[str] = Counter()
        first: dict[str, str] = {}
        for part in self.parts.values():
            place = f" of {part.table.where}" if len(self.parts) > 1 else ""
            for row, label in enumerate(part.labels):
                counts[found.of[label]] += 1
                first.setdefault(found.of[label], f"row {part.table.row(row)}{place}")
        told = []
        for group in groups[:3]:
            spellings = " and ".join(
                f"{shown(name)} ({counts[name]:,} row{'s' if counts[name] > 1 else ''}, the first is {first[name]})"
                for name in group
            )
            kinds = dict.fromkeys(difference(group[0], name) for name in group[1:])
            told.append(f"{spellings} differ only in {' and '.join(kinds)}")
        more = f"; {len(groups) - 3} more such pair{'s' if len(groups) > 4 else ''}" if len(groups) > 3 else ""
        raise DataError(
            f"{_files(self.tables)}, column {self.column!r}: {'; '.join(told)}{more}; give one class one spelling, or, "
            f"if they are classes of their own, set label_names to {as_setting(found.names)}"
        )


def _as_class(label: Label) -> Label:
    """A label that looks like a missing one, as the class that it may be."""
    return replace(label, is_missing=False)


def _joined(texts: Sequence[str]) -> str:
    return f"{', '.join(map(shown, texts[:-1]))} and {shown(texts[-1])}"


def _files(tables: Mapping[str, Table]) -> str:
    return " and ".join(table.where for table in tables.values())
