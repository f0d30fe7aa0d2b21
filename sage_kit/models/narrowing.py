"""How a teacher becomes narrower: which directions of its states, heads and neurons matter, and what a student keeps.

The states of all blocks run through the same residual connections, so one basis P of shape (dim, width) narrows them
all, and a linear layer between them becomes ``P^T W P``: by principal directions this is SliceGPT's cut (Ashkboos et
al. 2024, arXiv 2401.15024, section 3.3), by single dimensions it is width pruning. A LayerNorm commutes with neither,
since it takes mean and deviation over the dimensions that are left; its gain and bias are those that bring it closest
to ``P^T`` of the teacher's, by least squares. Heads of the attention and neurons of the feed-forward layer belong to
one block alone, and are kept or left out one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sage_kit.components import TokenBatch
from sage_kit.models.block_parts import Parts, parts_of, project_padded
from sage_kit.models.heads import Head
from sage_kit.models.split import UpperLayers

WidthInit = Literal["pca", "prune", "random"]
EXAMPLES = 256
"""Real examples that a teacher is looked at on."""

EPS = 1e-12
"""What keeps the deviation of a LayerNorm from zero when its gain is fitted."""

Batches = Callable[[], Iterable[TokenBatch]]
"""Gives token states of real examples, the same each time."""

Affine = tuple[Tensor, Tensor]
"""Gain and bias of a LayerNorm."""


@dataclass(frozen=True, eq=False)
class Importance:
    """How much the heads and neurons of a block matter.

    Attributes
    ----------
    heads : Tensor of shape (heads,)
        Mean length of what a head adds to the states.
    scores, values : Tensor of shape (heads, head width)
        Of the dimensions of queries and keys, and of values.
    neurons : Tensor of shape (inner width,)
    """

    heads: Tensor
    scores: Tensor
    values: Tensor
    neurons: Tensor


@dataclass(frozen=True, eq=False)
class Narrowing:
    """How a teacher becomes narrower.

    Attributes
    ----------
    basis : Tensor of shape (dim, width), or None
        Orthonormal columns; None where the width stays.
    blocks : list of Importance
        By block of the teacher.
    norms : list of (Affine, Affine)
        By block, for both LayerNorms; empty where the width stays.
    head : Tensor of shape (dim,), or None
        How much the units between the layers of the classifier matter; None where the width stays.
    """

    basis: Tensor | None
    blocks: list[Importance]
    norms: list[tuple[Affine, Affine]]
    head: Tensor | None

    def narrow_input(self, weight: Tensor) -> Tensor:
        """``W P``: a weight whose inputs are states, of shape (outputs, dim), for narrower ones."""
        return weight if self.basis is None else weight @ self.basis

    def narrow_output(self, weight: Tensor) -> Tensor:
        """``P^T W``: a weight or bias whose outputs are states, of shape (dim, ...), for narrower ones."""
        return weight if self.basis is None else self.basis.T @ weight


def narrowing_of(teacher: UpperLayers, batches: Batches, width: int, init: WidthInit) -> Narrowing | None:
    """Look at a teacher's states on real examples, and choose how it becomes narrower.

    Parameters
    ----------
    teacher : UpperLayers
        All of its blocks.
    batches : callable
        Gives token states on the teacher's device.
    width : int
        Of the student; the teacher's or less.
    init : "pca", "prune" or "random"
        What the basis is. The second moments of the token states and of all LayerNorms' outputs, each over its trace,
        are averaged over these places; of their mean, "pca" takes the first eigenvectors, as SliceGPT does for each
        layer, and "prune" the dimensions with the largest diagonal, which is the importance that Minitron gives them
        (Muralidharan et al. 2024, arXiv 2407.14679, section 2.2).

    Returns
    -------
    Narrowing or None
        None for "random".

    Notes
    -----
    As in Minitron a head matters by the mean length of its output, here of what it adds to the states, and a neuron by
    the mean size of its activation, here times the length of the weights that lead on from it (Sun et al. 2023, arXiv
    2306.11695, section 3). A dimension of queries and keys matters by the product of their root mean squares, and one
    of values as a neuron does.
    """
    if init == "random":
        return None
    blocks = [parts_of(block) for block in teacher.blocks]
    sums: list[list[Any]] = [[0.0] * 5 for _ in blocks]
    moments: Any = 0.0
    units: Any = 0.0
    count = 0
    narrows = width != teacher.dim
    # only what the teachers of narrower students have: one layer behind the first token, or none
    dense = teacher.head.dense if narrows else None
    with torch.no_grad():
        for states, traces, last in walk(teacher, batches):
            count += len(states)
            outputs = [states, *(out for trace in traces for _, out in trace.norms)]
            if narrows:
                moments = moments + torch.stack([_product(out, out) for out in outputs])
            if dense is not None:
                units = units + _sum(teacher.head.activation(dense(last[:, 0])).abs())
            for found, parts, trace in zip(sums, blocks, traces, strict=True):
                found[:] = [old + new for old, new in zip(found, _sums_of(parts, trace), strict=True)]
        lengths = [
            [one.norm(dim=0).double().cpu() for one in (_by_head(parts), parts.outer.weight)] for parts in blocks
        ]
        importance = [
            Importance(added / count, (queries * keys).sqrt() / count, values * out / count, neurons * outer / count)
            for (added, queries, keys, values, neurons), (out, outer) in zip(sums, lengths, strict=True)
        ]
        if not narrows:
            return Narrowing(None, importance, [], None)
        output = teacher.head.output.weight
        head = None if dense is None else units * output.double().norm(dim=0).cpu()
        mean = (moments / moments.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]).mean(0)
        basis = principal_directions(mean, width) if init == "pca" else largest_dimensions(mean, width)
        basis = basis.to(output)
        return Narrowing(basis, importance, fit_norms(teacher, batches, basis), head)


def principal_directions(moments: Tensor, width: int) -> Tensor:
    """The eigenvectors of the largest eigenvalues, as columns whose largest entry is positive: (dim, width)."""
    vectors: Tensor = torch.linalg.eigh(moments).eigenvectors.flip(1)[:, :width]
    # the sign of an eigenvector is arbitrary, and may differ between machines
    return vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()


def largest_dimensions(moments: Tensor, width: int) -> Tensor:
    """Columns of the identity, those with the largest diagonal, in their order: (dim, width)."""
    return torch.eye(len(moments), dtype=moments.dtype)[:, most_important(moments.diagonal(), width)]


def most_important(importance: Tensor, count: int) -> Tensor:
    """The places of the largest entries, ascending; all of them where there are fewer."""
    return importance.topk(min(count, len(importance))).indices.sort().values


# ---- what a teacher's states say -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BlockTrace:
    """What a block makes of a batch, at its real tokens, one after the other.

    Attributes
    ----------
    norms : list of (Tensor, Tensor)
        Input and output of both LayerNorms, each of shape (total, dim).
    projections : Tensor of shape (total, 3, heads, head width)
        Queries, keys and values.
    attended : Tensor of shape (total, heads, head width)
        Weighted sums of the values.
    neurons : Tensor of shape (total, inner width)
        Of the feed-forward layer, behind their activation.
    """

    norms: list[tuple[Tensor, Tensor]]
    projections: Tensor
    attended: Tensor
    neurons: Tensor


def walk(teacher: UpperLayers, batches: Batches) -> Iterator[tuple[Tensor, list[BlockTrace], Tensor]]:
    """Batch by batch, a teacher's token states, the traces of its blocks, and the final states (batch, tokens, dim)."""
    for batch in batches():
        states, traces = batch.states, []
        mask = teacher.score_mask(states, batch.mask)
        for block in teacher.blocks:
            states, trace = trace_block(parts_of(block), states, batch.mask, mask)
            traces.append(trace)
        yield batch.states[batch.mask], traces, states


