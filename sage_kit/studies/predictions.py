"""Predictions of a study's runs: compared as they are saved, so that whoever has a result can compute it again.

``predictions.safetensors`` beside a result holds, of every task, split and run::

    labels/<task>/<split>           gold labels, of shape (n,)
    teacher/<task>/<split>          the teacher's outputs, of shape (n, n_outputs)
    student/<task>/<split>/<run>    a run's outputs, of shape (n, n_outputs); result.json tells arm and seed of a run
    teacher/<task>/<split>/<run>    those of a run with another teacher than the first, and so for its labels

Of labels that are neither classes nor numbers, what each row scores (`sage_kit.training.row_scores`) stands in the
place of outputs, the numbers of rows in that of labels, and what the best constant answer scores under ``constant``.

Logits of classes are in half precision (`halved`), and differ from the run's own by less than one part in 1,000;
predicted classes are the same. The single output of a regression task takes no more room in float32 and stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TaskSpec
from sage_kit.data.metrics import METRICS, alike_with, divergence, measure
from sage_kit.data.metrics import predictions as predicted
from sage_kit.data.unlabelled import count_unlabelled
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.storage.files import disk_errors, write_bytes
from sage_kit.storage.reading import read_arrays
from sage_kit.studies import statistics
from sage_kit.studies.result import PREDICTIONS, RUN_AGAIN, StudyResult, pick_row

if TYPE_CHECKING:
    from pandas import DataFrame

    from sage_kit.studies.runs import Runs

Array = NDArray[Any]

DEV, VALIDATION = "dev", "validation"
AGREEMENT, DIVERGENCE, PRIMARY = "agreement", "divergence", "primary"


def compare_outputs(
    outputs: Runs | SavedOutputs,
    specs: Mapping[str, TaskSpec],
    baseline: str,
    *,
    split: str = DEV,
    metric: str = "",
    arms: Sequence[str] | None = None,
) -> DataFrame:
    """Each arm against a baseline, paired by seed and example, as `sage_kit.studies.Study.compare` takes them. With
    `statistics.COLUMNS`, and behind "arm" the columns "baseline", "metric" ("primary" for "") and "split".
    """
    known = outputs.arms
    for name in (baseline, *(arms or ())):
        if name not in known:
            raise StudyError(f"there is no arm {name!r}.{did_you_mean(name, known, 'Arms')}")
    chosen = [arm for arm in known if arms is None or arm in arms or arm == baseline]
    cells = {}
    for task in outputs.tasks:
        spec, name = specs[task], split_name(outputs, task, split)
        labels, teacher = outputs.labels(task, name), kept(outputs.teacher_logits(task, name), spec)
        if metric not in (AGREEMENT, DIVERGENCE) and (missing := count_unlabelled(labels)):
            raise StudyError(
                f"task {task!r}: {missing:,} of the {len(labels):,} rows of split {name!r} have no label, which "
                f"{metric or spec.metrics[0]} needs: compare by metric 'agreement' or 'divergence'"
            )
        for arm in chosen:
            students = outputs.logits(task, arm, name)
            if len(students):
                cells[task, arm] = _cells(
                    metric or spec.metrics[0], spec, labels, teacher, [kept(one, spec) for one in students]
                )
    table = statistics.compare_cells(cells, baseline)
    for place, column, value in ((2, "baseline", baseline), (3, "metric", metric or PRIMARY), (4, "split", split)):
        table.insert(place, column, value)
    return table


def split_name(outputs: Runs | SavedOutputs, task: str, split: str) -> str:
    """The name under which a split's outputs are found."""
    if split == DEV:
        return split
    names = outputs.splits(task)
    if split == VALIDATION and names:
        return names[0]
    if split not in names:
        raise StudyError(f"task {task!r} has no split {split!r}.{did_you_mean(split, names, 'Splits')}")
    return split


