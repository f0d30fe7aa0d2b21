"""The ledger: what the paper says, which study tests it, and what came out. Light.

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
from typing import TYPE_CHECKING, Any, Literal

from sage_kit.config import PRESETS, RunConfig
from sage_kit.errors import StudyError, did_you_mean
from sage_kit.files import TEMPORARY_PREFIX, only_finite
from sage_kit.studies import verdicts
from sage_kit.studies.result import RESULT, Finding, StudyResult, contradiction, find_folders, label_of
from sage_kit.studies.sizes import GLUE
from sage_kit.studies.verdicts import ALPHA, State, can_decide, holm, numbers_text

if TYPE_CHECKING:
    from rich.table import Table

Kind = Literal["score", "comparison", "question"]
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

PAPER_TEACHERS = ("bert-base-uncased", "google-bert/bert-base-uncased")
PAPER_TASKS = tuple(task for task in GLUE if task != "wnli")
"""GLUE as it is usually averaged; which tasks the paper's average holds is not stated."""

PAPER: Mapping[str, Any] = PRESETS["paper"]
"""The paper's setting, as close as its text allows."""

MODELS = ("teacher", "cut", "granularity", "student_layers", "warmup_corpus", "warmup_epochs", "warmup_rows")
SYNTHESIS = ("schedule", "mix", "synthetic_ratio", "losses_from", "reducer", "n_components", "refit", "sampler",
             "sampler_options", "inverter", "lift", "filter")  # fmt: skip
LENGTH = ("rounds", "stop_rule", "stop_agreement", "stop_on")
"""Settings of `PAPER` that a claim may depend on: models, synthesis, and when a run ends. Studies compare arms at equal
steps by design, so `LENGTH` counts for a claim about the length alone."""

ROWS = ("train_rows", "validation_rows", "teacher_rows", "transfer_rows")
"""Settings that leave rows out unless they are 0."""

COUNTED_PROFILES = ("full", "medium", "small")

MARGIN = 0.0025
"""What a way that "keeps" or "suffices" may lose of a score: half of the 0.5 points that the paper's ablation credits
its synthesis with (78.6 against 78.1), so that whoever loses less keeps at least half of what the method is said to
bring."""

TITLE = "Synthetic Adaptive Guided Embeddings (SAGE), arXiv 2508.14783"


@dataclass(frozen=True)
class Claim:
    """Something the paper says, or asks, and the finding that tests it.

    Attributes
    ----------
    id : str
        What a finding names in its `claim`.
    statement : str
        The claim, or the question, in one sentence that yes answers.
    paper_value : str
        The paper's number as text; "" where it gives none.
    source : str
        Section, table or part of the paper.
    study, finding : str
        Name of the notebook without its ending, and of its finding.
    kind : "score", "comparison" or "question"
        An absolute number, or a difference or a property: either is held against the paper's in its own setting only;
        or a question that the paper leaves open, which is answered wherever it is asked.
    note : str
        How the claim was read where the paper leaves room.
    task : str
        For a claim about one task, its name; "" else.
    threshold : float
        What the finding must be held against, in the finding's unit; NaN where the study chooses it.
    also : tuple of str
        Further findings of the study, all of which must be yes as well.
    depends : tuple of str
        Settings of `PAPER` that an arm must have, to be the paper's as far as this claim goes.
    arm : str
        The arm that stands for the paper's method; "" for the one that the finding's row names.
    average : bool
        Whether the paper's number is an average over GLUE, so that it takes all of `PAPER_TASKS`.
    """

    id: str
    statement: str
    paper_value: str
    source: str
    study: str
    finding: str
    kind: Kind
    note: str = ""
    task: str = ""
    threshold: float = math.nan
    also: tuple[str, ...] = ()
    depends: tuple[str, ...] = (*MODELS, *SYNTHESIS)
    arm: str = ""
    average: bool = False

    @property
    def is_question(self) -> bool:
        """Whether the paper leaves it open."""
        return self.kind == "question"


def _score(task: str, name: str, value: float, metric: str, error: float) -> Claim:
    """A score on one task: reproduced when ours is not below the paper's by more than its own sampling error."""
    return Claim(
        id=f"score_{task}",
        statement=f"The student reaches {100 * value:.1f} on {name}.",
        paper_value=f"{100 * value:.1f} ({value:.3f} {metric})",
        source="main results on GLUE",
        study="09_glue",
        finding=f"score_{task}",
        kind="score",
        task=task,
        threshold=round(value - error, 4),
        note=f"Split and seeds are not stated; read as at least the published score less {100 * error:.1f} points, one "
        "standard error of a single development set of that size.",
    )


