"""Linear layers, dropout and attention on packed rows, each made for a CPU, with the same result as torch's.

* Where oneDNN's matrix product can be called, it is: see `_has_onednn`.
* Dropout takes 16 random bits an element from torch's generator and draws them in 64-bit words; torch draws a number of
  its own for each element, at about four times the cost.
* Attention with dropout is written out as batched matrix products with a backward pass of its own; torch has no fused
  kernel for it on a CPU and falls back to one that copies more and is slow for short rows.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from sage_kit.models.packed import Layout

RESOLUTION = 1 << 16
"""Dropout probabilities are rounded to a multiple of one over this; the scaling uses the rounded one."""

SHORT = 32
"""Tokens below which the softmax is made of whole-tensor operations; torch's kernel is slow on short rows."""


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


def linear(rows: Tensor, weight: Tensor, bias: Tensor, training: bool) -> Tensor:
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
    """Whether oneDNN's matrix product can be called: on an x86 CPU with vector units, float32, and not switched off.

    ``torch.backends.mkldnn.enabled = False`` switches it off. It was a tenth faster than MKL's where measured, on
    an AMD processor with AVX-512, and a third for few rows.
    """
    return (
        rows.dtype == torch.float32
        and rows.device.type == "cpu"
        and bool(torch.backends.mkldnn.enabled)
        and _onednn_operator() is not None
    )


def _onednn(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return cast(Tensor, _onednn_operator()(rows, weight, bias, "none", [], ""))


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


def drop_and_add(rows: Tensor, residual: Tensor, dropout: nn.Dropout | None) -> Tensor:
    """``dropout(rows) + residual``; no dropout outside training."""
    if dropout is None or not dropout.training or not dropout.p:
        return rows + residual
    return cast(Tensor, _DropAndAdd.apply(rows, residual, dropout.p))  # type: ignore[no-untyped-call, unused-ignore]


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


def attention(
    packed: Tensor,
    queries: Tensor | None,
    layout: Layout,
    heads: int,
    p: float,
    scale: float,
    positions: Tensor | None,
) -> Tensor:
    """Scaled dot-product attention with dropout on packed rows.

    Parameters
    ----------
    packed : Tensor of shape (total, 3 * dim), or of shape (total, 2 * dim) with `queries`
        Queries, keys and values beside each other; with `queries`, keys and values.
    queries : Tensor of shape (batch, dim) or None
        Those of each example's first token, to attend for it alone.
    layout : Layout
    heads : int
    p : float
        Of the dropout on the probabilities.
    scale : float
        Factor of the scores.
    positions : Tensor of shape (heads, queries, tokens) or None
        What relative positions add to the scores.

    Returns
    -------
    Tensor of shape (total, dim), or of shape (batch, dim) with `queries`
    """
    mixed = _Attention.apply(  # type: ignore[no-untyped-call, unused-ignore]
        packed, queries, layout, heads, p, scale, positions
    )
    return cast(Tensor, mixed)


class _Attention(torch.autograd.Function):
    """`attention` and its backward pass.

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
