"""What a study found: findings whose state follows from their numbers, and the folder that holds them.

A result lies in ``<results_dir>/<study>/<label>/``::

    result.json               findings, verdict, parameters, runs, machine and versions
    <table>.parquet           the tables that the findings point into; `runs` has one row per task, arm and seed
    <figure>.png              the figures
    predictions.safetensors   what the runs put out (`sage_kit.studies.predictions`)
    run_records.parquet       their summaries and costs, so that they are found again (`sage_kit.studies.saved_runs`)

A finding names the cell of the table that it reads, so whoever doubts a sentence can recompute it:
:func:`inconsistencies` does, and `sage_kit.studies.predictions.recomputed` starts from the predictions.

``runs`` in result.json holds one mapping per run of an arm, with what it takes to execute it again::

    task, arm, seed       of the run
    run                   its folder's name below ``<runs_dir>/<task>/``, under which its predictions are saved
    key                   the fingerprint of whatever shapes it: the folder's name up to the first "+"
    settings              all settings of `RunConfig` that differ from ``defaults`` in result.json, but those that say
                          where things lie; options of its components with their defaults
    loop                  "module:function" of what made it in the place of `sage_kit.distill.run`; "" for that
    plugin_files          names of one-file plugins that it was started with
    splits                those that a table compares: "dev", names of validation splits, "evaluation"
    environment           of its environment.json, None where that does not tell: code (digest or digests of the
                          source), commit (of the clone, None outside one), precision (the one computed in), device,
                          threads, processor; where other code made the run, "renewed" tells its digest, and when this
                          one was found to make the same (`sage_kit.studies.renewal`)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.errors import StudyError, shortened
from sage_kit.storage.files import disk_errors, only_finite, write_json
from sage_kit.storage.reading import Fields, checked, read_frame, read_json
from sage_kit.studies.result_fields import ResultFields
from sage_kit.studies.verdicts import ALPHA, STATES, Direction, State, can_decide, holm, sentence, state_of

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 2  # version of result.json
RESULT = "result.json"
RUN_AGAIN = "run the study again"
PREDICTIONS = "predictions.safetensors"

ROUNDING = 1e-9  # an interval that ends at its threshold has p = 0.05 but for rounding


@dataclass(frozen=True)
class Finding:
    """One question and the number that answers it."""

    name: str  # unique within a study
    question: str  # of the kind that yes or no answers
    value: float  # the number and its 95 % interval; NaN where there is none
    low: float
    high: float
    threshold: float  # what it is held against
    state: State  # by `sage_kit.studies.verdicts`, from `p_adjusted`
    sentence: str  # the answer in words, chosen by the state, and its numbers
    unit: str  # of the value; "points" are shown as hundredths, "percent change" is that of a difference of logarithms
    seeds: int  # runs per arm that the interval rests on; 0 where no seed enters
    table: str  # the table that the numbers were read from
    row: Mapping[str, Any]  # columns and values that pick one row of it
    columns: tuple[str, str, str] = ("difference", "low", "high")  # where value, low and high stand in that row
    direction: Direction = "above"  # on which side of the threshold the answer is yes
    claim: str = ""  # identifier of the claim in the ledger that it speaks to; "" for none
    examples: int = 0  # evaluation examples that the interval rests on; 0 where it is about numbers of whole runs
    df: float = math.inf  # degrees of freedom of the interval; infinite for the normal distribution
    p: float = math.nan  # two-sided, of the threshold, from the interval; NaN without one
    # the same, corrected over the study's findings that can be decided; NaN for one that cannot
    p_adjusted: float = math.nan
    family: int = 0  # how many those are
    # smallest distance from the threshold that the design finds with 80 % chance; NaN where that is not known
    detectable: float = math.nan
    identical: bool = False  # whether all pairs were alike, so that the interval is a bound
    counts: tuple[int, int] | None = None  # of a share of runs, how many of how many
    margin_reason: str = ""  # why a margin stands as threshold; "" where none does
    margin_effect: float = math.nan  # the smallest effect under study, which the margin is below; NaN without a margin

    @property
    def is_difference(self) -> bool:
        """Whether the value is a difference, and so is shown with its sign."""
        return self.columns[0] == "difference"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN and infinity become None."""
        return dict(only_finite({**dataclasses.asdict(self), "row": dict(self.row)}))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """The inverse of `to_json`; None becomes NaN."""
        numbers = {item.name: _number(data[item.name]) for item in dataclasses.fields(cls) if item.type == "float"}
        numbers["df"] = math.inf if math.isnan(numbers["df"]) else numbers["df"]
        counts = None if data["counts"] is None else tuple(data["counts"])
        known = {item.name: data[item.name] for item in dataclasses.fields(cls)}
        return cls(**{**known, **numbers, "columns": tuple(data["columns"]), "counts": counts})


