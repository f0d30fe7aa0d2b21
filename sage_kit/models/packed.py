"""A fast forward pass through stock blocks, on rows of tokens.

The very parameters of the stock blocks are used, on the tokens of all examples one after the other. Where a batch has
more padding than `PADDING`, only real tokens have rows and the attention alone sees a padded batch; below that, padding
is computed on and masked. Query, key and value come out of one matrix product; products, dropout and attention are
those of `sage_kit.models.cpu_kernels`.

Under autocast to bfloat16 the linear layers and the activation between two of them compute in bfloat16, and all else in
float32: attention, residuals, LayerNorm (whose gradients torch would add up in bfloat16) and the head. The parameters
stay float32 and are what an optimizer updates: they are cast where they are used, and their gradients are cast back.

When only the logits are asked for, the last block is computed for the first token alone, since the head sees no other:
its keys and values need every token, all the rest but one row an example. This holds on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sage_kit.models.block_parts import Parts
from sage_kit.models.cpu_kernels import attention, drop_and_add, linear

PADDING = 0.05
"""Share of padding up to which rows stay padded: leaving it out would cost as much as computing on it."""

FUSED_FROM = 24
"""Tokens from which attention without dropout goes through torch's fused kernel, slower than ours on short rows."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the rows of a packed batch stand in the padded one.

    Attributes
    ----------
    batch, tokens : int
        Size of the padded batch that the attention sees.
    rows : LongTensor of shape (total,) or None
        Place of each packed row among ``batch * tokens`` padded ones; None when nothing is padded.
    sources : LongTensor of shape (batch * tokens,) or None
        The packed row that stands at each place; at padding, the example's first.
    bias : Tensor of shape (batch, 1, 1, tokens) or None
        What to add to the scores: minus infinity at padding.
    first : LongTensor of shape (batch,) or None
        Packed row of each example's first token.
    positions : Tensor of shape (heads, tokens, tokens) or None
        What relative positions add to the scores.
    products : torch.dtype or None
        Floating-point type that linear layers compute in; None for that of the rows.
    """

    batch: int
    tokens: int
    rows: Tensor | None = None
    sources: Tensor | None = None
    bias: Tensor | None = None
    first: Tensor | None = None
    positions: Tensor | None = None
    products: torch.dtype | None = None

    def split(self, packed: Tensor, parts: int, heads: int) -> Tensor:
        """Packed rows of shape (total, parts * dim) to (parts, batch * heads, tokens, dim / heads), contiguous."""
        if self.sources is not None:
            packed = packed.index_select(0, self.sources)
        width = packed.shape[1] // (parts * heads)
        shaped = packed.view(self.batch, self.tokens, parts, heads, width).permute(2, 0, 3, 1, 4)
        return shaped.reshape(parts, self.batch * heads, self.tokens, width)

    def join(self, split: Tensor) -> Tensor:
        """Undo `split`; what stands at padding is left out."""
        parts, _, tokens, width = split.shape
        heads = split.shape[1] // self.batch
        shaped = split.view(parts, self.batch, heads, tokens, width).permute(1, 3, 0, 2, 4)
        packed = shaped.reshape(self.batch * tokens, parts * heads * width)
        return packed if self.rows is None else packed.index_select(0, self.rows)

    def spread(self, packed: Tensor) -> Tensor:
        """Packed rows of shape (total, dim) to (batch * tokens, dim), zero at padding."""
        if self.rows is None:
            return packed
        return packed.new_zeros(self.batch * self.tokens, packed.shape[1]).index_copy(0, self.rows, packed)

    def take_first(self, packed: Tensor) -> Tensor:
        """The rows of the first tokens: (total, dim) to (batch, dim)."""
        if self.first is not None:
            return packed.index_select(0, self.first)
        return packed.view(self.batch, self.tokens, -1)[:, 0]


def runs_packed(states: Tensor) -> bool:
    """Whether token states are computed on packed: on a CPU, not in half precision and not under a compiler.

    A GPU would have to wait for the lengths, which the padded pass does not need; a compiler fuses the padded pass by
    itself.
    """
    return (
        states.device.type == "cpu"
        and states.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and products_dtype() in (None, torch.bfloat16)
    )


def products_dtype() -> torch.dtype | None:
    """The type of autocast on a CPU, in which linear layers compute; None without autocast."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def pack(states: Tensor, mask: Tensor | None) -> tuple[Tensor, Layout]:
    """Pack a padded batch.

    Parameters
    ----------
    states : Tensor of shape (batch, tokens, dim)
    mask : BoolTensor of shape (batch, tokens) or None
        True at real tokens, among them each example's first.

    Returns
    -------
    rows : Tensor of shape (total, dim)
    layout : Layout
        Of as many tokens as the longest example has.
    """
    batch, tokens, dim = states.shape
    if mask is None or bool(mask.all()):
        return states.reshape(batch * tokens, dim), Layout(batch, tokens)
    longest = int(mask.any(0).nonzero()[-1]) + 1
    if int(mask.sum()) >= (1 - PADDING) * batch * longest:
        states, mask = states[:, :longest], mask[:, :longest]
        return states.reshape(batch * longest, dim), Layout(batch, longest, bias=_bias(states, mask))
    places = mask.reshape(-1).nonzero()[:, 0]
    packed = states.reshape(batch * tokens, dim).index_select(0, places)
    mask = mask[:, :longest]
    rows = mask.reshape(-1).nonzero()[:, 0]
    counts = mask.sum(1)
    first = counts.cumsum(0) - counts
    sources = first.repeat_interleave(longest).index_copy(0, rows, torch.arange(len(rows)))
    return packed, Layout(batch, longest, rows, sources, _bias(states, mask), first)