# sqrt(p (1 - p) / n) for accuracy p on the official validation set of n examples: QNLI 5,463, SST-2 872, RTE 277;
# for CoLA (1,043 examples) the standard error of Matthews' correlation under resampling of examples
CLAIMS: tuple[Claim, ...] = (
    _score("qnli", "QNLI", 0.912, "accuracy", 0.0038),
    _score("sst2", "SST-2", 0.923, "accuracy", 0.009),
    _score("cola", "CoLA", 0.415, "Matthews' correlation", 0.026),
    _score("rte", "RTE", 0.685, "accuracy", 0.028),
    Claim(
        "ablation",
        "Synthesis through a 2-D UMAP beats training without it.",
        "78.6 against 78.1, average over GLUE",
        "Table 3",
        "01_reducer_dimension",
        "umap2_over_none",
        "comparison",
        "The paper's difference, 0.5 points, is about one standard error of such an average; ours is paired by seed "
        "and example, at equal steps.",
        average=True,
    ),
    Claim(
        "dimension",
        "A 2-D UMAP does better than an 8-D one.",
        "78.6 for 2-D",
        "Table 3",
        "01_reducer_dimension",
        "umap2_over_umap8",
        "comparison",
        "The summary at hand names the arm and not its score.",
        average=True,
    ),
    Claim(
        "inversion_cosine",
        "Vectors inverted from the 2-D UMAP have a cosine of 0.34 to their originals.",
        "0.34",
        "Section 3.3",
        "05_reducers",
        "umap_inversion_cosine",
        "score",
        "Read as at least that faithful, on held-out vectors, less the rounding of two digits.",
        threshold=0.335,
        depends=("teacher", "cut", "granularity", "n_components", "reducer", "inverter"),
    ),
    Claim(
        "inversion_mse",
        "Vectors inverted from the 2-D UMAP have a mean squared error of 0.34.",
        "0.34",
        "Section 3.3",
        "05_reducers",
        "umap_inversion_mse",
        "score",
        "Read as at most that error, on held-out vectors, plus the rounding of two digits; it depends on the vectors' "
        "scale.",
        threshold=0.345,
        depends=("teacher", "cut", "granularity", "n_components", "reducer", "inverter"),
    ),
    Claim(
        "ten_epochs",
        "The student agrees with the teacher on 99 % of the data after fewer than ten epochs.",
        "fewer than 10 epochs at 99 %",
        "Section 3.4",
        "04_static_or_adaptive",
        "rounds_to_agreement",
        "comparison",
        "An epoch is a round. The paper calls it typical, so more than half of the runs on a task must get there in "
        "time; of a run that does not, nobody knows how many rounds it needs.",
        threshold=0.5,
        depends=(*MODELS, *SYNTHESIS, *LENGTH),
    ),
    Claim(
        "bypass_cheaper",
        "Bypassing the teacher's input layer makes distillation cheaper.",
        "",
        "abstract; Section 3.1",
        "02_input_layer",
        "bypass_cheaper",
        "comparison",
        "The paper says so without measuring it.",
        depends=MODELS,
    ),
    Claim(
        "bypass_preserves",
        "Bypassing the teacher's input layer keeps what the student learns.",
        "",
        "abstract; Section 3.1",
        "02_input_layer",
        "bypass_preserves",
        "comparison",
        "The paper says so without measuring it; held against a margin that the study states.",
        depends=MODELS,
    ),
    Claim(
        "regions_move",
        "The regions of high loss move from epoch to epoch, so a curriculum has something to follow.",
        "",
        "Section 3.4",
        "03_loss_profile",
        "hard_sets_move",
        "comparison",
        "Assumed by the paper; held against how much such regions differ between seeds of the reducer alone. Whether "
        "they move more than from student to student is a further finding of the study.",
        arm="adaptive",
    ),
    Claim(
        "adaptive",
        "New synthetic data every epoch beats synthetic data made once.",
        "",
        "Section 3.4; Table 3",
        "04_static_or_adaptive",
        "adaptive_over_static",
        "comparison",
    ),
    Claim(
        "region",
        "It is the region of high loss that helps, not only more data.",
        "",
        "abstract; Section 3.3",
        "10_is_it_the_region",
        "high_over_random",
        "comparison",
        "Against the same synthesis around examples drawn at random.",
    ),
    Claim(
        "replacing",
        "Replacing the data each epoch suffices: no more examples are needed than without synthesis.",
        "fewer epochs than baselines",
        "abstract; Section 3.4",
        "11_replace_or_add",
        "replacing_suffices",
        "comparison",
        "Against adding the synthetic examples to the real ones, in score and in agreement with the teacher, by no "
        "more than a margin that the study states; and in fewer rounds than plain distillation needs.",
        also=("replacing_keeps_agreement", "replacing_needs_fewer_rounds"),
    ),
    Claim(
        "language",
        "Do synthetic vectors correspond to language?",
        "",
        "Section 7, limitations: approximate inversion",
        "06_decode_tokens",
        "synthetic_nearer_real",
        "question",
        "Whether a decoder reads them as it reads real text rather than as noise of the same norm, with lift shift, "
        "which moves token states as far as the vector. Lift replace puts real tokens in, so its yes is no surprise.",
    ),
    Claim(
        "coherence",
        "Does dropping incoherent synthetic examples help?",
        "",
        "Section 7, limitations: approximate inversion",
        "07_coherence_filter",
        "coherent_over_incoherent",
        "question",
    ),
    Claim(
        "other_reducers",
        "Do other reducers keep more of the meaning than UMAP?",
        "",
        "Section 7, limitations: lossy dimensionality reduction",
        "05_reducers",
        "other_over_umap",
        "question",
    ),
    Claim(
        "beyond_glue",
        "Does the method help beyond GLUE: multi-hop reasoning, other languages?",
        "",
        "Section 7, limitations: generalisation beyond GLUE",
        "08_beyond_glue",
        "gain_beyond_glue",
        "question",
    ),
    Claim(
        "default_over_plain",
        "Does the preset default beat plain distillation at equal steps on official validation sets?",
        "",
        "the aim of this toolkit; the paper has no such arm",
        "09_glue",
        "default_over_plain",
        "question",
        "The preset was chosen on parts carved from train.",
    ),
    Claim(
        "default_over_controls",
        "Is the preset default closer to its teacher than every control?",
        "",
        "the aim of this toolkit; the paper has no such arm",
        "16_controls",
        "closest_control_divergence",
        "question",
        "Against the control that comes nearest, picked by the divergence that it is compared on, which favours it.",
    ),
    Claim(
        "warm_up",
        "Is a student better behind a warm-up on generic text than plain distillation for the same FLOPs?",
        "",
        "method summary; the paper has no run without it",
        "13_warm_up",
        "warm_over_equal_flops",
        "question",
    ),
    Claim(
        "few_texts",
        "Does the preset default beat plain distillation where texts are fewest?",
        "",
        "the aim of this toolkit; the paper distils on whole tasks",
        "14_data_efficiency",
        "gain_with_fewest_texts",
        "question",
        "At profiles small and medium the fewest are 250.",
    ),
    Claim(
        "deeper_bypass",
        "Is a bypass of the first block better than that of the embeddings, at equal depth?",
        "",
        "Section 3.1: the paper bypasses the input layer alone",
        "15_equal_cost_bypass",
        "deeper_bypass",
        "question",
        "With the preset default on either side.",
    ),
)
"""The paper's claims in its order, then the questions that it leaves open."""