def _cells(metric: str, spec: TaskSpec, labels: Array, teacher: Array, students: Sequence[Array]) -> Array:
    """What each example contributes to a metric of each run: (seeds, n)."""
    if spec.is_structured:
        return row_cells(metric, spec.metrics, students, spec.name)
    if metric == AGREEMENT:
        return np.stack([alike_with(each, teacher, spec) for each in students]).astype(np.float64)
    if metric == DIVERGENCE:
        return statistics.log_mean(np.stack([divergence(teacher, each) for each in students]))
    return statistics.contributions(
        measure(spec, metric), labels, np.stack([predicted(each, spec) for each in students])
    )


def row_columns(metrics: Sequence[str]) -> list[str]:
    """What the columns of such tables hold, as `sage_kit.training.row_scores` writes them."""
    return [AGREEMENT, DIVERGENCE, *metrics]


def row_cells(metric: str, metrics: Sequence[str], tables: Sequence[Array], task: str) -> Array:
    """The same of tables that hold what each row scores.

    Raises
    ------
    StudyError
        For a metric that the tasks are not scored by, or rows without a label.
    """
    if metric == DIVERGENCE:
        return statistics.log_mean(np.stack([table[:, 1] for table in tables]))
    names = row_columns(metrics)
    if metric not in names:
        raise StudyError(f"task {task!r} is not scored by {metric!r}.{did_you_mean(metric, names)}")
    # where a task of embeddings has no labels, its only metric is the agreement
    cells = np.stack([table[:, names.index(metric)] for table in tables]).astype(np.float64)
    if not np.isfinite(cells).all():
        raise StudyError(
            f"task {task!r}: rows have no label, which {metric} needs: compare by metric 'agreement' or 'divergence'"
        )
    return cells


def kept(outputs: Array, spec: TaskSpec) -> Array:
    """Outputs as a study saves and compares them: logits of classes `halved`, others as they are."""
    return outputs if spec.is_structured else halved(outputs)


def without_contributions(specs: Mapping[str, TaskSpec], metric: str) -> list[str]:
    """Names of the metrics of a comparison of which nobody knows what an example contributes to them."""
    if metric in (AGREEMENT, DIVERGENCE):
        return []
    names = [(spec, metric or spec.metrics[0]) for spec in specs.values()]
    named = (measure(spec, name) for spec, name in names if name != AGREEMENT)
    return sorted({one.name for one in named if not statistics.has_contributions(one)})


def halved(logits: Array) -> Array:
    """Logits in half precision with the same predicted classes; a single output stays as it is.

    Rounding can make two logits equal, and then the first of them would be predicted. The predicted class gets the next
    larger number of half precision where it no longer stands alone.
    """
    logits = np.asarray(logits)
    if logits.shape[1] == 1 or logits.dtype == np.float16:
        return logits
    with np.errstate(over="ignore"):
        half = logits.astype(np.float16)
    if not np.isfinite(half).all():
        return logits
    wanted = logits.argmax(axis=1)
    rows = np.flatnonzero(half.argmax(axis=1) != wanted)
    half[rows, wanted[rows]] = np.nextafter(half[rows].max(axis=1), np.float16(np.inf))
    return half


