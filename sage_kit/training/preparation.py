"""Everything a run needs before its first step: data, teacher, vectors, the teacher's outputs, and a new student."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import ModelSizes, TaskSpec, handling_of
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.encoding import EncodedSplit, encode, label_parts
from sage_kit.data.scoring import load_scored, score_encoded
from sage_kit.data.splits import Split, TaskData
from sage_kit.data.targets import Targets
from sage_kit.data.teacher_report import TeacherReport, describe_labels, report_scores, report_teacher
from sage_kit.data.tokens import Tokens, unknown_shares
from sage_kit.errors import CompatibilityError
from sage_kit.models.checkpoints import load_classifier, load_tokenizer
from sage_kit.models.families import family_parts
from sage_kit.models.language import load_language
from sage_kit.models.loss_inputs import LossInputs, loss_inputs
from sage_kit.models.narrow import Shape, narrow_student, student_shape
from sage_kit.models.split import InputLayers, UpperLayers, split_model
from sage_kit.models.student import build_student, layer_map
from sage_kit.models.teacher import Teacher, fit_tokenizer, load_teacher, sentence_settings
from sage_kit.models.vectors import Pooled, TeacherOutputs, VectorStore, embed_split, label_split, pool_layer
from sage_kit.models.vocabulary import TeacherVocabulary
from sage_kit.recipe import Recipe
from sage_kit.storage.cache import Cache
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.synthesis.maps import check_distinct
from sage_kit.synthesis.synthesizer import Synthesizer
from sage_kit.system.devices import autocast_for, resolve_precision, synchronize
from sage_kit.system.machine import describe_machine, why_no_bf16
from sage_kit.training.run_events import RunEvents

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FINE_TUNING = "fine-tune teacher"
"""The activity under which the costs of making a teacher are counted."""

FINE_TUNED = "of the teacher fine-tuned on the task"
TRAINED = "of the checkpoint, whose head is trained"
MOST_UNKNOWN = 0.2
"""Share of unknown tokens, and of texts without a known one, above which a run warns: half-read text is rarer."""

PRE_TRAINED = "of the checkpoint as it is, not fine-tuned on the task"


@dataclass(frozen=True)
class PreparedSplit:
    """A split with all that is computed from it once.

    Attributes
    ----------
    encoded : EncodedSplit
        Sequences of tokens, labels, and how they align.
    store : VectorStore
        Token states and pooled vectors.
    outputs : TeacherOutputs
        The teacher's outputs.
    """

    encoded: EncodedSplit
    store: VectorStore
    outputs: TeacherOutputs

    @property
    def labels(self) -> NDArray[Any]:
        """Gold labels: int64, or float32 for regression, -1 or NaN where there is none; or what the kind reads."""
        return self.encoded.labels

    @property
    def tokens(self) -> Tokens:
        """Token ids."""
        return self.encoded.tokens

    @cached_property
    def targets(self) -> Targets:
        """What a model learns."""
        return Targets.of(self.encoded)

    @property
    def content(self) -> list[Any]:
        """What a fingerprint takes of labels and outputs."""
        alignment = self.encoded.alignment
        more = [] if alignment.positions is None else [alignment.positions]
        if self.encoded.spec.is_structured:
            more.append(np.asarray(alignment.targets))
        return [label_parts(np.asarray(self.labels)), *more]

    def scores(self, outputs: NDArray[np.float32], *, with_agreement: bool = True) -> dict[str, float]:
        """All scores of a model's outputs, as `score_encoded` gives them."""
        return score_encoded(self.encoded, outputs, self.outputs.logits if with_agreement else None)


