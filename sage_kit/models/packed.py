"""A fast forward pass through stock blocks, on rows of tokens.

The very parameters of the stock blocks are used, on the tokens of all examples one after the other. Where a batch has
more padding than `PADDING`, only real tokens have rows and the attention alone sees a padded batch; below that, padding
is computed on and masked. Three things are done otherwise than torch does them on a CPU, with the same result:

* Query, key and value come out of one matrix product, and where oneDNN's product can be called, it is: see
  `_has_onednn`.
* Dropout takes 16 random bits an element from torch's generator and draws them in 64-bit words; torch draws a number of
  its own for each element, at about four times the cost.
* Attention with dropout is written out as batched matrix products with a backward pass of its own; torch has no fused
  kernel for it on a CPU and falls back to one that copies more and is slow for short rows.

Under autocast to bfloat16 the linear layers and the activation between two of them compute in bfloat16, and all else in
float32: attention, residuals, LayerNorm (whose gradients torch would add up in bfloat16) and the head. The parameters
stay float32 and are what an optimizer updates: they are cast where they are used, and their gradients are cast back.

When only the logits are asked for, the last block is computed for the first token alone, since the head sees no other:
its keys and values need every token, all the rest but one row an example. This holds on every device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESOLUTION = 1 << 16
"""Dropout probabilities are rounded to a multiple of one over this; the scaling uses the rounded one."""

PADDING = 0.05
"""Share of padding up to which rows stay padded: leaving it out would cost as much as computing on it."""

FUSED_FROM = 24
"""Tokens from which attention without dropout goes through torch's fused kernel, slower than ours on short rows."""

SHORT = 32
"""Tokens below which the softmax is made of whole-tensor operations; torch's kernel is slow on short rows."""

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
    dropout : Dropout
        Behind `outer`.
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
    dropout: nn.Dropout
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
    if hasattr(attention, "attn"):
        inner = attention.attn
        return Parts(
            query=inner.q,
            key=inner.k,
            value=inner.v,
            out=inner.o,
            attention_dropout=inner.dropout,
            out_dropout=attention.dropout,
            norm=attention.LayerNorm,
            inner=found.intermediate.dense,
            activation=found.intermediate.intermediate_act_fn,
            outer=found.output.dense,
            dropout=found.output.dropout,
            last_norm=found.output.LayerNorm,
            heads=int(inner.num_attention_heads),
            scale=int(inner.attention_head_size) ** -0.5,
        )
    inner = attention.self
    return Parts(
        query=inner.query,
        key=inner.key,
        value=inner.value,
        out=attention.output.dense,
        attention_dropout=inner.dropout,
        out_dropout=attention.output.dropout,
        norm=attention.output.LayerNorm,
        inner=found.intermediate.dense,
        activation=found.intermediate.intermediate_act_fn,
        outer=found.output.dense,
        dropout=found.output.dropout,
        last_norm=found.output.LayerNorm,
        heads=int(inner.num_attention_heads),
        scale=float(inner.scaling),
    )


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
    rows = parts.norm(_drop_and_add(attended, rows, parts.out_dropout))
    inner = parts.activation(_layer(parts, rows, layout, "inner"))
    outer = _layer(parts, inner, layout, "outer").to(rows.dtype)
    return cast(Tensor, parts.last_norm(_drop_and_add(outer, rows, parts.dropout)))


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
    inner = parts.dropout(parts.outer(parts.activation(parts.inner(middle))))
    return cast(Tensor, parts.last_norm(inner + middle))


