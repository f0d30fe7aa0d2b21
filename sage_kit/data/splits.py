"""A task's data: what the student learns from, the dev split for decisions, and the validation splits.

The validation splits are for reporting only. Every decision that is made during training (when to stop, what is hard)
rests on ``dev``, which is carved from train. Subsets and splits depend on ``split_seed`` and the number of rows
alone, so every arm and seed of a comparison sees the same rows; only the draw of the transfer set has its own seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.config import RunConfig
from sage_kit.data import user_files
from sage_kit.data.carving import Groups, Indices, carve_rows, carve_share, cut_group, random_order
from sage_kit.data.row_checks import (
    announce_little_content,
    check_labels,
    check_texts,
    leave_out_unlabelled,
    require_rows,
)
from sage_kit.data.sources import Table, read_tables
from sage_kit.data.structured_rows import (
    join_words,
    read_structured,
    settle_names,
    settle_unanswered,
    without_missing,
)
from sage_kit.data.task_classes import settle_classes
from sage_kit.data.text_columns import joined, numbered, take_rows
from sage_kit.data.unlabelled import count_unlabelled, known_labels, read_texts
from sage_kit.errors import ConfigError, DataError

Announce = Callable[[str], None]

EVALUATION = "evaluation"
"""Name of the split on which the student is compared with the teacher at the end."""


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split, checked.

    Attributes
    ----------
    name : str
        "train", "teacher", "dev", "evaluation", or the name of a validation split.
    texts : sequence of str
        The text, or the first of a pair; as a `TextColumn` where they come from a file or the hub.
    pairs : sequence of str or None
        The second texts; None when the task has single texts.
    labels : array of shape (n,)
        int64 class indices, -1 where there is none; or float32 numbers for regression, NaN where there is none; or what
        the kind of task reads, of shape (n, k) or Python objects, None where there is none. Labels may be missing in
        "train", where the teacher has rows of its own, and in "evaluation".
    groups : list or None
        What each row belongs to, where rows that belong together must not be parted.
    """

    name: str
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: NDArray[Any]
    groups: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def unlabelled(self) -> int:
        """Number of rows without a label."""
        return count_unlabelled(self.labels)

    def take(self, indices: Indices, name: str = "") -> Split:
        """The rows at `indices`, in that order, as a split of the same or another name."""
        pairs = None if self.pairs is None else take_rows(self.pairs, indices)
        groups = None if self.groups is None else list(take_rows(self.groups, indices))
        return Split(name or self.name, take_rows(self.texts, indices), pairs, self.labels[indices], groups)

    @property
    def columns(self) -> list[Sequence[str]]:
        """The texts, and the second ones where there are any."""
        return [self.texts] if self.pairs is None else [self.texts, self.pairs]


@dataclass(frozen=True, eq=False)
class TaskData:
    """A task's spec and data.

    Attributes
    ----------
    spec : TaskSpec
        Complete: the labels are known, for the user's own files too.
    train : Split
        The transfer set: what the student learns from.
    dev : Split
        Carved from train; every decision made during training rests on it.
    validation : dict of str to Split
        The validation splits, for reporting only.
    teachers_own : Split or None
        What the teacher is fine-tuned on, where a setting keeps it apart from the transfer set (see `teacher`).
    evaluation : Split or None
        On which the student is compared with the teacher at the end.
    validation_source : str
        What the validation splits are, for headings: "official validation data", or whose they are.
    """

    spec: TaskSpec
    train: Split
    dev: Split
    validation: dict[str, Split]
    teachers_own: Split | None = None
    evaluation: Split | None = None
    validation_source: str = "validation data"

    @property
    def teacher(self) -> Split:
        """What the teacher is fine-tuned on: rows of its own, or `train`."""
        return self.train if self.teachers_own is None else self.teachers_own

    @property
    def splits(self) -> dict[str, Split]:
        """Every split by its name, each once."""
        parts = [self.train, self.dev, *self.validation.values()]
        parts += filter(None, (self.teachers_own, self.evaluation))
        return {part.name: part for part in parts}


