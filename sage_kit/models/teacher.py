"""The teacher: loaded when its head is trained for the task, else fine-tuned on it once and cached by content."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from sage_kit.components import handling_of
from sage_kit.config import RunConfig
from sage_kit.data.encoding import encode, label_parts
from sage_kit.data.splits import TaskData
from sage_kit.errors import CompatibilityError, ModelError
from sage_kit.models.checkpoints import Checkpoint, load_classifier, load_tokenizer
from sage_kit.models.export import CHECKPOINT_FILES, export_student
from sage_kit.models.families import family_parts
from sage_kit.models.finetuning import MAX_GRAD_NORM, WEIGHT_DECAY, OnStep, finetune
from sage_kit.models.learning_rate import WARMUP_SHARE
from sage_kit.models.sentence_folders import SentenceSettings, read_sentence_settings
from sage_kit.models.student import require_own_weights
from sage_kit.models.task_heads import adopt_head, new_head
from sage_kit.models.tokenizer_state import set_as_used
from sage_kit.storage.cache import Cache
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import artifact_digest
from sage_kit.system.devices import resolve_precision

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sage_kit.components.task_kinds import Architecture


@dataclass(frozen=True)
class Teacher:
    """A teacher, ready to be asked.

    Attributes
    ----------
    model : PreTrainedModel
        Its outputs are in the task's order; in eval mode, frozen.
    tokenizer : PreTrainedTokenizerBase
        Checked to fit it.
    fingerprint : str
        Of its weights and configuration.
    finetuned : bool
        Whether it was fine-tuned here, now or by an earlier run, because its head was not trained.
    outputs : tuple of int or None
        For each class of the task, the number that its output had in the checkpoint; None for a regression and for a
        head that was trained here.
    seconds : float
        Of its fine-tuning, with those of a process that was killed during it; 0 where none was done now.
    sentence : SentenceSettings or None
        How it makes vectors of texts; None for a classifier.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    finetuned: bool
    outputs: tuple[int, ...] | None = None
    seconds: float = 0.0
    sentence: SentenceSettings | None = None

    @property
    def prefix(self) -> str:
        """What stands in front of each text that it reads."""
        return "" if self.sentence is None else self.sentence.prompt


def load_teacher(
    config: RunConfig,
    data: TaskData,
    cache: Cache,
    device: torch.device,
    announce: Callable[[str], None],
    on_step: OnStep,
    name: str = "",
) -> Teacher:
    """Load the teacher that the settings name; fine-tune it first if its checkpoint has no trained head.

    Parameters
    ----------
    config : RunConfig
    data : TaskData
        The task; its split "teacher" is what a teacher without a trained head is fine-tuned on.
    cache : Cache
        Where a fine-tuned teacher is kept.
    device : torch.device
        Where it is fine-tuned, and where the model is put.
    announce : callable
        Shows one line to the user.
    on_step : callable
        ``on_step(done, total, loss)`` after each step of the fine-tuning; the loss stays on the device.
    name : str
        One of `other_teachers`; "" for the first.

    Raises
    ------
    ModelError
        When model or tokenizer cannot be loaded, do not fit each other or the task, or when fine-tuning diverges.
    CompatibilityError
        When `max_length` exceeds the model's positions, `teacher_labels` does not fit the task or the teacher, or the
        device cannot compute in the precision.
    """
    architecture = handling_of(data.spec).spec.architecture
    config = config.model_copy(update={"teacher": name or config.teacher})
    sentence = sentence_settings(config, architecture)
    if sentence is not None:
        announce(f"teacher {config.teacher!r}: {sentence.describe()}")
    folder = config.teacher if sentence is None else sentence.encoder
    checkpoint = load_classifier(folder, architecture, sentence)
    if not name:  # the first one's input layers are the student's
        require_own_weights(checkpoint.family, config.bypass)
    tokenizer = load_tokenizer(config.tokenizer or folder)
    fit_tokenizer(tokenizer, checkpoint, config, name)
    finetuned = bool(checkpoint.missing)
    outputs, seconds = None, 0.0
    if finetuned:
        if config.teacher_labels:
            raise CompatibilityError(
                f"teacher_labels says what the outputs of a trained head mean, but teacher {config.teacher!r} has none "
                f"and is fine-tuned on the task: leave it empty"
            )
        model, seconds = _finetuned(checkpoint, tokenizer, config, data, cache, device, announce, on_step)
    elif sentence is not None:
        model = checkpoint.model
        if config.teacher_labels:
            raise CompatibilityError(f"teacher_labels names classes, and task {data.spec.name!r} has none: empty it")
    else:
        model = checkpoint.model
        outputs = adopt_head(checkpoint, config.teacher, data.spec, config.teacher_labels, announce)
    model.eval().requires_grad_(False)
    family = family_parts(checkpoint.family)
    more = [] if sentence is None else [sentence.pooling]
    mark = fingerprint("teacher-2", _settings(model.config), dict(model.state_dict()), family, *more)
    cast(nn.Module, model).to(device)
    return Teacher(model, tokenizer, mark, finetuned, outputs, seconds, sentence)


def sentence_settings(config: RunConfig, architecture: Architecture, name: str = "") -> SentenceSettings | None:
    """How a model makes vectors of texts, the teacher unless it is named; None for a classifier. Raises as
    `read_sentence_settings` does.
    """
    if architecture != "embedding":
        return None
    return read_sentence_settings(name or config.teacher, config.pooling, config.text_prefix)


