"""A teacher fine-tuned on pooled input: for each example it reads one vector, a sequence of length one.

Checkpoint, head, rows, batches, epochs, learning rate, seed and precision are those of the usual teacher
(`sage_kit.models.teacher`), by whose loop it is fine-tuned. The two differ in one thing: its embeddings are pooled
before the first block.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sage_kit.config import RunConfig
from sage_kit.data.splits import TaskData
from sage_kit.data.tokens import Tokens, tokenize
from sage_kit.models.export import export_student
from sage_kit.models.families import Family, family_of
from sage_kit.models.finetuning import MAX_GRAD_NORM, WEIGHT_DECAY, OnStep, finetune
from sage_kit.models.learning_rate import WARMUP_SHARE
from sage_kit.models.split import embed
from sage_kit.models.teacher import Teacher, load_teacher
from sage_kit.models.vectors import pool
from sage_kit.storage.cache import Cache
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import artifact_digest
from sage_kit.studies.contents import checkpoint_content
from sage_kit.system.devices import resolve_precision


@dataclass(frozen=True, eq=False)
class NumberedExamples(Tokens):
    """Tokens whose batches hold the number of each example in the place of its ids, for `PooledEmbeddings`.

    Lengths are those of the texts, so that batches are planned as for the usual teacher.
    """

    def pad(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The numbers of some examples, zeros, and True: each of shape (batch, 1)."""
        numbers = torch.from_numpy(indices)[:, None]
        return numbers, torch.zeros_like(numbers), torch.ones_like(numbers, dtype=torch.bool)


class PooledEmbeddings(nn.Module):
    """Embeddings that give one vector for each example, called with the examples' numbers.

    Parameters
    ----------
    embeddings : Module
        A model's embeddings; shared.
    family : Family
        The model's.
    uses_types : bool
        Whether they tell token types apart.
    tokens : Tokens
        The examples.
    pooling : "mean" or "cls"
        Mean of the real tokens, or the first.
    freeze : bool
        Whether the embeddings stay as they are, their dropout off.
    """

    def __init__(
        self, embeddings: nn.Module, family: Family, uses_types: bool, tokens: Tokens, pooling: str, freeze: bool
    ) -> None:
        super().__init__()
        self.embeddings = embeddings.requires_grad_(not freeze)
        self._takes_types = family.token_types
        self._uses_types = uses_types
        self._tokens = tokens
        self._pooling = pooling
        self._frozen = freeze

    def train(self, mode: bool = True) -> PooledEmbeddings:
        """Dropout on or off, that of frozen embeddings always off."""
        super().train(mode)
        self.embeddings.train(mode and not self._frozen)
        return self

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Pooled vectors of shape (batch, 1, dim).

        Parameters
        ----------
        input_ids : Tensor of shape (batch, 1), int64
            Numbers of the examples.
        token_type_ids : Tensor or None
            Not read: the types are those of the examples.
        """
        ids, types, mask = (part.to(input_ids.device) for part in self._tokens.pad(input_ids[:, 0].cpu().numpy()))
        kinds = (types if self._uses_types else torch.zeros_like(ids)) if self._takes_types else None
        return pool(embed(self.embeddings, ids, kinds), mask, self._pooling)[:, None]


def pooled_teacher(
    config: RunConfig,
    data: TaskData,
    cache: Cache,
    device: torch.device,
    announce: Callable[[str], None],
    on_step: OnStep,
    *,
    freeze: bool = False,
) -> tuple[Path, float]:
    """A teacher fine-tuned on pooled input, from the cache if it was made before.

    A checkpoint whose head is trained for the task keeps that head, and is fine-tuned on as well.

    Parameters
    ----------
    config : RunConfig
        Names the checkpoint, and says how the usual teacher is fine-tuned and how vectors are pooled. The embeddings
        are what is pooled, whatever `bypass` says.
    data : TaskData
        Its split "teacher" is what the teacher is fine-tuned on.
    cache : Cache
    device : torch.device
        Where it is fine-tuned.
    announce : callable
        Shows one line to the user.
    on_step : callable
        ``on_step(done, total, loss)`` after each step of the fine-tuning; the loss stays on the device.
    freeze : bool
        Whether its embeddings stay those of the checkpoint. If not, they are fine-tuned as the usual teacher's are.

    Returns
    -------
    folder : Path
        A plain transformers checkpoint with a trained head, an entry of the cache.
    seconds : float
        Of the fine-tuning, with those of a process that was killed amid it; 0 where none was done now.

    Raises
    ------
    ModelError, CompatibilityError
        As `sage_kit.models.teacher.load_teacher` does.
    """
    precision = resolve_precision(config.precision, device)
    precision = "fp32" if precision == "fp16" else precision  # as for the usual teacher
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
        "teacher_labels": config.teacher_labels,
        "max_length": config.max_length,
        "pooling": config.pooling,
        "freeze": freeze,
    }
    key = fingerprint(
        "pooled-teacher-1",
        artifact_digest(__name__),
        checkpoint_content(config.teacher),
        checkpoint_content(config.tokenizer),
        data.teacher.texts,
        data.teacher.pairs,
        data.teacher.labels,
        recipe,
    )
    seconds = 0.0

    def build(directory: Path) -> None:
        nonlocal seconds
        start = untrained_teacher(config, data, device)
        announce(
            f"teacher {config.teacher!r}: fine-tuning it on pooled vectors of {len(data.teacher)} examples, "
            f"{config.teacher_epochs} epochs{', its embeddings frozen' if freeze else ''}"
        )
        model, family = cast(Any, start.model.requires_grad_(True)), family_of(start.model.config)
        tokens = tokenize(data.teacher, start.tokenizer, config.max_length)
        embeddings = model.get_submodule(family.embeddings)
        uses_types = family.uses_token_types(model.config)
        pooled = PooledEmbeddings(embeddings, family, uses_types, tokens, config.pooling, freeze)
        model.set_submodule(family.embeddings, pooled)
        seconds = finetune(
            model,
            family,
            NumberedExamples(tokens.ids, tokens.types, tokens.offsets, tokens.special, tokens.second, tokens.pad_id),
            data.teacher.labels,
            config,
            precision=precision,
            device=device,
            kept=cache.partial("teacher", key) / "checkpoint.safetensors",
            announce=announce,
            on_step=on_step,
        )
        model.set_submodule(family.embeddings, embeddings)
        export_student(model, start.tokenizer, directory, data.spec)

    about = {"teacher": config.teacher, "task": data.spec.name, "examples": len(data.teacher), "input": "pooled"}
    return cache.entry("teacher", key, build, about), seconds


def untrained_teacher(config: RunConfig, data: TaskData, device: torch.device) -> Teacher:
    """The teacher before the first step of its fine-tuning: the checkpoint under the head that the settings give it."""
    config = config.model_copy(update={"teacher_epochs": 0})
    with tempfile.TemporaryDirectory() as folder:
        return load_teacher(
            config, data, Cache(Path(folder)), device, lambda text: None, lambda done, total, loss: None
        )
