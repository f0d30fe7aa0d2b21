"""The steps of `benchmarks/on_a_card.sh`: what only a card can show, each a process that writes what it finds.

``python -m sage_bench.card STEP --out DIR`` writes ``DIR/STEP.json``. Models have random weights and texts are
generated, so that nothing is fetched. With ``--dry-run`` the same code goes through tiny sizes on the CPU.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import torch
import typer

from sage_bench.ceilings import SHARE
from sage_bench.distill import TRAINER, Job, Model, run_job
from sage_bench.generated_texts import WORDS, write_model, write_texts, write_tokenizer
from sage_bench.measure import Session
from sage_bench.records import Result
from sage_bench.report import result_tables
from sage_kit.cli.options import print_all
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.distill import resume as go_on
from sage_kit.distill import run
from sage_kit.errors import SageError
from sage_kit.rundir import RunDirectory
from sage_kit.storage.files import disk_errors, only_finite, write_json
from sage_kit.system.machine import describe_machine

ROOT = Path(__file__).resolve().parents[2]

NO_CARD = 2
"""Exit code where there is no card."""

GOALS = {SHARE: 0.45, TRAINER: 2.0}
"""Of a training step in bf16: share of the ceiling of matrix products, and examples per second over a Trainer's."""

FURTHEST = 0.1
"""How far a student that was resumed on another device may end from the one that was not, as a share of the way that
the last round went: both compute in float32, and sum in another order."""

BASE: Mapping[str, Any] = {}
"""BERT-base's shape, which is that of a configuration without arguments."""

RESUMED: Mapping[str, Any] = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024,
    # two devices draw other masks
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip

TINY: Mapping[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """Sizes of all steps.

    Attributes
    ----------
    device : str
        As the setting of that name.
    precision : str
    shape, resumed : mapping
        Of the models, what is not BERT-base's; `resumed` of those that are resumed elsewhere.
    layers : int
        The student's.
    words : int
        Of the vocabulary.
    tokens : int
        Of the texts of step "distill", all of them as long.
    examples, batch_size, repeats : int
    budget : float
        Time after which no repeat begins [s].
    goals : mapping of str to float
    """

    device: str = "cuda"
    precision: str = "bf16"
    shape: Mapping[str, Any] = field(default_factory=lambda: BASE)
    resumed: Mapping[str, Any] = field(default_factory=lambda: RESUMED)
    layers: int = 6
    words: int = WORDS
    tokens: int = 128
    examples: int = 4096
    batch_size: int = 128
    repeats: int = 3
    budget: float = 60.0
    goals: Mapping[str, float] = field(default_factory=lambda: GOALS)


CARD = Plan()
DRY = Plan(
    device="cpu", precision="fp32", shape=TINY, resumed=TINY, layers=2, words=200, tokens=16, examples=64,
    batch_size=16, repeats=1, goals={},
)  # fmt: skip

Found = dict[str, Any]


# ---- the steps ------------------------------------------------------------------------------------------------------


def probe(plan: Plan, scratch: Path) -> Found:
    """Which card, driver and torch."""
    found: Found = {"machine": describe_machine().to_json(), "cuda": torch.version.cuda}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "card": properties.name,
            "capability": [properties.major, properties.minor],
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
        }
    if shutil.which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, check=False, timeout=30)
        found["nvidia_smi"] = done.stdout.splitlines()
    return found


def tests(plan: Plan, scratch: Path) -> Found:
    """The tests with the marker "card"."""
    report = scratch / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "card", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run([*command, str(ROOT / "tests" / "card")], cwd=ROOT, check=False)
    if not report.exists():
        raise SageError(f"pytest wrote no report (exit code {done.returncode})")
    suite = ElementTree.parse(report).getroot()
    suite = suite if suite.tag == "testsuite" else suite[0]
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "skipped", "failures", "errors")}
    failed = [f"{case.get('classname')}.{case.get('name')}" for case in suite.iter("testcase") if _failed(case)]
    ran = counts["tests"] - counts["skipped"]
    problem = f"{len(failed)} tests failed" if failed else "" if ran or plan is not CARD else "no test ran"
    return {**counts, "failed": failed, "problem": problem}


