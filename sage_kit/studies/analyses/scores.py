"""Absolute scores on the official validation splits, beside what others published: for reporting only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame, concat

from sage_kit.components import TaskSpec
from sage_kit.data.metrics import METRICS, best_constant, measure
from sage_kit.data.metrics import predictions as predicted
from sage_kit.studies import statistics
from sage_kit.studies.analyses.published import published, split_text
from sage_kit.studies.predictions import row_cells
from sage_kit.studies.runs import ArmRun, Runs, is_by_row
from sage_kit.studies.study import Study

TEACHER = "teacher"  # what stands for the teacher among arms

OURS, OTHERS = "ours", "published"

NO_METRICS = ("agreement", "calibration_error")
"""Scores of a split that are no metrics of the task."""


def validation_scores(runs: Runs) -> DataFrame:
    """Each arm's score on every official validation split, and the teacher's: means over seeds.

    One row per task, split, arm and metric of the task, the primary one first: task, split, arm, metric, primary,
    n_seeds, n_examples, mean, low, high and df (`sage_kit.studies.statistics.two_way`, over seeds and examples),
    setting (`split_text`). The teacher is fixed, so its row has no interval.
    """
    rows: list[dict[str, Any]] = []
    for task in runs.tasks:
        one = runs.of(task=task)[0]
        examples = one.summary["examples"]
        for split in one.summary["validation"]:
            setting = split_text(split, examples[split], examples["train"], task)
            told = one.summary["teacher"]["validation"][split]
            names = sorted((name for name in told if name not in NO_METRICS), key=lambda name: name != one.metric)
            for arm in (TEACHER, *runs.arms):
                own = runs.of(task=task, arm=arm)
                if arm != TEACHER and not own:
                    continue
                for metric in names:
                    interval = statistics.Interval(float(told[metric]), np.nan, np.nan)
                    if own:
                        interval = statistics.of_scores(_cells(runs, task, arm, split, metric))
                    rows.append(
                        {
                            "task": task, "split": split, "arm": arm, "metric": metric, "primary": metric == one.metric,
                            "n_seeds": len(own), "n_examples": len(runs.labels(task, split)), "mean": interval.value,
                            "low": interval.low, "high": interval.high, "df": interval.df, "setting": setting,
                        }
                    )  # fmt: skip
    return DataFrame(rows)


def _cells(runs: Runs, task: str, arm: str, split: str, metric: str) -> NDArray[np.float64]:
    """What each example contributes to a metric of each run: (seeds, n); the scores, (seeds, 1), of a plugin's."""
    own = runs.of(task=task, arm=arm)
    if own and is_by_row(own[0].predictions[split]):
        return row_cells(metric, own[0].summary["metrics"], [run.predictions[split]["student"] for run in own], task)
    if metric not in METRICS:
        return np.array([[run.summary["validation"][split][metric]] for run in runs.of(task=task, arm=arm)])
    logits = runs.logits(task, arm, split)
    predictions = logits[..., 0] if logits.shape[-1] == 1 else logits.argmax(-1)
    return statistics.contributions(metric, runs.labels(task, split), predictions)


def beside_published(scores: DataFrame) -> DataFrame:
    """`validation_scores` on each task's first split, and what others published on the task, in one table.

    Columns task, metric, model, by ("ours" or "published"), score, low, high, n_seeds, setting, source; ours in the
    task's primary metric, and in the published one where that is another.
    """
    rows: list[dict[str, Any]] = []
    for task, group in scores.groupby("task", sort=False):
        others = published([str(task)])
        metrics = {one.metric for one in others}
        first = group[group["split"] == group["split"].iloc[0]]
        for row in first.to_dict("records"):
            if row["primary"] or row["metric"] in metrics:
                numbers = {"score": row["mean"], **{name: row[name] for name in ("low", "high", "n_seeds")}}
                rows.append({"task": task, "metric": row["metric"], "model": row["arm"], "by": OURS, **numbers,
                             "setting": row["setting"], "source": ""})  # fmt: skip
        for one in others:
            rows.append({"task": task, "metric": one.metric, "model": one.model, "by": OTHERS, "score": one.score,
                         "low": np.nan, "high": np.nan, "n_seeds": 0, "setting": one.split,
                         "source": one.source})  # fmt: skip
    return DataFrame(rows)


def compare_splits(study: Study, runs: Runs, baseline: str) -> DataFrame:
    """`Study.compare` on every validation split of every task, by task and split."""
    by_task = {task: Runs(runs.of(task=task)) for task in runs.tasks}
    splits = [(own, split) for own in by_task.values() for split in next(iter(own)).summary["validation"]]
    return concat([study.compare(own, baseline, split=split) for own, split in splits], ignore_index=True)


