"""A student that keeps an input layer of its own, trained on token ids: the usual loop, as a control for the bypass.

Plain distillation and nothing else: a run differs from one with ``schedule="none"`` and ``bypass="embeddings"`` in one
thing, the student's embeddings are trained, from the teacher's on, with their dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PreTrainedModel

from sage_kit.components import TokenBatch
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.tokens import Tokens
from sage_kit.errors import ConfigError
from sage_kit.models.split import UpperLayers, UpperOutput
from sage_kit.models.vectors import VectorStore
from sage_kit.recipe import Recipe
from sage_kit.rundir import RunDirectory
from sage_kit.studies.analyses.own_loop import TrainedEmbeddings, UnsavedLoop, run_loop
from sage_kit.system.transfer import Placing, pinned, to_device
from sage_kit.training.preparation import prepare
from sage_kit.training.prepared import Prepared, PreparedSplit


class WholeStudent(TrainedEmbeddings):
    """A student with its input layer, called as upper layers are, on token ids in place of token states. With `freeze`
    its embeddings stay as they are, their dropout off: it then computes what a bypassed student does.
    """

    def __init__(self, model: PreTrainedModel, *, freeze: bool = False) -> None:
        super().__init__(model, freeze)
        self.upper = UpperLayers(model, 0)
        self.train(model.training)

    def forward(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor | None = None,
        hidden: bool = False,
        projections: Sequence[int] = (),
        *,
        lengths: NDArray[np.int64] | None = None,
    ) -> UpperOutput:
        """What `UpperLayers.forward` returns, of token ids and types as (batch, tokens, 2), int64."""
        states = self.states(*tokens.unbind(-1))
        if mask is not None:
            states = states * mask.unsqueeze(-1)
        return cast(UpperOutput, self.upper(states, mask, hidden=hidden, projections=projections, lengths=lengths))

    def scores(self, layer: int, projections: torch.Tensor) -> torch.Tensor:
        """What `UpperLayers.scores` returns."""
        return self.upper.scores(layer, projections)

    def flops(self, lengths: NDArray[np.integer[Any]], hidden: bool = False, projections: Sequence[int] = ()) -> int:
        """Forward FLOPs, counted as in `UpperLayers.flops`; a look-up in the embeddings is none."""
        return self.upper.flops(lengths, hidden, projections)

    def training_flops(
        self, lengths: NDArray[np.integer[Any]], hidden: bool = False, projections: Sequence[int] = ()
    ) -> int:
        """FLOPs of a training step: three forward passes.

        `UpperLayers.training_flops` leaves out the gradient of the first block's input, which nothing needs there; here
        the embeddings are trained by it. Their own gradient and the optimizer's update are sums, not products, and
        count as none, though they take time.
        """
        if self._frozen:
            return self.upper.training_flops(lengths, hidden, projections)
        return 3 * self.upper.flops(lengths, hidden, projections)


class TokenStore(VectorStore):
    """Token ids of a split, which stand in the place of token states.

    Parameters
    ----------
    tokens : Tokens
    """

    def __init__(self, tokens: Tokens) -> None:
        super().__init__(None, tokens.offsets, np.empty((0, 0), np.float32), "", tokens)

    def gather(self, indices: NDArray[np.int64], device: torch.device) -> Placing[TokenBatch]:
        """Some examples, in two steps: ids and types of shape (batch, tokens, 2), padded, and the mask."""
        assert self.tokens is not None
        ids, types, mask = self.tokens.pad(indices)
        both, real = pinned(torch.stack([ids, types], dim=-1), device), pinned(mask, device)
        lengths = self.lengths_of(indices)
        return lambda: TokenBatch(to_device(both, device), to_device(real, device), lengths=lengths)


def run_whole_student(
    config: RunConfig, plugins: Plugins, plugin_files: list[str] | None = None, *, freeze: bool = False
) -> tuple[RunDirectory, dict[str, Any]]:
    """Distil a whole student into a new run directory, as `sage_kit.studies.analyses.own_loop.run_loop` does."""

    def make(recipe: Recipe, accelerator: Accelerator, costs: Costs) -> tuple[Prepared, type[UnsavedLoop]]:
        prepared = prepare(recipe, accelerator, costs)
        if 1 in prepared.loss_inputs.teacher_projections:
            raise ConfigError(
                "the relations of the teacher's first block are those of token states, which a student with an input "
                "layer does not share: set relation_layer to a later block, or relation_weight to 0"
            )
        return on_tokens(prepared), _FrozenLoop if freeze else _Loop

    needs = {"bypass": "embeddings", "granularity": "token", "student_width": 0}
    return run_loop(config, plugins, plugin_files or [], make, who="a student with an input layer", needs=needs)


class _Loop(UnsavedLoop):
    """The usual loop on token ids, whose student trains its embeddings too."""

    freeze = False

    def trained_part(self, student: PreTrainedModel) -> WholeStudent:
        """The whole student."""
        return WholeStudent(student, freeze=self.freeze)


class _FrozenLoop(_Loop):
    """The same with frozen embeddings."""

    freeze = True


def on_tokens(prepared: Prepared) -> Prepared:
    """The same splits, with token ids in the place of token states in every batch."""

    def one(split: PreparedSplit) -> PreparedSplit:
        return replace(split, store=TokenStore(split.tokens))

    return replace(
        prepared,
        train=one(prepared.train),
        dev=one(prepared.dev),
        validation={name: one(split) for name, split in prepared.validation.items()},
        evaluation=None if prepared.evaluation is None else one(prepared.evaluation),
    )