def load_task(spec: TaskSpec, config: RunConfig, announce: Announce) -> TaskData:
    """Read, check and split a task's data.

    In this order: every row of every split is read and checked, and rows without a label are refused or left out; where
    there is no validation split (the user's own file without a validation file), `validation_fraction` of the rows is
    set apart as "validation"; `train_rows` and `validation_rows` draw subsets; `dev_rows` or `dev_fraction` of what is
    left of train becomes ``dev`` and `evaluation_rows` of the rest ``evaluation``; `transfer_pool` of what then is left
    are kept for the draw of the transfer set, ``train``, and the teacher gets the others. A larger subset holds every
    row of a smaller one, and so does a larger draw of the transfer set.

    Parts are carved by class, in proportion, and rows with the same text (or pair of texts), or the same value in
    ``spec.group_column``, go to the same side, so that no text is trained on and decided or reported on. Where a file
    gives the evaluation set, rows of train with one of its texts are left out, and where a file gives the transfer set,
    rows of it with a text of dev or evaluation. Validation splits are used as they are; how many of their rows also
    stand in train is announced.

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
    spec, tables = _read_labelled(spec, config, announce)
    half_empty = spec.may_be_half_empty or config.may_be_half_empty
    splits = {name: _check(name, table, spec, half_empty) for name, table in tables.items()}
    train = splits.pop(spec.train_split)
    if spec.label_kind == "spans":
        spec = settle_unanswered(spec, train.labels, {name: split.labels for name, split in splits.items()}, announce)
    where = tables[spec.train_split].where
    _require_classes(train, spec, where, "add rows of it")
    for name, split in {spec.train_split: train, **splits}.items():
        for column, texts in zip(spec.text_columns, filter(None, (split.texts, split.pairs)), strict=True):
            announce_little_content(tables[name], column, texts, announce)

    if not splits:
        train, part = _carve(train, config.validation_fraction, config.split_seed, "validation", spec, where)
        splits = {part.name: part}
    train = _subset(train, config.train_rows, config.split_seed, "train_rows", announce)
    if config.train_rows:
        where = f"{where}, the {len(train):,} rows that train_rows draws"
    _require_classes(train, spec, where, "raise train_rows or change split_seed")
    _require_room(train, config, where)
    if config.dev_rows:
        train, dev = _carve_rows(train, config.dev_rows, config, "dev", "dev_rows", spec, where)
    else:
        train, dev = _carve(train, config.dev_fraction, config.split_seed, "dev", spec, where)
    validation = {
        name: _subset(split, config.validation_rows, config.split_seed, "validation_rows", announce)
        for name, split in splits.items()
    }
    if EVALUATION in validation and (config.evaluation_rows or config.evaluation_file):
        raise ConfigError(
            f"task {spec.name!r} has a validation split called {EVALUATION!r}, the name of the evaluation set: leave "
            "evaluation_rows and evaluation_file unset"
        )
    train, evaluation = _set_evaluation_apart(train, dev, spec, config, where, half_empty, announce)
    teacher, train, told = _set_transfer_apart(train, dev, evaluation, spec, config, where, half_empty, announce)
    source = _validation_source(spec, config)
    data = TaskData(spec, train, dev, validation, teacher, evaluation, source)

    sizes = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    announce(f"task {spec.name}: {sizes} rows{told}")
    unlabelled = ", ".join(f"{s.unlabelled:,} of {name}" for name, s in data.splits.items() if s.unlabelled)
    if unlabelled and spec.label_column:
        announce(f"rows without a label: {unlabelled}")
    _announce_overlap(data, announce)
    return data


def _read_labelled(spec: TaskSpec, config: RunConfig, announce: Announce) -> tuple[TaskSpec, dict[str, Table]]:
    """The spec with its labels, and the tables with labelled rows only."""
    is_users = spec.name == user_files.TASK
    if is_users and not spec.task_kind:  # the template as it is, which says nothing of the kind
        spec = replace(spec, task_kind=config.task_kind, handling=None)
    if spec.is_structured:
        if is_users:
            spec, tables = user_files.read_plain(spec, config)
        else:
            tables = read_tables(spec, config)
        for table in tables.values():
            require_rows(table)
        tables = {name: join_words(table, spec.text_columns) for name, table in tables.items()}
        if config.missing_labels == "drop":
            tables = {name: without_missing(table, spec, announce) for name, table in tables.items()}
        return settle_names(spec, tables, config), tables
    if is_users:
        return user_files.read_user_files(spec, config, announce)
    tables = read_tables(spec, config)
    if spec.labels_from_data:
        spec, tables = settle_classes(spec, tables, announce)
    return spec, _labelled(tables, spec, config, announce)


# ---- evaluation and transfer set ------------------------------------------------------------------------------------


def _set_evaluation_apart(
    train: Split, dev: Split, spec: TaskSpec, config: RunConfig, where: str, half_empty: bool, announce: Announce
) -> tuple[Split, Split | None]:
    """What is left of train, and the evaluation set, carved from it or read from a file."""
    if config.evaluation_rows:
        return _carve_rows(train, config.evaluation_rows, config, EVALUATION, "evaluation_rows", spec, where)
    if not config.evaluation_file:
        return train, None
    evaluation = read_split(EVALUATION, config.evaluation_file, spec, config, half_empty, announce)
    _tell_overlap(evaluation, dev, announce)
    rest = _leave_out(train, [evaluation], where, announce)
    _require_classes(rest, spec, f"{where}, the {len(rest):,} rows left for training", "shorten evaluation_file")
    return rest, evaluation


def _set_transfer_apart(
    train: Split,
    dev: Split,
    evaluation: Split | None,
    spec: TaskSpec,
    config: RunConfig,
    where: str,
    half_empty: bool,
    announce: Announce,
) -> tuple[Split | None, Split, str]:
    """The teacher's own rows, None where it has none, the transfer set, and what to say of its draw."""
    if config.transfer_file:
        pool = read_split("train", config.transfer_file, spec, config, half_empty, announce)
        pool = _leave_out(pool, [dev, *filter(None, [evaluation])], config.transfer_file, announce)
        _tell_overlap(pool, train, announce, "the teacher's rows")
        teacher = train
    elif config.transfer_pool or (config.transfer_rows and not config.teacher_rows):
        setting = "transfer_pool" if config.transfer_pool else "transfer_rows"
        rows = config.transfer_pool or config.transfer_rows
        teacher, pool = _carve_rows(train, rows, config, "pool", setting, spec, where)
    elif config.teacher_rows:
        pool, teacher = _carve_rows(train, config.teacher_rows, config, "teacher", "teacher_rows", spec, where)
    else:
        return None, train, ""
    pool = replace(pool, name="train")
    teacher = replace(teacher, name="teacher")
    if config.teacher_rows and len(teacher) != config.teacher_rows:
        _require_rows(teacher, config.teacher_rows, "teacher_rows", where)
        order = random_order(len(teacher), config.split_seed, "teacher")
        teacher = teacher.take(np.sort(order[: config.teacher_rows]))
        _require_classes(teacher, spec, f"{where}, the {len(teacher):,} that teacher_rows draws", "raise teacher_rows")
    if not config.transfer_rows:
        return teacher, pool, ""
    _require_rows(pool, config.transfer_rows, "transfer_rows", config.transfer_file or where)
    told = f"; train is drawn from a pool of {len(pool):,} rows under transfer_seed {config.transfer_seed}"
    if config.transfer_rows == len(pool):
        told = "; train is the whole pool, whatever transfer_seed is" if config.transfer_seed else ""
    order = random_order(len(pool), config.transfer_seed, "transfer")
    return teacher, pool.take(np.sort(order[: config.transfer_rows])), told


