"""The ledger: what the paper says, which study tests it, and what came out.

The state of a claim is that of the findings of one study, which follow from their numbers alone; no result is chosen by
what it says. A claim of the paper is reproduced, or not, in the paper's setting only (`PAPER`); elsewhere it "differs
in setting", and what differs is named. All findings that the ledger takes are corrected together (Holm 1979), each set
of runs once. Results of profile "smoke" show that a notebook works and never count.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sage_kit.config import RunConfig
from sage_kit.errors import StudyError
from sage_kit.storage.files import TEMPORARY_PREFIX, only_finite
from sage_kit.storage.reading import read_frame
from sage_kit.studies.claims import CLAIMS, PAPER, PAPER_TASKS, PAPER_TEACHERS, Claim
from sage_kit.studies.result import RESULT, RUN_AGAIN, Finding, StudyResult, contradiction, find_folders, label_of
from sage_kit.studies.verdicts import ALPHA, State, can_decide, holm, numbers_text

ClaimState = Literal[
    "reproduced",
    "not reproduced",
    "answered yes",
    "answered no",
    "undecided",
    "differs by task",
    "differs in setting",
    "not run",
]

STATE_MEANINGS: Mapping[ClaimState, str] = {
    "reproduced": "in the paper's setting, the findings are on the claim's side, corrected over the ledger",
    "not reproduced": "in the paper's setting, a finding is on the other side, corrected over the ledger",
    "answered yes": "an open question; the finding is yes, corrected over the ledger",
    "answered no": "an open question; the finding is no, corrected over the ledger",
    "undecided": "these runs cannot tell: too few seeds, or no significant difference after the correction",
    "differs by task": "yes on some tasks and no on others, which are named",
    "differs in setting": "measured with another teacher, on other or fewer data, or with other components than the "
    "paper's, which are named: it neither holds nor fails, whatever the finding says",
    "not run": "no result of profile small, medium or full",
}
"""Every state a claim can be in, and when."""

RULE = (
    "A claim takes a result in the paper's setting before others; then one of profile full before one of medium, and "
    "that before one of small; then one whose parameters are the profile's own, then the one over most tasks, then of "
    "most seeds, then the newest. "
    "Smoke results never count, and a set of runs counts once, however many results show it. Findings are decided "
    "after Holm's correction over all that the ledger takes."
)
"""Which result a claim takes where several have its finding; it looks at no number of the result's."""

ROWS = ("train_rows", "validation_rows", "teacher_rows", "transfer_rows")
"""Settings that leave rows out unless they are 0."""

COUNTED_PROFILES = ("full", "medium", "small")