def decided(findings: Sequence[Finding], answers: Sequence[Mapping[State, str]]) -> tuple[Finding, ...]:
    """Findings with p, state and sentence, corrected over all of them that can be decided. `answers` holds the answer
    in words to each by state, without its numbers.
    """
    tested = [dataclasses.replace(finding, p=_p(finding)) for finding in findings]
    adjusted = holm([finding.p if can_decide(finding.seeds) else math.nan for finding in tested])
    family = sum(not math.isnan(p) for p in adjusted)
    found = []
    for finding, p, texts in zip(tested, adjusted, answers, strict=True):
        state = state_of(finding.value, finding.threshold, finding.direction, p)
        reach = _detectable(finding, family)
        full = dataclasses.replace(finding, p_adjusted=p, family=family, detectable=reach, state=state)
        found.append(dataclasses.replace(full, sentence=sentence(texts[state], full)))
    return tuple(found)


def _p(finding: Finding) -> float:
    from sage_kit.studies.statistics import Interval, count_p, p_value

    if finding.counts is not None:
        return count_p(*finding.counts, finding.threshold)
    return p_value(Interval(finding.value, finding.low, finding.high, finding.df), finding.threshold)


def _detectable(finding: Finding, family: int) -> float:
    from sage_kit.studies.statistics import count_detectable, detectable, standard_error

    if finding.counts is not None:
        return count_detectable(finding.counts[1], finding.threshold, comparisons=family)
    return detectable(standard_error(finding.low, finding.high, finding.df), finding.df, comparisons=family)


@dataclass(frozen=True)
class StudyResult:
    """All that one run of a study found."""

    study: str  # name of the notebook without its ending
    title: str  # its heading
    question: str  # what it asks
    label: str  # tells this result from others of the same study: profile, tasks, and what else differs
    profile: str  # "smoke", "small", "medium" or "full"
    tasks: tuple[str, ...]
    seeds: int  # runs per arm
    parameters: Mapping[str, Any]  # the notebook's, complete
    settings: Mapping[str, Any]  # settings of the runs that differ from the defaults
    findings: tuple[Finding, ...]  # the main one first
    # the defaults as they were, so that a later change of them leaves the runs as they are told
    defaults: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[str, ...] = ()  # names of the parquet files, without their ending
    figures: tuple[tuple[str, str], ...] = ()  # file name and caption
    time: str = ""  # when it was done, UTC, ISO 8601
    seconds: float = 0.0  # wall time of the notebook [s]; little when the runs were found rather than made
    machine: Mapping[str, Any] = field(default_factory=dict)  # where it ran
    packages: Mapping[str, str] = field(default_factory=dict)  # their versions
    data: Mapping[str, str] = field(default_factory=dict)  # its fingerprint by task
    # of every run what it takes to execute it again (see the module's beginning)
    runs: tuple[Mapping[str, Any], ...] = ()
    # those of the tuning likewise, which no table compares: kept so that they are found again
    tries: tuple[Mapping[str, Any], ...] = ()
    # by task how it is scored: "metrics" (the primary one first), "classes" (0 for regression), "label_range", "splits"
    # (of validation in order, and "evaluation")
    scoring: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    precision: str = ""  # "fp32", "bf16" or "fp16", whoever chose it
    commit: str = ""  # of the clone that made it, with a "+" behind it where files had been changed; "" outside one
    # digest of the source of the loop and of what a study computes with (`sage_kit.storage.source_digest`)
    code: str = ""
    folder: Path | None = None

    @property
    def verdict(self) -> tuple[State, str]:
        """State of the main finding, and all findings in words."""
        if not self.findings:
            return "undecided", "Nothing was asked."
        return self.findings[0].state, " ".join(finding.sentence for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """What result.json holds."""
        own = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "folder"}
        state, text = self.verdict
        own["findings"] = [finding.to_json() for finding in self.findings]
        own["figures"] = [{"file": file, "caption": caption} for file, caption in self.figures]
        return dict(only_finite({"format": FORMAT, **own, "verdict": {"state": state, "text": text}}))

    @classmethod
    def load(cls, folder: Path) -> StudyResult:
        """Read a result's folder."""
        path = folder / RESULT
        told = read_json(path, Fields, StudyError, RUN_AGAIN)
        if told.get("format") != FORMAT:
            raise StudyError(
                f"{path} was made before this version's way to decide (format {_shown(told.get('format'))}, and this "
                f"is {FORMAT}): make it again"
            )
        data = checked(told, ResultFields, str(path), StudyError, RUN_AGAIN)
        names = {item.name for item in dataclasses.fields(cls)} - {"folder"}
        required = names - {"defaults", "precision", "commit", "code", "tries"}  # which came later
        own = {name: data[name] for name in names if name in required or name in data}
        for name in data["tables"]:
            if Path(name).name != name:
                raise StudyError(f"{path} is not readable (table {_shown(name)} is a path): {RUN_AGAIN}")
        return cls(
            **{
                **own,
                **{name: tuple(data[name]) for name in ("runs", "tasks", "tables")},
                "tries": tuple(data.get("tries", ())),
                "seconds": _number(data["seconds"]),
                "findings": tuple(Finding.from_json(item) for item in data["findings"]),
                "figures": tuple((item["file"], item["caption"]) for item in data["figures"]),
            },
            folder=folder,
        )

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