def read_split(name: str, file: str, spec: TaskSpec, config: RunConfig, half_empty: bool, announce: Announce) -> Split:
    """A split of texts from a file, which may lack labels."""
    table = read_texts(file, spec, config, announce)
    split = split_of(name, table, spec, half_empty)
    columns = [column for column in spec.text_columns if column in table.columns]
    for column, values in zip(columns, filter(None, (split.texts, split.pairs)), strict=True):
        announce_little_content(table, column, values, announce)
    return split


def split_of(name: str, table: Table, spec: TaskSpec, half_empty: bool) -> Split:
    """A split of a table of texts, which may lack labels; raises DataError for what is no text or no label."""
    columns = [column for column in spec.text_columns if column in table.columns]
    table = join_words(table, columns)
    texts, *pairs = check_texts(table, columns, may_be_half_empty=half_empty)
    second = pairs[0] if pairs else None
    if spec.is_structured:
        return Split(name, texts, second, read_structured(table, spec, texts, second, may_be_missing=True))
    return Split(name, texts, second, known_labels(table, spec))


def _leave_out(split: Split, others: list[Split], where: str, announce: Announce) -> Split:
    """The rows of a split whose text does not stand in one of the others."""
    seen = {key for other in others for key in _keys(other)}
    if split.pairs is None:
        seen |= {text for other in others for text in other.pairs or ()}
        seen |= {text for other in others if other.pairs is not None for text in other.texts}
    kept = np.flatnonzero([key not in seen for key in _keys(split)])
    gone = len(split) - len(kept)
    if not gone:
        return split
    names = " or ".join(other.name for other in others)
    if not len(kept):
        raise DataError(f"{where}: each of its {len(split):,} rows has a text that stands in {names}: give other texts")
    announce(f"{where}: {gone:,} of {len(split):,} rows left out, whose text stands in {names}")
    return split.take(kept)