@dataclass(frozen=True)
class Prepared:
    """What a run starts from.

    Attributes
    ----------
    data : TaskData
    teacher : Teacher
    input_layers : InputLayers
        The teacher's input layers, on the run's device.
    teacher_upper : UpperLayers
        On the run's device.
    student : PreTrainedModel
        The student as a whole model, input layers included.
    train, dev : PreparedSplit
    mapped : Pooled
        What a reducer maps of train.
    vocabulary : TeacherVocabulary
        What lifts may ask about tokens.
    validation : dict of str to PreparedSplit
    evaluation : PreparedSplit or None
        On which the student is compared with the teacher at the end.
    report : TeacherReport
        How well the teacher knows the task.
    loss_inputs : LossInputs
        What the losses look at.
    content : str
        Fingerprint of data and teacher.
    cache : Cache
    device : torch.device
    precision : str
        "fp32", "bf16" or "fp16".
    """

    data: TaskData
    teacher: Teacher
    input_layers: InputLayers
    teacher_upper: UpperLayers
    student: PreTrainedModel
    train: PreparedSplit
    mapped: Pooled
    vocabulary: TeacherVocabulary
    dev: PreparedSplit
    validation: dict[str, PreparedSplit]
    report: TeacherReport
    loss_inputs: LossInputs
    content: str
    cache: Cache
    device: torch.device
    precision: str
    evaluation: PreparedSplit | None = None

    @property
    def teacher_layers(self) -> list[int]:
        """Blocks (from 1) of the teacher whose outputs are kept for the losses."""
        return list(self.loss_inputs.kept)

    def synthesizer(self, recipe: Recipe, announce: Callable[[str], None], costs: Costs) -> Synthesizer:
        """What makes synthetic examples of train; `announce` shows a line, `costs` takes the time."""
        train = self.train
        return Synthesizer(
            recipe,
            train.store,
            train.outputs,
            self.cache,
            self.device,
            announce,
            costs,
            train.encoded,
            self.input_layers,
            self.mapped,
            self.vocabulary,
        )


@dataclass(frozen=True)
class PreparedVectors:
    """What the vectors of a task are looked at with, without anything that only training needs.

    Attributes
    ----------
    train, dev : VectorStore
        One pooled vector per example; no token states.
    input_layers : str
        Whose input layers computed them: `FINE_TUNED`, `TRAINED` or `PRE_TRAINED`.
    cache : Cache
    """

    train: VectorStore
    dev: VectorStore
    input_layers: str
    cache: Cache


def prepare(recipe: Recipe, accelerator: Accelerator, costs: Costs) -> Prepared:
    """Load the data, find or make the teacher, find or compute what is cached, and build the student.

    Under several processes the first fills the caches while the others wait.

    Raises
    ------
    SageError
        Of the kind that fits what is wrong with data, teacher, tokenizer, sizes or directories.
    """
    config = recipe.config
    work = _Preparation(config, recipe.plugins, accelerator, costs)
    data, cache, device = work.load_data(), work.cache, accelerator.device
    recipe.check_labels(len(data.train), data.train.unlabelled)
    teacher = work.load_teacher(data)
    precision = resolve_precision(config.precision, device)
    autocast = autocast_for(device, precision)
    if precision == "bf16" and device.type == "cpu" and (reason := why_no_bf16(device, describe_machine())):
        work.announce(f"precision is 'bf16', but {reason}: it is slower here than precision='fp32'")

    model = teacher.model.to(device)
    input_layers, teacher_upper = split_model(model, config.bypass)
    shape, student = student_shape(config, model.config), None
    if shape is None:
        student = build_student(
            model, bypass=config.bypass, layers=config.student_layers, init=config.student_init, seed=config.seed
        )
    else:  # it is made from states that are not there yet
        layer_map(config.student_init, teacher_upper.n_blocks, config.student_layers)
    handling = handling_of(data.spec)
    sizes = _model_sizes(teacher_upper, shape, config, not handling.spec.has_distributions)
    inputs = loss_inputs(recipe, teacher_upper, sizes, handling)
    recipe.check_sizes(len(data.train), input_layers.dim)
    input_layers_key = fingerprint(teacher.fingerprint, config.bypass)

    def embed(split: Split) -> tuple[EncodedSplit, VectorStore]:
        encoded = work.encode(split, data.spec, teacher.tokenizer, teacher.prefix)
        return encoded, work.embed(split.name, encoded.tokens, input_layers, input_layers_key, config.granularity)

    def label(split: Split, embedded: tuple[EncodedSplit, VectorStore], layers: list[int]) -> PreparedSplit:
        encoded, store = embedded
        with work.alone("teacher"):
            outputs = label_split(
                teacher_upper,
                teacher.fingerprint,
                store,
                name=split.name,
                hidden_layers=layers,
                cache=cache,
                device=device,
                autocast=autocast,
                precision=precision,
                on_step=work.steps(f"teacher's labels of {split.name}"),
            )
        return PreparedSplit(encoded, store, outputs)

    def pool(store: VectorStore) -> Pooled:
        if config.map_layer == 0:
            return Pooled(store.pooled, store.key)
        if config.map_layer > teacher_upper.n_blocks:
            raise CompatibilityError(
                f"map_layer is {config.map_layer}, but the teacher has {teacher_upper.n_blocks} blocks behind the "
                "input layers: lower it"
            )
        with work.alone("teacher"):
            found = pool_layer(
                teacher_upper,
                teacher.fingerprint,
                store,
                config.map_layer,
                name=data.train.name,
                pooling=config.pooling,
                cache=cache,
                device=device,
                autocast=autocast,
                precision=precision,
                on_step=work.steps(f"layer {config.map_layer} of {data.train.name}"),
            )
        return found

    embedded_train = embed(data.train)
    mapped = Pooled(embedded_train[1].pooled, embedded_train[1].key)
    if recipe.uses_map:
        mapped = pool(embedded_train[1])
        # now, and not after the first round
        check_distinct(mapped.vectors, config.n_components)
    dev = label(data.dev, embed(data.dev), [])
    # before the teacher labels train, which may take long
    report = (
        report_scores(config.teacher, dev.encoded, dev.outputs.logits)
        if data.spec.is_structured
        else report_teacher(config.teacher, data.spec, dev.outputs.logits, dev.labels, outputs=teacher.outputs)
    )
    for line in report.lines:
        work.announce(line)
    train = label(data.train, embedded_train, list(inputs.kept))
    validation = {name: label(split, embed(split), []) for name, split in data.validation.items()}
    evaluation = None
    mark = [teacher.fingerprint, train.store.key, dev.store.key, *train.content]
    if data.evaluation is not None:
        evaluation = label(data.evaluation, embed(data.evaluation), [])
        mark += [evaluation.store.key, *evaluation.content]
        scores = evaluation.scores(evaluation.outputs.logits, with_agreement=False)
        rows, metric = len(data.evaluation), data.spec.metrics[0]
        if metric in scores:
            work.announce(f"teacher {config.teacher!r} on evaluation ({rows:,} rows): {metric} {scores[metric]:.4f}")
    content = fingerprint(*mark)
    if shape is not None:
        with work.alone("narrowing"):
            student = narrow_student(config, model, teacher_upper, train.store, shape, device)
    assert student is not None
    return Prepared(
        data=data,
        teacher=teacher,
        input_layers=input_layers,
        teacher_upper=teacher_upper,
        student=student,
        train=train,
        mapped=mapped,
        vocabulary=TeacherVocabulary(
            teacher,
            train.tokens,
            cache,
            lambda: load_language(
                _of_encoder(config, teacher), teacher.tokenizer, train.tokens, cache, device, work.announce
            ),
        ),
        dev=dev,
        validation=validation,
        evaluation=evaluation,
        report=report,
        loss_inputs=inputs,
        content=content,
        cache=cache,
        device=device,
        precision=precision,
    )