def trace_block(parts: Parts, states: Tensor, real: Tensor, mask: Tensor | None) -> tuple[Tensor, BlockTrace]:
    """A block's output on a padded batch, dropout off, and what it made on the way.

    Parameters
    ----------
    parts : Parts
    states : Tensor of shape (batch, tokens, dim)
    real : BoolTensor of shape (batch, tokens)
    mask : Tensor or None
        As for `sage_kit.models.block_parts.padded_block`.
    """
    split = project_padded(parts, states).unflatten(-1, (parts.heads, -1))
    query, key, value = (one.transpose(1, 2) for one in split.unbind(2))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=parts.scale).transpose(1, 2)
    before = parts.out(attended.flatten(2)) + states
    middle = parts.norm(before)
    neurons = parts.activation(parts.inner(middle))
    behind = parts.outer(neurons) + middle
    output: Tensor = parts.last_norm(behind)
    norms = [(before[real], middle[real]), (behind[real], output[real])]
    return output, BlockTrace(norms, split[real], attended[real], neurons[real])


def _sums_of(parts: Parts, trace: BlockTrace) -> tuple[Tensor, ...]:
    """Sums over tokens: what heads add, squares of queries and of keys, and sizes of values and of neurons."""
    out = _by_head(parts)
    grams = torch.einsum("oha,ohb->hab", out, out)
    added = torch.einsum("tha,hab,thb->th", trace.attended, grams, trace.attended).clamp_min(0).sqrt()
    query, key, _ = trace.projections.unbind(1)
    found = added, query.square(), key.square(), trace.attended.abs(), trace.neurons.abs()
    return tuple(_sum(one) for one in found)


