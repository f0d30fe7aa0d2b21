"""Classes that a task takes from its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sage_kit.components import TaskSpec
from sage_kit.data.sources import Table
from sage_kit.data.task_classes import settle_classes
from sage_kit.errors import DataError

SPEC = TaskSpec(name="toy", summary="", text_columns=("text",), labels_from_data=True)


def table(where: str, labels: Sequence[Any], names: tuple[str, ...] = ()) -> Table:
    return Table(where, {"text": [f"text {row}" for row in range(len(labels))], "label": list(labels)}, names)


def settled(train: Table, validation: Table | None = None) -> tuple[tuple[str, ...], dict[str, list[Any]], list[str]]:
    """Classes, labels by split, and what is told."""
    lines: list[str] = []
    tables = {"train": train} | ({} if validation is None else {"validation": validation})
    spec, named = settle_classes(SPEC, tables, lines.append)
    assert not any(part.class_names for part in named.values())
    return spec.labels, {name: list(part.columns["label"]) for name, part in named.items()}, lines


def test_named_classes_keep_their_order_without_those_that_training_lacks() -> None:
    names = ("pay", "lost", "other", "block")
    classes, labels, lines = settled(
        table("train.parquet", [3, 0, 0, 3], names), table("validation.parquet", [0, 1, 3, 2], names)
    )
    assert classes == ("pay", "block")
    assert labels == {"train": ["block", "pay", "pay", "block"], "validation": ["pay", "block"]}
    assert lines == ["validation.parquet: 2 of 4 rows left out, of classes that train does not hold: 'lost', 'other'"]


def test_without_names_the_labels_are_the_classes() -> None:
    classes, labels, lines = settled(table("train", ["b", "a", "b"]), table("validation", ["a", "c"]))
    assert classes == ("a", "b")
    assert labels == {"train": ["b", "a", "b"], "validation": ["a"]}
    assert len(lines) == 1
    assert settled(table("train", [10, 9, 10]))[0] == ("9", "10")


def test_a_label_that_means_none_is_left_for_the_check_of_missing_labels() -> None:
    classes, labels, lines = settled(table("train", [0, 1, -1, None], ("no", "yes")))
    assert classes == ("no", "yes")
    assert labels["train"] == ["no", "yes", -1, None]
    assert lines == []


@pytest.mark.parametrize(("labels", "message"), [([1, 1], "every label is 'yes'"), ([-1, None], "no row has a label")])
def test_a_task_needs_two_classes(labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^train, column 'label': {message}; a task needs two classes$"):
        settled(table("train", labels, ("no", "yes")))


def test_a_spec_without_classes_that_takes_them_from_data_is_no_regression() -> None:
    assert not SPEC.is_regression
    assert SPEC.capabilities()["labels"] == ["of the data"]
