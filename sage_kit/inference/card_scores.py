"""The scores of a finished run as its card tells them: the student's and the teacher's, with intervals over rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.data.metrics import METRICS, Measure, alike_with
from sage_kit.data.metrics import predictions as predicted
from sage_kit.data.scoring import AGREEMENT, build_measure
from sage_kit.data.splits import EVALUATION
from sage_kit.errors import SageError
from sage_kit.studies import statistics
from sage_kit.studies.predictions import DEV, row_columns

Array = NDArray[Any]


@dataclass(frozen=True)
class RunScore:
    """A score of a run's student on a split.

    Attributes
    ----------
    split, metric : str
    rows : int
    value : float
        As the run's summary has it.
    low, high : float
        95 % interval over rows, for this student as it is; NaN where nobody knows what a row contributes.
    teacher : float
        The teacher's score; NaN where there is none, as for the agreement with it.
    behind_low, behind_high : float
        95 % interval, over rows, of the student's score less the teacher's; NaN as above.
    """

    split: str
    metric: str
    rows: int
    value: float
    low: float
    high: float
    teacher: float
    behind_low: float
    behind_high: float


def run_scores(
    config: RunConfig,
    summary: Mapping[str, Any],
    predictions: Mapping[str, Mapping[str, Array]],
    plugins: Plugins,
) -> list[RunScore]:
    """Every score of a finished run, in the order dev, validation splits, evaluation set.

    Parameters
    ----------
    config : RunConfig
    summary : mapping
        What summary.json holds.
    predictions : mapping
        By split, as `sage_kit.rundir.RunDirectory.predictions` returns them.
    plugins : Plugins
        Where metrics are looked up.

    Returns
    -------
    list of RunScore
        The task's metrics and then the agreement with the teacher, of each split that was scored.
    """
    parts = {DEV: summary["dev"], **summary["validation"]}
    if summary.get("evaluation"):
        parts[EVALUATION] = summary["evaluation"]
    told = summary["teacher"]
    teachers = {DEV: told["dev"], **told["validation"], EVALUATION: told.get("evaluation") or {}}
    names = [name for name in summary["metrics"] if name != AGREEMENT]
    measures = {name: _measure(name, plugins, config) for name in names}
    found = []
    for split, scores in parts.items():
        outputs = predictions.get(split, {})
        for name in (*names, AGREEMENT):
            if scores.get(name) is None:
                continue
            student, teacher = _cells(name, names, measures.get(name), outputs, summary["labels"])
            low, high = _limits(student, name, plugins)
            behind = _limits(None if student is None or teacher is None else student - teacher)
            of_teacher = teachers.get(split, {}).get(name)
            found.append(
                RunScore(
                    split, name, int(summary["examples"].get(split, 0)), float(scores[name]), low, high,
                    math.nan if of_teacher is None else float(of_teacher), *behind,
                )
            )  # fmt: skip
    return found


def _measure(name: str, plugins: Plugins, config: RunConfig) -> Measure | None:
    """A metric by its name; None where its plugin is not there any more."""
    if name in METRICS:
        return Measure(name, METRICS[name])
    try:
        return build_measure(name, plugins, config)
    except SageError:
        return None


def _cells(
    name: str, names: Sequence[str], measure: Measure | None, outputs: Mapping[str, Array], labels: Mapping[str, Any]
) -> tuple[Array | None, Array | None]:
    """What each row contributes to a metric of student and teacher; None for what nobody knows."""
    if not outputs:
        return None, None
    if name != AGREEMENT and (measure is None or not _tells_rows(measure, structured="student_rows" in outputs)):
        return None, None
    if "student_rows" in outputs:
        place = row_columns(names).index(name)
        student, teacher = (np.asarray(outputs[f"{who}_rows"], np.float64)[:, place] for who in ("student", "teacher"))
        return student, None if name == AGREEMENT else teacher
    spec = _spec(labels)
    if name == AGREEMENT:
        return alike_with(outputs["student"], outputs["teacher"], spec).astype(np.float64), None
    gold = np.asarray(outputs["labels"])
    if not len(gold):
        return None, None
    assert measure is not None
    both = np.stack([predicted(outputs[who], spec) for who in ("student", "teacher")])
    student, teacher = statistics.contributions(measure, gold, both)
    return student, teacher


def _tells_rows(measure: Measure, *, structured: bool) -> bool:
    """Whether it is known what a row contributes to a metric."""
    return measure.contributions is not None or (statistics.has_contributions(measure) and not structured)


def _spec(labels: Mapping[str, Any]) -> TaskSpec:
    """As much of a task of classes or numbers as reading its outputs takes."""
    low, high = labels.get("range", (0.0, 1.0))
    classes = tuple(labels.get("classes", ()))
    return TaskSpec(name="run", summary="run", text_columns=("text",), labels=classes, label_range=(low, high))


def _limits(cells: Array | None, name: str = "", plugins: Plugins | None = None) -> tuple[float, float]:
    """The 95 % interval of a mean over rows, within the range of the metric; NaN where there is none."""
    if cells is None or len(cells) < 2 or not np.isfinite(cells).all():
        return math.nan, math.nan
    interval = statistics.of_scores(cells[None])
    least, most = -math.inf, math.inf
    if name == AGREEMENT:
        least, most = 0.0, 1.0
    elif plugins is not None:
        least, most = plugins.metric(name).range
    return max(interval.low, least), min(interval.high, most)
