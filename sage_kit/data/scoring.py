"""Which metrics a task's data is scored by: those that the settings name, or the task's own, built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import BuildContext, TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.metrics import METRICS, Measure, calibration_error, measure
from sage_kit.data.splits import Announce, TaskData, load_task
from sage_kit.errors import CompatibilityError, PluginError
from sage_kit.recipe import check_metric

Array = NDArray[Any]

AGREEMENT = "agreement"
"""What a score of student against teacher is called."""


def load_scored(plugins: Plugins, config: RunConfig, announce: Announce) -> TaskData:
    """A task's data as `load_task` reads it, with its metrics; raises as that and `with_measures` do."""
    return with_measures(load_task(task_of(plugins, config), config, announce), plugins, config)


def task_of(plugins: Plugins, config: RunConfig) -> TaskSpec:
    """The task that the settings choose, its kind in use; raises as `Plugins.task` does."""
    return plugins.task(config.task, config.task_options, file_kind=config.task_kind)


def with_measures(data: TaskData, plugins: Plugins, config: RunConfig) -> TaskData:
    """The data, scored by the metrics that the settings name or else by the task's own.

    Raises
    ------
    SageError
        As `sage_kit.recipe.check_metric` does, and for a metric of fewer classes than the task has.
    """
    names = tuple(config.metrics) or data.spec.metrics
    measures = {}
    for name in names:
        spec = check_metric(name, plugins, data.spec)
        most = spec.max_classes
        if most is not None and data.spec.has_classes and len(data.spec.labels) > most:
            others = [
                item.spec.name
                for item in plugins.components("metric")
                if "classes" in getattr(item.spec, "takes", ()) and getattr(item.spec, "max_classes", 0) is None
            ]
            raise CompatibilityError(
                f"metric {name!r} tells {most} classes apart, and task {config.task!r} has {len(data.spec.labels)}: "
                f"take another in metrics ({', '.join(others)})"
            )
        measures[name] = build_measure(name, plugins, config)
    if data.spec.label_kind == "embeddings":
        names, measures = _of_vectors(data, measures, named=bool(config.metrics))
    return replace(data, spec=replace(data.spec, metrics=names, measures=measures))


def _of_vectors(
    data: TaskData, measures: Mapping[str, Measure], *, named: bool
) -> tuple[tuple[str, ...], dict[str, Measure]]:
    """The metrics of embeddings that the data can be scored by; where there are none, the agreement with the teacher.

    Raises
    ------
    CompatibilityError
        For a metric that the settings name and that looks at what the data lack.
    """
    without = data.dev.unlabelled > 0
    found = {}
    for name, one in measures.items():
        lacks = "pairs of texts" if data.dev.pairs is None else "labels" if without and one.needs_labels else ""
        if not lacks:
            found[name] = one
        elif named:
            raise CompatibilityError(
                f"metric {name!r} needs {lacks}, which task {data.spec.name!r} lacks here: leave it out of metrics"
            )
    if not found:
        return (AGREEMENT,), {AGREEMENT: Measure(AGREEMENT, METRICS["accuracy"])}
    return tuple(found), found


def score_encoded(
    encoded: EncodedSplit, outputs: NDArray[np.float32], teacher: NDArray[np.float32] | None = None
) -> dict[str, float]:
    """All scores of a model's outputs on a split.

    Parameters
    ----------
    encoded : EncodedSplit
        The split; its task names the metrics.
    outputs : array of shape (sequences, n_outputs), or flat
    teacher : array of the same shape or None
        The teacher's, for the agreement.

    Returns
    -------
    dict of str to float
        The task's metrics, "agreement" if the teacher's outputs are given, and "calibration_error" for classes; where a
        label is missing the agreement only, and metrics that look at no labels.
    """
    spec, gold, measures = encoded.spec, encoded.gold, able_measures(encoded)
    scores = {}
    if measures:
        predicted = encoded.predictions(outputs)
        scores = {one.name: one.score(gold, predicted) for one in measures}
    if teacher is not None:
        scores[AGREEMENT] = float(np.mean(encoded.agreement(outputs, teacher)))
    if gold is not None and spec.has_classes:
        scores["calibration_error"] = calibration_error(outputs, gold)
    return scores


def able_measures(encoded: EncodedSplit) -> list[Measure]:
    """The task's metrics by which a split can be scored: those that need labels where none is missing."""
    spec = encoded.spec
    # metrics of embeddings compare the texts of a pair
    if spec.label_kind == "embeddings" and encoded.texts.pairs is None:
        return []
    measures = [measure(spec, name) for name in spec.metrics if name != AGREEMENT]
    return [one for one in measures if encoded.gold is not None or not one.needs_labels]


def build_measure(name: str, plugins: Plugins, config: RunConfig) -> Measure:
    """A metric, built with the options that the settings give it; what it raises is reported under its name."""
    spec = plugins.metric(name)
    metric = plugins.build("metric", name, config.metric_options.get(name, {}), BuildContext(config=config))

    def score(labels: Array, predictions: Array) -> float:
        found = plugins.call("metric", name, metric.score, labels, predictions)
        if not isinstance(found, Real):
            raise PluginError(f"metric {name!r} returned {found!r} instead of a number")
        return float(found)

    def contributions(labels: Array, predictions: Array) -> Array:
        found = np.asarray(plugins.call("metric", name, metric.contributions, labels, predictions), dtype=np.float64)
        rows = len(predictions)
        if found.shape != (rows,):
            raise PluginError(f"metric {name!r} returned contributions of shape {found.shape}, not {(rows,)}")
        return found

    own: Callable[[Array, Array], Array] | None = contributions if hasattr(metric, "contributions") else None
    return Measure(name, score, spec.larger_is_better, own, spec.needs_labels)