def pick_row(table: DataFrame, row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The one row of a table whose columns have these values."""
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
    """Where a result's findings disagree with its tables, one line each; none for a result that is right."""
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
            if not _same(said, there):
                faults.append(f"{finding.name}: {name} is {said}, but {finding.table}.{column} is {there}")
    answers = [dict.fromkeys(STATES, "") for _ in result.findings]
    for said, right in zip(result.findings, decided(result.findings, answers), strict=True):
        for name in ("p", "p_adjusted", "detectable"):
            mine, true = getattr(said, name), getattr(right, name)
            if not _same(mine, true):
                faults.append(f"{said.name}: {name} is {mine}, but the numbers say {true}")
        if said.state != right.state:
            faults.append(f"{said.name}: the state is {said.state!r}, but the numbers say {right.state!r}")
    return faults


def contradiction(result: StudyResult) -> str:
    """The first finding whose state is not that of its numbers, in words; "" for a result that is right. Light."""
    p_values = [finding.p if can_decide(finding.seeds) else math.nan for finding in result.findings]
    for finding, p in zip(result.findings, holm(p_values), strict=True):
        state = state_of(finding.value, finding.threshold, finding.direction, p)
        if state != finding.state:
            return f"finding {finding.name!r} says {finding.state!r} where its numbers say {state!r}: run it again"
        is_outside = finding.low > finding.threshold or finding.high < finding.threshold
        if abs(finding.p - ALPHA) > ROUNDING and is_outside != (finding.p < ALPHA):
            return f"finding {finding.name!r}: p = {finding.p:.3g} and its interval contradict each other: run it again"
    return ""


def read_tables(result: StudyResult) -> dict[str, DataFrame]:
    """The tables beside a result that was loaded from a folder."""
    assert result.folder is not None, "the result was not loaded from a folder"
    return {name: read_frame(result.folder / f"{name}.parquet", StudyError, RUN_AGAIN) for name in result.tables}


def label_of(profile: str, tasks: Sequence[str], difference: str = "", precision: str = "") -> str:
    """The name of a result's folder: ``small-cola+sst2-bf16``, with a mark where other parameters differ too. Machines
    choose their precision, and results of two precisions do not share a folder.
    """
    return "-".join(part for part in (profile, "+".join(tasks), precision, difference) if part)


def _shown(value: Any) -> str:
    return shortened(repr(value), 40)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))
