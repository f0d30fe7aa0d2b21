"""A task's data: the training split, the part carved from it for decisions, and the official validation splits.

The official validation splits are for reporting only. Every decision that is made during training (when to stop, what
is hard) rests on ``dev``, which is carved from train. Subsets and carved parts depend on ``split_seed`` and the number
of rows alone, so every arm and seed of a comparison sees the same rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.config import RunConfig
from sage_kit.data import user_files
from sage_kit.data.checks import (
    announce_little_content,
    check_labels,
    check_texts,
    leave_out_unlabelled,
    require_rows,
)
from sage_kit.data.sources import Table, read_tables
from sage_kit.errors import DataError

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split, checked.

    Attributes
    ----------
    name : str
        "train", "dev", or the name of a validation split.
    texts : list of str
        The text, or the first of a pair.
    pairs : list of str or None
        The second texts; None when the task has single texts.
    labels : array of shape (n,)
        int64 class indices, or float32 numbers for regression.
    """

    name: str
    texts: list[str]
    pairs: list[str] | None
    labels: NDArray[Any]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Indices, name: str = "") -> Split:
        """The rows at `indices`, in that order, as a split of the same or another name."""
        rows = indices.tolist()
        pairs = None if self.pairs is None else [self.pairs[row] for row in rows]
        return Split(name or self.name, [self.texts[row] for row in rows], pairs, self.labels[indices])


@dataclass(frozen=True, eq=False)
class TaskData:
    """A task's spec and data.

    Attributes
    ----------
    spec : TaskSpec
        Complete: the labels are known, for the user's own files too.
    train : Split
        What the teacher and the student train on.
    dev : Split
        Carved from train; every decision made during training rests on it.
    validation : dict of str to Split
        The official validation splits, for reporting only.
    """

    spec: TaskSpec
    train: Split
    dev: Split
    validation: dict[str, Split]


def load_task(spec: TaskSpec, config: RunConfig, announce: Callable[[str], None]) -> TaskData:
    """Read, check and split a task's data.

    In this order: every row of every split is read and checked, and rows without a label are refused or left out; where
    there is no validation split (the user's own file without a validation file), `validation_fraction` of the rows is
    set apart as "validation"; `train_rows` and `validation_rows` draw subsets; `dev_fraction` of what is left of train
    becomes ``dev``. A larger subset holds every row of a smaller one.

    Parts are carved by class, in proportion, and rows with the same text (or pair of texts) go to the same side, so
    that no text is trained on and decided or reported on. Official validation splits are used as they are; how many of
    their rows also stand in train is announced.

    Parameters
    ----------
    spec : TaskSpec
    config : RunConfig
    announce : callable
        Shows one line of text to the user.

    Returns
    -------
    TaskData

    Raises
    ------
    DataError
        Names the file or split, and where it applies the row and column, of the first thing that is wrong.
    ConfigError
        For contradictory settings of task ``file``.
    PluginError
        When a task's own loader fails.
    """
    if spec.name == user_files.TASK:
        spec, tables = user_files.read_user_files(spec, config, announce)
    else:
        tables = _labelled(read_tables(spec, config), spec, config, announce)
    half_empty = spec.may_be_half_empty or config.may_be_half_empty
    splits = {name: _check(name, table, spec, half_empty) for name, table in tables.items()}
    train = splits.pop(spec.train_split)
    where = tables[spec.train_split].where
    _require_classes(train, spec, where, "add rows of it")
    for name, split in {spec.train_split: train, **splits}.items():
        for column, texts in zip(spec.text_columns, filter(None, (split.texts, split.pairs)), strict=True):
            announce_little_content(tables[name], column, texts, announce)

    if not splits:
        train, part = _carve(train, config.validation_fraction, config.split_seed, "validation", spec, where)
        splits = {part.name: part}
    train = _subset(train, config.train_rows, config.split_seed, "train_rows", announce)
    _require_classes(
        train, spec, f"{where}, the {len(train):,} rows that train_rows draws", "raise train_rows or change split_seed"
    )
    train, dev = _carve(train, config.dev_fraction, config.split_seed, "dev", spec, where)
    validation = {
        name: _subset(split, config.validation_rows, config.split_seed, "validation_rows", announce)
        for name, split in splits.items()
    }

    sizes = ", ".join(f"{len(split):,} {split.name}" for split in (train, dev, *validation.values()))
    announce(f"task {spec.name}: {sizes} rows")
    _announce_overlap(train, validation, announce)
    return TaskData(spec, train, dev, validation)


def _labelled(
    tables: dict[str, Table], spec: TaskSpec, config: RunConfig, announce: Callable[[str], None]
) -> dict[str, Table]:
    """The tables with labelled rows only."""
    for table in tables.values():
        require_rows(table)
    drop = config.missing_labels == "drop"
    return {
        name: leave_out_unlabelled(table, spec, announce, drop=drop, label_range=spec.label_range)
        for name, table in tables.items()
    }