def prepare_vectors(
    config: RunConfig, plugins: Plugins, accelerator: Accelerator, costs: Costs, *, fine_tune: bool
) -> PreparedVectors:
    """Load the data and the teacher, and find or compute the pooled vectors of train and dev; nothing else of a run.

    Parameters
    ----------
    config : RunConfig
    plugins : Plugins
    accelerator : Accelerator
    costs : Costs
    fine_tune : bool
        Whether a teacher without a trained head is fine-tuned first, as in a run. If not, the input layers are taken
        from the checkpoint as it is: fine-tuning moves the embeddings little, and may take hours.

    Raises
    ------
    SageError
        As `prepare` does.
    """
    work = _Preparation(config, plugins, accelerator, costs)
    data = work.load_data()
    if fine_tune:
        teacher = work.load_teacher(data)
        tokenizer, mark, prefix = teacher.tokenizer, teacher.fingerprint, teacher.prefix
        input_layers, _ = split_model(teacher.model.to(accelerator.device), config.bypass)
        whose = FINE_TUNED if teacher.finetuned else TRAINED
    else:
        architecture = handling_of(data.spec).spec.architecture
        sentence = sentence_settings(config, architecture)
        folder, prefix = (config.teacher, "") if sentence is None else (sentence.encoder, sentence.prompt)
        checkpoint = load_classifier(folder, architecture, sentence)
        tokenizer = load_tokenizer(config.tokenizer or folder)
        fit_tokenizer(tokenizer, checkpoint, config)
        input_layers, _ = split_model(checkpoint.model.to(accelerator.device), config.bypass)
        # the head may be random: of the input layers alone
        mark = fingerprint("input-layer-2", family_parts(checkpoint.family), dict(input_layers.state_dict()))
        whose = PRE_TRAINED if checkpoint.missing else TRAINED
    key = fingerprint(mark, config.bypass)
    # token states are many times larger, and nobody looks at them here
    train, dev = (
        work.embed(split.name, work.encode(split, data.spec, tokenizer, prefix).tokens, input_layers, key, "pooled")
        for split in (data.train, data.dev)
    )
    return PreparedVectors(train, dev, whose, work.cache)


