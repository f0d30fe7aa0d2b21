"""The paper's literal reading: teacher and student read one pooled vector for each example.

The arm differs from one with ``granularity="pooled"`` in one thing: its teacher was fine-tuned on such vectors. With it
come the student's first weights and the frozen embeddings. That teacher has the checkpoint, head, rows, batches,
epochs, learning rate, seed and precision of the usual one (`sage_kit.models.teacher`) and is fine-tuned by its loop;
the two differ in one thing: its embeddings are pooled before the first block.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.encoding import encode
from sage_kit.data.scoring import load_scored
from sage_kit.data.splits import TaskData
from sage_kit.data.teacher_report import report_teacher
from sage_kit.data.tokens import Tokens
from sage_kit.models.export import CHECKPOINT_FILES, export_student
from sage_kit.models.families import family_of
from sage_kit.models.finetuning import OnStep, finetune
from sage_kit.models.teacher import Teacher, load_teacher
from sage_kit.models.vectors import pool
from sage_kit.recipe import Recipe, resolve
from sage_kit.rundir import RunDirectory
from sage_kit.storage.cache import Cache
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import artifact_digest
from sage_kit.studies.analyses.own_loop import TrainedEmbeddings, UnsavedLoop, run_loop
from sage_kit.studies.contents import checkpoint_content
from sage_kit.system.devices import resolve_precision
from sage_kit.training.preparation import prepare
from sage_kit.training.preparation_steps import FINE_TUNING
from sage_kit.training.prepared import Prepared

RECIPE = ("teacher_epochs", "teacher_learning_rate", "teacher_seed", "batch_size", "batch_tokens", "teacher_labels",
          "max_length", "pooling")  # fmt: skip
"""Settings that shape the teacher beside its checkpoint, rows and precision; the rest is in its code."""


def run_pooled_teacher(
    config: RunConfig, plugins: Plugins, plugin_files: list[str] | None = None, *, freeze: bool = False
) -> tuple[RunDirectory, dict[str, Any]]:
    """Distil a student of pooled vectors from a teacher fine-tuned on them, as `run_loop` of `own_loop` does. Settings
    and records name the checkpoint that the teacher was made from; the teacher itself is in the cache.
    """

    def make(recipe: Recipe, accelerator: Accelerator, costs: Costs) -> tuple[Prepared, type[UnsavedLoop]]:
        return prepare_pooled(recipe.config, plugins, accelerator, costs, freeze=freeze), UnsavedLoop

    needs = {"bypass": "embeddings", "granularity": "pooled"}
    return run_loop(config, plugins, plugin_files or [], make, who="a student of a pooled teacher", needs=needs)


def run_frozen_pooled_teacher(
    config: RunConfig, plugins: Plugins, plugin_files: list[str] | None = None
) -> tuple[RunDirectory, dict[str, Any]]:
    """The same from a teacher whose embeddings stay those of the checkpoint; see `run_pooled_teacher`."""
    return run_pooled_teacher(config, plugins, plugin_files, freeze=True)


def prepare_pooled(
    config: RunConfig, plugins: Plugins, accelerator: Accelerator, costs: Costs, *, freeze: bool = False
) -> Prepared:
    """What a run starts from (`sage_kit.training.preparation.prepare`), with a teacher fine-tuned on pooled input."""

    def announce(text: str) -> None:
        plugins.message(None, text)

    folder, seconds = pooled_teacher(
        config,
        load_scored(plugins, config, lambda text: None),  # `prepare` tells about the data
        Cache(Path(config.cache_dir).expanduser(), announce),
        accelerator.device,
        announce,
        lambda done, total, loss: plugins.step_finished(None, "teacher", done, total, loss),
        freeze=freeze,
    )
    # its outputs are in the task's order, whatever those of the checkpoint mean
    named = config.model_copy(update={"teacher": str(folder), "teacher_labels": []})
    prepared = prepare(resolve(named, plugins), accelerator, costs)
    if seconds:
        costs.add(FINE_TUNING, seconds)
    return replace(
        prepared,
        teacher=replace(prepared.teacher, finetuned=True, outputs=None, seconds=seconds),
        # which names the checkpoint, and advises on a teacher that is fine-tuned here
        report=report_teacher(
            config.teacher, prepared.data.spec, prepared.dev.outputs.logits, prepared.dev.labels, outputs=None
        ),
    )


@dataclass(frozen=True, eq=False)
class NumberedExamples(Tokens):
    """Tokens whose batches hold the number of each example in the place of its ids, for `PooledEmbeddings`. Lengths are
    those of the texts, so that batches are planned as for the usual teacher.
    """

    def pad(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The numbers of some examples, zeros, and True: each of shape (batch, 1)."""
        numbers = torch.from_numpy(indices)[:, None]
        return numbers, torch.zeros_like(numbers), torch.ones_like(numbers, dtype=torch.bool)


