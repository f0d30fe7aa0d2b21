"""Checks of tasks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from sage_kit.components import TaskSpec
from sage_kit.errors import MissingPackageError, did_you_mean
from sage_kit.testing import toy
from sage_kit.testing.exercises import PLAYS, other_moment
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import PluginsWith, Subject
from sage_kit.testing.surroundings import watched, workspace

if TYPE_CHECKING:
    from sage_kit.config import RunConfig
    from sage_kit.data.splits import Split, TaskData

ROWS_OF_A_RUN, LEAST_PER_CLASS = 400, 12  # rows that the check's run reads of each split, and of each class at least
MOST_SHARED = 0.2  # largest share of a validation split's rows with a text that was trained on


@check("task")
def task_is_declared(subject: Subject) -> None:
    """Columns, labels and metrics fit each other and exist.

    To fix: name one or two text columns, at least two labels (or none, and a `label_range`, for regression; none for
    spans and embeddings) and metrics that are there and take such labels (`sage-kit plugins --kind metric`).
    """
    spec = cast(TaskSpec, subject.spec)
    if spec.name == "file":
        raise NotApplicable("its columns, labels and metrics come from the settings")
    require(len(spec.text_columns) in (1, 2), f"it has {len(spec.text_columns)} text columns")
    require(spec.label_column not in spec.text_columns, "the label's column is one of the text columns")
    require(len(spec.labels) != 1, "it has one label, so there is nothing to tell apart")
    if kind := spec.task_kind:
        if kind in ("label_sets", "tags"):
            require(spec.labels or spec.labels_from_data, f"it has no labels, which {kind} are made of")
        if kind in ("spans", "embeddings"):
            require(len(spec.text_columns) == 2, f"{kind} are of two texts, and it has one text column")
        require(spec.label_column or kind == "embeddings", "it has no label column")
    require(len(set(spec.labels)) == len(spec.labels), "a label occurs twice")
    require(spec.label_range[0] < spec.label_range[1], f"the label range is {spec.label_range}")
    require(spec.metrics, "it has no metric")
    for name in spec.metrics:
        known = subject.plugins.names("metric")
        require(name in known, f"the metric {name!r} is unknown.{did_you_mean(name, known)}")
        kind = spec.label_kind
        takes = subject.plugins.metric(name).takes
        require(kind in takes, f"the metric {name!r} is for {' and '.join(takes)}, and its labels are {kind}")
    require(spec.train_split not in spec.validation_splits, "the training split is a validation split, too")


@check("task")
def task_loads(subject: Subject) -> None:
    """A run reads its data, finds each text and each label right, and splits them.

    What is wrong is told in the words of the run, which would end with the same error.

    To fix: return ``{split: {column: list}}`` with the splits and columns that the spec names; a label is a name or an
    index of ``labels``, or a number for regression.
    """
    _need_loader(subject)
    _load(subject)


@check("task")
def task_is_repeatable(subject: Subject) -> None:
    """The loader gives the same rows in the same order each time, whatever the time and the global random states.

    To fix: sort what a folder lists, and shuffle with ``random.Random(config.split_seed)`` if at all.
    """
    one = _loaded(subject)
    with other_moment():
        two = _load(subject)
    for name, split in _splits(one).items():
        other = _splits(two)[name]
        same = split.texts == other.texts and split.pairs == other.pairs and (split.labels == other.labels).all()
        require(same, f"loaded twice, split {name!r} is not the same")


@check("task")
def task_splits_apart(subject: Subject) -> None:
    """At most a fifth of the rows of a validation split have a text that also stands in the training split.

    To fix: take texts that were seen in training out of the validation splits, or split by text.
    """
    data = _loaded(subject)
    seen = {key for split in (data.train, data.dev) for key in _texts(split)}
    for name, split in data.validation.items():
        shared = sum(key in seen for key in _texts(split))
        require(
            shared <= MOST_SHARED * len(split),
            f"{shared:,} of the {len(split):,} rows of split {name!r} have a text that also stands in "
            f"{cast(TaskSpec, subject.spec).train_split!r}",
        )


@check("task")
def task_runs(subject: Subject) -> None:
    """A round of the real loop on some rows of each class, with a tiny teacher that is fine-tuned first, ends well.

    To fix: read the message; it is what a run would say.
    """
    data = _loaded(subject)
    spec = cast(TaskSpec, subject.spec)
    name = f"{spec.name}-{len(data.spec.labels)}"
    teacher = toy.teacher_for([text for split in _splits(data).values() for key in _texts(split) for text in key], name)
    few = dataclasses.replace(spec, loader=lambda config: _few_rows(spec, config))
    settings = subject.config(
        task=spec.name, teacher=str(teacher), teacher_epochs=1, schedule="none", rounds=1, max_length=24, batch_size=64
    )
    summary = toy.run_loop(settings, PluginsWith(few))
    require(len(summary["rounds"]) == 1, f"the run stopped early: {summary['stopped']}")


def _need_loader(subject: Subject) -> None:
    spec = cast(TaskSpec, subject.spec)
    if spec.loader is None or spec.name == "file":
        raise NotApplicable("it has no loader of its own")
    subject.need_packages()


def _load(subject: Subject) -> TaskData:
    from sage_kit.data.splits import load_task

    return load_task(cast(TaskSpec, subject.spec), subject.config(task=subject.spec.name), lambda text: None)


def _loaded(subject: Subject) -> TaskData:
    """The data, if `task_loads` has nothing against them."""
    _need_loader(subject)
    try:
        return _load(subject)
    except MissingPackageError:
        raise
    except (Exception, SystemExit):  # a loader may raise anything
        raise NotApplicable("not run: first mend what task_loads found") from None


def _play(subject: Subject) -> None:
    _need_loader(subject)
    with workspace(), watched(subject.effects, "its loader"):
        _load(subject)


PLAYS["task"] = _play


def _splits(data: TaskData) -> dict[str, Split]:
    return {"train": data.train, "dev": data.dev, **data.validation}


def _texts(split: Split) -> list[tuple[str, ...]]:
    return list(zip(split.texts, *([] if split.pairs is None else [split.pairs]), strict=True))


def _few_rows(spec: TaskSpec, config: RunConfig) -> dict[str, dict[str, list[Any]]]:
    """The loader's data with a few rows of each class."""
    assert spec.loader is not None
    loaded = spec.loader(config)
    limit = max(LEAST_PER_CLASS, ROWS_OF_A_RUN // max(1, len(spec.labels)))
    found = {}
    for split in (spec.train_split, *spec.validation_splits):
        table = {column: list(loaded[split][column]) for column in (*spec.text_columns, spec.label_column)}
        seen: Counter[str] = Counter()
        rows = []
        for row, label in enumerate(table[spec.label_column]):
            key = str(label) if spec.labels else ""
            seen[key] += 1
            if seen[key] <= (limit if spec.labels else ROWS_OF_A_RUN):
                rows.append(row)
        found[split] = {column: [values[row] for row in rows] for column, values in table.items()}
    return found
