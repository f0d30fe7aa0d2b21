"""What a student is about to learn from: the classes, and how well the teacher knows them.

All of it is shown before training, since a run with wrong classes or a wrong teacher ends as smoothly as any other.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.metrics import METRICS, best_constant, measure, predictions
from sage_kit.data.scoring import score_encoded
from sage_kit.data.splits import TaskData

LISTED_CLASSES = 12
"""Most classes whose counts are listed one by one."""

SHUFFLES = 199
"""Shuffled labels that another order of the outputs is held against."""

LEVEL = 0.05
"""Largest probability of an outcome by chance at which it still counts as more than chance."""

ORDER_LEVEL = 0.01
"""The same for another order of the outputs, which is searched for among all of them."""


@dataclass(frozen=True)
class TeacherReport:
    """A teacher's score on dev beside the best constant answer's.

    Attributes
    ----------
    metric : str
        The task's primary metric, in which all scores are.
    score, constant : float
        Of the teacher, and of the one answer for every row that scores best; NaN where there is none, as for tags.
    answer : str
        That answer: a class, or a number.
    rows : int
        Of dev.
    better_labels : tuple of str
        What the teacher's outputs, in its own order, seem to mean, where another order than the one they have scores
        higher and by more than chance; else empty.
    better_score : float
        The score in that order; NaN where there is none.
    lines : tuple of str
        What to tell the user.
    warnings : tuple of str
        Those of the lines that are warnings.
    """

    metric: str
    score: float
    constant: float
    answer: str
    rows: int
    better_labels: tuple[str, ...]
    better_score: float
    lines: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What summary.json holds of it."""
        found: dict[str, Any] = {"metric": self.metric}
        if not math.isnan(self.constant):
            found |= {"constant_answer": self.answer, "constant_dev": self.constant}
        found["warnings"] = list(self.warnings)
        if self.better_labels:
            found["better_teacher_labels"] = list(self.better_labels)
            found["better_dev"] = self.better_score
        return found


# ---- the classes ----------------------------------------------------------------------------------------------------


def label_counts(data: TaskData) -> dict[str, Any]:
    """How many rows of train and dev each class has, or where the numbers of a regression lie.

    Returns
    -------
    dict
        ``{"classes": {name: {"train": n, "dev": n}}}``, or ``{"range": [low, high], "train": {...}, "dev": {...}}``
        with the lowest, highest and mean label of each. Where the teacher has rows of its own, "teacher" is among
        them; "train" is left out if it lacks labels.
    """
    named = {"train": data.train, data.teacher.name: data.teacher, "dev": data.dev}
    parts = {name: split.labels for name, split in named.items() if not split.unlabelled}
    if data.spec.is_structured:
        about = {"unanswered": data.spec.unanswered} if data.spec.label_kind == "spans" else {}
        return {"kind": data.spec.kind_name, "names": list(data.spec.labels), **about}
    if data.spec.is_regression:
        spread = {
            name: {"lowest": float(labels.min()), "highest": float(labels.max()), "mean": float(labels.mean())}
            for name, labels in parts.items()
        }
        return {"range": [float(bound) for bound in data.spec.label_range], **spread}
    counts = {name: np.bincount(labels, minlength=len(data.spec.labels)) for name, labels in parts.items()}
    return {
        "classes": {
            label: {name: int(count[index]) for name, count in counts.items()}
            for index, label in enumerate(data.spec.labels)
        }
    }


def describe_labels(data: TaskData) -> str:
    """The classes with their counts as one line, or the range of a regression's labels; many classes are summed up."""
    found = label_counts(data)
    if data.spec.is_structured:
        names = data.spec.labels
        listed = ", ".join(names[:LISTED_CLASSES]) + (", ..." if len(names) > LISTED_CLASSES else "")
        more = f" of {len(names)}: {listed}" if names else ""
        if data.spec.label_kind == "spans":
            more = ", or none where a question has no answer" if data.spec.unanswered else ", one to every question"
        if data.spec.label_kind == "embeddings":
            texts = "texts" if data.dev.pairs is None else "pairs of texts"
            return f"embeddings of {texts}, {'without labels' if data.dev.unlabelled else 'with labels'}"
        return f"labels: {data.spec.label_kind.replace('_', ' ')}{more}"
    if data.spec.is_regression:
        low, high = found["range"]
        parts = [
            f"{name} {part['lowest']:g} to {part['highest']:g}, mean {part['mean']:.4g}"
            for name, part in found.items()
            if name != "range"
        ]
        return f"labels: numbers from {low:g} to {high:g} ({'; '.join(parts)})"
    classes = found["classes"]
    if len(classes) <= LISTED_CLASSES:
        listed = ", ".join(
            f"{name} ({', '.join(f'{count:,} {part}' for part, count in counts.items())})"
            for name, counts in classes.items()
        )
        return f"{len(classes)} classes: {listed}"
    trained = data.teacher.name
    by_count = sorted(classes, key=lambda name: -classes[name][trained])
    most, fewest = by_count[0], by_count[-1]
    text = (
        f"{len(classes)} classes: {', '.join(by_count[:3])}, ...: from {classes[fewest][trained]:,} ({fewest}) to "
        f"{classes[most][trained]:,} ({most}) rows of {trained}"
    )
    absent = sum(not counts["dev"] for counts in classes.values())
    return f"{text}; {absent} of them have no row in dev" if absent else text