class _Preparation:
    """The steps that the ways of preparing share; each is announced, timed, and taken by one process at a time."""

    def __init__(self, config: RunConfig, plugins: Plugins, accelerator: Accelerator, costs: Costs) -> None:
        self.config = config
        self.plugins = plugins
        self.accelerator = accelerator
        self.costs = costs
        events = RunEvents(plugins, accelerator.is_main_process)
        self.announce, self.steps = events.message, events.steps
        self.cache = Cache(Path(config.cache_dir).expanduser(), self.announce)

    @contextlib.contextmanager
    def alone(self, activity: str) -> Iterator[None]:
        """Around what the first process of a machine computes, and the others then find; its time is counted."""
        device = self.accelerator.device
        with self.accelerator.local_main_process_first(), self.costs.timed(activity, lambda: synchronize(device)):
            yield

    def load_data(self) -> TaskData:
        with self.accelerator.local_main_process_first():
            data = load_scored(self.plugins, self.config, self.announce)
        self.announce(describe_labels(data))
        return data

    def load_teacher(self, data: TaskData) -> Teacher:
        with self.accelerator.local_main_process_first():
            device = self.accelerator.device
            teacher = load_teacher(self.config, data, self.cache, device, self.announce, self.steps("teacher"))
        if teacher.seconds:
            self.costs.add(FINE_TUNING, teacher.seconds)
        return teacher

    def encode(self, split: Split, spec: TaskSpec, tokenizer: PreTrainedTokenizerBase, prefix: str) -> EncodedSplit:
        encoded = encode(split, spec, tokenizer, self.config.max_length, prefix)
        self._tell_of_unknown_text(split.name, encoded.tokens, tokenizer)
        if len(rows := encoded.shortened):
            self.announce(
                f"{split.name}: the first text of {len(rows):,} of {len(split):,} rows (the first: "
                f"{split.texts[rows[0]][:40]!r}) is cut, so that half of max_length, now {self.config.max_length}, is "
                "left for the second: raise max_length, or shorten such texts"
            )
        return encoded

    def embed(self, name: str, tokens: Tokens, input_layers: InputLayers, key: str, granularity: str) -> VectorStore:
        with self.alone("input layers"):
            return embed_split(
                input_layers,
                key,
                tokens,
                name=name,
                granularity=granularity,
                pooling=self.config.pooling,
                dtype=self.config.vector_dtype,
                cache=self.cache,
                device=self.accelerator.device,
                on_step=self.steps(f"vectors of {name}"),
            )

    def _tell_of_unknown_text(self, name: str, tokens: Tokens, tokenizer: PreTrainedTokenizerBase) -> None:
        unknown, blind = unknown_shares(tokens, tokenizer)
        if max(unknown, blind) < MOST_UNKNOWN:
            return
        called = repr(self.config.tokenizer or self.config.teacher)
        if blind == 1:
            what = f"the tokenizer of {called} knows no word of any of the {len(tokens):,} texts"
        else:
            what = (
                f"the tokenizer of {called} does not know {unknown:.0%} of the tokens, and no word of {blind:.0%} of "
                "the texts"
            )
        self.announce(
            f"WARNING: {name}: {what}, so they tell the models little; look at the texts (setting text_column), or "
            "choose a teacher and tokenizer for their language"
        )


def _of_encoder(config: RunConfig, teacher: Teacher) -> RunConfig:
    """The settings with the folder in which the teacher's encoder lies, where a folder of several parts is named."""
    if teacher.sentence is None or teacher.sentence.encoder == config.teacher:
        return config
    return config.model_copy(update={"teacher": teacher.sentence.encoder})


def _model_sizes(teacher: UpperLayers, shape: Shape | None, config: RunConfig, regression: bool) -> ModelSizes:
    """What losses must know of the two models before they are built."""
    dim, heads = (shape.width, shape.heads) if shape else (teacher.dim, teacher.heads)
    return ModelSizes(
        teacher_blocks=teacher.n_blocks,
        student_blocks=config.student_layers,
        teacher_dim=teacher.dim,
        student_dim=dim,
        teacher_heads=teacher.heads,
        student_heads=heads,
        n_outputs=teacher.n_outputs,
        regression=regression,
    )
