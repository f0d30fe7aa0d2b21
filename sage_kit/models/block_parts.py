"""The modules of a stock block by what they do, and the block's output computed from them with stock operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = tuple[Tensor, Tensor]
"""Weight and bias of a linear layer."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The modules of a stock block, by what they do.

    Attributes
    ----------
    query, key, value, out : Linear
        Of the attention.
    attention_dropout : Dropout
        On the attention's probabilities.
    out_dropout : Dropout or None
        Behind `out`; DistilBERT has none.
    norm, last_norm : LayerNorm
        Behind the attention's and the feed-forward part's residual.
    inner, outer : Linear
        Of the feed-forward part.
    activation : callable
        Between the two.
    dropout : Dropout or None
        Behind `outer`; ALBERT has none.
    heads : int
        Attention heads.
    scale : float
        Factor of the scores.
    copies : dict
        Casts of weights that are not trained, by the names of their layers, with what tells whether they are still the
        same.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    attention_dropout: nn.Dropout
    out_dropout: nn.Dropout | None
    norm: nn.LayerNorm
    inner: nn.Linear
    activation: Callable[[Tensor], Tensor]
    outer: nn.Linear
    dropout: nn.Dropout | None
    last_norm: nn.LayerNorm
    heads: int
    scale: float
    copies: dict[tuple[str, ...], tuple[list[tuple[int, int]], Weights]] = field(default_factory=dict)

    def weights(self, dtype: torch.dtype, *names: str) -> Weights:
        """Weight and bias of one of the linear layers, or of several beside each other, in a floating-point type.

        Weights that are trained are cast anew each time, so that gradients find their way back; of others a copy is
        kept, until they are changed; where torch does not tell of a change, they are cast anew too.
        """
        layers: list[nn.Linear] = [getattr(self, name) for name in names]
        if layers[0].weight.dtype == dtype:
            return _cast(layers, dtype)
        parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
        state = None if any(parameter.requires_grad for parameter in parameters) else _state_of(parameters)
        if state is None:
            return _cast(layers, dtype)
        known = self.copies.get(names)
        if known is None or known[0] != state or known[1][0].dtype != dtype:
            known = self.copies[names] = state, _cast(layers, dtype)
        return known[1]


def _cast(layers: list[nn.Linear], dtype: torch.dtype) -> Weights:
    """Weights and biases of layers beside each other; the parameters themselves for one layer of that type."""
    weights, biases = [layer.weight.to(dtype) for layer in layers], [layer.bias.to(dtype) for layer in layers]
    return (weights[0], biases[0]) if len(layers) == 1 else (torch.cat(weights), torch.cat(biases))


def _state_of(parameters: list[Tensor]) -> list[tuple[int, int]] | None:
    """What tells whether parameters are still the same; None where torch does not say, as of inference tensors."""
    try:
        return [(parameter.data_ptr(), parameter._version) for parameter in parameters]
    except (AttributeError, RuntimeError):
        return None


def parts_of(block: nn.Module) -> Parts:
    """The parts of a block of a supported family."""
    found: Any = block
    attention = found.attention
    if hasattr(attention, "q_lin"):
        return Parts(
            query=attention.q_lin,
            key=attention.k_lin,
            value=attention.v_lin,
            out=attention.out_lin,
            attention_dropout=attention.dropout,
            out_dropout=None,
            norm=found.sa_layer_norm,
            inner=found.ffn.lin1,
            activation=found.ffn.activation,
            outer=found.ffn.lin2,
            dropout=found.ffn.dropout,
            last_norm=found.output_layer_norm,
            heads=int(attention.n_heads),
            scale=float(attention.scaling),
        )
    if hasattr(found, "full_layer_layer_norm"):  # ALBERT
        return Parts(
            query=attention.query,
            key=attention.key,
            value=attention.value,
            out=attention.dense,
            attention_dropout=attention.attention_dropout,
            out_dropout=attention.output_dropout,
            norm=attention.LayerNorm,
            inner=found.ffn,
            activation=found.activation,
            outer=found.ffn_output,
            dropout=None,
            last_norm=found.full_layer_layer_norm,
            heads=int(attention.num_attention_heads),
            scale=float(attention.scaling),
        )
    if hasattr(attention, "attn"):
        inner = attention.attn
        layers = inner.q, inner.k, inner.v, inner.o
        out, scale = attention, int(inner.attention_head_size) ** -0.5
    else:
        inner, out = attention.self, attention.output
        layers = inner.query, inner.key, inner.value, out.dense
        scale = float(getattr(inner, "scaling", int(inner.attention_head_size) ** -0.5))
    return Parts(
        *layers,
        attention_dropout=inner.dropout,
        out_dropout=out.dropout,
        norm=out.LayerNorm,
        inner=found.intermediate.dense,
        activation=found.intermediate.intermediate_act_fn,
        outer=found.output.dense,
        dropout=found.output.dropout,
        last_norm=found.output.LayerNorm,
        heads=int(inner.num_attention_heads),
        scale=scale,
    )