def distill(plan: Plan, scratch: Path) -> Found:
    """A round beside a Trainer's epoch and the ceiling: BERT-base's shape to half its blocks, texts of equal length."""
    write_tokenizer(scratch / "tokenizer", plan.words)
    write_texts(scratch / "texts.jsonl", 2 * plan.examples, (plan.tokens, plan.tokens), words=plan.words)
    settings = {
        "task": "file",
        "train_file": str(scratch / "texts.jsonl"),
        "task_kind": "classification",
        "max_length": plan.tokens,
        "batch_tokens": plan.batch_size * plan.tokens,
    }
    called = "BERT-base shape" if plan.shape is BASE else "tiny shape"
    model = Model(f"{called} (random weights)", "", plan.layers, plan.shape, str(scratch / "tokenizer"))
    job = Job(
        "generated", model, plan.precision, plan.examples, plan.repeats, plan.budget,
        batch_size=plan.batch_size, device=plan.device, goals=plan.goals,
    )  # fmt: skip
    title = f"{called} to {plan.layers} blocks, {plan.batch_size} texts of {plan.tokens} tokens, {plan.precision}"
    work = scratch / "job"
    work.mkdir()
    lines, targets, about = run_job(Session(True, scratch, _say), job, title, settings, work)
    result = Result("card", lines, targets, details=about)
    print_all(*result_tables(result))
    return {**result.to_json(), "problem": "; ".join(line.note for line in lines if line.is_ours and not line.values)}


def synthesis(plan: Plan, scratch: Path) -> Found:
    """Runs from text to student, one with synthetic texts and one with synthetic vectors."""
    write_tokenizer(scratch / "teacher", plan.words)
    write_model(scratch / "teacher", plan.shape)
    longest = plan.tokens
    write_texts(scratch / "texts.jsonl", plan.examples // 2, (longest // 4, longest), words=plan.words)
    found: Found = {}
    kinds: dict[str, dict[str, Any]] = {
        "texts": {"sampler": "random", "lift": "replace"},
        "vectors": {"sampler": "high_loss", "lift": "shift"},
    }
    problems = []
    for kind, settings in kinds.items():
        config = load_config({**_run_settings(plan, scratch, scratch / kind), **settings, "precision": plan.precision})
        started = time.perf_counter()
        directory, summary = run(config, Plugins(allow=""))
        rounds = summary["rounds"]
        found[kind] = {
            "seconds": time.perf_counter() - started,
            "device": summary["device"],
            "precision": summary["precision"],
            "costs": json.loads((directory.path / "costs.json").read_text(encoding="utf-8")),
            "rounds": rounds,
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        }
        if not rounds[-1]["synthetic"]:
            problems.append(f"no synthetic {kind}")
        if not all(math.isfinite(one["train_loss"]) for one in rounds):
            problems.append(f"a loss on synthetic {kind} is not finite")
        if not (directory.student / "model.safetensors").exists():
            problems.append(f"no student of synthetic {kind}")
    return {**found, "problem": "; ".join(problems)}


def resume(plan: Plan, scratch: Path) -> Found:
    """A run on the card that goes on, on the CPU, after its first round, and the other way round."""
    write_tokenizer(scratch / "teacher", plan.words)
    write_model(scratch / "teacher", plan.resumed)
    write_texts(scratch / "texts.jsonl", min(512, plan.examples), (8, min(64, plan.tokens)), words=plan.words)
    found: Found = {}
    problems = []
    for first, then in (("card", "CPU"), ("CPU", "card")):
        whole, again = scratch / f"on-{first}", scratch / f"{first}-then-{then}"
        settings = _run_settings(plan, scratch, whole)
        # auto: the card, where the process sees one
        settings |= {"device": "auto", "precision": "fp32", "sampler": "high_loss", "keep_checkpoints": 0}
        if first == "card":
            run(load_config(settings), Plugins(allow=""))
        else:
            on_cpu(["run", *(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())])
        shutil.copytree(whole, again)
        _go_back(again)
        middle = _student(again)
        if then == "card":
            go_on(RunDirectory.open(again), Plugins(allow=""))
        else:
            on_cpu(["resume", str(again)])
        ends = [_student(directory) for directory in (whole, again)]
        way = _distance(ends[0], middle)
        apart = _distance(ends[0], ends[1]) / way if way else math.nan
        name = f"{first}, then {then}"
        found[name] = {"apart": apart, "way": way}
        if not apart <= FURTHEST:
            problems.append(f"{name}: {apart:.3f} of the round's way apart, and at most {FURTHEST} is expected")
    return {**found, "problem": "; ".join(problems)}


STEPS: Mapping[str, Callable[[Plan, Path], Found]] = {
    "probe": probe, "tests": tests, "distill": distill, "synthesis": synthesis, "resume": resume
}  # fmt: skip


# ---- small parts ----------------------------------------------------------------------------------------------------


def _run_settings(plan: Plan, scratch: Path, run_dir: Path) -> dict[str, Any]:
    return {
        "task": "file",
        "train_file": str(scratch / "texts.jsonl"),
        "task_kind": "classification",
        "dev_fraction": 0.1,
        "teacher": str(scratch / "teacher"),
        "max_length": plan.tokens,
        "student_layers": plan.layers if plan.resumed is plan.shape else min(plan.layers, 2),
        "batch_size": plan.batch_size // 2,
        "batch_tokens": plan.batch_size * plan.tokens // 2,
        "reducer": "pca",
        "rounds": 2,
        "stop_agreement": 1.01,
        "device": plan.device,
        "cache_dir": str(scratch / "cache"),
        "run_dir": str(run_dir),
        "observers": "jsonl",
    }


def on_cpu(arguments: list[str]) -> None:
    """The command `sage-kit` in a process of its own, which does not see the card."""
    done = subprocess.run(
        [sys.executable, "-m", "sage_kit", *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise SageError(f"sage-kit {arguments[0]} on the CPU: exit code {done.returncode}: {lines[-1]}")


def _go_back(path: Path) -> None:
    """Make a finished run look as if it had been killed after its first round."""
    (path / "summary.json").unlink()
    for later in (path / "checkpoints").glob("round-*"):
        if later.name != "round-001":
            shutil.rmtree(later)


def _student(path: Path) -> dict[str, torch.Tensor]:
    """The weights in the newest checkpoint of a run."""
    checkpoint = RunDirectory.open(path).latest_checkpoint()
    if checkpoint is None:
        raise SageError(f"{path} has no checkpoint")
    return checkpoint.student


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float((one[name].double() - other[name].double()).square().sum()) for name in one))


def _failed(case: ElementTree.Element) -> bool:
    return any(child.tag in ("failure", "error") for child in case)


def _say(text: str) -> None:
    typer.echo(text, err=True)


# ---- the command ----------------------------------------------------------------------------------------------------

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)


