"""What each row of a split scores, where labels are neither classes nor numbers.

Outputs of tokens are large, and what they score needs the texts. Beside them a run therefore keeps a table with a row
for each row of the data: agreement with the teacher, divergence from it, and what the row contributes to each metric.
Studies compare such tables as they compare logits of classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.data.metrics import divergence
from sage_kit.data.scoring import able_measures
from sage_kit.models.vectors import forward_batches
from sage_kit.training.losses import example_divergence

if TYPE_CHECKING:
    from sage_kit.data.encoding import EncodedSplit
    from sage_kit.training.prepared import PreparedSplit

DIVERGENCE = "divergence"


def row_scores(split: PreparedSplit, outputs: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The tables of the student, of the teacher, and of the best-known constant answer.

    Parameters
    ----------
    split : PreparedSplit
        Of a structured task.
    outputs : array of shape (sequences, n_outputs), or flat
        The student's.

    Returns
    -------
    dict of str to array of shape (rows, 2 + metrics), float32
        "student_rows", "teacher_rows" and "constant_rows"; columns are agreement, divergence, and the contributions to
        the task's metrics in order, whose mean is the score. NaN where a label or a constant answer is missing. Of a
        metric that does not say what an example contributes, each row has the score itself.
    """
    encoded, teacher = split.encoded, split.outputs.logits
    row_of = np.asarray(encoded.texts.row_of)
    counts = np.bincount(row_of, minlength=len(encoded.labels))
    apart = np.bincount(row_of, divergences(split, outputs), len(encoded.labels)) / counts
    none, all_alike = np.zeros_like(apart), np.ones_like(apart)
    unknown = np.full_like(apart, np.nan)
    columns = {
        "student_rows": [
            encoded.agreement(outputs, teacher),
            apart,
            *_of_metrics(encoded, encoded.predictions(outputs)),
        ],
        "teacher_rows": [all_alike, none, *_of_metrics(encoded, encoded.predictions(teacher))],
        "constant_rows": [unknown, unknown, *_of_metrics(encoded, constant_predictions(encoded))],
    }
    return {name: np.stack(found, axis=1).astype(np.float32) for name, found in columns.items()}


def _of_metrics(encoded: EncodedSplit, predictions: Any) -> list[NDArray[np.float64]]:
    """What each row contributes to each metric of the task."""
    able: Mapping[str, Any] = {one.name: one for one in able_measures(encoded)}
    found = []
    for name in encoded.spec.metrics:
        column = np.full(len(encoded.labels), np.nan)
        measure = able.get(name)
        if measure is not None and predictions is not None:
            own = measure.contributions
            column[:] = measure.score(encoded.gold, predictions) if own is None else own(encoded.gold, predictions)
        found.append(column)
    return found


def constant_predictions(encoded: EncodedSplit) -> Any:
    """The same answer for every row, the most frequent of the labels, as metrics take it; None where none is known."""
    gold, kind = encoded.gold, encoded.spec.label_kind
    if gold is None or not len(gold):
        return None
    if kind == "label_sets":
        sets = Counter(map(tuple, np.asarray(gold).tolist()))
        return np.tile(np.array(sets.most_common(1)[0][0], np.float32), (len(gold), 1))
    if kind == "tags":
        ((tag, _),) = Counter(tag for tags in gold for tag in tags).most_common(1) or [("", 0)]
        return [(tag,) * len(tags) for tags in gold]
    if kind == "spans":
        ((answer, _),) = Counter(text for answers in gold for text in (answers.texts or ("",))[:1]).most_common(1)
        return [answer] * len(gold)
    return None


def divergences(split: PreparedSplit, logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Divergence of the student from the teacher on each sequence of a split: of one output as `divergence` has it, of
    several distributions the mean over those that count, of vectors the squared error.
    """
    encoded, outputs = split.encoded, split.outputs
    regression = not encoded.handling.spec.has_distributions
    if not encoded.spec.is_structured:
        return divergence(outputs.logits, logits)
    found = np.empty(len(split.store), np.float64)
    student, cpu = replace(outputs, logits=logits), torch.device("cpu")
    for rows in forward_batches(split.store.lengths, cpu):
        positions = split.targets.positions(rows, cpu)
        mine, theirs = (
            encoded.handling.compared(one.batch(split.store.offsets, rows, cpu), positions)
            for one in (student, outputs)
        )
        found[rows] = example_divergence(mine, theirs, regression=regression).numpy()
    return found
