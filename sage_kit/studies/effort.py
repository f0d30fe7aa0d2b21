"""How long runs will take: by the seconds per step of earlier runs of their kind, or else by their FLOPs.

What is not known of earlier runs on this kind of machine is worked out from the models' sizes and the texts' lengths,
at the FLOPs per second of earlier runs or, where there are none, at half of what a matrix product reaches here.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from sage_kit.config import RunConfig, toml_loads
from sage_kit.data.splits import TaskData
from sage_kit.models.locations import resolve_checkpoint
from sage_kit.storage.privacy import revealed
from sage_kit.storage.reading import json_loads
from sage_kit.system.devices import precision_of
from sage_kit.system.machine import describe_machine

MODELS = ("task", "teacher", "other_teachers", "bypass", "granularity", "student", "student_layers", "student_width",
          "student_ffn", "max_length", "batch_size", "hidden_weight", "losses", "warmup_epochs",
          "warmup_rows")  # fmt: skip
SYNTHESIS = ("schedule", "mix", "synthetic_ratio", "reducer", "refit", "sampler", "inverter", "lift", "filter")
TEACHER = ("task", "teacher", "other_teachers", "teacher_rows", "teacher_epochs", "max_length")
"""Settings by which runs are of one kind: whose steps take as long, and who share a teacher."""

TOKENS_PER_WORD = 1.3
SPECIAL_TOKENS = 2.0
EMBEDDED = (("vocab_size", 30_522), ("max_position_embeddings", 512), ("type_vocab_size", 2))
"""Rows of the embeddings by the names of config.json, and those of BERT-base."""
SAMPLED = 500  # how texts' lengths are estimated without a tokenizer, and from how many of them
OFF_BY_FLOPS, OFF_BY_FEW, ENOUGH = 6.0, 3.0, 3
"""By which factor an estimate may be off: one by FLOPs, or one by fewer than `ENOUGH` runs of its kind. Of 32 runs on a
machine that others used too, the least time was a sixth of its estimate by FLOPs, and of runs of one kind the slowest
took 3.5 times as long as the fastest."""

REACHED = 0.5
"""Part of a matrix product's FLOPs per second that training reaches, as measured of MiniLM on one core in fp32."""


class Pace(NamedTuple):
    """What a finished run tells of the time it took."""

    settings: Mapping[str, Any]  # its config.toml
    steps: int  # student steps
    seconds: float  # wall time without the teacher's fine-tuning [s]
    flops: float  # of all activities


class Planned(NamedTuple):
    """A run that is asked for."""

    config: RunConfig
    steps: int  # student steps
    found: bool  # whether it is there already


class Estimate(NamedTuple):
    """How long a run is expected to take.

    Attributes
    ----------
    seconds, low, high : float
        Wall time without the teacher's fine-tuning, and between which times it has been known to lie [s].
    source : str
        Where that is known from.
    teacher : float
        Time of that fine-tuning, 0 where no teacher is fine-tuned that earlier runs did not have [s].
    is_measured : bool
        Whether earlier runs of its kind tell, with all that they did.
    """

    seconds: float
    low: float
    high: float
    source: str
    teacher: float
    is_measured: bool