def take(step: str, out: Path, plan: Plan) -> bool:
    """Take a step and write what it found, or why it failed; returns whether it succeeded.

    Parameters
    ----------
    step : str
        A key of `STEPS`.
    out : Path
        Folder for ``<step>.json``; made if absent.
    plan : Plan
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sage-kit-card-") as scratch:
        try:
            found = STEPS[step](plan, Path(scratch))
        except Exception as error:  # whatever it was, it is what this step found
            found = {"problem": f"{type(error).__name__}: {error}"}
    problem = found.pop("problem", "")
    about = {
        "step": step,
        "passed": not problem,
        "problem": problem,
        "device": plan.device,
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "torch": torch.__version__,
        "seconds": time.perf_counter() - started,
    }
    path = out / f"{step}.json"
    with disk_errors(str(path)):
        write_json(path, only_finite({**about, **found}))
    _say(f"{step}: {problem or 'passed'} ({about['seconds']:.0f} s)")
    return not problem


@app.command()
def main(
    step: Annotated[str, typer.Argument(help="probe, tests, distill, synthesis or resume.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for what is found.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tiny sizes, on the CPU.")] = False,
) -> None:
    """Take one step of `benchmarks/on_a_card.sh`."""
    if step not in STEPS:
        _say(f"Unknown step {step!r}: take {', '.join(STEPS)}")
        raise typer.Exit(1)
    if not dry_run and not torch.cuda.is_available():
        _say("no CUDA device is here: nothing was measured (--dry-run goes through all steps on the CPU)")
        raise typer.Exit(NO_CARD)
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _say(f"{out} cannot be a folder for what is found ({error.strerror}): name another with --out")
        raise typer.Exit(1) from None
    if not take(step, Path(out), DRY if dry_run else CARD):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