def _bias(states: Tensor, mask: Tensor) -> Tensor:
    return states.new_zeros(len(mask), 1, 1, mask.shape[1]).masked_fill_(~mask[:, None, None, :], float("-inf"))


def unpack(packed: Tensor, layout: Layout, tokens: int) -> Tensor:
    """Undo `pack`: (total, dim) to (batch, tokens, dim), zero at padding."""
    states = layout.spread(packed).view(layout.batch, layout.tokens, -1)
    return states if tokens == layout.tokens else F.pad(states, (0, 0, 0, tokens - layout.tokens))


def project(parts: Parts, rows: Tensor, layout: Layout) -> Tensor:
    """Queries, keys and values beside each other, from one matrix product: (total, dim) to (total, 3 * dim)."""
    return _layer(parts, rows, layout, "query", "key", "value").to(rows.dtype)


def packed_linear(layer: nn.Linear, rows: Tensor, layout: Layout) -> Tensor:
    """A linear layer on packed rows: (total, inputs) to (total, outputs), in the type of the rows."""
    dtype = layout.products or rows.dtype
    return linear(rows.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype), layer.training).to(rows.dtype)


def packed_block(
    parts: Parts, rows: Tensor, layout: Layout, *, first_only: bool = False, projected: Tensor | None = None
) -> Tensor:
    """A block's output on packed rows.

    Parameters
    ----------
    parts : Parts
    rows : Tensor of shape (total, dim)
    layout : Layout
    first_only : bool
        Whether to compute the first token of each example only.
    projected : Tensor of shape (total, 3 * dim) or None
        What `project` gives for these rows, where it is known already.

    Returns
    -------
    Tensor of shape (total, dim), or of shape (batch, dim) with `first_only`
    """
    queries: Tensor | None = None
    if first_only:
        dim = rows.shape[1]
        packed = _layer(parts, rows, layout, "key", "value").to(rows.dtype) if projected is None else projected[:, dim:]
        rows = layout.take_first(rows)
        if projected is None:
            queries = _layer(parts, rows, layout, "query").to(rows.dtype)
        else:
            queries = layout.take_first(projected[:, :dim])
    else:
        packed = project(parts, rows, layout) if projected is None else projected
    attended = _layer(parts, _attend(parts, packed, queries, layout), layout, "out").to(rows.dtype)
    rows = parts.norm(drop_and_add(attended, rows, parts.out_dropout))
    inner = parts.activation(_layer(parts, rows, layout, "inner"))
    outer = _layer(parts, inner, layout, "outer").to(rows.dtype)
    return cast(Tensor, parts.last_norm(drop_and_add(outer, rows, parts.dropout)))


def _layer(parts: Parts, rows: Tensor, layout: Layout, *names: str) -> Tensor:
    """Outputs of one or several linear layers beside each other, from one matrix product, in the type of products."""
    dtype = layout.products or rows.dtype
    weight, bias = parts.weights(dtype, *names)
    return linear(rows.to(dtype), weight, bias, getattr(parts, names[0]).training)


def _attend(parts: Parts, packed: Tensor, queries: Tensor | None, layout: Layout) -> Tensor:
    dropout = parts.attention_dropout
    p = dropout.p if dropout.training else 0.0
    if not p and layout.tokens >= FUSED_FROM:
        return _attend_fused(parts, packed, queries, layout)
    positions = layout.positions if queries is None or layout.positions is None else layout.positions[:, :1]
    return attention(packed, queries, layout, parts.heads, p, parts.scale, positions)


def _attend_fused(parts: Parts, packed: Tensor, queries: Tensor | None, layout: Layout) -> Tensor:
    """Attention without dropout by torch's fused kernel."""
    padded = packed if layout.sources is None else packed.index_select(0, layout.sources)
    padded = padded.view(layout.batch, layout.tokens, 2 if queries is not None else 3, parts.heads, -1)
    first, *others = (part.transpose(1, 2) for part in padded.unbind(2))
    if queries is None:
        key, value = others
    else:
        first, key, value = queries.view(layout.batch, 1, parts.heads, -1).transpose(1, 2), first, others[0]
    added = layout.bias
    if layout.positions is not None:
        positions = layout.positions if queries is None else layout.positions[:, :1]
        added = positions[None] if added is None else added + positions
    attended = F.scaled_dot_product_attention(first, key, value, attn_mask=added, scale=parts.scale)
    attended = attended.transpose(1, 2).flatten(2).flatten(0, 1)
    return attended if layout.rows is None or queries is not None else attended.index_select(0, layout.rows)