# ---- the teacher ----------------------------------------------------------------------------------------------------


def report_teacher(
    name: str,
    spec: TaskSpec,
    logits: NDArray[np.float32],
    labels: NDArray[Any],
    *,
    outputs: Sequence[int] | None,
) -> TeacherReport:
    """Score a teacher on dev, beside the best constant answer and beside other orders of its outputs.

    Warnings that a few rows could bring about by chance are left out. The rules:

    - The teacher is called no better than the constant only where dev has rows enough: where a teacher with half of
      the constant's errors (for numbers, one with a correlation of 0.5) would be better with a probability of 95 %.
    - It is called so if its score is no higher, or if its answers go with the labels no more than by chance: if the
      number of right answers is not above what shuffled labels give (normal approximation), for numbers if the
      correlation is not above 0 (Fisher's transformation), each one-sided at 5 %.
    - Another order of the outputs is named if it scores higher, and if it sets right more rows than in all but one of
      200 cases when the labels are shuffled and the best order is searched for anew.

    Parameters
    ----------
    name : str
        What the user calls the teacher.
    spec : TaskSpec
    logits : array of shape (n, n_outputs)
        The teacher's outputs on dev, in the task's order.
    labels : array of shape (n,)
    outputs : sequence of int or None
        For each class of the task, the number of the teacher's own output that is taken for it; None where the outputs
        cannot be in another order, as those of a head that was trained here.

    Returns
    -------
    TeacherReport
    """
    metric, primary = spec.metrics[0], measure(spec, spec.metrics[0])
    predicted = predictions(logits, spec)
    score = primary.score(labels, predicted)
    answer, constant = best_constant(labels, primary)
    shown = f"{answer:.4g}" if spec.is_regression else spec.labels[int(answer)]
    lines = [
        f"teacher {name!r} on dev ({len(labels):,} rows): {metric} {score:.4f}; the best constant answer ({shown}): "
        f"{constant:.4f}"
    ]
    if spec.is_regression:
        lines[0] += f"; its outputs: {predicted.min():.4g} to {predicted.max():.4g}"
    warnings = []
    no_better = score <= constant if primary.larger_is_better else score >= constant
    better = _better_order(labels, predicted, len(spec.labels)) if outputs is not None and spec.labels else None
    better_labels: tuple[str, ...] = ()
    better_score = float("nan")
    if better is not None and outputs is not None:
        better_score = primary.score(labels, better[predicted])
        if primary.is_better(better_score, score):
            by_output = dict(zip(outputs, (spec.labels[meant] for meant in better), strict=True))
            better_labels = tuple(by_output[output] for output in sorted(by_output))
    if better_labels:
        against = "below" if score < constant else "above" if score > constant else "at"
        warnings.append(
            f"WARNING: the outputs of teacher {name!r} seem to be in another order than the task's classes: in the "
            f"best order its {metric} on dev is {better_score:.4f}, as they are {score:.4f}, {against} a constant "
            f"answer's {constant:.4f}. If its outputs mean {', '.join(better_labels)}, stop and set "
            f"{_as_setting(better_labels)}"
        )
    elif _rows_suffice(labels, spec) and (no_better or not _is_related(labels, predicted, spec)):
        how = "no better than a constant answer" if no_better else "right no more often than by chance"
        if spec.is_regression and primary.is_better(score, constant):
            how = "related to the labels no more than by chance"
        remedy = _remedy(spec, labels, predicted, fixed=outputs is not None)
        warnings.append(
            f"WARNING: teacher {name!r} is {how} on dev ({metric} {score:.4f}, constant answer {constant:.4f}): what a "
            f"student learns from it says little about the task; {remedy}"
        )
    lines += warnings
    return TeacherReport(
        metric, score, constant, shown, len(labels), better_labels, better_score if better_labels else float("nan"),
        tuple(lines), tuple(warnings),
    )  # fmt: skip