class PooledEmbeddings(TrainedEmbeddings):
    """Embeddings that give one vector for each example, called with the examples' numbers."""

    def __init__(self, model: PreTrainedModel, tokens: Tokens, pooling: str, freeze: bool) -> None:
        super().__init__(model, freeze)
        self._tokens = tokens
        self._pooling = pooling

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Pooled vectors (batch, 1, dim) of examples' numbers (batch, 1), int64; types are those of the examples."""
        ids, types, mask = (part.to(input_ids.device) for part in self._tokens.pad(input_ids[:, 0].cpu().numpy()))
        return pool(self.states(ids, types), mask, self._pooling)[:, None]


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

    A checkpoint whose head is trained for the task keeps that head, and is fine-tuned on as well. `folder`: A plain
    transformers checkpoint with a trained head, an entry of the cache. `seconds`: Of the fine-tuning, with those of a
    process that was killed during it; 0 where none was done now. The embeddings are what is pooled, whatever `bypass`
    says; with `freeze` they stay those of the checkpoint.
    """
    precision = resolve_precision(config.precision, device)
    precision = "fp32" if precision == "fp16" else precision  # as for the usual teacher
    key = fingerprint(
        "pooled-teacher-2",
        artifact_digest(__name__),
        checkpoint_content(config.teacher),
        checkpoint_content(config.tokenizer),
        data.teacher.texts,
        data.teacher.pairs,
        data.teacher.labels,
        data.spec.labels,
        config.model_dump(include=set(RECIPE)),
        precision,
        freeze,
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
        encoded = encode(data.teacher, data.spec, start.tokenizer, config.max_length)
        tokens = encoded.tokens
        pooled = PooledEmbeddings(model, tokens, config.pooling, freeze)
        model.set_submodule(family.embeddings, pooled)
        numbered = NumberedExamples(
            tokens.ids, tokens.types, tokens.offsets, tokens.special, tokens.second, tokens.pad_id
        )
        seconds = finetune(
            model,
            family,
            replace(encoded, texts=replace(encoded.texts, tokens=numbered)),
            config,
            precision=precision,
            device=device,
            kept=cache.partial("teacher", key) / "checkpoint.safetensors",
            announce=announce,
            on_step=on_step,
        )
        model.set_submodule(family.embeddings, pooled.embeddings)
        export_student(model, start.tokenizer, directory, data.spec)

    about = {"teacher": config.teacher, "task": data.spec.name, "examples": len(data.teacher), "input": "pooled"}
    return cache.entry("teacher", key, build, about, holds=CHECKPOINT_FILES), seconds


def untrained_teacher(config: RunConfig, data: TaskData, device: torch.device) -> Teacher:
    """The teacher before the first step of its fine-tuning: the checkpoint under the head that the settings give it."""
    config = config.model_copy(update={"teacher_epochs": 0})
    with tempfile.TemporaryDirectory() as folder:
        return load_teacher(
            config, data, Cache(Path(folder)), device, lambda text: None, lambda done, total, loss: None
        )
