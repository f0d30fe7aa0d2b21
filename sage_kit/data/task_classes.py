"""The classes of a task whose spec leaves them to its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from sage_kit.components import TaskSpec
from sage_kit.data.classes import Label, find_classes, read_labels
from sage_kit.data.sources import Table
from sage_kit.errors import DataError

LISTED = 5
"""Most classes that a line names."""


def settle_classes(
    spec: TaskSpec, tables: Mapping[str, Table], announce: Callable[[str], None]
) -> tuple[TaskSpec, dict[str, Table]]:
    """Find the classes in the training split, and leave out the rows of other splits that are of none of them.

    Where the data name their classes, these keep their order, without those that no row of training is of; else they
    are the different labels of the training split, sorted.

    Parameters
    ----------
    spec : TaskSpec
        With `labels_from_data`.
    tables : mapping of str to Table
        By split.
    announce : callable
        Shows one line of text to the user.

    Returns
    -------
    spec : TaskSpec
        With its classes.
    tables : dict of str to Table
        A class stands as its name; labels that mean that there is none are as they were.

    Raises
    ------
    DataError
        When the training split has no two classes.
    """
    column = spec.label_column
    labels = {split: read_labels(table.columns[column], table.class_names) for split, table in tables.items()}
    found = {
        split: find_classes([label for label in labels[split] if _is_class(label, table)])
        for split, table in tables.items()
    }
    train, held = tables[spec.train_split], found[spec.train_split].names
    names = tuple(name for name in train.class_names if name in held) or held
    if len(names) < 2:
        raise DataError(
            f"{train.where}, column {column!r}: {f'every label is {names[0]!r}' if names else 'no row has a label'}; a "
            "task needs two classes"
        )
    named: dict[str, Table] = {}
    for split, table in tables.items():
        of = found[split].of
        values = [of.get(label, value) for label, value in zip(labels[split], table.columns[column], strict=True)]
        strange = Counter(of[label] for label in labels[split] if label in of and of[label] not in names)
        whole = replace(table, columns={**table.columns, column: values}, class_names=())
        if strange:
            kept = [row for row, label in enumerate(labels[split]) if of.get(label) not in strange]
            told = ", ".join(repr(name) for name, _ in strange.most_common(LISTED))
            more = f" and {len(strange) - LISTED} more" if len(strange) > LISTED else ""
            announce(
                f"{table.where}: {sum(strange.values()):,} of {len(table):,} rows left out, of classes that "
                f"{spec.train_split} does not hold: {told}{more}"
            )
            whole = whole.take(kept)
        named[split] = whole
    return replace(spec, labels=names), named


def _is_class(label: Label, table: Table) -> bool:
    """Whether a label names a class; among named classes, a number that has no name does not."""
    if label.is_missing or label.type_name:
        return False
    return not table.class_names or label.is_word