def find_claim(id: str, claims: Sequence[Claim] = CLAIMS) -> Claim:
    """The claim of that identifier; a notebook takes its threshold from here.

    Raises
    ------
    StudyError
        When there is none.
    """
    for claim in claims:
        if claim.id == id:
            return claim
    raise StudyError(f"Unknown claim {id!r}.{did_you_mean(id, [claim.id for claim in claims])}")


# ---- results


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

    Raises
    ------
    StudyError
        When one of the folders is not there.
    """
    found: dict[tuple[str, str], StudyResult] = {}
    faults = []
    for root in map(Path, folders):
        if not root.is_dir():
            raise StudyError(f"there is no folder of results {str(root)!r}: run a study first, or name another folder")
        results, wrong = _read_folder(root)
        faults += wrong
        for result in results:
            other = found.get((result.study, result.label))
            if other is None or result.time > other.time:
                found[result.study, result.label] = result
    return sorted(found.values(), key=lambda result: (result.study, result.label)), faults


def _read_folder(root: Path) -> tuple[list[StudyResult], list[Fault]]:
    results, faults = [], []
    for folder in find_folders(root):
        if folder.name.startswith(TEMPORARY_PREFIX):
            faults.append(Fault(folder, "half-written: it is being written now, or its study was interrupted"))
            continue
        if not (folder / RESULT).is_file():
            faults.append(Fault(folder, f"half-written: it has no {RESULT}, which comes last; run the study again"))
            continue
        try:
            result = StudyResult.load(folder)
        except StudyError as error:
            # the error names the file, and so does the fault
            faults.append(Fault(folder, str(error).replace(str(folder / RESULT), RESULT)))
            continue
        wrong = contradiction(result)
        if wrong:
            faults.append(Fault(folder, wrong))
        else:
            results.append(result)
    return results, faults


# ---- ledger


@dataclass(frozen=True)
class Evidence:
    """What one result says of a claim.

    Attributes
    ----------
    result : StudyResult
    findings : tuple of Finding
        The claim's own first, by task where the study asks by task; then those that it needs as well.
    state : str
        State of the claim by this result, corrected over the ledger where it is the one that the claim takes.
    deviations : tuple of str
        What keeps it from being held against the paper: in what the setting differs, a threshold that is not the
        claim's.
    same_runs : tuple of str
        Labels of other results that rest on no runs but these.
    """

    result: StudyResult
    findings: tuple[Finding, ...]
    state: ClaimState
    deviations: tuple[str, ...]
    same_runs: tuple[str, ...] = ()

    @property
    def finding(self) -> Finding:
        """The claim's own finding, or the first of them."""
        return self.findings[0]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN and infinity become None."""
        result, finding = self.result, self.finding
        names = ("value", "low", "high", "threshold", "direction", "unit", "seeds", "sentence")
        data: dict[str, Any] = only_finite(
            {
                "state": self.state,
                "study": result.study,
                "label": result.label,
                "folder": "" if result.folder is None else result.folder.as_posix(),
                "profile": result.profile,
                "tasks": list(result.tasks),
                "finding": finding.name,
                "finding_state": finding.state,
                **{name: getattr(finding, name) for name in names},
                "findings": [
                    {"name": one.name, "state": one.state, "sentence": one.sentence, "p": one.p}
                    for one in self.findings
                ],
                "deviations": list(self.deviations),
                "same_runs": list(self.same_runs),
                "time": result.time,
                "machine": dict(result.machine),
            }
        )
        return data


@dataclass(frozen=True)
class Entry:
    """One row of the ledger.

    Attributes
    ----------
    claim : Claim
    evidence : tuple of Evidence
        From every result that counts and has the finding, each set of runs once; the one that the claim takes, by
        `RULE`, first.
    remark : str
        Why the claim was not run, what each task says, with which claim it shares its runs and numbers, or how many
        other results say something else; "" for none.
    """

    claim: Claim
    evidence: tuple[Evidence, ...]
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
        data: dict[str, Any] = only_finite(
            {
                **dataclasses.asdict(self.claim),
                "state": self.state,
                "remark": self.remark,
                "result": None if self.chosen is None else self.chosen.to_json(),
                "other_results": [evidence.to_json() for evidence in self.evidence[1:]],
            }
        )
        return data


def ledger(results_dir: str | Path, claims: Sequence[Claim] = CLAIMS) -> list[Entry]:
    """The ledger from a folder of results; folders without a whole result count for nothing.

    Raises
    ------
    StudyError
        When there is no such folder.
    """
    return ledger_of(read_results(results_dir)[0], claims)


def ledger_of(results: Iterable[StudyResult], claims: Sequence[Claim] = CLAIMS) -> list[Entry]:
    """The ledger from results, one entry per claim in the claims' order."""
    by_study: dict[str, list[StudyResult]] = {}
    for result in results:
        by_study.setdefault(result.study, []).append(result)
    return _corrected([_entry(claim, by_study.get(claim.study, [])) for claim in claims])


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
    own = _findings_of(result, claim.finding)
    if not own:
        return None
    others = [finding for name in claim.also for finding in _findings_of(result, name)]
    deviations = () if claim.is_question else setting_deviations(result, claim)
    if math.isfinite(claim.threshold):
        held = dict.fromkeys(item.threshold for item in own if not math.isclose(item.threshold, claim.threshold))
        deviations += tuple(f"held against {number:g} instead of {claim.threshold:g}" for number in held)
    findings = (*own, *others)
    states = {finding.name: finding.state for finding in findings}
    return Evidence(result, findings, _claim_state(claim, findings, states, deviations), deviations)