@dataclass(frozen=True)
class Fault:
    """A folder or a file that should hold a result, or a cell, and what is wrong with it."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def read_results(*folders: str | Path) -> tuple[list[StudyResult], list[Fault]]:
    """Every whole result below some folders, by study and label, and the folders that hold none.

    A result whose states are not those of its own numbers is a fault too. Of two with the same study and label, which
    lie in different folders, the later counts.
    """
    found: dict[tuple[str, str], StudyResult] = {}
    faults = []
    for root in map(Path, folders):
        if not root.is_dir():
            raise StudyError(f"there is no folder of results {str(root)!r}: run a study first, or name another folder")
        for folder in find_folders(root):
            read = _read(folder)
            if isinstance(read, str):
                faults.append(Fault(folder, read))
                continue
            other = found.get((read.study, read.label))
            if other is None or read.time > other.time:
                found[read.study, read.label] = read
    return sorted(found.values(), key=lambda result: (result.study, result.label)), faults


def _read(folder: Path) -> StudyResult | str:
    """The result of a folder, or what is wrong with it."""
    if folder.name.startswith(TEMPORARY_PREFIX):
        return "half-written: it is being written now, or its study was interrupted"
    if not (folder / RESULT).is_file():
        return f"half-written: it has no {RESULT}, which comes last; run the study again"
    try:
        result = StudyResult.load(folder)
        result_runs(result)  # which may lie in a table
    except StudyError as error:
        return str(error).replace(str(folder / RESULT), RESULT)  # the error names the file, and so does the fault
    return contradiction(result) or result


@dataclass(frozen=True)
class Evidence:
    """What one result says of a claim."""

    result: StudyResult
    # the claim's own first, by task where the study asks by task; then those that it needs as well
    findings: tuple[Finding, ...]
    # state of the claim by this result, corrected over the ledger where it is the one that the claim takes
    state: ClaimState
    # what keeps it from being held against the paper: in what the setting differs, a threshold that is not the claim's
    deviations: tuple[str, ...]
    same_runs: tuple[str, ...] = ()  # labels of other results that rest on no runs but these

    @property
    def finding(self) -> Finding:
        """The claim's own finding, or the first of them."""
        return self.findings[0]

    @property
    def numbers(self) -> str:
        """The numbers of all findings in words."""
        return "; ".join(map(numbers_text, self.findings))

    @property
    def setting(self) -> str:
        """Profile and tasks in words."""
        return f"{self.result.profile}: {', '.join(self.result.tasks)}"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN and infinity become None."""
        result, finding = self.result, self.finding
        names = ("value", "low", "high", "threshold", "direction", "unit", "seeds", "sentence")
        findings = [{name: getattr(one, name) for name in ("name", "state", "sentence", "p")} for one in self.findings]
        data = {
            "state": self.state,
            "study": result.study,
            "label": result.label,
            "folder": "" if result.folder is None else result.folder.as_posix(),
            "profile": result.profile,
            "tasks": list(result.tasks),
            "finding": finding.name,
            "finding_state": finding.state,
            **{name: getattr(finding, name) for name in names},
            "findings": findings,
            "deviations": list(self.deviations),
            "same_runs": list(self.same_runs),
            "time": result.time,
            "machine": dict(result.machine),
        }
        return dict(only_finite(data))


@dataclass(frozen=True)
class Entry:
    """One row of the ledger."""

    claim: Claim
    # from every result that counts and has the finding, each set of runs once; first the one that the claim takes
    evidence: tuple[Evidence, ...]
    # why the claim was not run, what each task says, with which claim it shares its runs and numbers, or how many other
    # results say something else; "" for none
    remark: str = ""

    @property
    def chosen(self) -> Evidence | None:
        """The result that the claim takes."""
        return self.evidence[0] if self.evidence else None

    @property
    def state(self) -> ClaimState:
        """State of the claim."""
        return self.evidence[0].state if self.evidence else "not run"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN and infinity become None."""
        told = [evidence.to_json() for evidence in self.evidence]
        state: dict[str, Any] = {"state": self.state, "remark": self.remark, "result": next(iter(told), None)}
        state["other_results"] = told[1:]
        return dict(only_finite({**dataclasses.asdict(self.claim), **state}))


def ledger_of(results: Iterable[StudyResult], claims: Sequence[Claim] = CLAIMS) -> list[Entry]:
    """The ledger from results, one entry per claim in the claims' order."""
    known = list(results)
    return _corrected([_entry(claim, [result for result in known if result.study == claim.study]) for claim in claims])


def _entry(claim: Claim, results: Sequence[StudyResult]) -> Entry:
    """The entry by the states that each result gives its own findings."""
    counted = [result for result in results if result.profile in COUNTED_PROFILES]
    found = [_evidence(claim, result) for result in counted]
    # newest first, then the sorts that matter more; Python's sort keeps the order among equals
    own = sorted((item for item in found if item is not None), key=lambda item: item.result.time, reverse=True)
    evidence = _each_set_of_runs_once(sorted(own, key=_rank))
    if evidence:
        return Entry(claim, evidence)
    if counted:
        has_task = not claim.task or any(claim.task in result.tasks for result in counted)
        return Entry(claim, (), f"no result with {f'finding {claim.finding}' if has_task else f'task {claim.task}'}")
    return Entry(claim, (), "smoke results only" if results else "no result yet")


def _evidence(claim: Claim, result: StudyResult) -> Evidence | None:
    own = findings_of(result, claim.finding)
    if not own:
        return None
    others = [finding for name in claim.also for finding in findings_of(result, name)]
    deviations = () if claim.is_question else setting_deviations(result, claim)
    if math.isfinite(claim.threshold):
        held = dict.fromkeys(item.threshold for item in own if not math.isclose(item.threshold, claim.threshold))
        deviations += tuple(f"held against {number:g} instead of {claim.threshold:g}" for number in held)
    findings = (*own, *others)
    states = {finding.name: finding.state for finding in findings}
    return Evidence(result, findings, _claim_state(claim, findings, states, deviations), deviations)


