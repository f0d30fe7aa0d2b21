"""Relative positions: what a family of encoders adds to the scores of every block's attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components import FamilySpec


class PositionBias:
    """The bias of MPNet's attention (Song et al. 2020, arXiv 2004.09297), one for all blocks, as in T5.

    Parameters
    ----------
    encoder : Module
        The stock encoder, which holds the weights and computes the bias from them.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self._encoder: Any = encoder

    @property
    def weights(self) -> nn.Embedding:
        """What the bias is computed from."""
        return cast(nn.Embedding, self._encoder.relative_attention_bias)

    def __call__(self, tokens: int) -> Tensor:
        """The bias for texts of so many tokens, padding included: (heads, tokens, tokens), query before key."""
        # the stock method asks for the size of token states and for their device only
        like = torch.empty(1, tokens, 0, device=self.weights.weight.device)
        bias = self._encoder.compute_position_bias(like)
        return cast(Tensor, bias[0])


def position_bias(model: PreTrainedModel, family: FamilySpec) -> PositionBias | None:
    """The bias of a model's relative positions; None where the embeddings alone tell positions."""
    return PositionBias(model.get_submodule(family.relative_positions)) if family.relative_positions else None


def score_bias(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """What a block takes as its mask, to be broadcast over (batch, heads, queries, keys).

    Parameters
    ----------
    mask : BoolTensor of shape (batch, tokens) or None
        True at real tokens.
    bias : Tensor of shape (heads, tokens, tokens) or None
        Of relative positions.

    Returns
    -------
    Tensor or None
        The mask itself of shape (batch, 1, 1, tokens), or, with a bias, what is to be added to the scores: minus
        infinity at padding.
    """
    keys = None if mask is None else mask[:, None, None, :]
    if bias is None or keys is None:
        return keys if bias is None else bias[None]
    return bias[None].masked_fill(~keys, float("-inf"))


def attention_mask(states: Tensor, mask: Tensor | None, positions: PositionBias | None) -> Tensor | None:
    """The mask that a block takes for states of shape (batch, tokens, dim), or what is added to its scores."""
    return score_bias(mask, None if positions is None else positions(states.shape[1]).to(states.dtype))