def report_scores(name: str, encoded: EncodedSplit, outputs: NDArray[np.float32]) -> TeacherReport:
    """Score a teacher on dev where no one answer can be given for all texts, as for tags and spans.

    Parameters
    ----------
    name : str
        What the user calls the teacher.
    encoded : EncodedSplit
        Dev.
    outputs : array of shape (sequences, n_outputs), or flat
        The teacher's.
    """
    metric, rows = encoded.spec.metrics[0], len(encoded.labels)
    scores = score_encoded(encoded, outputs)
    score = scores.get(metric, float("nan"))
    listed = ", ".join(f"{one} {value:.4f}" for one, value in scores.items()) or "nothing to score it by"
    lines, nothing = [f"teacher {name!r} on dev ({rows:,} rows): {listed}"], float("nan")
    low, is_fixed = measure(encoded.spec, metric).is_better(score, 0.0), encoded.handling.spec.has_vectors
    if not low and rows and not math.isnan(score) and measure(encoded.spec, metric).larger_is_better:
        lines.append(
            f"WARNING: teacher {name!r} has {metric} {score:.4f} on dev: what a student learns from it says little "
            f"about the task; check the labels{' or' if is_fixed else ','} choose another teacher"
            f"{'' if is_fixed else ', or raise teacher_epochs'}"
        )
    return TeacherReport(metric, score, nothing, "", rows, (), nothing, tuple(lines), tuple(lines[1:]))


def _remedy(spec: TaskSpec, labels: NDArray[Any], predicted: NDArray[Any], *, fixed: bool) -> str:
    if spec.is_regression:
        correlation = METRICS["pearson"](labels, predicted)
        if correlation < 0 and _is_more_than_chance(-correlation, len(labels)):
            return (
                f"its numbers fall where the labels rise (correlation {correlation:.4f}), so check what they mean, or "
                "choose another teacher"
            )
    return "check the labels, or choose another teacher" if fixed else "check the labels, or raise teacher_epochs"


def _as_setting(labels: Sequence[str]) -> str:
    """The setting `teacher_labels` as a configuration file has it and, where it can be said so, as a flag."""
    listed = ", ".join(json.dumps(label, ensure_ascii=False) for label in labels)
    text = f"teacher_labels = [{listed}]"
    if any("," in label or label != label.strip() or not label for label in labels):
        return text
    return f"{text} (--teacher-labels {shlex.quote(','.join(labels))})"


def _is_related(labels: NDArray[Any], predicted: NDArray[Any], spec: TaskSpec) -> bool:
    """Whether answers go with the labels by more than chance."""
    if spec.is_regression:
        return _is_more_than_chance(METRICS["pearson"](labels, predicted), len(labels))
    from scipy.stats import norm

    table = _table(labels, predicted, len(spec.labels)).astype(np.float64)
    n = len(labels)
    # mean and variance of the right answers when the labels are shuffled: those of a table with the same margins
    products = table.sum(1) * table.sum(0)
    mean = products.sum() / n
    others = (n - table.sum(1)) * (n - table.sum(0)) - products
    variance = ((products * others).sum() + products.sum() ** 2) / (n**2 * max(1, n - 1))
    if variance <= 0:  # one answer for all, or labels that are all alike
        return False
    return bool(norm.sf((np.trace(table) - mean) / math.sqrt(variance)) <= LEVEL)


def _is_more_than_chance(correlation: float, n: int) -> bool:
    """Whether a correlation is above 0 by more than chance: Fisher's transformation, one-sided."""
    from scipy.stats import norm

    if n <= 3 or correlation <= 0:
        return False
    return correlation >= 1 or bool(norm.sf(math.atanh(correlation) * math.sqrt(n - 3)) <= LEVEL)


def _rows_suffice(labels: NDArray[Any], spec: TaskSpec) -> bool:
    """Whether a useful teacher would show on so many rows that it is better than a constant answer."""
    from scipy.stats import binom

    n = len(labels)
    if spec.is_regression:
        return _is_more_than_chance(0.5, n)
    share = float(np.bincount(labels).max()) / n
    return bool(binom.cdf(round(n * share), n, (1 + share) / 2) <= LEVEL)


def _better_order(labels: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> NDArray[np.int64] | None:
    """For each output, the class that it means in the order in which most rows are right.

    None where that is the order it has, or where it sets right no more rows than chance would.
    """
    from scipy.stats import random_table

    table = _table(labels, predicted, n_classes)
    best, gain = _assign(table)
    if gain <= 0:
        return None
    rng = np.random.default_rng(0)
    # tables of the same margins: what shuffled labels give
    shuffled = random_table(table.sum(1), table.sum(0))
    allowed = int(ORDER_LEVEL * (SHUFFLES + 1)) - 1
    for _ in range(SHUFFLES):
        allowed -= _assign(np.reshape(shuffled.rvs(random_state=rng), table.shape).astype(np.int64))[1] >= gain
        if allowed < 0:
            return None
    return best


def _table(labels: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Rows by label and answer, of shape (n_classes, n_classes)."""
    table = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(table, (labels, predicted), 1)
    return table


def _assign(table: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The class for each output with which most rows are right, and how many more than as they are.

    Parameters
    ----------
    table : array of shape (n_classes, n_classes), int64
        Rows by label and output.
    """
    from scipy.optimize import linear_sum_assignment

    n = len(table)
    # among equal assignments, the one that leaves most outputs where they are
    classes, outputs = linear_sum_assignment(table * (n + 1) + np.eye(n, dtype=np.int64), maximize=True)
    meant = np.empty(n, np.int64)
    meant[outputs] = classes
    return meant, int(table[classes, outputs].sum() - np.trace(table))