def _by_head(parts: Parts) -> Tensor:
    """The weight that leads on from the values, of shape (dim, heads, head width)."""
    return cast(Tensor, parts.out.weight.unflatten(1, (parts.heads, -1)))


def _sum(values: Tensor) -> Tensor:
    """The sum over the first axis, float64 on the CPU."""
    return values.cpu().sum(0, dtype=torch.float64)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """``left^T right``, summed in float64 on the CPU."""
    return left.cpu().double().T @ right.cpu().double()


def fit_norms(teacher: UpperLayers, batches: Batches, basis: Tensor) -> list[tuple[Affine, Affine]]:
    r"""Gain and bias of narrower LayerNorms, each dimension's by least squares.

    With x and y the teacher's input and output and ``z = (P^T x - mean) / deviation``, both over the dimensions that
    are left, minimised is :math:`\sum (g_j z_j + b_j - (P^T y)_j)^2` over the tokens.

    Parameters
    ----------
    teacher : UpperLayers
    batches : callable
    basis : Tensor of shape (dim, width)

    Returns
    -------
    list of ((gain, bias), (gain, bias))
        By block; each of shape (width,).
    """
    count, sums = 0, torch.zeros(teacher.n_blocks, 2, 4, basis.shape[1], dtype=torch.float64)
    with torch.no_grad():
        for states, traces, _ in walk(teacher, batches):
            count += len(states)
            for place, trace in enumerate(traces):
                for which, (x, y) in enumerate(trace.norms):
                    z, wanted = F.layer_norm(x @ basis, (basis.shape[1],), eps=EPS).double(), (y @ basis).double()
                    found = torch.stack([z.sum(0), wanted.sum(0), z.square().sum(0), (z * wanted).sum(0)])
                    sums[place, which] += found.cpu()
    z, wanted, squares, products = (sums / count).unbind(2)
    gain = (products - z * wanted) / (squares - z.square()).clamp_min(1e-9)
    bias = wanted - gain * z
    pairs = [[(g.to(basis), b.to(basis)) for g, b in zip(*both, strict=True)] for both in zip(gain, bias, strict=True)]
    return [(first, second) for first, second in pairs]


