"""Which metrics a task's data is scored by: those that the settings name, or the task's own, built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import BuildContext, TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.metrics import Measure, calibration_error, measure
from sage_kit.data.splits import Announce, TaskData, load_task
from sage_kit.errors import CompatibilityError, PluginError
from sage_kit.recipe import check_metric

Array = NDArray[Any]


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
    return replace(data, spec=replace(data.spec, metrics=names, measures=measures))


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
    spec, gold = encoded.spec, encoded.gold
    scores = {}
    if gold is not None or spec.label_kind == "embeddings":
        predicted = encoded.predictions(outputs)
        scores = {name: measure(spec, name).score(gold, predicted) for name in spec.metrics}
    if teacher is not None:
        scores["agreement"] = float(np.mean(encoded.agreement(outputs, teacher)))
    if gold is not None and spec.has_classes:
        scores["calibration_error"] = calibration_error(outputs, gold)
    return scores


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
        if found.shape != (len(labels),):
            raise PluginError(f"metric {name!r} returned contributions of shape {found.shape}, not {(len(labels),)}")
        return found

    own: Callable[[Array, Array], Array] | None = contributions if hasattr(metric, "contributions") else None
    return Measure(name, score, spec.larger_is_better, own)