def save_predictions(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Write predictions.safetensors."""
    from safetensors.numpy import save

    path = folder / PREDICTIONS
    with disk_errors(str(path)):
        write_bytes(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_predictions(folder: Path) -> dict[str, Array]:
    """The arrays of predictions.safetensors by name."""
    arrays, _ = read_arrays(folder / PREDICTIONS, StudyError, RUN_AGAIN)
    return arrays


class SavedOutputs:
    """The outputs that a result holds."""

    def __init__(self, result: StudyResult) -> None:
        assert result.folder is not None, "the result was not loaded from a folder"
        self._arrays = read_predictions(result.folder)
        self._result = result
        compared = [run for run in result.runs if run["splits"]]
        self.tasks, self.arms = (list(dict.fromkeys(run[name] for run in compared)) for name in ("task", "arm"))

    def labels(self, task: str, split: str) -> Array:
        """Gold labels, (n,)."""
        return self._array(f"labels/{task}/{split}")

    def teacher_logits(self, task: str, split: str) -> Array:
        """The teacher's outputs, (n, n_outputs)."""
        return self._array(f"teacher/{task}/{split}")

    def logits(self, task: str, arm: str, split: str) -> Array:
        """The students' outputs by seed, (seeds, n, n_outputs)."""
        own = [run for run in self._result.runs if (run["task"], run["arm"]) == (task, arm) and split in run["splits"]]
        own.sort(key=lambda run: int(run["seed"]))
        return np.array([self._array(f"student/{task}/{split}/{run['run']}") for run in own])

    def _array(self, name: str) -> Array:
        if name not in self._arrays:
            raise StudyError(f"{self._result.folder}/{PREDICTIONS} lacks {name}: {RUN_AGAIN}")
        return self._arrays[name]

    def splits(self, task: str) -> list[str]:
        """Names of the validation splits in order, and "evaluation" where there is such a set."""
        return list(self._result.scoring[task]["splits"])

    def spec(self, task: str) -> TaskSpec:
        """How the task is scored."""
        told = self._result.scoring[task]
        return TaskSpec(
            name=task, summary=task, text_columns=("text",), labels=tuple(map(str, range(told["classes"]))),
            label_range=tuple(told["label_range"]), metrics=tuple(told["metrics"]), task_kind=told.get("kind", ""),
        )  # fmt: skip


def recomputed(result: StudyResult, tables: Mapping[str, DataFrame]) -> dict[str, dict[str, float]]:
    """The numbers of every finding about scores, computed again from the predictions beside the result.

    By finding: its value, low, high and df. Findings that read something else than a comparison of arms or an arm's
    score on a split whose predictions are there are left out, and so are those in a plugin's metric.
    """
    outputs = SavedOutputs(result)
    found = {}
    for finding in result.findings:
        columns = set(tables[finding.table].columns)
        row = pick_row(tables[finding.table], finding.row, finding.table)
        if not _is_built_in(outputs, row):
            continue
        if {"baseline", "metric", "split", *statistics.COLUMNS} <= columns:
            numbers = _compared(outputs, tables[finding.table], row)
        elif {"task", "arm", "metric", "split", "n_examples", "mean"} <= columns:
            numbers = _scored(outputs, row)
        else:
            continue
        if numbers:
            value, low, high = (float(numbers[column]) for column in finding.columns)
            found[finding.name] = {"value": value, "low": low, "high": high, "df": float(numbers["df"])}
    return found


def _is_built_in(outputs: SavedOutputs, row: Mapping[str, Any]) -> bool:
    """Whether what a row tells of is no metric of a plugin, which may not be there any more."""
    told = row.get("metric", PRIMARY)
    specs = [outputs.spec(task) for task in outputs.tasks]
    if told != PRIMARY:
        return told in (AGREEMENT, DIVERGENCE, *METRICS) or all(spec.is_structured for spec in specs)
    return all(spec.is_structured or spec.metrics[0] in METRICS for spec in specs)


def _compared(outputs: SavedOutputs, table: DataFrame, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of a comparison again, over the tasks that its table has for it."""
    names = ["arm", "baseline", "metric", "split"]
    alike = table[(table[names] == [row[name] for name in names]).all(axis=1)]
    tasks = [task for task in alike["task"] if task != statistics.AVERAGE]
    part = copy.copy(outputs)
    part.tasks = tasks  # a comparison may leave others out
    again = compare_outputs(
        part, {task: outputs.spec(task) for task in tasks}, row["baseline"], split=row["split"],
        metric="" if row["metric"] == PRIMARY else row["metric"], arms=[row["arm"]],
    )  # fmt: skip
    (numbers,) = again[again["task"] == row["task"]].to_dict("records")
    return {str(name): number for name, number in numbers.items()}


def _scored(outputs: SavedOutputs, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """An arm's score on a split again; nothing where its predictions were not saved."""
    task, arm, split = row["task"], row["arm"], row["split"]
    if task not in outputs.tasks or not len(students := outputs.logits(task, arm, split)):
        return {}
    teacher = outputs.teacher_logits(task, split)
    cells = _cells(row["metric"], outputs.spec(task), outputs.labels(task, split), teacher, list(students))
    found = statistics.two_way(cells)
    return {"mean": found.value, "low": found.low, "high": found.high, "df": found.df}