def _findings_of(result: StudyResult, name: str) -> list[Finding]:
    """The finding of that name, or those by task: ``<name>_<task>``."""
    names = (name, *(f"{name}_{task}" for task in result.tasks))
    return [finding for finding in result.findings if finding.name in names]


def _rank(evidence: Evidence) -> tuple[bool, int, bool, int, int]:
    """The lower, the sooner a claim takes the result: `RULE` up to the newest."""
    result = evidence.result
    varied = result.label != label_of(result.profile, result.tasks, precision=result.precision)
    differs = bool(evidence.deviations)
    return differs, COUNTED_PROFILES.index(result.profile), varied, -len(result.tasks), -result.seeds


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

    Parameters
    ----------
    evidence : Evidence
    finding : Finding or None
        None takes all runs of the result.

    Returns
    -------
    frozenset of str
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
    from pandas import read_parquet

    try:
        table = read_parquet(result.folder / "runs.parquet", columns=["task", "arm", "run"])
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise StudyError(f"{result.folder / 'runs.parquet'} is not readable ({text}): run the study again") from None
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


# ---- states


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


# ---- settings


def setting_deviations(result: StudyResult, claim: Claim) -> tuple[str, ...]:
    """In what a result's setting differs from the paper's as far as a claim goes, one text each.

    The setting is that of the arm that stands for the paper's method, as it was run.

    Parameters
    ----------
    result : StudyResult
    claim : Claim
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
    rows = [finding.row for finding in _findings_of(result, claim.finding)]
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


# ---- the ledger for people and programs

HEADINGS = ("claim", "paper", "notebook", "state", "ours (95 % interval)", "seeds", "on", "machine")


def ledger_rows(entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    """The cells under `HEADINGS`, one row per entry."""
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        claim, chosen = entry.claim, entry.chosen
        why = [*(chosen.deviations if chosen else ()), *([entry.remark] if entry.remark else [])]
        state = f"{entry.state} ({'; '.join(why)})" if why else entry.state
        head = (claim.statement, claim.paper_value or "-", claim.study, state)
        if chosen is None:
            rows.append((*head, "-", "-", "-", "-"))
            continue
        finding, result = chosen.finding, chosen.result
        on = f"{result.profile}: {', '.join(result.tasks)}"
        ours = "; ".join(numbers_text(one) for one in chosen.findings)
        rows.append((*head, ours, str(finding.seeds), on, machine_text(result.machine) or "-"))
    return rows


def ledger_table(entries: Sequence[Entry]) -> Table:
    """The ledger as a table for a terminal: the paper's claims, a line, its open questions."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Claims of {TITLE}", title_justify="left", caption=RULE, caption_justify="left", expand=True)
    for heading in HEADINGS:
        fixed = heading in ("notebook", "seeds")
        table.add_column(
            heading,
            justify="right" if heading == "seeds" else "left",
            no_wrap=fixed,
            ratio=None if fixed else 2 if heading == "claim" else 1,
        )
    for questions in (False, True):
        for row in ledger_rows(entry for entry in entries if entry.claim.is_question is questions):
            table.add_row(*map(Text, row))  # as Text: what stands in brackets must not be taken for markup
        table.add_section()
    return table


