"""The fields of a run's JSON files that somebody reads, with their types."""

from __future__ import annotations

from typing import Any

from sage_kit.storage.reading import ABSENT, Fields

Number = float | None
"""A number, or null for NaN."""

Scores = dict[str, Number]
"""Scores by the metric's name."""


class OwnerFields(Fields):
    """The process that holds a directory."""

    process: int
    host: str


class NameFields(Fields):
    """A mapping of names to anything."""


class CostFields(Fields):
    """costs.json: seconds, tokens and FLOPs by activity."""

    seconds: dict[str, float] = ABSENT
    tokens: dict[str, int | float] = ABSENT
    flops: dict[str, int | float] = ABSENT


class RoundFields(Fields):
    """A round's outcome, as `sage_kit.components.records.RoundResult` writes it."""

    round: int
    steps: int
    total_steps: int
    train_loss: Number
    train_agreement: Number
    synthetic_loss: Number
    synthetic: int
    dropped: int
    dev: Scores
    validation: dict[str, Scores]
    seconds: Number
    padding: Number
    outside_hull: Number = None


class _ReportFields(Fields):
    warnings: list[str] = ABSENT


class _TeacherFields(Fields):
    name: str | None = None
    finetuned_here: bool | None = None
    seconds: Number = None
    weight: Number = None
    others: list[dict[str, Any]] = ABSENT
    dev: Scores = ABSENT
    report: _ReportFields = ABSENT
    validation: dict[str, Scores] = ABSENT
    evaluation: Scores | None = None


class _LabelFields(Fields):
    kind: str | None = None
    names: list[Any] | None = None
    classes: dict[str, dict[str, int]] | None = None
    range: list[float] | None = None


class SummaryFields(Fields):
    """summary.json. No field is required here: whoever takes one that is missing gets the error of the reader."""

    task: str = ""
    primary_metric: str = ""
    metrics: list[str] = ABSENT
    rounds: list[RoundFields] = ABSENT
    parameters: dict[str, int] = ABSENT
    examples: dict[str, int] = ABSENT
    sequences: dict[str, int] = ABSENT
    labels: _LabelFields = ABSENT
    exported_round: int = 0
    dev: Scores = ABSENT
    validation: dict[str, Scores] = ABSENT
    validation_source: str | None = None
    evaluation: Scores | None = None
    teacher: _TeacherFields = ABSENT
    seconds: Number = None
    precision: str | None = None
    device: str | None = None
    checkpoint_equals_student: bool | None = None
    unanswered: bool | None = None
    stopped: str | None = None
    student_steps: int = 0
    planned_steps: int | None = None
    teacher_tokens: int = 0
    processes: int = 1
    disabled_observers: dict[str, str] | None = None


class CheckpointFields(Fields):
    """state.json of a checkpoint."""

    round: int
    content: str
    total_steps: int
    teacher_tokens: int
    history: list[RoundFields]
    costs: CostFields
    scaler: dict[str, Any] = ABSENT
    warmup_steps: int = 0
    in_warmup: bool = False
    stopped: str = ""
    settings: dict[str, Any] = ABSENT
