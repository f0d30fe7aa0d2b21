"""How well a finished student does on labelled rows: scores, with intervals over the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.metrics import METRICS, Measure
from sage_kit.data.scoring import able_measures, build_measure, load_scored
from sage_kit.data.splits import Split, read_split
from sage_kit.errors import CompatibilityError, DataError
from sage_kit.inference.predictor import Predictor
from sage_kit.models.task_heads import label_order
from sage_kit.recipe import check_metric
from sage_kit.studies import statistics

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Score:
    """A score of a student.

    Attributes
    ----------
    split : str
    metric : str
    value : float
    low, high : float
        95 % interval over rows, for the student as it is; NaN where nobody knows what a row contributes to the metric.
    rows : int
    """

    split: str
    metric: str
    value: float
    low: float
    high: float
    rows: int


def evaluate_file(
    predictor: Predictor, file: Path, columns: Sequence[str], label_column: str, config: RunConfig, plugins: Plugins,
    announce: Announce,
) -> list[Score]:  # fmt: skip
    """Score a student on a labelled file.

    Parameters
    ----------
    predictor : Predictor
    file : Path
        As for the setting `train_file`.
    columns : sequence of str
        Of the text, or of both texts.
    label_column : str
    config : RunConfig
        Says how the file is read, and by `metrics` how it is scored; empty takes the usual ones of the kind.
    plugins : Plugins
    announce : callable
        Shows one line to the user.

    Raises
    ------
    DataError
        For a file that cannot be read, labels that are missing, and labels that the student does not know.
    CompatibilityError
        For a metric of another kind of label.
    """
    split, spec = labelled_file(predictor, file, columns, label_column, config, plugins, announce)
    if split.unlabelled and spec.label_kind != "embeddings":
        raise DataError(
            f"{file}: {split.unlabelled:,} of {len(split):,} rows have no label in column {label_column!r}: name the "
            "column of the labels, or give such rows one"
        )
    return _scores(predictor, split, spec)


def labelled_file(
    predictor: Predictor, file: Path, columns: Sequence[str], label_column: str, config: RunConfig, plugins: Plugins,
    announce: Announce,
) -> tuple[Split, TaskSpec]:  # fmt: skip
    """The rows of a file, labelled or not, and the task by which they are scored; parameters and errors as of
    `evaluate_file`.
    """
    names = tuple(config.metrics) or _usual_metrics(predictor.spec)
    spec = replace(predictor.spec, name="file", text_columns=tuple(columns), label_column=label_column, metrics=names)
    for name in names:
        check_metric(name, plugins, spec)
    spec = replace(spec, measures={name: build_measure(name, plugins, config) for name in names})
    return read_split(file.name, str(file), spec, config, len(columns) > 1, announce), spec


def evaluate_task(predictor: Predictor, config: RunConfig, plugins: Plugins, announce: Announce) -> list[Score]:
    """Score a student on the validation splits of a task, which the settings name and configure.

    Raises
    ------
    SageError
        As reading the task does.
    CompatibilityError
        For a task of another kind, or with other classes than the student knows.
    """
    data = load_scored(plugins, config, announce)
    spec, order = task_for(predictor, data.spec)
    found: list[Score] = []
    for split in data.validation.values():
        found += _scores(predictor, split, spec, order)
    return found


def task_for(predictor: Predictor, spec: TaskSpec) -> tuple[TaskSpec, list[int] | None]:
    """A task as a student is scored on it, and for each class of the task the number of the student's output; None for
    as they are.

    Raises
    ------
    CompatibilityError
        For a task of another kind, or with other classes than the student knows.
    """
    own = predictor.spec
    if spec.label_kind != own.label_kind:
        raise CompatibilityError(
            f"the student predicts {own.label_kind.replace('_', ' ')}, and labels of task {spec.name!r} are "
            f"{spec.label_kind.replace('_', ' ')}: name a task of its kind"
        )
    order = None
    if own.labels:
        order = label_order(list(own.labels), tuple(spec.labels))
        if order is None:
            raise CompatibilityError(
                f"the student knows {', '.join(own.labels[:8])}, and task {spec.name!r} has "
                f"{', '.join(spec.labels[:8])}: name a task with the same"
            )
    return replace(spec, unanswered=own.unanswered), order


def _usual_metrics(spec: TaskSpec) -> tuple[str, ...]:
    own = spec.handling.spec.metrics if spec.handling else ()
    return own or (("pearson", "spearman") if spec.is_regression else ("accuracy", "macro_f1"))


def _scores(predictor: Predictor, split: Split, spec: TaskSpec, order: Sequence[int] | None = None) -> list[Score]:
    encoded = predictor.encode(split, spec)
    outputs = predictor.outputs(encoded)
    if order is not None:
        outputs = np.ascontiguousarray(outputs[:, order])
    measures = able_measures(encoded)
    if not measures:
        raise DataError(f"{split.name} has nothing to be scored by: name the column of its labels")
    predicted = encoded.predictions(outputs)
    found = []
    for one in measures:
        value = one.score(encoded.gold, predicted)
        interval = row_interval(contributions(one, encoded, predicted), float(value))
        found.append(Score(split.name, one.name, float(value), interval.low, interval.high, len(split)))
    return found


def row_interval(parts: NDArray[np.float64] | None, value: float) -> statistics.Interval:
    """The 95 % interval over rows of a score; its ends are NaN where no row's part, (1, n), is known, or for a row."""
    return statistics.Interval(value, math.nan, math.nan) if parts is None else statistics.of_scores(parts)


def contributions(measure: Measure, encoded: EncodedSplit, predicted: Any) -> NDArray[np.float64] | None:
    """What each row contributes to a score, of shape (1, n); None for a metric that does not say.

    Parameters
    ----------
    measure : Measure
    encoded : EncodedSplit
        The rows, which have labels.
    predicted : sequence
        A prediction for each row, as `EncodedSplit.predictions` returns them.
    """
    if not encoded.spec.is_structured and statistics.has_contributions(measure):
        return statistics.contributions(measure, encoded.gold, np.asarray(predicted)[None])
    if measure.contributions is not None and measure.name not in METRICS:
        return np.asarray(measure.contributions(encoded.gold, predicted), np.float64)[None]
    return None
