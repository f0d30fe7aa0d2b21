"""The head of a model: from the states of its last block to logits, of each example or of each token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sage_kit.models.architectures import architecture_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components import FamilySpec, HeadParts


class Head(nn.Module):
    """The classifier on one pooled state of each example, or on every token's, the same steps for every family.

    Its parameters are called ``dense.*``, ``output.*`` and, where there is one, ``norm.*`` whatever the family calls
    them.

    Parameters
    ----------
    model : PreTrainedModel
        Shares its modules.
    spec : HeadParts
    per_token : bool
        Whether it gives an output for each token.

    Attributes
    ----------
    per_token : bool
    reads_all : bool
        Whether it looks at all tokens and not the first one's state alone.
    activation : callable
        Behind `dense`.
    """

    def __init__(self, model: PreTrainedModel, spec: HeadParts, *, per_token: bool = False) -> None:
        super().__init__()
        self.per_token = per_token
        self.dense = cast(nn.Linear, model.get_submodule(spec.dense)) if spec.dense else None
        self.output = cast(nn.Linear, model.get_submodule(spec.output))
        self.dropout = model.get_submodule(spec.dropout) if spec.dropout else nn.Identity()
        self.norm = model.get_submodule(spec.norm) if spec.norm else None
        self.activation = _activation(spec.activation_of(model.config))
        self.first_dropout = model.get_submodule(spec.first_dropout) if spec.first_dropout else None
        self.reads_all = per_token or spec.pools_mean(model.config)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of shape (batch, n_outputs) or (batch, tokens, n_outputs) from states of shape (batch, tokens, dim).

        The mask of shape (batch, tokens), True at real tokens, matters to a head that pools all of them.
        """
        if self.per_token:
            pooled = states
        elif not self.reads_all:
            pooled = states[:, 0]
        elif mask is None:
            pooled = states.mean(1)
        else:
            real = mask.unsqueeze(-1)
            pooled = torch.where(real, states, 0).sum(1) / real.sum(1)
        if self.first_dropout is not None:
            pooled = self.first_dropout(pooled)
        if self.dense is not None:
            pooled = self.activation(self.dense(pooled))
        if self.norm is not None:
            pooled = self.norm(pooled)
        logits: Tensor = self.output(self.dropout(pooled))
        return logits

    def flops(self, examples: int, tokens: int) -> int:
        """Forward FLOPs for so many examples, which have so many tokens."""
        return (
            (tokens if self.per_token else examples)
            * 2
            * sum(layer.weight.numel() for layer in (self.dense, self.output) if layer is not None)
        )


def head_of(model: PreTrainedModel, family: FamilySpec) -> Head:
    """The head that a model has."""
    architecture = architecture_of(model)
    return Head(model, family.head_for(architecture), per_token=architecture in ("token", "span"))


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    """An activation by its name."""
    if name in ("tanh", "relu"):
        return torch.tanh if name == "tanh" else torch.relu
    from transformers.activations import ACT2FN

    return cast("Callable[[Tensor], Tensor]", ACT2FN[name])