def findings_of(result: StudyResult, name: str) -> list[Finding]:
    """The finding of that name, or those by task: ``<name>_<task>``."""
    names = (name, *(f"{name}_{task}" for task in result.tasks))
    return [finding for finding in result.findings if finding.name in names]


def _rank(evidence: Evidence) -> tuple[bool, int, bool, int, int]:
    """The lower, the sooner a claim takes the result: `RULE` up to the newest."""
    return bool(evidence.deviations), *rank_of(evidence.result)


def rank_of(result: StudyResult) -> tuple[int, bool, int, int]:
    """The lower, the sooner a result stands for its study; smoke runs come last."""
    varied = result.label != label_of(result.profile, result.tasks, precision=result.precision)
    profile = (*COUNTED_PROFILES, result.profile).index(result.profile)
    return profile, varied, -len(result.tasks), -result.seeds


def _each_set_of_runs_once(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Without those that rest on no runs but those of one before, at which they are told instead."""
    kept: list[Evidence] = []
    for item in evidence:
        runs = run_keys(item)
        first = next((at for at, other in enumerate(kept) if runs and runs <= run_keys(other)), None)
        if first is None:
            kept.append(item)
        else:
            same = (*kept[first].same_runs, item.result.label)
            kept[first] = dataclasses.replace(kept[first], same_runs=same)
    return tuple(kept)


def run_keys(evidence: Evidence, finding: Finding | None = None) -> frozenset[str]:
    """Keys of the runs that evidence, or one finding of it, rests on: those of the finding's arm where it names one.
    Without the marks of what was kept of a run; empty for a result without runs.
    """
    runs = result_runs(evidence.result)
    if finding is not None:
        arm, task = finding.row.get("arm"), finding.row.get("task")
        of_arm = [run for run in runs if run["arm"] == arm] or runs
        runs = [run for run in of_arm if run["task"] == task] or of_arm
    return frozenset(str(run["run"]).partition("+")[0] for run in runs)


def result_runs(result: StudyResult) -> list[Mapping[str, Any]]:
    """The runs of a result with task, arm and run: from result.json, else from its table `runs`."""
    if result.runs or result.folder is None or "runs" not in result.tables:
        return list(result.runs)
    table = read_frame(result.folder / "runs.parquet", StudyError, RUN_AGAIN, columns=["task", "arm", "run"])
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _claim_state(
    claim: Claim, findings: Sequence[Finding], states: Mapping[str, State], deviations: Sequence[str]
) -> ClaimState:
    """The state of a claim by the states of its findings, by their names."""
    if deviations:
        return "differs in setting"
    groups = [[states[item.name] for item in findings if _is_of(item, name)] for name in (claim.finding, *claim.also)]
    if any({"yes", "no"} <= set(group) for group in groups):
        return "differs by task"
    if any("no" in group for group in groups):
        return "answered no" if claim.is_question else "not reproduced"
    if all(group and set(group) == {"yes"} for group in groups):
        return "answered yes" if claim.is_question else "reproduced"
    return "undecided"


def _is_of(finding: Finding, name: str) -> bool:
    return finding.name == name or (
        finding.name.startswith(f"{name}_") and finding.name == f"{name}_{finding.row.get('task')}"
    )


def _corrected(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with the states that findings have after Holm's correction over all that the ledger takes."""
    taken: dict[Any, tuple[str, Finding]] = {}
    places: dict[tuple[str, str], Any] = {}
    shared: dict[str, str] = {}
    for entry in entries:
        for finding in entry.chosen.findings if entry.chosen else ():
            assert entry.chosen is not None
            keys = run_keys(entry.chosen, finding)
            numbers = (finding.value, finding.low, finding.high, finding.threshold, finding.direction)
            # the same runs with the same numbers are the same finding, whatever study shows it
            place = (keys, numbers) if keys else (entry.claim.id, finding.name)
            first = taken.setdefault(place, (entry.claim.id, finding))[0]
            if first != entry.claim.id:
                shared[entry.claim.id] = first
            places[entry.claim.id, finding.name] = place
    p_values = [finding.p if can_decide(finding.seeds) else math.nan for _, finding in taken.values()]
    adjusted = dict(zip(taken, holm(p_values), strict=True))
    corrected = []
    for entry in entries:
        states: dict[str, State] = {}
        for finding in entry.chosen.findings if entry.chosen else ():
            p = adjusted[places[entry.claim.id, finding.name]]
            states[finding.name] = finding.state if p < ALPHA else "undecided"
        corrected.append(_with_states(entry, states, shared.get(entry.claim.id, "")))
    return corrected


def _with_states(entry: Entry, states: Mapping[str, State], shares_with: str) -> Entry:
    chosen = entry.chosen
    if chosen is None:
        return entry
    state = _claim_state(entry.claim, chosen.findings, states, chosen.deviations)
    evidence = (dataclasses.replace(chosen, state=state), *entry.evidence[1:])
    remarks = []
    missing = [name for name in entry.claim.also if not any(_is_of(finding, name) for finding in chosen.findings)]
    remarks += [f"no finding {name}" for name in missing]
    if len(chosen.findings) > 1:
        remarks.append("; ".join(f"{finding.name}: {states[finding.name]}" for finding in chosen.findings))
    elif chosen.deviations:
        remarks.append(f"the finding: {states[chosen.finding.name]}")
    if shares_with:
        remarks.append(f"the same runs and numbers as claim {shares_with}")
    if chosen.same_runs:
        remarks.append(f"the same runs in {', '.join(chosen.same_runs)}")
    differing = sum(item.state != state for item in evidence[1:])
    if differing:
        remarks.append(f"{differing} of {len(evidence) - 1} other results: another state")
    return Entry(entry.claim, evidence, "; ".join(remarks))


def setting_deviations(result: StudyResult, claim: Claim) -> tuple[str, ...]:
    """In what a result's setting differs from the paper's as far as a claim goes, one text each. The setting is that of
    the arm that stands for the paper's method, as it was run.
    """
    found: dict[str, None] = {}
    usual = RunConfig().model_dump(mode="json")
    for settings in ({**usual, **own} for own in _settings(result, claim)):
        warmed = bool(settings["warmup_epochs"])
        for name in claim.depends:
            if name.startswith("warmup_") and not warmed:
                found["no warm-up"] = None
                continue
            text = _deviation(name, settings.get(name), PAPER[name])
            if text:
                found[text] = None
        found |= {f"{name} {settings[name]}": None for name in ROWS if settings.get(name)}
        if settings["dev_fraction"] > usual["dev_fraction"]:  # some rows are always carved off
            found[f"dev_fraction {settings['dev_fraction']}"] = None
    strangers = [task for task in result.tasks if task not in PAPER_TASKS]
    if strangers and not claim.task:
        found[f"task {', '.join(strangers)}, which the paper does not report"] = None
    missing = [task for task in PAPER_TASKS if task not in result.tasks]
    if claim.average and missing:
        found[f"an average without {', '.join(missing)}"] = None
    return tuple(found)


def _settings(result: StudyResult, claim: Claim) -> list[dict[str, Any]]:
    """The settings of each run of the arm that a claim is about, or those of the result that differ from defaults."""
    rows = [finding.row for finding in findings_of(result, claim.finding)]
    arms = {claim.arm} if claim.arm else {row.get("arm") for row in rows}
    own = [{**result.defaults, **run["settings"]} for run in result.runs if run["arm"] in arms and "settings" in run]
    if not own:
        fields = RunConfig.model_fields
        given = {name: value for name, value in result.parameters.items() if name in fields and value is not None}
        own = [{**given, **result.settings}]
    # a pair of reducer and inverter is scored without a run of its own
    pairs = [str(row["pair"]).partition(" + ") for row in rows if "pair" in row]
    own += [{**own[0], "reducer": reducer, "inverter": inverter} for reducer, _, inverter in pairs]
    return own[-len(pairs) :] if pairs else own


def _deviation(name: str, value: Any, papers: Any) -> str:
    """In words, how a setting differs from the paper's; "" where it does not."""
    if name == "teacher":
        return "" if value in PAPER_TEACHERS else f"teacher {value}"
    if isinstance(papers, Mapping):
        there = value if isinstance(value, Mapping) else {}
        options = [f"{key} {there.get(key, 'by default')} instead of {wanted}" for key, wanted in papers.items()
                   if there.get(key) != wanted]  # fmt: skip
        return f"{name}: {', '.join(options)}" if options else ""
    return "" if value == papers else f"{name} {value if value != '' else 'none'} instead of {papers}"
