"""What a study found: findings whose state follows from their numbers, and the folder that holds them. Light.

A result lies in ``<results_dir>/<study>/<label>/``::

    result.json        findings, verdict, parameters, machine and versions
    <table>.parquet    the tables that the findings point into; `runs` has one row per task, arm and seed
    <figure>.png       the figures

A finding names the cell of the table that it reads, so whoever doubts a sentence can recompute it:
:func:`inconsistencies` does.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sage_kit.errors import StudyError
from sage_kit.files import disk_errors, only_finite, write_json

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 1
"""Version of result.json."""

RESULT = "result.json"

State = Literal["yes", "no", "undecided"]
STATES: tuple[State, ...] = ("yes", "no", "undecided")
Direction = Literal["above", "below"]


def state_of(low: float, high: float, threshold: float, direction: Direction = "above") -> State:
    """Whether an interval lies wholly on the side of a threshold that was asked for ("yes"), wholly off it, or neither.

    An interval with a bound that is not a number decides nothing.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    if low > threshold:
        return "yes" if direction == "above" else "no"
    if high < threshold:
        return "no" if direction == "above" else "yes"
    return "undecided"


@dataclass(frozen=True)
class Finding:
    """One question and the number that answers it.

    Attributes
    ----------
    name : str
        Unique within a study.
    question : str
        Of the kind that yes or no answers.
    value, low, high : float
        The number and its 95 % interval; NaN where there is none.
    threshold : float
        What it is held against.
    direction : "above" or "below"
        On which side of the threshold the answer is yes.
    state : "yes", "no" or "undecided"
        `state_of` these numbers.
    sentence : str
        The answer in words, chosen by the state.
    unit : str
        Of the value.
    seeds : int
        Runs per arm that the interval rests on.
    claim : str
        Identifier of the claim in the ledger that it speaks to; "" for none.
    table : str
        The table that the numbers were read from.
    row : mapping of str to str, int or float
        Columns and values that pick one row of it.
    columns : tuple of str
        Where value, low and high stand in that row.
    """

    name: str
    question: str
    value: float
    low: float
    high: float
    threshold: float
    state: State
    sentence: str
    unit: str
    seeds: int
    table: str
    row: Mapping[str, Any]
    columns: tuple[str, str, str] = ("difference", "low", "high")
    direction: Direction = "above"
    claim: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN and infinity become None."""
        data: dict[str, Any] = only_finite({**dataclasses.asdict(self), "row": dict(self.row)})
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """The inverse of `to_json`; None becomes NaN."""
        numbers = {name: _number(data[name]) for name in ("value", "low", "high", "threshold")}
        return cls(**{**data, **numbers, "columns": tuple(data["columns"])})


@dataclass(frozen=True)
class StudyResult:
    """All that one run of a study found.

    Attributes
    ----------
    study, title, question : str
        Name of the notebook without its ending, its heading, and what it asks.
    label : str
        Tells this result from others of the same study: profile, tasks, and what else differs.
    profile : str
        "smoke", "small" or "full".
    tasks : tuple of str
    seeds : int
        Runs per arm.
    parameters : mapping
        The notebook's, complete.
    settings : mapping
        Settings of the runs that differ from the defaults.
    findings : tuple of Finding
        The main one first.
    tables : tuple of str
        Names of the parquet files, without their ending.
    figures : tuple of (str, str)
        File name and caption.
    time : str
        When it was done, UTC, ISO 8601.
    seconds : float
        Wall time of the notebook [s]; little when the runs were found rather than made.
    machine, packages, data : mapping
        Where it ran, versions by package, and the data's fingerprint by task.
    """

    study: str
    title: str
    question: str
    label: str
    profile: str
    tasks: tuple[str, ...]
    seeds: int
    parameters: Mapping[str, Any]
    settings: Mapping[str, Any]
    findings: tuple[Finding, ...]
    tables: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    time: str = ""
    seconds: float = 0.0
    machine: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def verdict(self) -> tuple[State, str]:
        """State of the main finding, and all findings in words."""
        if not self.findings:
            return "undecided", "Nothing was asked."
        return self.findings[0].state, " ".join(finding.sentence for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """What result.json holds."""
        state, text = self.verdict
        data: dict[str, Any] = only_finite(
            {
                "format": FORMAT,
                "study": self.study,
                "title": self.title,
                "question": self.question,
                "label": self.label,
                "profile": self.profile,
                "tasks": list(self.tasks),
                "seeds": self.seeds,
                "parameters": dict(self.parameters),
                "settings": dict(self.settings),
                "time": self.time,
                "seconds": self.seconds,
                "machine": dict(self.machine),
                "packages": dict(self.packages),
                "data": dict(self.data),
                "findings": [finding.to_json() for finding in self.findings],
                "verdict": {"state": state, "text": text},
                "tables": list(self.tables),
                "figures": [{"file": file, "caption": caption} for file, caption in self.figures],
            }
        )
        return data

    @classmethod
    def load(cls, folder: Path) -> StudyResult:
        """Read a result's folder.

        Raises
        ------
        StudyError
            When its result.json is missing, not readable, or of another format.
        """
        path = folder / RESULT
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise StudyError(f"{path} has format {data['format']}, and this version reads {FORMAT}: run it again")
            return cls(
                **{name: data[name] for name in ("study", "title", "question", "label", "profile", "seeds")},
                **{name: data[name] for name in ("parameters", "settings", "time", "machine", "packages", "data")},
                tasks=tuple(data["tasks"]),
                seconds=_number(data["seconds"]),
                findings=tuple(Finding.from_json(item) for item in data["findings"]),
                tables=tuple(data["tables"]),
                figures=tuple((item["file"], item["caption"]) for item in data["figures"]),
                folder=folder,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = " ".join(str(error).split())
            raise StudyError(f"{path} is not readable ({type(error).__name__}: {text}): run the study again") from None

    def save(self, folder: Path) -> Path:
        """Write result.json, which comes last: a folder without it is not whole."""
        path = folder / RESULT
        with disk_errors(str(path)):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, self.to_json())
        return path


def find_folders(results_dir: Path) -> list[Path]:
    """The folders below `results_dir` that hold, or should hold, a result, by study and label."""
    return sorted(path for path in results_dir.glob("*/*") if path.is_dir())


def find_results(results_dir: Path) -> list[StudyResult]:
    """All whole results, by study and label.

    Raises
    ------
    StudyError
        For a result that is not readable.
    """
    return [StudyResult.load(folder) for folder in find_folders(results_dir) if (folder / RESULT).is_file()]


def pick_row(table: DataFrame, row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The one row of a table whose columns have these values.

    Raises
    ------
    StudyError
        When there is none, or more than one.
    """
    missing = [name for name in row if name not in table.columns]
    if missing:
        raise StudyError(f"table {where!r} has no column {missing[0]!r}: it has {', '.join(map(str, table.columns))}")
    found = table
    for name, value in row.items():
        found = found[found[name] == value]
    if len(found) != 1:
        wanted = ", ".join(f"{name}={value!r}" for name, value in row.items())
        raise StudyError(f"table {where!r} has {len(found)} rows with {wanted or 'no condition'}; a finding needs one")
    return {str(name): value for name, value in found.iloc[0].to_dict().items()}


