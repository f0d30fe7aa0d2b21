"""What a finished run says of itself: summary.json, the predictions, and the student as a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components.records import Costs, RoundResult, RunInfo
from sage_kit.config import RunConfig
from sage_kit.data.splits import EVALUATION
from sage_kit.data.teacher_report import label_counts
from sage_kit.models.export import export_student
from sage_kit.rundir import RunDirectory
from sage_kit.storage.files import atomic_directory, disk_errors
from sage_kit.training.learner import Learner
from sage_kit.training.preparation_steps import FINE_TUNING
from sage_kit.training.prepared import Prepared, PreparedSplit
from sage_kit.training.row_scores import divergences, row_scores

Predictions = Mapping[str, NDArray[np.float32]]
"""The student's outputs by split."""


def evaluation_scores(prepared: Prepared, logits: NDArray[np.float32]) -> dict[str, float]:
    """The scores on the evaluation set, and the mean divergence from the teacher; nothing without such a set."""
    split = prepared.evaluation
    if split is None:
        return {}
    return {**split.scores(logits), "divergence": float(divergences(split, logits).mean())}


def _targets_of(split: PreparedSplit) -> dict[str, NDArray[Any]]:
    """Gold labels as arrays: of rows, or where labels are of another kind the targets, with what aligns outputs."""
    if not split.encoded.spec.is_structured:
        return {"labels": split.labels}
    alignment = split.encoded.alignment
    found = {"labels": np.asarray(alignment.targets), "row_of": np.asarray(split.encoded.texts.row_of)}
    if alignment.positions is not None:
        found |= {"positions": alignment.positions, "offsets": split.store.offsets}
    return found


def run_info(
    directory: RunDirectory,
    config: RunConfig,
    prepared: Prepared,
    learner: Learner,
    history: Sequence[RoundResult],
    costs: Costs,
) -> RunInfo:
    """The run as observers see it."""
    examples = {name: len(split) for name, split in prepared.data.splits.items()}
    return RunInfo(
        directory=directory.path,
        config=config,
        examples=examples,
        parameters={
            "student": sum(p.numel() for p in prepared.student.parameters()),
            "student_trained": sum(p.numel() for p in learner.raw.parameters() if p.requires_grad),
            "teacher": sum(p.numel() for p in _of_teachers(prepared)),
        },
        primary_metric=prepared.data.spec.metrics[0],
        history=tuple(history),
        costs=costs,
    )


def summarize(
    info: RunInfo,
    prepared: Prepared,
    history: Sequence[RoundResult],
    costs: Costs,
    *,
    exported_round: int,
    validation: Mapping[str, Mapping[str, float]],
    evaluation: Mapping[str, float],
    **counted: Any,
) -> dict[str, Any]:
    """What summary.json holds.

    Parameters
    ----------
    info : RunInfo
    prepared : Prepared
    history : sequence of RoundResult
    costs : Costs
    exported_round : int
        The round whose student is exported; the scores are its own.
    validation, evaluation : mapping
        The student's scores on the validation splits, and on the evaluation set.
    **counted
        What the loop has counted, and why it stopped.
    """
    config, exported = info.config, history[exported_round - 1] if history else None
    fine_tuning = costs.seconds.get(FINE_TUNING, 0.0)

    def of_teacher(split: PreparedSplit) -> dict[str, float]:
        return split.scores(split.outputs.logits, with_agreement=False)

    return {
        "task": config.task,
        "primary_metric": info.primary_metric,
        "metrics": list(prepared.data.spec.metrics),
        "rounds": [result.to_json() for result in history],
        "parameters": dict(info.parameters),
        "examples": dict(info.examples),
        **_sequences(prepared),
        **({"unanswered": prepared.data.spec.unanswered} if prepared.data.spec.label_kind == "spans" else {}),
        "labels": label_counts(prepared.data),
        "exported_round": exported_round,
        "dev": dict(exported.dev) if exported else {},
        "validation": {name: dict(scores) for name, scores in validation.items()},
        "validation_source": prepared.data.validation_source,
        "evaluation": dict(evaluation),
        "teacher": {
            "name": config.teacher,
            "finetuned_here": prepared.teacher.finetuned,
            **_other_teachers(prepared),
            "seconds": fine_tuning,
            "dev": of_teacher(prepared.dev),
            "report": prepared.report.to_json(),
            "validation": {name: of_teacher(split) for name, split in prepared.validation.items()},
            "evaluation": of_teacher(prepared.evaluation) if prepared.evaluation else {},
        },
        # a teacher is made once for all runs, so its seconds are not the student's
        "seconds": sum(costs.seconds.values()) - fine_tuning,
        "precision": prepared.precision,
        "device": str(prepared.device),
        # a student of pooled vectors needs pooling in front of its blocks, which a plain checkpoint does not do
        "checkpoint_equals_student": config.granularity == "token",
        **counted,
    }


def _of_teachers(prepared: Prepared) -> set[torch.nn.Parameter]:
    """The parameters of all teachers."""
    others = (parameter for reader in prepared.teachers.others for parameter in reader.parameters())
    return {*prepared.teacher.model.parameters(), *others}


def _other_teachers(prepared: Prepared) -> dict[str, Any]:
    """The weight of the first teacher, and names and weights of the others, where there are any."""
    teachers = prepared.teachers
    if not teachers.others:
        return {}
    others = [
        {"name": one.name, "weight": weight} for one, weight in zip(teachers.others, teachers.weights[1:], strict=True)
    ]
    return {"weight": teachers.weights[0], "others": others}


def _sequences(prepared: Prepared) -> dict[str, Any]:
    """How many sequences the student sees of each split, where these are not as many as the rows."""
    splits = {"train": prepared.train, "dev": prepared.dev, **prepared.validation}
    if prepared.evaluation:
        splits[EVALUATION] = prepared.evaluation
    counts = {name: len(split.store) for name, split in splits.items()}
    return {} if all(counts[name] == len(split.labels) for name, split in splits.items()) else {"sequences": counts}


def write_outcome(
    directory: RunDirectory, prepared: Prepared, predictions: Predictions, costs: Costs, summary: dict[str, Any]
) -> None:
    """Export the student, and write predictions, costs and, last, the summary, which says that the run is finished.

    Raises
    ------
    DiskFullError
        When the disk is full.
    """
    with disk_errors(str(directory.student)), atomic_directory(directory.student) as temporary:
        export_student(prepared.student, prepared.student_tokenizer, temporary, prepared.data.spec)
    splits = {"dev": prepared.dev, **prepared.validation}
    if prepared.evaluation:
        splits[EVALUATION] = prepared.evaluation
    directory.write_predictions(
        {
            name: {
                "student": logits,
                "teacher": splits[name].outputs.logits,
                **_targets_of(splits[name]),
                **(row_scores(splits[name], logits) if splits[name].encoded.spec.is_structured else {}),
            }
            for name, logits in predictions.items()
        }
    )
    directory.write_costs(costs)
    directory.write_summary(summary)