def _check(name: str, table: Table, spec: TaskSpec, half_empty: bool) -> Split:
    texts, *pairs = check_texts(table, spec.text_columns, may_be_half_empty=half_empty)
    return Split(name, texts, pairs[0] if pairs else None, check_labels(table, spec))


def _require_classes(train: Split, spec: TaskSpec, where: str, remedy: str) -> None:
    if spec.is_regression:
        return
    missing = np.flatnonzero(np.bincount(train.labels, minlength=len(spec.labels)) == 0)
    if len(missing):
        names = ", ".join(repr(spec.labels[index]) for index in missing)
        raise DataError(f"{where}: no row of class {names} to train on; {remedy}")


def _announce_overlap(train: Split, validation: dict[str, Split], announce: Callable[[str], None]) -> None:
    seen = set(_keys(train))
    for split in validation.values():
        shared = sum(key in seen for key in _keys(split))
        if shared:
            announce(f"{shared:,} of the {len(split):,} rows of {split.name} have a text that also stands in train")


def _keys(split: Split) -> list[Any]:
    return split.texts if split.pairs is None else list(zip(split.texts, split.pairs, strict=True))


# ---- subsets and parts ----------------------------------------------------------------------------------------------


def _random_order(n: int, seed: int, purpose: str) -> Indices:
    """A random permutation of ``range(n)``.

    It sorts the raw output of PCG64: numpy guarantees that this stream never changes, which it does not for
    ``Generator.permutation``. So a seed draws the same rows under every version of numpy.
    """
    stream = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]))
    return np.argsort(stream.random_raw(n), kind="stable")


def _subset(split: Split, rows: int, seed: int, setting: str, announce: Callable[[str], None]) -> Split:
    """`rows` random rows in their old order; all when `rows` is 0 or more than there are."""
    if rows == 0 or rows == len(split):
        return split
    if rows > len(split):
        announce(f"{setting} is {rows:,}, but {split.name} has {len(split):,} rows: all are used")
        return split
    return split.take(np.sort(_random_order(len(split), seed, f"subset {split.name}")[:rows]))


def _carve(split: Split, fraction: float, seed: int, purpose: str, spec: TaskSpec, where: str) -> tuple[Split, Split]:
    """What is left of a split, and the part of it that was carved off under the name `purpose`."""
    # rows of one text make one group, and groups are carved
    numbers: dict[Any, int] = {}
    group = np.fromiter((numbers.setdefault(key, len(numbers)) for key in _keys(split)), np.int64, len(split))
    if len(numbers) < 2:
        same = " that all hold the same text" if len(split) > 1 else ""
        raise DataError(
            f"{where}: {len(split)} row{'s' if len(split) > 1 else ''}{same} cannot be parted into {split.name} and "
            f"{purpose}; give at least 2 different ones"
            + (", or set text_column to another column" if same and spec.name == user_files.TASK else "")
        )
    stratum = _strata(split, group, len(numbers), spec)
    quotas = _quotas(np.bincount(stratum), fraction)
    if not quotas.any():
        raise DataError(
            f"{where}: no class has 2 different texts, so {purpose} would take a class's last one; give more "
            "different texts"
        )
    # the first quotas[s] groups of each stratum s, in random order
    order = _random_order(len(numbers), seed, purpose)
    order = order[np.argsort(stratum[order], kind="stable")]
    sizes = np.bincount(stratum)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    carved = np.zeros(len(numbers), bool)
    carved[order[rank < quotas[stratum[order]]]] = True
    inside = carved[group]
    return split.take(np.flatnonzero(~inside)), split.take(np.flatnonzero(inside), purpose)


def _strata(split: Split, group: Indices, n_groups: int, spec: TaskSpec) -> Indices:
    """The class of each group, of shape (n_groups,); where its rows disagree, their rarest. All 0 for regression."""
    if spec.is_regression:
        return np.zeros(n_groups, np.int64)
    rows_of_class = np.bincount(split.labels)
    common_first = np.argsort(-rows_of_class[split.labels], kind="stable")
    stratum = np.empty(n_groups, np.int64)
    stratum[group[common_first]] = split.labels[common_first]  # the last one written, the rarest, stays
    return stratum


def _quotas(sizes: Indices, fraction: float) -> Indices:
    """How many to take of each stratum: the fraction, by largest remainders.

    At least one in all, and never a whole stratum.
    """
    spare = np.maximum(sizes - 1, 0)
    exact = sizes * fraction
    quotas = np.minimum(np.floor(exact).astype(np.int64), spare)
    wanted = max(1, int(fraction * sizes.sum() + 0.5)) - int(quotas.sum())
    may_take_more = (quotas < exact) & (quotas < spare)
    by_remainder = np.argsort(quotas - exact, kind="stable")
    quotas[by_remainder[may_take_more[by_remainder]][: max(0, wanted)]] += 1
    return quotas