def inconsistencies(result: StudyResult, tables: Mapping[str, DataFrame]) -> list[str]:
    """Where a result's findings disagree with its tables, one line each; none for a result that is right.

    Parameters
    ----------
    result : StudyResult
    tables : mapping of str to DataFrame
        As read from its parquet files.
    """
    faults = []
    for finding in result.findings:
        if finding.table not in tables:
            faults.append(f"{finding.name}: there is no table {finding.table!r}")
            continue
        try:
            row = pick_row(tables[finding.table], finding.row, finding.table)
        except StudyError as error:
            faults.append(f"{finding.name}: {error}")
            continue
        for name, column in zip(("value", "low", "high"), finding.columns, strict=True):
            said, there = getattr(finding, name), _number(row[column])
            if not (math.isclose(said, there, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(said) and math.isnan(there))):
                faults.append(f"{finding.name}: {name} is {said}, but {finding.table}.{column} is {there}")
        state = state_of(finding.low, finding.high, finding.threshold, finding.direction)
        if state != finding.state:
            faults.append(f"{finding.name}: the state is {finding.state!r}, but the numbers say {state!r}")
    return faults


def read_tables(result: StudyResult) -> dict[str, DataFrame]:
    """The tables beside a result that was loaded from a folder.

    Raises
    ------
    StudyError
        When one is missing or not readable.
    """
    import pandas

    assert result.folder is not None, "the result was not loaded from a folder"
    tables = {}
    for name in result.tables:
        path = result.folder / f"{name}.parquet"
        try:
            tables[name] = pandas.read_parquet(path)
        except (OSError, ValueError) as error:
            text = " ".join(str(error).split())
            raise StudyError(f"{path} is not readable ({text}): run the study again") from None
    return tables


def label_of(profile: str, tasks: Sequence[str], difference: str = "") -> str:
    """The name of a result's folder: ``small-cola+sst2``, with a mark where other parameters differ too."""
    return "-".join(part for part in (profile, "+".join(tasks), difference) if part)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