def _require_room(train: Split, config: RunConfig, where: str) -> None:
    """Raise DataError where the parts that the settings carve from train leave too few rows of it."""
    takes_dev = max(1, int(config.dev_fraction * len(train) + 0.5))
    parts = {
        "dev_rows" if config.dev_rows else "dev_fraction": config.dev_rows or takes_dev,
        "evaluation_rows": config.evaluation_rows,
        "transfer_pool" if config.transfer_pool else "transfer_rows": 0
        if config.transfer_file
        else config.transfer_pool or config.transfer_rows,
        "teacher_rows": config.teacher_rows,
    }
    parts = {name: rows for name, rows in parts.items() if rows}
    if parts.keys() == {"dev_fraction"}:
        return
    needed = sum(parts.values())
    has_pool = config.transfer_file or config.transfer_pool or config.transfer_rows
    gets_rest = "teacher" if not config.teacher_rows else "student" if not has_pool else ""
    if needed + bool(gets_rest) <= len(train):
        return
    listed = [f"{name} ({rows:,})" for name, rows in parts.items()]
    names = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
    takes = f"{names} take{'s' if len(listed) == 1 else ''} {needed:,}"
    none_left = f" and leave none for the {gets_rest}" if needed == len(train) else ""
    raise DataError(
        f"{where}: there are {len(train):,} rows, but {takes}{none_left}; lower these settings, or give more rows"
    )


def _require_rows(split: Split, rows: int, setting: str, where: str) -> None:
    if rows > len(split):
        raise DataError(f"{where}: {setting} is {rows:,}, but {len(split):,} rows are left for it; lower {setting}")


def _validation_source(spec: TaskSpec, config: RunConfig) -> str:
    """What the validation splits are, by where they come from."""
    if spec.name == user_files.TASK and config.validation_file:
        return "validation data from validation_file"
    if spec.name == user_files.TASK or not spec.validation_splits:
        return "validation data set apart from train"
    return "validation data of the task's loader" if spec.loader is not None else "official validation data"


def _labelled(tables: dict[str, Table], spec: TaskSpec, config: RunConfig, announce: Announce) -> dict[str, Table]:
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
    groups = list(table.columns[spec.group_column]) if spec.group_column else None
    second = pairs[0] if pairs else None
    if spec.is_structured:
        return Split(name, texts, second, read_structured(table, spec, texts, second, may_be_missing=False), groups)
    return Split(name, texts, second, check_labels(table, spec), groups)