def project_padded(parts: Parts, states: Tensor) -> Tensor:
    """Queries, keys and values of a padded batch, from stock operations: (..., dim) to (..., 3, dim)."""
    return torch.stack([layer(states) for layer in (parts.query, parts.key, parts.value)], dim=-2)


def first_token_block(parts: Parts, states: Tensor, mask: Tensor | None, projected: Tensor | None = None) -> Tensor:
    """A block's output for the first token only, on a padded batch, from stock operations.

    Parameters
    ----------
    parts : Parts
    states : Tensor of shape (batch, tokens, dim)
    mask, projected : Tensor or None
        As for `padded_block`.

    Returns
    -------
    Tensor of shape (batch, 1, dim)
    """
    return _block_of(parts, states[:, :1], states, None if mask is None else mask[:, :, :1], projected)


def padded_block(parts: Parts, states: Tensor, mask: Tensor | None, projected: Tensor | None = None) -> Tensor:
    """A block's output on a padded batch, from stock operations.

    Parameters
    ----------
    parts : Parts
    states : Tensor of shape (batch, tokens, dim)
    mask : Tensor or None
        For (batch, heads, queries, tokens): True at real tokens, or what is added to the scores.
    projected : Tensor of shape (batch, tokens, 3, dim) or None
        What `project_padded` gives for these states, where it is known already.

    Returns
    -------
    Tensor of shape (batch, tokens, dim)
    """
    return _block_of(parts, states, states, mask, projected)


def _block_of(parts: Parts, queries: Tensor, states: Tensor, mask: Tensor | None, projected: Tensor | None) -> Tensor:
    """A block's output for those of its states that ask, which are its first ones."""

    def heads(rows: Tensor) -> Tensor:
        split: Tensor = rows.unflatten(-1, (parts.heads, -1))
        return split.transpose(1, 2)

    dropout = parts.attention_dropout
    if projected is None:
        query, key, value = parts.query(queries), parts.key(states), parts.value(states)
    else:
        query, key, value = projected.unbind(-2)
        query = query[:, : queries.shape[1]]
    attended = F.scaled_dot_product_attention(
        heads(query),
        heads(key),
        heads(value),
        attn_mask=mask,
        dropout_p=dropout.p if dropout.training else 0.0,
        scale=parts.scale,
    )
    attended = parts.out(attended.transpose(1, 2).flatten(2))
    if parts.out_dropout is not None:
        attended = parts.out_dropout(attended)
    middle = parts.norm(attended + queries)
    inner = parts.outer(parts.activation(parts.inner(middle)))
    if parts.dropout is not None:
        inner = parts.dropout(inner)
    return cast(Tensor, parts.last_norm(inner + middle))


class StockBlocks:
    """Blocks that are built as BERT's, as a family's code: what `sage_kit.models.split` computes faster.

    Parameters
    ----------
    options, context
        As for every component; not used.
    """

    def __init__(self, options: Any, context: Any) -> None:
        pass

    def surroundings(self, model: Any, states: Tensor, mask: Tensor | None) -> Tensor | None:
        """The mask of the keys."""
        return None if mask is None else mask[:, None, None, :]

    def block(self, block: nn.Module, states: Tensor, surroundings: Tensor | None) -> Tensor:
        """A block's output from its parts."""
        return padded_block(parts_of(block), states, surroundings)

    def project(self, block: nn.Module, states: Tensor) -> Tensor:
        """Queries, keys and values."""
        return project_padded(parts_of(block), states)
