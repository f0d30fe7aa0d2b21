"""The fields of result.json and cell.json that somebody reads, with their types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from sage_kit.storage.reading import ABSENT, Fields

Number = float | None
"""A number, or null for NaN or infinity."""

Count = Annotated[int, Field(ge=0, le=10**9)]


class FindingFields(Fields):
    """A finding, as `sage_kit.studies.result.Finding` writes it."""

    name: str
    question: str
    value: Number
    low: Number
    high: Number
    threshold: Number
    state: Literal["yes", "no", "undecided"]
    sentence: str
    unit: str
    seeds: Count
    table: str
    row: dict[str, Any]
    columns: Annotated[list[str], Field(min_length=3, max_length=3)]
    direction: Literal["above", "below"]
    claim: str
    examples: Count
    df: Number
    p: Number
    p_adjusted: Number
    family: Count
    detectable: Number
    identical: bool
    counts: Annotated[list[Count], Field(min_length=2, max_length=2)] | None
    margin_reason: str
    margin_effect: Number


class FigureFields(Fields):
    """A figure's file, and what it shows."""

    file: str
    caption: str


class RunFields(Fields):
    """What a result tells of a run."""

    task: str
    arm: str
    seed: int
    run: str
    key: str = ""
    settings: dict[str, Any] = ABSENT
    loop: str = ""
    plugin_files: list[str] = ABSENT
    splits: list[str] = ABSENT
    environment: dict[str, Any] = ABSENT


class ResultFields(Fields):
    """result.json."""

    study: str
    title: str
    question: str
    label: str
    profile: str
    tasks: list[str]
    seeds: Count
    parameters: dict[str, Any]
    settings: dict[str, Any]
    findings: list[FindingFields]
    defaults: dict[str, Any] = ABSENT
    tables: list[str]
    figures: list[FigureFields]
    time: str
    seconds: Number
    machine: dict[str, Any]
    packages: dict[str, str]
    data: dict[str, str]
    runs: list[RunFields]
    tries: list[RunFields] = ABSENT
    scoring: dict[str, dict[str, Any]]
    precision: str = ""
    commit: str = ""
    code: str = ""


class CellFields(Fields):
    """cell.json."""

    study: str
    key: str
    parameters: dict[str, Any] = ABSENT
    state: Literal["running", "done", "failed", "interrupted"]
    started: str | None = None
    ended: str | None = None
    seconds: Number = None
    error: str | None = None
    host: str | None = None