def _require_classes(train: Split, spec: TaskSpec, where: str, remedy: str) -> None:
    if not spec.has_classes:
        return
    missing = np.flatnonzero(np.bincount(train.labels, minlength=len(spec.labels)) == 0)
    if len(missing):
        names = ", ".join(repr(spec.labels[index]) for index in missing)
        raise DataError(f"{where}: no row of class {names} to train on; {remedy}")


def _announce_overlap(data: TaskData, announce: Announce) -> None:
    for other in filter(None, (data.train, data.teachers_own)):
        for split in data.validation.values():
            _tell_overlap(split, other, announce)


def _tell_overlap(split: Split, other: Split, announce: Announce, called: str = "") -> None:
    own = len(split)
    if (split.pairs is None) != (other.pairs is None):
        return
    numbers = numbered([joined(pair) for pair in zip(split.columns, other.columns, strict=True)])
    shared = int(np.isin(numbers[:own], numbers[own:]).sum())
    if shared:
        where = called or other.name
        announce(f"{shared:,} of the {len(split):,} rows of {split.name} have a text that also stands in {where}")


def _keys(split: Split) -> Iterable[Any]:
    return split.texts if split.pairs is None else zip(split.texts, split.pairs, strict=True)


# ---- subsets and parts ----------------------------------------------------------------------------------------------


def _subset(split: Split, rows: int, seed: int, setting: str, announce: Announce) -> Split:
    """`rows` random rows in their old order; all when `rows` is 0 or more than there are."""
    if rows == 0 or rows == len(split):
        return split
    if rows > len(split):
        announce(f"{setting} is {rows:,}, but {split.name} has {len(split):,} rows: all are used")
        return split
    return split.take(np.sort(random_order(len(split), seed, f"subset {split.name}")[:rows]))


def _carve(split: Split, fraction: float, seed: int, purpose: str, spec: TaskSpec, where: str) -> tuple[Split, Split]:
    """What is left of a split, and the share of it that was carved off under the name `purpose`."""
    carved = carve_share(_groups(split, purpose, spec, where), fraction, seed, purpose)
    if not carved.any():
        raise DataError(
            f"{where}: no class has 2 different texts, so {purpose} would take a class's last one; give more "
            "different texts"
        )
    return split.take(np.flatnonzero(~carved)), split.take(np.flatnonzero(carved), purpose)


def _carve_rows(
    split: Split, rows: int, config: RunConfig, purpose: str, setting: str, spec: TaskSpec, where: str
) -> tuple[Split, Split]:
    """What is left of a split, and the part of so many rows that was carved off under the name `purpose`."""
    groups = _groups(split, purpose, spec, where)
    carved = carve_rows(groups, rows, config.split_seed, purpose)
    left_out = np.zeros_like(carved)
    if spec.group_column and carved.sum() < rows:
        carved, left_out = cut_group(groups, carved, rows - int(carved.sum()))
    if (found := int(carved.sum())) < rows:
        raise DataError(
            f"{where}: {setting} is {rows:,}, but only {found:,} of the {len(split):,} rows left can be set apart, "
            f"since rows of one text{' or group' if spec.group_column else ''} stay together and each class keeps one; "
            f"lower {setting}"
        )
    return split.take(np.flatnonzero(~(carved | left_out))), split.take(np.flatnonzero(carved), purpose)


def _groups(split: Split, purpose: str, spec: TaskSpec, where: str) -> Groups:
    groups = Groups.find(split.columns, split.labels, regression=not spec.has_classes, belongs_to=split.groups)
    if len(groups) < 2:
        same = " that all hold the same text" if len(split) > 1 else ""
        raise DataError(
            f"{where}: {len(split)} row{'s' if len(split) > 1 else ''}{same} cannot be parted into {split.name} and "
            f"{purpose}; give at least 2 different ones"
            + (", or set text_column to another column" if same and spec.name == user_files.TASK else "")
        )
    return groups