# ---- what a student takes --------------------------------------------------------------------------------------------


def narrow_block(target: Parts, source: Parts, narrowing: Narrowing, number: int) -> None:
    """Fill a block of a student from one of the teacher.

    What the student has more of (wider heads, more heads or neurons) adds nothing at first: its keys are zero, and so
    are the weights that lead on from its values and neurons.

    Parameters
    ----------
    target, source : Parts
        Of the student and the teacher.
    narrowing : Narrowing
    number : int
        The teacher's block.
    """
    importance = narrowing.blocks[number]
    heads = most_important(importance.heads, target.heads)
    _keep_dimensions(target, source, narrowing, importance, heads)
    target.out.bias.copy_(narrowing.narrow_output(source.out.bias))
    kept = most_important(importance.neurons, target.inner.out_features)
    count = len(kept)
    target.inner.weight[:count] = narrowing.narrow_input(source.inner.weight[kept])
    target.inner.bias[:count] = source.inner.bias[kept]
    target.outer.weight.zero_()
    target.outer.weight[:, :count] = narrowing.narrow_output(source.outer.weight[:, kept])
    target.outer.bias.copy_(narrowing.narrow_output(source.outer.bias))
    fitted = narrowing.norms[number] if narrowing.norms else (None, None)
    for norm, its, affine in zip((target.norm, target.last_norm), (source.norm, source.last_norm), fitted, strict=True):
        gain, bias = affine or (its.weight, its.bias)
        norm.weight.copy_(gain)
        norm.bias.copy_(bias)


def _keep_dimensions(target: Parts, source: Parts, narrowing: Narrowing, importance: Importance, heads: Tensor) -> None:
    """Fill queries, keys, values and what leads on from these, head by head."""

    def by_head(tensor: Tensor, count: int) -> Tensor:
        return cast(Tensor, tensor.unflatten(0, (count, -1)))

    # scores are divided by the root of the head's width, which may be another
    factors = {"query": source.scale / target.scale, "key": 1.0, "value": 1.0}
    target.key.weight.zero_()
    target.key.bias.zero_()
    target.out.weight.zero_()
    width = target.query.out_features // target.heads
    out = by_head(source.out.weight.T, source.heads)
    for place, head in enumerate(heads.tolist()):
        scores, values = (most_important(one[head], width) for one in (importance.scores, importance.values))
        for name, factor in factors.items():
            mine, theirs = getattr(target, name), getattr(source, name)
            kept = values if name == "value" else scores
            weight = by_head(theirs.weight, source.heads)[head, kept]
            by_head(mine.weight, target.heads)[place, : len(kept)] = factor * narrowing.narrow_input(weight)
            by_head(mine.bias, target.heads)[place, : len(kept)] = (
                factor * by_head(theirs.bias, source.heads)[head, kept]
            )
        leading = narrowing.narrow_output(out[head, values].T)
        target.out.weight.unflatten(1, (target.heads, -1))[:, place, : len(values)] = leading


def narrow_head(target: Head, source: Head, narrowing: Narrowing) -> None:
    """Fill the head of a student from that of the teacher: its most important units."""
    if target.dense is None or source.dense is None:
        target.output.weight.copy_(narrowing.narrow_input(source.output.weight))
        target.output.bias.copy_(source.output.bias)
        return
    assert narrowing.head is not None
    kept = most_important(narrowing.head, target.dense.out_features)
    target.dense.weight.copy_(narrowing.narrow_input(source.dense.weight[kept]))
    target.dense.bias.copy_(source.dense.bias[kept])
    target.output.weight.copy_(source.output.weight[:, kept])
    target.output.bias.copy_(source.output.bias)


def narrow_projection(target: nn.Linear, narrowing: Narrowing) -> None:
    """Fill the projection of a student: ``P^T``."""
    assert narrowing.basis is not None
    target.weight.copy_(narrowing.basis.T)
    target.bias.zero_()
