"""A fast forward pass through stock blocks, on rows of tokens.

The very parameters of the stock blocks are used, on the tokens of all examples one after the other. Query, key and
value come out of one matrix product. Two layouts differ in their attention alone:

* On a CPU (`pack`), where a batch has more padding than `PADDING`, only real tokens have rows and the attention alone
  sees a padded batch; below that, padding is computed on and masked. Products, dropout and attention are those of
  `sage_kit.models.cpu_kernels`.
* On a card (`pack_lengths`) the attention, too, sees packed rows (`sage_kit.models.varlen`). The layout is made from
  lengths that the host knows, so nothing waits for the device.

Under autocast to bfloat16 the linear layers and the activation between two of them compute in bfloat16, and all else in
float32: residuals, LayerNorm (whose gradients torch would add up in bfloat16) and the head; attention in float32 on a
CPU, on a card in bfloat16, adding up in float32. The parameters stay float32 and are what an optimizer updates: they
are cast where they are used, and their gradients are cast back.

When only the logits are asked for, the last block is computed for the first token alone, since the head sees no other:
its keys and values need every token, all the rest but one row an example. This holds on every device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sage_kit.models.block_parts import Parts
from sage_kit.models.cpu_kernels import attention, drop_and_add, linear
from sage_kit.models.varlen import VarlenAttention
from sage_kit.system.transfer import to_device

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    attend : callable or None
        What attends over packed rows; None to attend over the padded batch.
    bounds : Tensor of shape (batch + 1,), int32, or None
        With `attend`, where each example's packed rows begin and end.
    each : Tensor of shape (batch + 1,), int32, or None
        The same of one row an example.
    """

    batch: int
    tokens: int
    rows: Tensor | None = None
    sources: Tensor | None = None
    bias: Tensor | None = None
    first: Tensor | None = None
    positions: Tensor | None = None
    products: torch.dtype | None = None
    attend: VarlenAttention | None = None
    bounds: Tensor | None = None
    each: Tensor | None = None

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
    """Whether `pack` packs token states: on a CPU, not in half precision and not under a compiler.

    A card would have to wait for what it asks; a compiler fuses the padded pass by itself.
    """
    return (
        states.device.type == "cpu"
        and states.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and products_dtype("cpu") in (None, torch.bfloat16)
    )


def products_dtype(device: str) -> torch.dtype | None:
    """The type of autocast on a kind of device, in which linear layers compute; None without autocast."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


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


def pack_lengths(states: Tensor, lengths: NDArray[np.int64], attend: VarlenAttention) -> tuple[Tensor, Layout]:
    """Pack a padded batch whose lengths the host knows; nothing waits for the device.

    Parameters
    ----------
    states : Tensor of shape (batch, tokens, dim)
    lengths : array of shape (batch,), int64
        Tokens of each example, at least 1; they stand in front of the padding.
    attend : callable
        What attends over the packed rows.

    Returns
    -------
    rows : Tensor of shape (total, dim)
    layout : Layout
        Of as many tokens as the longest example has.
    """
    batch, tokens, dim = states.shape
    device = states.device
    total, longest = int(lengths.sum()), int(lengths.max())
    counts = to_device(torch.from_numpy(lengths), device)
    bounds = F.pad(counts.cumsum(0), (1, 0))
    each = torch.arange(batch + 1, device=device, dtype=torch.int32)
    layout = Layout(batch, longest, first=bounds[:-1], attend=attend, bounds=bounds.int(), each=each)
    flat = states.reshape(batch * tokens, dim)
    if total == batch * tokens:
        return flat, layout
    # with the size of the result given, it need not be asked for
    example = torch.arange(batch, device=device).repeat_interleave(counts, output_size=total)
    within = torch.arange(total, device=device) - bounds[example]
    return flat.index_select(0, example * tokens + within), replace(layout, rows=example * longest + within)


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
    # a card attends in the type of the products
    dtype = rows.dtype if layout.attend is None or layout.products is None else layout.products
    if first_only:
        dim = rows.shape[1]
        packed = _layer(parts, rows, layout, "key", "value").to(dtype) if projected is None else projected[:, dim:]
        rows = layout.take_first(rows)
        if projected is None:
            queries = _layer(parts, rows, layout, "query").to(dtype)
        else:
            queries = layout.take_first(projected[:, :dim]).to(dtype)
    else:
        packed = _layer(parts, rows, layout, "query", "key", "value") if projected is None else projected
    attended = _layer(parts, _attend(parts, packed.to(dtype), queries, layout), layout, "out")
    rows = parts.norm(_drop_and_add(attended, rows, parts.out_dropout))
    inner = parts.activation(_layer(parts, rows, layout, "inner"))
    outer = _layer(parts, inner, layout, "outer")
    return cast(Tensor, parts.last_norm(_drop_and_add(outer, rows, parts.dropout)))


def _layer(parts: Parts, rows: Tensor, layout: Layout, *names: str) -> Tensor:
    """Outputs of one or several linear layers beside each other, from one matrix product, in the type of products."""
    dtype = layout.products or rows.dtype
    weight, bias = parts.weights(dtype, *names)
    return linear(rows.to(dtype), weight, bias, getattr(parts, names[0]).training)


def _drop_and_add(rows: Tensor, residual: Tensor, dropout: nn.Dropout | None) -> Tensor:
    """``dropout(rows) + residual`` in the type of the residual, by what is fastest on the device."""
    if rows.device.type == "cpu":
        return drop_and_add(rows.to(residual.dtype), residual, dropout)
    # there, each pass over memory counts: the addition casts
    dropped: Tensor = rows if dropout is None else dropout(rows)
    return dropped + residual


def _attend(parts: Parts, packed: Tensor, queries: Tensor | None, layout: Layout) -> Tensor:
    dropout = parts.attention_dropout
    p = dropout.p if dropout.training else 0.0
    if layout.attend is not None:
        return _attend_rows(parts, packed, queries, layout, p)
    if not p and layout.tokens >= FUSED_FROM:
        return _attend_fused(parts, packed, queries, layout)
    positions = layout.positions if queries is None or layout.positions is None else layout.positions[:, :1]
    return attention(packed, queries, layout, parts.heads, p, parts.scale, positions)


def _attend_rows(parts: Parts, packed: Tensor, queries: Tensor | None, layout: Layout, p: float) -> Tensor:
    """Attention over packed rows."""
    assert layout.attend is not None
    assert layout.bounds is not None
    assert layout.each is not None
    *query, key, value = packed.view(len(packed), 2 if queries is not None else 3, parts.heads, -1).unbind(1)
    bounds, most = (layout.bounds, layout.tokens) if queries is None else (layout.each, 1)
    asking = query[0] if queries is None else queries.view(len(queries), parts.heads, -1)
    found = layout.attend(asking, key, value, bounds, layout.bounds, most, layout.tokens, p, parts.scale)
    return found.flatten(1)


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
