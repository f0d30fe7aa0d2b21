"""Checks of metrics."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, cast

import numpy as np

from sage_kit.components import MetricSpec
from sage_kit.testing import toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import Subject, unchanged, works_or_explains

TOLERANCE = 1e-6
"""Relative distance of the mean contribution from the score."""


def _labels(subject: Subject, kind: str, rows: int, seed: int = 0) -> tuple[Any, Any]:
    """Labels and predictions of a kind of label, shape (rows,); the predictions are right more often than not."""
    rng = np.random.default_rng(seed)
    if kind == "numbers":
        numbers = rng.normal(2.5, 1.0, rows).astype(np.float32)
        return numbers, (numbers + 0.5 * rng.standard_normal(rows)).astype(np.float32)
    classes = cast(MetricSpec, subject.spec).max_classes or 4
    labels = np.arange(rows, dtype=np.int64) % classes
    return labels, np.where(rng.random(rows) < 0.7, labels, rng.integers(0, classes, rows))


def _score(metric: Any, labels: Any, predictions: Any) -> float:
    found = metric.score(labels, predictions)
    is_number = isinstance(found, Real) and not isinstance(found, bool)
    require(is_number, f"score() returned {found!r} instead of a number")
    return float(found)


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    given = {}
    for kind in cast(MetricSpec, subject.spec).takes:
        given[f"{kind} (labels)"], given[f"{kind} (predictions)"] = _labels(subject, kind, rows, round)
    return given


def _use(subject: Subject, metric: Any, inputs: Inputs) -> Outputs:
    kinds = cast(MetricSpec, subject.spec).takes
    return {kind: [_score(metric, inputs[f"{kind} (labels)"], inputs[f"{kind} (predictions)"])] for kind in kinds}


EXERCISES["metric"] = Exercise(_make, _use)


@check("metric")
def metric_shapes(subject: Subject) -> None:
    """Of ordinary predictions it makes one finite number, within the range that the spec declares.

    To fix: return a float; widen `range` in the spec, whose ends may be infinite.
    """
    spec = cast(MetricSpec, subject.spec)
    low, high = spec.range
    require(low < high, f"its range is {spec.range}")
    for kind in spec.takes:
        for seed in range(3):
            found = _score(subject.build(), *_labels(subject, kind, toy.ROWS, seed))
            require(math.isfinite(found), f"the score of ordinary {kind} is {found}")
            require(low <= found <= high, f"the score {found:g} of {kind} lies outside its range, {low:g} to {high:g}")


@check("metric")
def metric_tells_good_from_bad(subject: Subject) -> None:
    """Predictions that equal the labels score better than the same ones in random order.

    To fix: set `larger_is_better` to False in the spec of an error or a distance; the labels are the first argument.
    """
    spec = cast(MetricSpec, subject.spec)
    for kind in spec.takes:
        labels, _ = _labels(subject, kind, toy.ROWS)
        shuffled = np.random.default_rng(1).permutation(labels)
        right, wrong = (_score(subject.build(), labels, predictions) for predictions in (labels, shuffled))
        is_better = right > wrong if spec.larger_is_better else right < wrong
        require(is_better, f"of {kind}, right predictions score {right:g}, and shuffled ones {wrong:g}")


@check("metric")
def metric_keeps_its_input(subject: Subject) -> None:
    """Labels and predictions are left as they were.

    To fix: work on a copy, ``np.array(predictions)``.
    """
    for kind in cast(MetricSpec, subject.spec).takes:
        labels, predictions = _labels(subject, kind, toy.ROWS)
        with unchanged(labels=labels, predictions=predictions):
            _score(subject.build(), labels, predictions)


@check("metric")
def metric_takes_hard_data(subject: Subject) -> None:
    """One row, labels or predictions that are all alike, and predictions that are not finite are met with a number,
    NaN if need be, or with a clear error.

    To fix: return 0 or NaN where the score is undefined.
    """
    for kind in cast(MetricSpec, subject.spec).takes:
        labels, predictions = _labels(subject, kind, toy.ROWS)
        cases = {
            "one row": (labels[:1], predictions[:1]),
            "labels that are all alike": (np.full_like(labels, labels[0]), predictions),
            "predictions that are all alike": (labels, np.full_like(predictions, labels[0])),
        }
        if kind == "numbers":
            cases["predictions that are NaN"] = labels, np.full_like(predictions, np.nan)
        for what, given in cases.items():
            works_or_explains(f"{kind}, {what}", lambda given=given: _score(subject.build(), *given))  # type: ignore[misc]


@check("metric")
def metric_contributions(subject: Subject) -> None:
    """What the examples contribute is finite, one number for each, and its mean is the score.

    To fix: return the score plus the example's influence on it, whose mean is zero; a metric that is a mean over
    examples returns its terms. Leave the method out where there is no such function: studies then give intervals over
    seeds alone.
    """
    metric = subject.build()
    if not hasattr(metric, "contributions"):
        raise NotApplicable("it does not say what each example contributes")
    for kind in cast(MetricSpec, subject.spec).takes:
        labels, predictions = _labels(subject, kind, toy.ROWS)
        parts = np.asarray(metric.contributions(labels, predictions))
        require(parts.shape == labels.shape, f"the contributions have shape {parts.shape}, not {labels.shape}")
        require(np.isfinite(parts).all(), "a contribution is not finite")
        score = _score(metric, labels, predictions)
        near = math.isclose(float(parts.mean()), score, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        require(near, f"the mean of the contributions is {parts.mean():g}, and the score {score:g}")