def teacher_over_constant(study: Study, runs: Runs) -> DataFrame:
    """How far the teacher is ahead of the best constant answer, on every validation split of every task.

    A teacher that is not ahead knows nothing of the task, and what its students do there says nothing about how they
    were taught. One row per task and split: task, split, metric (the primary one), teacher, constant (the score of the
    one class that scores best, of other labels that of the most frequent one, 0 for correlations), difference, low and
    high (95 % interval over examples: the teacher is given).
    """
    rows: list[dict[str, Any]] = []
    for task in runs.tasks:
        one = runs.of(task=task)[0]
        spec = study.store.data(one.config).spec
        for split in one.summary["validation"]:
            teacher, constant = _of_teacher_and_constant(runs, one, split, spec)
            ahead = statistics.of_scores(teacher - constant)
            numbers = {"teacher": float(teacher.mean()), "constant": float(constant.mean()), "difference": ahead.value}
            rows.append({"task": task, "split": split, "metric": one.metric, **numbers,
                         "low": ahead.low, "high": ahead.high})  # fmt: skip
    return DataFrame(rows)


def _of_teacher_and_constant(runs: Runs, run: ArmRun, split: str, spec: TaskSpec) -> NDArray[np.float64]:
    """What each example contributes to the primary metric of the teacher and of the best constant answer: (2, 1, n)."""
    if is_by_row(run.predictions[split]):
        both = [np.nan_to_num(run.predictions[split][whose]) for whose in ("teacher", "constant")]
        return row_cells(run.metric, run.summary["metrics"], both, run.task)[:, None]
    labels, teacher = runs.labels(run.task, split), predicted(runs.teacher_logits(run.task, split), spec)
    metric = measure(spec, run.metric)
    answer, _ = best_constant(labels, metric)
    return statistics.contributions(metric, labels, np.stack([teacher, np.full_like(labels, answer)]))[:, None]


def taught(runs: Runs, lead: DataFrame) -> Runs:
    """The runs of tasks on whose first split the interval of the lead, of `teacher_over_constant`, is above zero."""
    first = lead.drop_duplicates("task")
    there = set(first.loc[first["low"] > 0, "task"])
    return Runs([run for run in runs if run.task in there])


def transfer(runs: Runs) -> DataFrame:
    """Scores on every validation split of tasks that have several, and how far below the first's they are.

    One row per task, split and arm, the teacher among the arms: task, split, source (the first split), arm, n_seeds,
    mean, low and high (primary metric on the split, with Student's interval over seeds), constant (what the best
    constant answer scores there), gap (mean on the source less mean), gap_low and gap_high (its interval). No rows
    where every task has a single split.
    """
    columns = ["task", "split", "source", "arm", "n_seeds", "mean", "low", "high", "constant"]
    columns += ["gap", "gap_low", "gap_high"]
    rows: list[dict[str, Any]] = []
    for task in runs.tasks:
        one = runs.of(task=task)[0]
        splits = list(one.summary["validation"])
        for split in splits if len(splits) > 1 else ():
            known = one.metric in METRICS  # a plugin's metric is not built here
            constant = best_constant(runs.labels(task, split), one.metric)[1] if known else np.nan
            for arm in (TEACHER, *runs.arms):
                found = [one.summary["teacher"]] if arm == TEACHER else [r.summary for r in runs.of(task=task, arm=arm)]
                here, there = (
                    np.array([each["validation"][name][one.metric] for each in found]) for name in (split, splits[0])
                )
                own, gap = statistics.t_interval(here), statistics.t_interval(there - here)
                numbers = (own.value, own.low, own.high, constant, gap.value, gap.low, gap.high)
                seeds = 0 if arm == TEACHER else len(found)
                rows.append(dict(zip(columns, (task, split, splits[0], arm, seeds, *numbers), strict=True)))
    return DataFrame(rows, columns=columns)


def other_split_gains(runs: Runs, arm: str, baseline: str) -> DataFrame:
    """By how much an arm is ahead of another on the mean over a task's other splits, all but the first.

    Splits may hold the same examples in other languages, so their errors count as going wholly together: the ends of
    the mean's interval are the means of the splits' ends, and its degrees of freedom are the fewest of theirs. A row
    per task that has several validation splits; n_examples are those of all these splits.
    """
    columns = ["task", "arm", "n_splits", "n_seeds", "n_examples", "mean", "baseline_mean", "difference", "low", "high"]
    rows = []
    for task in runs.tasks:
        metric = runs.of(task=task)[0].metric
        others = list(runs.of(task=task)[0].summary["validation"])[1:]
        if not others:
            continue
        cells = [tuple(_cells(runs, task, name, split, metric) for name in (arm, baseline)) for split in others]
        gains = [statistics.of_scores(ours - base) for ours, base in cells]
        means = [float(np.mean([pair[side].mean() for pair in cells])) for side in (0, 1)]
        gain, low, high = (float(np.mean([getattr(one, end) for one in gains])) for end in ("value", "low", "high"))
        seeds, examples = len(cells[0][0]), sum(ours.shape[1] for ours, _ in cells)
        numbers = (task, arm, len(others), seeds, examples, *means, gain, low, high, min(one.df for one in gains))
        rows.append(dict(zip([*columns, "df"], numbers, strict=True)))
    return DataFrame(rows, columns=[*columns, "df"])