def ledger_json(entries: Iterable[Entry], faults: Iterable[Fault] = ()) -> dict[str, Any]:
    """The ledger as JSON-ready data: rule, meanings of the states, claims with all their results, and faults."""
    return {
        "paper": TITLE,
        "rule": RULE,
        "states": dict(STATE_MEANINGS),
        "claims": [entry.to_json() for entry in entries],
        "faults": [{"path": fault.path.as_posix(), "fault": fault.text} for fault in faults],
    }


def ledger_markdown(entries: Iterable[Entry]) -> str:
    """The ledger as Markdown: a table of claims, one of open questions, the rule and the meaning of each state."""
    entries = list(entries)
    lines = []
    for heading, questions in (("The paper's claims", False), ("Questions the paper leaves open", True)):
        rows = ledger_rows(entry for entry in entries if entry.claim.is_question is questions)
        if not rows:
            continue
        lines += [f"**{heading}**", "", _markdown_row(HEADINGS), _markdown_row(["---"] * len(HEADINGS))]
        lines += [*map(_markdown_row, rows), ""]
    used = {entry.state for entry in entries}
    lines += [RULE, ""]
    lines += [f"- {state}: {meaning}." for state, meaning in STATE_MEANINGS.items() if state in used]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    escaped = (" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def interval_text(finding: Finding) -> str:
    """A finding's number and its interval, in its unit: ``+1.20 (+0.30 to +2.10)``; a dash for what is not a number."""
    signed = finding.is_difference
    value, low, high = (
        "-" if math.isnan(number) else verdicts.number_text(number, finding.unit, signed=signed)
        for number in (finding.value, finding.low, finding.high)
    )
    return value if "-" in (low, high) else f"{value} ({low} to {high})"


def number_text(value: float) -> str:
    """A number to four decimals from 0.001 to 1,000, to three digits beyond; a dash for none."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if value == 0 or 1e-3 <= size < 1e3:
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}" if size >= 1e3 else f"{value:.2e}"


def machine_text(machine: Mapping[str, Any]) -> str:
    """The machine in few words: card, processor, cores; all that is known where none of these are."""
    known = [str(machine[name]) for name in ("card", "gpu", "processor", "cpu") if machine.get(name)]
    if machine.get("cores"):
        known.append(f"{machine['cores']} cores")
    return ", ".join(known or [f"{name} {value}" for name, value in machine.items() if value not in ("", None)])


# ---- do claims and notebooks agree


def claim_problems(
    results: Sequence[StudyResult], notebooks: Iterable[str] | None = None, claims: Sequence[Claim] = CLAIMS
) -> list[str]:
    """Where claims and the findings that notebooks really make disagree, one line each; smoke results do here.

    Parameters
    ----------
    results : sequence of StudyResult
        At least one of every study that a claim names.
    notebooks : iterable of str, optional
        Names of the notebooks without their ending; where given, a claim must name one of them.
    claims : sequence of Claim

    Returns
    -------
    list of str
        A claim's study without a notebook or a result; a claim's finding, by task or not, that no result has, or that
        names another claim, or, in results that count, is held against another threshold; a finding that names an
        unknown claim. A claim about a task that no result has is looked up under the tasks that they have.
    """
    problems = []
    known = None if notebooks is None else set(notebooks)
    for claim in claims:
        if known is not None and claim.study not in known:
            problems.append(f"claim {claim.id!r}: no notebook {claim.study!r}.{did_you_mean(claim.study, known)}")
            continue
        own = [result for result in results if result.study == claim.study]
        made = {finding.name: finding for result in own for finding in result.findings}
        tasks = {task for result in own for task in result.tasks}
        if not own:
            problems.append(f"claim {claim.id!r}: study {claim.study!r} has no result")
            continue
        if claim.task and claim.task not in tasks:
            if not any(claim.finding.replace(claim.task, task) in made for task in tasks):
                problems.append(f"claim {claim.id!r}: {claim.study!r} makes no finding like {claim.finding!r}")
            continue
        for name in (claim.finding, *claim.also):
            if not any(_findings_of(result, name) for result in own):
                hint = did_you_mean(name, made, "Its findings")
                problems.append(f"claim {claim.id!r}: {claim.study!r} makes no finding {name!r}.{hint}")
        speaking = [(result, finding) for result in own for finding in _findings_of(result, claim.finding)]
        problems += dict.fromkeys(
            f"claim {claim.id!r}: finding {finding.name!r} names the claim {finding.claim!r}"
            for _, finding in speaking
            if finding.claim != claim.id
        )
        thresholds = {finding.threshold for result, finding in speaking if result.profile in COUNTED_PROFILES}
        if math.isfinite(claim.threshold):
            problems += [
                f"claim {claim.id!r}: finding {claim.finding!r} is held against {threshold:g}, and the claim against "
                f"{claim.threshold:g}"
                for threshold in sorted(thresholds)
                if not math.isclose(threshold, claim.threshold)
            ]
    ids = {claim.id for claim in claims}
    unknown = {
        (result.study, finding.name, finding.claim): None
        for result in results
        for finding in result.findings
        if finding.claim and finding.claim not in ids
    }
    problems += [
        f"finding {name!r} of {study!r}: unknown claim {claim!r}.{did_you_mean(claim, ids)}"
        for study, name, claim in unknown
    ]
    return problems
