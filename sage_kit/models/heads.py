"""The head of a model: from the states of its last block to logits, of each example or each token, or to a vector."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sage_kit.models.architectures import architecture_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components import FamilySpec, HeadParts
    from sage_kit.models.sentence_encoder import SentenceEncoder


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
        else:
            pooled = _mean(states, mask)
        if self.first_dropout is not None:
            pooled = self.first_dropout(pooled)
        if self.dense is not None:
            pooled = self.activation(self.dense(pooled))
        if self.norm is not None:
            pooled = self.norm(pooled)
        logits: Tensor = self.output(self.dropout(pooled))
        return logits

    @property
    def n_outputs(self) -> int:
        """Width of the logits."""
        return int(self.output.out_features)

    def flops(self, examples: int, tokens: int) -> int:
        """Forward FLOPs for so many examples, which have so many tokens."""
        return (
            (tokens if self.per_token else examples)
            * 2
            * sum(layer.weight.numel() for layer in (self.dense, self.output) if layer is not None)
        )


class EmbeddingHead(nn.Module):
    r"""The vector of a text: its tokens' states pooled and brought to the length :math:`\sqrt{d/2}`, d being the width.

    For unit vectors u and v, :math:`\|u - v\|^2 = 2 - 2 \cos(u, v)`. So of two such outputs the mean of the squared
    differences, which is the divergence of everything that is no distribution, is

    .. math:: \frac{1}{d} \sum_i \Bigl(\sqrt{d/2}\, u_i - \sqrt{d/2}\, v_i\Bigr)^2 = 1 - \cos(u, v)

    It is computed in single precision, whatever the blocks compute in.

    Parameters
    ----------
    dim : int
        Width of the states.
    pooling : "mean" or "cls"
        Mean of the real tokens' states, or the first one.

    Attributes
    ----------
    per_token : bool
    reads_all : bool
    n_outputs : int
        As many as the states are wide.
    """

    per_token: ClassVar[bool] = False

    def __init__(self, dim: int, pooling: str) -> None:
        super().__init__()
        self.n_outputs = dim
        self.pooling = pooling
        self.reads_all = pooling == "mean"

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Vectors of shape (batch, dim), float32, from states of shape (batch, tokens, dim)."""
        states = states.float()
        pooled = _mean(states, mask) if self.reads_all else states[:, 0]
        return F.normalize(pooled, dim=-1) * math.sqrt(self.n_outputs / 2)

    def flops(self, examples: int, tokens: int) -> int:
        """Forward FLOPs: there is no matrix product."""
        return 0


def head_of(model: PreTrainedModel, family: FamilySpec) -> Any:
    """The head that a model has: a `Head` or an `EmbeddingHead`."""
    architecture = architecture_of(model)
    if architecture == "embedding":
        return EmbeddingHead(int(model.config.hidden_size), cast("SentenceEncoder", model).settings.pooling)
    return Head(model, family.head_for(architecture), per_token=architecture in ("token", "span"))


def _mean(states: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the real tokens, of shape (batch, dim)."""
    if mask is None:
        return states.mean(1)
    real = mask.unsqueeze(-1)
    return torch.where(real, states, 0).sum(1) / real.sum(1)


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    """An activation by its name."""
    if name in ("tanh", "relu"):
        return torch.tanh if name == "tanh" else torch.relu
    from transformers.activations import ACT2FN

    return cast("Callable[[Tensor], Tensor]", ACT2FN[name])
