"""Labels that are neither classes nor numbers: what a value of a label column means, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.errors import did_you_mean

Complain = Callable[[int, str], None]


def listed(value: Any) -> list[Any] | None:
    """A value that is a list, an array of a data frame or the text of a JSON list; None for anything else."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if hasattr(value, "tolist") and not isinstance(value, str):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else None


def names_in(values: Iterable[Any]) -> tuple[str, ...]:
    """The different labels in a column of lists, as text, sorted."""
    return tuple(sorted({str(label) for value in values for label in listed(value) or ()}))


def _indices(row: int, value: Any, names: tuple[str, ...], complain: Complain, called: str) -> tuple[int, ...]:
    """The number of each label of a list: integers count, and names are looked up."""
    labels = listed(value)
    if labels is None:
        complain(row, f"expected a list of {called}s, got {type(value).__name__}")
        return ()
    found = []
    for label in labels:
        if isinstance(label, str):
            if label in names:
                found.append(names.index(label))
            else:
                complain(
                    row, f"{called} {label!r} is none of the task's.{did_you_mean(label, names)}"[:200].rstrip(".")
                )
                return ()
        elif isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
            found.append(label)
        else:
            complain(row, f"{called} {label!r} is neither a name nor a number from 0 to {len(names) - 1}")
            return ()
    return tuple(found)


def read_label_sets(values: Sequence[Any], names: tuple[str, ...], complain: Complain) -> NDArray[np.int8]:
    """Sets of labels, of shape (rows, n_labels): 1 for the labels that a text has; -1 throughout for a missing one."""
    found = np.zeros((len(values), len(names)), np.int8)
    for row, value in enumerate(values):
        if value is None:
            found[row] = -1
            continue
        found[row, list(_indices(row, value, names, complain, "label"))] = 1
    return found


def read_tags(
    values: Sequence[Any], texts: Sequence[str], names: tuple[str, ...], complain: Complain
) -> NDArray[np.object_]:
    """A tuple of tags for each text, as numbers of `names`; None for a missing one."""
    found = np.empty(len(values), object)
    for row, (value, text) in enumerate(zip(values, texts, strict=True)):
        if value is None:
            continue
        found[row] = tags = _indices(row, value, names, complain, "tag")
        words = len(text.split())
        if tags and len(tags) != words:
            complain(row, f"{len(tags)} tags for {words} words")
    return found
