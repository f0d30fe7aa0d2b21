"""Checks of metrics."""

from __future__ import annotations

import copy
import math
from numbers import Real
from typing import Any, cast

import numpy as np

from sage_kit.components import MetricSpec
from sage_kit.testing import label_examples, toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import Subject, works_or_explains

TOLERANCE = 1e-6
"""Relative distance of the mean contribution from the score."""


def _labels(subject: Subject, kind: str, rows: int, seed: int = 0) -> tuple[Any, Any]:
    """Labels and predictions of a kind of label; the predictions are right more often than not."""
    return label_examples.make(kind, rows, seed, cast(MetricSpec, subject.spec).max_classes or 4)


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
        given = label_examples.right(kind, labels), label_examples.shuffled(kind, labels, 1)
        right, wrong = (_score(subject.build(), labels, predictions) for predictions in given)
        is_better = right > wrong if spec.larger_is_better else right < wrong
        require(is_better, f"of {kind}, right predictions score {right:g}, and shuffled ones {wrong:g}")


@check("metric")
def metric_keeps_its_input(subject: Subject) -> None:
    """Labels and predictions are left as they were.

    To fix: work on a copy, ``np.array(predictions)``.
    """
    for kind in cast(MetricSpec, subject.spec).takes:
        labels, predictions = _labels(subject, kind, toy.ROWS)
        before = copy.deepcopy((labels, predictions))
        _score(subject.build(), labels, predictions)
        same = (label_examples.same(old, new) for old, new in zip(before, (labels, predictions), strict=True))
        changed = [name for name, kept in zip(("labels", "predictions"), same, strict=True) if not kept]
        require(not changed, f"it changes its input in place: {', '.join(changed)}")


@check("metric")
def metric_takes_hard_data(subject: Subject) -> None:
    """One row, labels or predictions that are all alike, and predictions that are not finite are met with a number,
    NaN if need be, or with a clear error.

    To fix: return 0 or NaN where the score is undefined.
    """
    for kind in cast(MetricSpec, subject.spec).takes:
        cases = label_examples.hard(kind, *_labels(subject, kind, toy.ROWS))
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
        require(parts.shape == (len(labels),), f"the contributions have shape {parts.shape}, not {(len(labels),)}")
        require(np.isfinite(parts).all(), "a contribution is not finite")
        score = _score(metric, labels, predictions)
        near = math.isclose(float(parts.mean()), score, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        require(near, f"the mean of the contributions is {parts.mean():g}, and the score {score:g}")