def keep_mask(like: Tensor, p: float) -> Tensor:
    """A dropout mask: 0 with probability p, else one over one minus p, each element independently.

    `p` is rounded to a multiple of 1 / `RESOLUTION`, and the factor is that of the rounded one, so that the expectation
    is 1 exactly. The numbers come from torch's default generator of the CPU.

    Parameters
    ----------
    like : Tensor
        Gives shape and floating-point type; on the CPU.
    p : float
        From 0 to 1.
    """
    dropped = round(p * RESOLUTION)
    if dropped == RESOLUTION:
        return torch.zeros_like(like)
    count = like.numel()
    # all 64 bits of a word are random, hence all 16 of each quarter
    words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    draws = words.view(torch.int16)[:count].view(like.shape)
    mask = torch.empty(like.shape, dtype=like.dtype)
    # a comparison into a float tensor and a product cost a third of a boolean mask
    return torch.ge(draws, dropped - RESOLUTION // 2, out=mask).mul_(RESOLUTION / (RESOLUTION - dropped))


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


def _layer(parts: Parts, rows: Tensor, layout: Layout, *names: str) -> Tensor:
    """Outputs of one or several linear layers beside each other, from one matrix product, in the type of products."""
    dtype = layout.products or rows.dtype
    weight, bias = parts.weights(dtype, *names)
    return _linear(rows.to(dtype), weight, bias, getattr(parts, names[0]).training)


def _linear(rows: Tensor, weight: Tensor, bias: Tensor, training: bool) -> Tensor:
    """A linear layer, by oneDNN where that is possible."""
    if not _has_onednn(rows):
        return F.linear(rows, weight, bias)
    if not torch.is_grad_enabled():
        return _onednn(rows, weight, bias)
    if training:
        return cast(Tensor, _Linear.apply(rows, weight, bias))  # type: ignore[no-untyped-call, unused-ignore]
    # gradients of the states alone, as the divergence asks for: torch's own knows which gradients will be used
    return F.linear(rows, weight, bias)


@functools.cache
def _onednn_operator() -> Any:
    """The matrix product of oneDNN, or None where the processor has no vector units or torch no such operator.

    It is a private one, so it is tried on a small product before anything is left to it.
    """
    if not torch.backends.mkldnn.is_available() or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None
    weight, bias = torch.arange(12.0).view(4, 3), torch.arange(4.0)
    try:
        operator = torch.ops.mkldnn._linear_pointwise
        product = operator(torch.ones(2, 3), weight, bias, "none", [], "")
        is_known = torch.equal(product, torch.tensor([3.0, 13.0, 23.0, 33.0]).expand(2, 4))
    except (AttributeError, RuntimeError, TypeError):
        return None
    return operator if is_known else None


def _has_onednn(rows: Tensor) -> bool:
    """Whether oneDNN's matrix product can be called: on x86 with vector units, float32, and not switched off.

    ``torch.backends.mkldnn.enabled = False`` switches it off. It was a tenth faster than MKL's where measured, on
    an AMD processor with AVX-512, and a third for few rows.
    """
    return rows.dtype == torch.float32 and bool(torch.backends.mkldnn.enabled) and _onednn_operator() is not None


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return cast(Tensor, _onednn_operator()(rows, weight, bias, "none", [], ""))


def _drop_and_add(rows: Tensor, residual: Tensor, dropout: nn.Dropout | None) -> Tensor:
    if dropout is None or not dropout.training or not dropout.p:
        return rows + residual
    return cast(Tensor, _DropAndAdd.apply(rows, residual, dropout.p))  # type: ignore[no-untyped-call, unused-ignore]


def _attend(parts: Parts, packed: Tensor, queries: Tensor | None, layout: Layout) -> Tensor:
    dropout = parts.attention_dropout
    p = dropout.p if dropout.training else 0.0
    if not p and layout.tokens >= FUSED_FROM:
        return _attend_fused(parts, packed, queries, layout)
    positions = layout.positions if queries is None or layout.positions is None else layout.positions[:, :1]
    mixed = _Attention.apply(  # type: ignore[no-untyped-call, unused-ignore]
        packed, queries, layout, parts.heads, p, parts.scale, positions
    )
    return cast(Tensor, mixed)


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


class _Linear(torch.autograd.Function):
    """A linear layer whose product and gradient of the rows go through oneDNN."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _onednn(rows, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        states, weights, biases = ctx.needs_input_grad
        return (
            _onednn(gradient, weight.t(), None) if states else None,
            gradient.t() @ rows if weights else None,
            gradient.sum(0) if biases else None,
        )


class _DropAndAdd(torch.autograd.Function):
    """``dropout(rows) + residual`` in two passes over the memory, the mask's included, and one backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, residual: Tensor, p: float) -> Tensor:
        keep = keep_mask(rows, p)
        ctx.save_for_backward(keep)
        return torch.addcmul(residual, rows, keep)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (keep,) = ctx.saved_tensors
        return gradient * keep, gradient, None


class _Attention(torch.autograd.Function):
    """Scaled dot-product attention with dropout on packed rows.

    With P the probabilities, M the dropout mask and O = (P M) V, the gradient of the scores is
    ``(P M) (dO V^T) - P rowsum(dO O)``, products elementwise but for dO V^T: the softmax's own correction is the sum of
    P dP over a row, which is that of dO O, dropout or not (Dao et al. 2022, arXiv 2205.14135, appendix B.2). It is also
    the gradient of what relative positions add, summed over the batch.
    """

    @staticmethod
    def forward(
        ctx: Any,
        packed: Tensor,
        queries: Tensor | None,
        layout: Layout,
        heads: int,
        p: float,
        scale: float,
        positions: Tensor | None,
    ) -> Tensor:
        split = layout.split(packed, 3 if queries is None else 2, heads)
        key, value = split[-2], split[-1]
        query = split[0] if queries is None else queries.reshape(len(key), 1, -1)
        products = _product(query, key.transpose(1, 2), scale)
        if positions is not None:
            products.view(layout.batch, *positions.shape).add_(positions)
        probabilities = _softmax(products, layout, heads)
        dropped = probabilities * keep_mask(probabilities, p) if p else probabilities
        attended = torch.bmm(dropped, value)
        ctx.layout, ctx.heads, ctx.scale, ctx.one_query = layout, heads, scale, queries is not None
        ctx.save_for_backward(query, key, value, probabilities, dropped, attended)
        return attended.view(layout.batch, -1) if ctx.one_query else layout.join(attended[None])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, probabilities, dropped, attended = ctx.saved_tensors
        layout = ctx.layout
        outer = gradient.reshape(query.shape) if ctx.one_query else _heads(layout.spread(gradient), layout, ctx.heads)
        gradients = query.new_empty(2 if ctx.one_query else 3, *key.shape)
        torch.bmm(dropped.transpose(1, 2), outer, out=gradients[-1])
        scores = torch.bmm(outer, value.transpose(1, 2)).mul_(dropped)
        scores.addcmul_(probabilities, (outer * attended).sum(-1, keepdim=True), value=-1)
        positions = None
        if ctx.needs_input_grad[6]:
            positions = scores.view(layout.batch, ctx.heads, *scores.shape[1:]).sum(0)
        _product(scores.transpose(1, 2), query, ctx.scale, gradients[-2])
        if ctx.one_query:
            of_queries = _product(scores, key, ctx.scale).view(layout.batch, -1)
            return layout.join(gradients), of_queries, *(None,) * 4, positions
        _product(scores, key, ctx.scale, gradients[0])
        return layout.join(gradients), *(None,) * 5, positions


def _heads(padded: Tensor, layout: Layout, heads: int) -> Tensor:
    """Padded rows of shape (batch * tokens, dim) to (batch * heads, tokens, dim / heads)."""
    shaped = padded.view(layout.batch, layout.tokens, heads, -1).transpose(1, 2)
    return shaped.reshape(layout.batch * heads, layout.tokens, -1)


def _product(left: Tensor, right: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """``scale * left @ right`` for batches of matrices; the factor costs no pass of its own."""
    if out is None:
        out = left.new_empty(len(left), left.shape[1], right.shape[2])
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


def _softmax(scores: Tensor, layout: Layout, heads: int) -> Tensor:
    """Softmax of scores of shape (batch * heads, queries, tokens) over the real tokens; the scores are overwritten."""
    if layout.bias is not None:
        scores.view(layout.batch, heads, *scores.shape[1:]).add_(layout.bias)
    if layout.tokens >= SHORT:
        return scores.softmax(-1)
    scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    return scores.div_(scores.sum(-1, keepdim=True))
