"""What a student's input layer costs: FLOPs of training and of the teacher, with and without a cache, and seconds.

And what the teacher of each arm scores, without which a student of pooled vectors cannot be judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pandas import DataFrame

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.data.metrics import agreement, best_constant, measure
from sage_kit.data.metrics import predictions as predicted
from sage_kit.errors import StudyError
from sage_kit.studies.analyses.run_data import by_arm, prepared_for
from sage_kit.studies.arms import Arm
from sage_kit.studies.parameters import listed
from sage_kit.studies.predictions import split_name
from sage_kit.studies.runs import Runs
from sage_kit.studies.statistics import AVERAGE, average, contributions, t_interval, two_way
from sage_kit.studies.study import Study

INPUTS: Mapping[str, str] = {"token": "sequences", "pooled": "pooled vectors"}  # what a model reads, by `granularity`


def depth_arms(bypasses: str, depth: int) -> list[Arm]:
    """An arm of plain distillation for each bypass, all students equally deep: k blocks in front leave k fewer of its
    own.

    `bypasses` holds "embeddings" or numbers of blocks, separated by commas; `depth` counts the input layers' blocks
    too.
    """
    arms = []
    for text in dict.fromkeys(listed(bypasses)):
        if text == "embeddings":
            arms.append(Arm("embeddings", "the input layers are the embeddings", bypass=text, student_layers=depth))
            continue
        if not text.isdecimal() or not 1 <= int(text) < depth:
            raise StudyError(
                f"bypasses has {text!r}: it must be 'embeddings' or a number of blocks from 1 to {depth - 1}, below "
                f"student_layers ({depth})"
            )
        name = f"{int(text)} block{'s' if int(text) > 1 else ''}"
        about = f"embeddings and {name} in the input layers"
        arms.append(Arm(name, about, bypass=int(text), student_layers=depth - int(text)))
    if not arms:
        raise StudyError("bypasses names no bypass: give 'embeddings' or numbers of blocks, separated by commas")
    return arms


def teacher_pass(config: RunConfig, plugins: Plugins) -> dict[str, int]:
    """What the teacher computes in one pass over the training examples. "flops" are forward, of input layers and
    teacher's upper layers together, "tokens" what the upper layers read.
    """
    prepared = prepared_for(config, plugins)
    front = prepared.input_layers.flops(prepared.train.tokens.lengths)
    behind = prepared.teacher_upper.flops(prepared.train.store.lengths)
    return {"flops": front + behind, "tokens": int(prepared.train.store.offsets[-1])}


def cost_table(runs: Runs, plugins: Plugins) -> DataFrame:
    """What each run cost, the input layers included, which `Runs.table` leaves out since a cache holds its vectors.

    One row per run: task, arm, seed; parameters and trained_parameters; passes over the training examples;
    student_flops of training; teacher_flops_once, the input layers' and the teacher's for one pass, which a cache makes
    enough, and teacher_flops_every_pass, where nothing is cached; total_flops and total_flops_uncached, the student's
    with either; step_seconds, in the training steps alone.
    """
    rows: list[dict[str, Any]] = []
    for _, _, its in by_arm(runs):
        once = teacher_pass(its[0].config, plugins)
        for run in its:
            passes = run.costs["tokens"]["student"] / once["tokens"]
            student = run.costs["flops"]["student"]
            row = run.row()
            rows.append(
                {
                    **run.place,
                    **{name: row[name] for name in ("parameters", "trained_parameters")},
                    "passes": passes,
                    "student_flops": student,
                    "teacher_flops_once": once["flops"],
                    "teacher_flops_every_pass": once["flops"] * passes,
                    "total_flops": student + once["flops"],
                    "total_flops_uncached": student + once["flops"] * passes,
                    "step_seconds": run.costs["seconds"]["student"],
                }
            )
    return DataFrame(rows)


def saved(table: DataFrame, baseline: str, column: str) -> DataFrame:
    """The share of a cost that each arm saves against a baseline, paired by task and seed.

    Columns task, arm, n_seeds, saved, and Student's interval over seeds: low, high, df; of several tasks also the rows
    of their average. Counts such as FLOPs differ between seeds by which examples these saw, or not at all, and then the
    interval has no width.
    """
    wide = table.pivot_table(index=["task", "seed"], columns="arm", values=column)
    shares = {arm: 1 - wide[arm] / wide[baseline] for arm in dict.fromkeys(table["arm"]) if arm != baseline}
    tasks = list(dict.fromkeys(table["task"]))
    rows: list[tuple[Any, ...]] = []
    for arm, share in shares.items():
        parts = {task: t_interval(share[task].to_numpy(np.float64)) for task in tasks}
        if len(tasks) > 1:
            parts[AVERAGE] = average(list(parts.values()))
        seeds = int(share[tasks[0]].size)
        rows += [(task, arm, seeds, part.value, part.low, part.high, part.df) for task, part in parts.items()]
    order = [*tasks, AVERAGE]
    columns = ["task", "arm", "n_seeds", "saved", "low", "high", "df"]
    return DataFrame(sorted(rows, key=lambda row: order.index(row[0])), columns=columns)


def teacher_table(study: Study, runs: Runs, learnt_from: Mapping[str, str]) -> DataFrame:
    """The score of each arm's own teacher, on the rows that arms are compared on, beside its students' scores.

    One row per task and arm: task, arm, learnt_from, reads (what the teacher reads in this arm), metric (the primary
    one), split, n_examples, constant (what the one answer that scores best does), teacher, low and high (95 % interval
    over examples: the teacher is given), student (mean over seeds), n_seeds, and agreement of the students with this
    very teacher. `learnt_from` says what an arm's teacher learnt from, where that is not "sequences".
    """
    rows: list[dict[str, Any]] = []
    for task, arm, its in by_arm(runs):
        split = split_name(runs, task, study.scored)
        labels = runs.labels(task, split)
        spec = study.store.data(its[0].config).spec
        metric = measure(spec, its[0].metric)
        outputs = [run.predictions[split] for run in its]
        teacher = two_way(contributions(metric, labels, predicted(outputs[0]["teacher"], spec)[None]))
        students = contributions(metric, labels, np.stack([predicted(each["student"], spec) for each in outputs]))
        alike = [agreement(each["student"], each["teacher"], spec) for each in outputs]
        rows.append(
            {"task": task, "arm": arm, "learnt_from": learnt_from.get(arm, INPUTS["token"]),
             "reads": INPUTS[its[0].config.granularity], "metric": metric.name, "split": split,
             "n_examples": len(labels), "constant": best_constant(labels, metric)[1], "teacher": teacher.value,
             "low": teacher.low, "high": teacher.high, "student": float(students.mean()), "n_seeds": len(its),
             "agreement": float(np.mean(alike))}
        )  # fmt: skip
    return DataFrame(rows)
