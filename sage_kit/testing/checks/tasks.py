"""Checks of tasks."""

from __future__ import annotations

from typing import cast

from sage_kit.components import TaskSpec
from sage_kit.errors import did_you_mean
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import Subject


@check("task")
def task_is_declared(subject: Subject) -> None:
    """Columns, labels and metrics fit each other and exist.

    To fix: name one or two text columns, at least two labels (or none, and a `label_range`, for regression) and metrics
    of sage_kit.evaluate.METRICS.
    """
    from sage_kit.evaluate import METRICS

    spec = cast(TaskSpec, subject.spec)
    if spec.name == "file":
        raise NotApplicable("its columns, labels and metrics come from the settings")
    require(len(spec.text_columns) in (1, 2), f"it has {len(spec.text_columns)} text columns")
    require(spec.label_column not in spec.text_columns, "the label's column is one of the text columns")
    require(len(spec.labels) != 1, "it has one label, so there is nothing to tell apart")
    require(len(set(spec.labels)) == len(spec.labels), "a label occurs twice")
    require(spec.label_range[0] < spec.label_range[1], f"the label range is {spec.label_range}")
    require(spec.metrics, "it has no metric")
    for name in spec.metrics:
        require(name in METRICS, f"the metric {name!r} is unknown.{did_you_mean(name, METRICS)}")
    require(spec.train_split not in spec.validation_splits, "the training split is a validation split, too")


@check("task")
def task_loads(subject: Subject) -> None:
    """A loader gives the training split and every validation split, with columns of equal length.

    To fix: return ``{split: {column: list}}`` with the splits and columns that the spec names.
    """
    spec = cast(TaskSpec, subject.spec)
    if spec.loader is None or spec.name == "file":
        raise NotApplicable("it has no loader of its own")
    subject.need_packages()
    splits = spec.loader(subject.config())
    for split in (spec.train_split, *spec.validation_splits):
        require(split in splits, f"the loader gives no split {split!r}")
        for column in (*spec.text_columns, spec.label_column):
            require(column in splits[split], f"split {split!r} has no column {column!r}")
        lengths = {len(values) for values in splits[split].values()}
        require(len(lengths) == 1, f"columns of split {split!r} have different lengths")
        require(lengths != {0}, f"split {split!r} is empty")