class Effort:
    """Estimates from the runs of a folder."""

    def __init__(self, root: Path, data: Callable[[RunConfig], TaskData]) -> None:
        self.root = root
        self.data = data
        self._tokens: dict[str, float] = {}

    def text(self, runs: Sequence[Planned]) -> str:
        """Runs to make, runs found, and about how many minutes of one core these take."""
        missing = [run for run in runs if not run.found]
        head = f"{counted(len(runs), 'run')}: {len(runs) - len(missing)} found, {len(missing)} to make"
        if not missing:
            return f"{head}."
        paces = {task: read_paces(self.root / task) for task in {run.config.task for run in missing}}
        everything = [pace for folder in sorted(self.root.glob("*/")) for pace in read_paces(folder)]
        parts = [self._seconds(run, paces[run.config.task], everything) for run in missing]
        teachers = self._teachers(missing, paces, everything)
        minutes = sum(seconds for seconds, _ in parts) / 60
        sources = " and ".join(sorted({source for _, source in parts}))
        text = f"{head}, about {minutes_text(minutes)} of one core ({sources})"
        if teachers:
            fine_tuning = minutes_text(sum(teachers.values()) / 60)
            text += f", and about {fine_tuning} to fine-tune {counted(len(teachers), 'teacher')}"
        return f"{text}."

    def estimate(self, run: Planned) -> Estimate:
        """The time of one run, and how far off that may be."""
        paces = {run.config.task: read_paces(self.root / run.config.task)}
        everything = [pace for folder in sorted(self.root.glob("*/")) for pace in read_paces(folder)]
        seconds, source = self._seconds(run, paces[run.config.task], everything)
        known = [run.steps * pace.seconds / pace.steps for pace in _alike(run, paces[run.config.task])]
        low, high = (min(known), max(known)) if known else (seconds / OFF_BY_FLOPS, seconds * OFF_BY_FLOPS)
        if 0 < len(known) < ENOUGH:
            low, high = min(low, seconds / OFF_BY_FEW), max(high, seconds * OFF_BY_FEW)
        if known:
            source = f"{source}: {counted(len(known), 'run')} of its kind"
        teacher = 0.0 if known else sum(self._teachers([run], paces, everything).values())
        return Estimate(seconds, low, high, source, teacher, bool(known))

    def _seconds(self, run: Planned, own: Sequence[Pace], others: Sequence[Pace]) -> tuple[float, str]:
        """Seconds of a run, and where they are known from."""
        if found := _alike(run, own):
            return run.steps * median(pace.seconds / pace.steps for pace in found), "as earlier runs took"
        rate, source = self._rate(run.config, others)
        return self._flops(run) / rate, source

    def _rate(self, config: RunConfig, paces: Sequence[Pace]) -> tuple[float, str]:
        """FLOPs per second that runs reach, and where that is known from."""
        known = [pace.flops / pace.seconds for pace in paces if pace.flops > 0]
        if known:
            return median(known), "by their FLOPs, at the rate of earlier runs"
        return REACHED * product_rate(precision_of(config)), "by their FLOPs, at half the rate of matrix products here"

    def _flops(self, run: Planned) -> float:
        """FLOPs of a run: training, the teacher on synthetic examples, and scoring."""
        config, data = run.config, self.data(run.config)
        block, layers = self._block(config)
        own, depth = self._student_block(config)
        front = 0 if config.bypass == "embeddings" else int(config.bypass)
        share = 0.0 if config.schedule == "none" else config.synthetic_ratio
        if config.mix == "add":
            share /= 1 + share
        examples = run.steps * config.batch_size
        training = examples * (3 * depth * own + (front + share * (layers - front)) * block)
        passes = max(1.0, examples / max(len(data.train), 1))
        scored = passes * len(data.dev) + sum(map(len, data.validation.values())) + len(data.evaluation or ())
        warm_up = config.warmup_epochs * config.warmup_rows * (3 * depth * own + layers * block)
        return training + scored * own * depth + warm_up

    def _teachers(
        self, missing: Sequence[Planned], paces: Mapping[str, Sequence[Pace]], others: Sequence[Pace]
    ) -> dict[str, float]:
        """Seconds of fine-tuning by teacher, of those that no earlier run used."""
        found = {}
        for run in missing:
            config = run.config
            wanted = config.model_dump(mode="json")
            name = json.dumps([wanted[setting] for setting in TEACHER])
            if name in found or any(_same(pace.settings, wanted, TEACHER) for pace in paces[config.task]):
                continue
            block, layers = self._block(config)
            rows = len(self.data(config).teacher) * config.teacher_epochs
            found[name] = 3 * layers * block * rows / self._rate(config, others)[0]
        return found

    def _block(self, config: RunConfig) -> tuple[float, int]:
        """FLOPs of a text in a block of the teacher, and how many blocks it has."""
        dim, inner, layers = checkpoint_sizes(config.teacher)
        return flops_of_text(dim, inner, self._tokens_of(config)), layers

    def _student_block(self, config: RunConfig) -> tuple[float, int]:
        """FLOPs of a text in a block of the student, and how many blocks it has."""
        dim, inner, layers = checkpoint_sizes(config.student or config.teacher)
        if config.student:
            return flops_of_text(dim, inner, self._tokens_of(config)), layers
        width = config.student_width or dim
        per_block = flops_of_text(width, config.student_ffn or inner * width / dim, self._tokens_of(config))
        return per_block, config.student_layers

    def _tokens_of(self, config: RunConfig) -> float:
        """Mean tokens of a text, or pair, of a task."""
        name = f"{config.task} {config.max_length}"
        if name not in self._tokens:
            split = self.data(config).dev
            pairs = split.pairs or [""] * len(split.texts)
            words = [len(f"{text} {pair}".split()) for text, pair in zip(split.texts, pairs, strict=True)][:SAMPLED]
            lengths = [min(config.max_length, SPECIAL_TOKENS + TOKENS_PER_WORD * count) for count in words]
            self._tokens[name] = sum(lengths) / max(len(lengths), 1)
        return self._tokens[name]