def fit_tokenizer(
    tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint, config: RunConfig, name: str = ""
) -> None:
    """Check that a tokenizer fits a model and the settings; set its state as runs use it, whatever it was saved with.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    checkpoint : Checkpoint
    config : RunConfig
    name : str
        A model that brings its own tokenizer; "" for the teacher, whose tokenizer is a setting.

    Raises
    ------
    ModelError
        When the tokenizer has no padding token, another one than the model counts positions by, or ids for which the
        model has no embedding.
    CompatibilityError
        When `max_length` exceeds the model's positions.
    """
    model, family, named = checkpoint.model, checkpoint.family, name or config.teacher
    called = f"tokenizer {name or config.tokenizer or config.teacher!r}"
    instead = "choose another checkpoint" if name else "set tokenizer to the one the model was trained with"
    if tokenizer.pad_token_id is None:
        remedy = instead if name else "choose another with the setting tokenizer"
        raise ModelError(f"{called} has no padding token: {remedy}")
    rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise ModelError(
            f"{called} has ids up to {highest}, but model {named!r} embeds only {rows}: the two do not belong "
            f"together, so {instead}"
        )
    if family.positions_from_padding and tokenizer.pad_token_id != model.config.pad_token_id:
        raise ModelError(
            f"{called} pads with id {tokenizer.pad_token_id}, but model {named!r} counts its positions by padding id "
            f"{model.config.pad_token_id}: {instead}"
        )
    positions = family.max_tokens(model.config)
    if config.max_length > positions:
        raise CompatibilityError(
            f"max_length is {config.max_length}, but model {named!r} takes at most {positions} tokens: set max_length "
            f"to at most {positions}"
        )
    set_as_used(tokenizer, config.max_length, token_types=family.uses_token_types(model.config))


# ---- fine-tuning ----------------------------------------------------------------------------------------------------


def _finetuned(
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
    config: RunConfig,
    data: TaskData,
    cache: Cache,
    device: torch.device,
    announce: Callable[[str], None],
    on_step: OnStep,
) -> tuple[PreTrainedModel, float]:
    """The teacher fine-tuned on its split, from the cache if it was done before, and the seconds that it took now."""
    precision = resolve_precision(config.precision, device)
    # half precision without loss scaling underflows, and a teacher is made once: fp16 runs make theirs in fp32
    precision = "fp32" if precision == "fp16" else precision
    base = {name: tensor for name, tensor in checkpoint.model.state_dict().items() if name not in checkpoint.missing}
    recipe = {
        "epochs": config.teacher_epochs,
        "learning_rate": config.teacher_learning_rate,
        "seed": config.teacher_seed,
        "batch_size": config.batch_size,
        "batch_tokens": config.batch_tokens,
        "warmup": WARMUP_SHARE,
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_GRAD_NORM,
        "precision": precision,
        "labels": data.spec.labels,
        "max_length": config.max_length,
    }
    handling = handling_of(data.spec)
    if handling.spec.name not in ("classification", "regression"):
        recipe["kind"] = handling.spec.name
    key = fingerprint(
        "finetuned-teacher-4",
        artifact_digest("sage_kit.models.teacher"),
        family_parts(checkpoint.family),
        _settings(checkpoint.model.config),
        base,
        tokenizer_fingerprint(tokenizer),
        # texts and not their tokens: of a large split these take a minute, and a teacher is found many times
        data.teacher.texts,
        data.teacher.pairs,
        label_parts(data.teacher.labels),
        recipe,
    )

    seconds = 0.0

    def build(directory: Path) -> None:
        nonlocal seconds
        announce(
            f"teacher {config.teacher!r} has no trained head for task {data.spec.name!r}: fine-tuning it on "
            f"{len(data.teacher)} examples, {config.teacher_epochs} epochs"
        )
        model = new_head(checkpoint, data.spec, config.teacher_seed)
        seconds = finetune(
            model,
            checkpoint.family,
            encode(data.teacher, data.spec, tokenizer, config.max_length),
            config,
            precision=precision,
            device=device,
            kept=cache.partial("teacher", key) / "checkpoint.safetensors",
            announce=announce,
            on_step=on_step,
        )
        export_student(model, tokenizer, directory, data.spec)

    about = {"teacher": config.teacher, "task": data.spec.name, "examples": len(data.teacher)}
    # read back from disk in any case, so that a first run and a later one start from the same bits
    model = cache.read(
        "teacher", key, build, lambda path: load_classifier(str(path), handling.spec.architecture).model, about,
        holds=CHECKPOINT_FILES,
    )  # fmt: skip
    return model, seconds


# ---- fingerprints ---------------------------------------------------------------------------------------------------


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Fingerprint of what a tokenizer does to text, whatever it was last used for."""
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        # these two are state of the last call, not rules
        rules.pop("truncation", None)
        rules.pop("padding", None)
        return fingerprint("tokenizer-1", json.dumps(rules, sort_keys=True))
    rules = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab(), "settings": tokenizer.init_kwargs}
    return fingerprint("tokenizer-1", json.dumps(rules, sort_keys=True, default=str))


def _settings(config: Any) -> dict[str, Any]:
    """A model's configuration without what does not change its outputs."""
    settings: dict[str, Any] = config.to_dict()
    for name in ("_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype"):
        settings.pop(name, None)
    return settings
