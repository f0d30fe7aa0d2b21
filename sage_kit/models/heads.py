"""The head of a model: from the states of its last block to logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components import HeadParts


class Head(nn.Module):
    """The classifier on one pooled state of each example, the same steps for every family.

    Its parameters are called ``dense.*``, ``output.*`` and, where there is one, ``norm.*`` whatever the family calls
    them.

    Parameters
    ----------
    model : PreTrainedModel
        Shares its modules.
    spec : HeadParts

    Attributes
    ----------
    reads_all : bool
        Whether it pools all tokens and not the first one's state.
    activation : callable
        Behind `dense`.
    """

    def __init__(self, model: PreTrainedModel, spec: HeadParts) -> None:
        super().__init__()
        self.dense = cast(nn.Linear, model.get_submodule(spec.dense)) if spec.dense else None
        self.output = cast(nn.Linear, model.get_submodule(spec.output))
        self.dropout = model.get_submodule(spec.dropout)
        self.norm = model.get_submodule(spec.norm) if spec.norm else None
        self.activation = _activation(spec.activation_of(model.config))
        self.first_dropout = model.get_submodule(spec.first_dropout) if spec.first_dropout else None
        self.reads_all = spec.pools_mean(model.config)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of shape (batch, n_outputs) from final states of shape (batch, tokens, dim).

        The mask of shape (batch, tokens), True at real tokens, matters to a head that pools all of them.
        """
        if not self.reads_all:
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

    def flops(self) -> int:
        """Forward FLOPs for one example."""
        return 2 * sum(layer.weight.numel() for layer in (self.dense, self.output) if layer is not None)


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    """An activation by its name."""
    if name in ("tanh", "relu"):
        return torch.tanh if name == "tanh" else torch.relu
    from transformers.activations import ACT2FN

    return cast("Callable[[Tensor], Tensor]", ACT2FN[name])