def _alike(run: Planned, own: Sequence[Pace]) -> list[Pace]:
    """Of earlier runs on its task, those of a run's kind: with its synthesis or else, if it synthesises, with any."""
    wanted = run.config.model_dump(mode="json")
    is_plain = run.config.schedule == "none"
    alike = [pace for pace in own if _same(pace.settings, wanted, MODELS)]
    of_kind = [pace for pace in alike if (pace.settings["schedule"] == "none") == is_plain]
    same = [pace for pace in of_kind if _same(pace.settings, wanted, ("schedule",) if is_plain else SYNTHESIS)]
    return same or of_kind


def read_paces(folder: Path) -> list[Pace]:
    """What the finished runs of a task's folder, made on this kind of machine, tell of their time."""
    processor = describe_machine().processor
    paths = sorted(path.parent for path in folder.glob("*/summary.json"))
    return [pace for path in paths if (pace := _pace(path, processor)) is not None]


@functools.cache
def _pace(path: Path, processor: str) -> Pace | None:
    try:
        summary, costs, environment = (
            json_loads((path / name).read_bytes()) for name in ("summary.json", "costs.json", "environment.json")
        )
        settings = revealed(toml_loads((path / "config.toml").read_text(encoding="utf-8")))
        steps, seconds = int(summary["student_steps"]), float(summary["seconds"])
        flops = float(sum(costs["flops"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # unfinished, or of another version
    is_known = steps > 0 and seconds > 0 and "schedule" in settings and _is_here(environment, processor)
    return Pace(settings, steps, seconds, flops) if is_known else None


def _is_here(environment: Mapping[str, Any], processor: str) -> bool:
    """Whether a run was made on this kind of machine. One of `sage-kit run` does not tell its processor."""
    if "processor" in environment:
        return bool(environment["processor"] == processor)
    told = environment.get("platform"), environment.get("processors")
    return told == (platform.platform(), os.cpu_count())


def _same(settings: Mapping[str, Any], wanted: Mapping[str, Any], names: Iterable[str]) -> bool:
    # an earlier run knew nothing of a setting that is new, and did what its default does
    fields = RunConfig.model_fields
    return all(
        settings.get(name, fields[name].get_default(call_default_factory=True)) == wanted[name] for name in names
    )


def flops_of_text(dim: int, inner: float, tokens: float) -> float:
    """Forward FLOPs of a block of that width and inner width on a text of so many tokens."""
    return 2 * (4 * dim**2 + 2 * dim * inner) * tokens + 4 * dim * tokens**2


@functools.cache
def checkpoint_sizes(name: str) -> tuple[int, int, int]:
    """Width, inner width and blocks of a checkpoint by its config.json; those of BERT-base where that is not here."""
    folder = resolve_checkpoint(name)
    told: dict[str, Any] = {}
    if folder is not None and (folder / "config.json").is_file():
        told = json_loads((folder / "config.json").read_bytes())

    def first(default: int, *names: str) -> int:
        return next((int(told[one]) for one in names if one in told), default)

    dim = first(768, "hidden_size", "dim")
    return dim, first(4 * dim, "intermediate_size", "hidden_dim"), first(12, "num_hidden_layers", "n_layers")


def parameters_of(name: str) -> tuple[int, int]:
    """Parameters of a checkpoint's embeddings and of one block, by its config.json as `checkpoint_sizes` reads it."""
    dim, inner, _ = checkpoint_sizes(name)
    folder = resolve_checkpoint(name)
    told: dict[str, Any] = {}
    if folder is not None and (folder / "config.json").is_file():
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rows = sum(int(told.get(key, usual)) for key, usual in EMBEDDED)
    return rows * int(told.get("embedding_size", dim)), 4 * dim**2 + 2 * dim * inner + 9 * dim + inner


@functools.cache
def product_rate(precision: str) -> float:
    """FLOPs per second of a matrix product of an encoder block's size on this machine, measured once [1/s]."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    left, right = torch.ones(1024, 384, dtype=dtype), torch.ones(384, 1536, dtype=dtype)
    left @ right  # the first one prepares
    products, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < 0.1:
        left @ right
        products += 1
    return products * 2 * 1024 * 384 * 1536 / elapsed


def counted(number: int, noun: str) -> str:
    """So many of something: ``1 run``, ``2,000 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def minutes_text(minutes: float) -> str:
    """A time as a person reads it: ``4 minutes``, ``a minute``, ``20 s``."""
    return f"{minutes:,.0f} minutes" if minutes >= 1.5 else "a minute" if minutes > 0.75 else f"{60 * minutes:.0f} s"
