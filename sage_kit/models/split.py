"""The two parts of a model: the input layers, from tokens to token states, and the upper layers, from token states to
logits.

Both are views: they hold the very modules of the transformers model they are made from, so training the upper layers
trains the model. The blocks are the stock ones; only the code around them is ours, which is what lets upper layers
start from any token states, real or synthetic. On a CPU, and in half precision on a card, the blocks' parameters are
used by `sage_kit.models.packed`, which computes the same faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sage_kit.errors import CompatibilityError
from sage_kit.models.block_parts import first_token_block, padded_block, parts_of, project_padded
from sage_kit.models.encoder_parts import OwnBlocks, Projected, blocks_of, embed, embedder, own_blocks, shared_modules
from sage_kit.models.families import family_of
from sage_kit.models.flops import block_flops
from sage_kit.models.heads import head_of
from sage_kit.models.packed import (
    Layout,
    pack,
    pack_lengths,
    packed_block,
    packed_linear,
    products_dtype,
    project,
    runs_packed,
    unpack,
)
from sage_kit.models.positions import attention_mask, position_bias
from sage_kit.models.recomputation import Call, kept, recomputed
from sage_kit.models.stock_pass import through_blocks
from sage_kit.models.varlen import VarlenAttention, varlen_attention

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

Bypass = Literal["embeddings"] | int


class UpperOutput(NamedTuple):
    """What upper layers return.

    Attributes
    ----------
    logits : Tensor of shape (batch, n_outputs) or (batch, tokens, n_outputs)
        Outputs of the head; what stands at padding has no meaning.
    hidden : tuple of Tensor of shape (batch, tokens, dim)
        Output of every block in order, the last one being the final hidden states; empty unless asked for. What stands
        at padding positions has no meaning.
    projections : tuple of Tensor of shape (batch, tokens, 3, dim)
        Queries, keys and values of the blocks that were asked for, heads beside each other. What stands at padding
        positions has no meaning.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]
    projections: tuple[Tensor, ...] = ()


class InputLayers(nn.Module):
    """What the student bypasses: embeddings and, for ``bypass=k``, the first k blocks. Frozen, always in eval mode.

    The weights of relative positions, which all blocks of a model share, belong to it whatever the bypass.

    Parameters
    ----------
    model : PreTrainedModel
        A sequence classifier of a supported family; its modules are shared, and those taken are frozen.
    n_blocks : int
        Blocks that belong to the input layers.

    Attributes
    ----------
    dim : int
        Width of the token states.
    uses_types : bool
        Whether token types matter.
    """

    def __init__(self, model: PreTrainedModel, n_blocks: int = 0) -> None:
        super().__init__()
        family = family_of(model.config)
        self.dim = int(model.config.hidden_size)
        self.embeddings = embedder(model, family)
        self._sequence = blocks_of(model, family)[:n_blocks]
        self.blocks = nn.ModuleList(dict.fromkeys(self._sequence))
        self._positions = position_bias(model, family)
        if self._positions is not None:
            self.relative_positions = self._positions.weights
        self._own = own_blocks(model, family)
        self.gives_scores = self._own is None
        self._eager = family.attention == "eager"
        self.shared = nn.ModuleList(shared_modules(model, family))
        self._takes_types = family.token_types
        self._first_position = family.first_position(model.config)
        self.uses_types = family.uses_token_types(model.config)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> InputLayers:
        """Stay in eval mode: the dropout of input layers is off whatever its owner does."""
        super().train(False)
        return self

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Token states.

        Parameters
        ----------
        input_ids : LongTensor of shape (batch, tokens)
            Padded with the tokenizer's padding id.
        token_type_ids : LongTensor of shape (batch, tokens)
            Ignored by models that have none.
        mask : BoolTensor of shape (batch, tokens) or None
            True at real tokens; None when there is no padding.

        Returns
        -------
        Tensor of shape (batch, tokens, dim)
            Zero at padding positions, so that an example's states do not depend on what it was batched with.
        """
        states = self.alone(input_ids, token_type_ids)
        for output in through_blocks(self._sequence, states, mask, self._positions, self._own, self._eager):
            states = output
        return states if mask is None else states * mask.unsqueeze(-1)

    def alone(self, input_ids: Tensor, token_type_ids: Tensor, places: Tensor | None = None) -> Tensor:
        """What the embeddings make of each token, of shape (batch, tokens, dim), without any block.

        Parameters
        ----------
        input_ids, token_type_ids : LongTensor of shape (batch, tokens)
        places : LongTensor of shape (batch, tokens) or None
            Where each token stands in its text, from 0; None for tokens that stand one behind the other, padded.
        """
        # the modules are shared: a train() of the whole model would have turned their dropout on
        self.eval()
        types = (token_type_ids if self.uses_types else torch.zeros_like(input_ids)) if self._takes_types else None
        positions = None if places is None else places + self._first_position
        return embed(self.embeddings, input_ids, types, positions)

    def flops(self, lengths: NDArray[np.integer]) -> int:
        """Forward FLOPs of the blocks, counted as in `UpperLayers.flops`; a look-up in the embeddings is none."""
        total = block_flops(self._sequence, self.dim, lengths, self._own)
        if isinstance(self.embeddings, Projected):
            weights = sum(weight.numel() for weight in self.embeddings.projection.parameters() if weight.ndim == 2)
            total += 2 * weights * int(lengths.astype("int64").sum())
        return total


class UpperLayers(nn.Module):
    """A model without its input layers: blocks and head, from token states to logits.

    Parameters
    ----------
    model : PreTrainedModel
        A sequence classifier of a supported family; its modules are shared.
    first_block : int
        The first block that belongs to the upper layers.
    projection : Linear or None
        What narrows the token states in front of the blocks, and is trained with them; None where they are as wide.

    Attributes
    ----------
    n_blocks : int
        Blocks of the upper layers.
    dim : int
        Width of the blocks, and of the token states where there is no projection.
    n_outputs : int
        Width of the logits.
    heads : int
        Attention heads of a block.
    gives_scores : bool
        Whether `scores` is known for its blocks: not where a family computes them by code of its own.
    recomputes : bool
        Whether blocks in training are computed again for the backward pass, instead of keeping what is within them.
    """

    def __init__(self, model: PreTrainedModel, first_block: int = 0, projection: nn.Linear | None = None) -> None:
        super().__init__()
        self.recomputes = False
        self.projection = projection
        family = family_of(model.config)
        # a block that is applied several times is registered once
        self._sequence = blocks_of(model, family)[first_block:]
        self.blocks = nn.ModuleList(dict.fromkeys(self._sequence))
        self.head = head_of(model, family)
        self.n_blocks = len(self._sequence)
        self.dim = int(model.config.hidden_size)
        self.n_outputs = int(self.head.n_outputs)
        self.final_norm = model.get_submodule(family.final_norm) if family.final_norm else None
        self._own = own_blocks(model, family)
        self.gives_scores = self._own is None
        self._eager = family.attention == "eager"
        # a plain list: the parts are the blocks' modules, which are registered once already
        parts = {} if self._own else {id(block): parts_of(block) for block in self.blocks}
        self._parts = [] if self._own else [parts[id(block)] for block in self._sequence]
        self.heads = int(model.config.num_attention_heads) if self._own else self._parts[-1].heads
        self._positions = position_bias(model, family)
        # a new module says that it trains; this one is in the mode of the model that it shows
        self.train(model.training)

    def forward(
        self,
        states: Tensor,
        mask: Tensor | None = None,
        hidden: bool = False,
        projections: Sequence[int] = (),
        lengths: NDArray[np.int64] | None = None,
    ) -> UpperOutput:
        """Logits and, if asked for, the output of every block, and queries, keys and values of some.

        Parameters
        ----------
        states : Tensor of shape (batch, tokens, width)
            Token states.
        mask : BoolTensor of shape (batch, tokens) or None
            True at real tokens; None when there is no padding, which is faster. The first token must be real.
        hidden : bool
            Whether to return the blocks' outputs.
        projections : sequence of int
            The blocks, from 1, whose queries, keys and values to return.
        lengths : array of shape (batch,), int64, or None
            What the mask says, where the host knows it: with it a card leaves out padding. Real tokens then stand in
            front of the padding.
        """
        if self._own is not None:
            return self._by_own_code(self._own, states, mask, hidden, projections)
        if runs_packed(states):
            return self._packed(states, mask, hidden, projections, *pack(states, mask))
        attend = None if lengths is None else self._varlen(states)
        if lengths is not None and attend is not None:
            return self._packed(states, mask, hidden, projections, *pack_lengths(states, lengths, attend))
        if self.projection is not None:
            states = self.projection(states)
        outputs: list[Tensor] = []
        found: dict[int, Tensor] = {}
        every, last = hidden or self.head.reads_all, self.n_blocks
        bias, call = self.score_mask(states, mask), self._call
        for number, (block, parts) in enumerate(zip(self._sequence, self._parts, strict=True), start=1):
            projected = None
            if number in projections:
                projected = found[number] = project_padded(parts, states)
            if number == last and not every:
                states = call(first_token_block, parts, states, bias, projected)
            elif projected is not None or self._positions is not None or self._eager:
                states = call(padded_block, parts, states, bias, projected)
            else:
                states = call(block, states, attention_mask=bias)
            if hidden:
                outputs.append(states)
        return self._finished(states, mask, outputs, [found[number] for number in projections])

    def score_mask(self, states: Tensor, mask: Tensor | None) -> Tensor | None:
        """The mask that the blocks take for states of shape (batch, tokens, dim), or what is added to their scores."""
        return attention_mask(states, mask, self._positions)

    @property
    def _call(self) -> Call:
        return recomputed if self.recomputes and self.training and torch.is_grad_enabled() else kept

    def _finished(
        self, states: Tensor, mask: Tensor | None, outputs: list[Tensor], projected: Sequence[Tensor]
    ) -> UpperOutput:
        """What is returned, from the last block's output."""
        if self.final_norm is not None:
            states = self.final_norm(states)
            outputs[-1:] = [states] * bool(outputs)
        return UpperOutput(self.head(states, mask), tuple(outputs), tuple(projected))

    def _by_own_code(
        self, own: OwnBlocks, states: Tensor, mask: Tensor | None, hidden: bool, projections: Sequence[int]
    ) -> UpperOutput:
        """The same by the code of the family; every block is computed for all tokens."""
        outputs: list[Tensor] = []
        entering = [states]
        for output in through_blocks(self._sequence, states, mask, None, own, call=self._call):
            states = output
            if hidden:
                outputs.append(states)
            if projections:
                entering.append(states)
        projected = [own.code.project(self._sequence[number - 1], entering[number - 1]) for number in projections]
        return self._finished(states, mask, outputs, projected)

    def project(self, layer: int, states: Tensor) -> Tensor:
        """Queries, keys and values that a block makes of the states which enter it.

        Parameters
        ----------
        layer : int
            The block, from 1.
        states : Tensor of shape (batch, tokens, dim)
            Output of the block before; for the first one, token states.

        Returns
        -------
        Tensor of shape (batch, tokens, 3, dim)
        """
        if self._own is not None:
            return self._own.code.project(self._sequence[layer - 1], states)
        return project_padded(self._parts[layer - 1], states)

    def scores(self, layer: int, projections: Tensor) -> Tensor:
        """Attention scores before the softmax, as a block computes them; those of padding are not masked.

        Parameters
        ----------
        layer : int
            The block, from 1.
        projections : Tensor of shape (batch, tokens, 3, dim)
            Its queries, keys and values.

        Returns
        -------
        Tensor of shape (batch, heads, tokens, tokens), float32
            Queries along the last axis but one.
        """
        parts = self._parts[layer - 1]
        heads = projections[..., :2, :].float().unflatten(-1, (parts.heads, -1)).permute(2, 0, 3, 1, 4)
        found: Tensor = heads[0] @ heads[1].transpose(-1, -2) * parts.scale
        return found if self._positions is None else found + self._positions(projections.shape[1]).to(found.dtype)

    def _varlen(self, states: Tensor) -> VarlenAttention | None:
        """What attends over packed rows, if anything does: no kernel for these adds something to the scores."""
        if self._positions is not None or self._eager:
            return None
        return varlen_attention(states, self.dim // self.heads)

    def _packed(
        self,
        states: Tensor,
        mask: Tensor | None,
        hidden: bool,
        projections: Sequence[int],
        rows: Tensor,
        layout: Layout,
    ) -> UpperOutput:
        """The same on packed rows."""
        tokens, device = states.shape[1], states.device.type
        layout = replace(layout, products=products_dtype(device))
        if self._positions is not None:
            layout = replace(layout, positions=self._positions(layout.tokens).to(states.dtype))
        outputs: list[Tensor] = []
        found: dict[int, Tensor] = {}
        call = self._call
        # the pass makes its own casts
        with nullcontext() if layout.products is None else torch.autocast(device, enabled=False):
            if self.projection is not None:
                rows = packed_linear(self.projection, rows, layout)
            for number, parts in enumerate(self._parts, start=1):
                projected = None
                if number in projections:
                    projected = project(parts, rows, layout)
                    found[number] = unpack(projected, layout, tokens).unflatten(-1, (3, -1))
                first_only = number == self.n_blocks and not (hidden or self.head.reads_all)
                rows = call(packed_block, parts, rows, layout, first_only=first_only, projected=projected)
                if hidden:
                    outputs.append(unpack(rows, layout, tokens))
            every = hidden or self.head.reads_all
            if self.final_norm is not None:
                rows = self.final_norm(rows)
                if hidden:
                    outputs[-1] = unpack(rows, layout, tokens)
            projected_ones = tuple(found[number] for number in projections)
            if self.head.reads_all:
                return UpperOutput(self.head(unpack(rows, layout, tokens), mask), tuple(outputs), projected_ones)
            first = layout.take_first(rows) if every else rows
            return UpperOutput(self.head(first[:, None]), tuple(outputs), projected_ones)

    def flops(self, lengths: NDArray[np.integer], hidden: bool = False, projections: Sequence[int] = ()) -> int:
        """Forward FLOPs, multiplications and additions of matrix products, over real tokens; what is computed counts.

        With d the width and f the inner width, a block costs ``2 (4 d^2 + 2 d f)`` per token for its linear layers and
        ``4 d n^2`` per example of n tokens for attention (``Q K^T`` and the weighted sum of V). Without hidden states
        the last block is computed for the first token only: keys and values cost ``4 d^2`` per token, and an example
        ``2 (2 d^2 + 2 d f)`` for the other layers and ``4 d n`` for attention. Where its queries, keys and values are
        asked for, its queries are computed for every token, too. The head costs ``2 (d^2 + d n_outputs)`` per example
        or, where it gives an output for each of them, per token, and a projection from token states of width e ``2 d
        e`` per token. Blocks of another build are computed for all tokens, as the last one is for a head that looks at
        all of them.

        Parameters
        ----------
        lengths : integer array of shape (n,)
            Real tokens of each example.
        hidden : bool
            Whether the blocks' outputs are asked for beside the logits.
        projections : sequence of int
            The blocks, from 1, whose queries, keys and values are: those of the others than the last cost nothing more.
        """
        examples, tokens = len(lengths), int(lengths.astype("int64").sum())
        total: int = self.head.flops(examples, tokens) + self._projection_flops(tokens)
        if hidden or self.head.reads_all or self._own is not None:
            return total + block_flops(self._sequence, self.dim, lengths, self._own)
        last = self._parts[-1]
        every = last.key.weight.numel() + last.value.weight.numel()
        first = sum(layer.weight.numel() for layer in (last.out, last.inner, last.outer))
        if self.n_blocks in projections:
            every += last.query.weight.numel()
        else:
            first += last.query.weight.numel()
        total += 2 * (every * tokens + first * examples) + 4 * self.dim * tokens
        return total + block_flops(self._sequence[:-1], self.dim, lengths)

    def training_flops(
        self, lengths: NDArray[np.integer], hidden: bool = False, projections: Sequence[int] = ()
    ) -> int:
        """FLOPs of a training step, counted as in `flops`: three forward passes less what no gradient needs.

        A backward pass has two products for each of the forward pass, the gradient of the weights and that of the
        input. The input layers are frozen, so the first block's queries, keys and values need no gradient of their
        input, or, where there is one, the projection; of blocks of another build that is not left out. Blocks that are
        computed again cost a forward pass more, but for the queries, keys and values that are asked for.

        Parameters
        ----------
        lengths : integer array of shape (n,)
            Real tokens of each example.
        hidden : bool
            Whether the blocks' outputs are asked for beside the logits.
        projections : sequence of int
            The blocks, from 1, whose queries, keys and values are: those of the others than the last cost nothing more.
        """
        examples, tokens = len(lengths), int(lengths.astype("int64").sum())
        forward = self.flops(lengths, hidden, projections)
        of_head: int = self.head.flops(examples, tokens)
        if self._own is not None:
            return 3 * forward + self.recomputes * (forward - of_head)
        first = self._parts[0]
        every = hidden or bool(projections) or self.head.reads_all or self.n_blocks > 1
        queries = tokens if every else examples
        both = first.key.weight.numel() + first.value.weight.numel()
        projection = self._projection_flops(tokens)
        unneeded = projection or 2 * (both * tokens + first.query.weight.numel() * queries)
        again = 0
        if self.recomputes:
            again = forward - of_head - projection
            kept = [self._parts[number - 1] for number in projections]
            layers = [layer for parts in kept for layer in (parts.query, parts.key, parts.value)]
            again -= 2 * tokens * sum(layer.weight.numel() for layer in layers)
        return 3 * forward - unneeded + again

    def _projection_flops(self, tokens: int) -> int:
        return 0 if self.projection is None else 2 * self.projection.weight.numel() * tokens


def split_model(model: PreTrainedModel, bypass: Bypass) -> tuple[InputLayers, UpperLayers]:
    """The input layers and the upper layers of a model, as views: their modules are the model's own.

    ``upper(input_layers(ids, types, mask), mask).logits`` equals the model's logits.

    Parameters
    ----------
    model : PreTrainedModel
        A sequence classifier of a supported family. Its input layers are frozen, its attention set to SDPA.
    bypass : "embeddings" or int
        Where the input layers end: after the embeddings, or after that many blocks.

    Raises
    ------
    ModelError
        When the model is of no supported family.
    CompatibilityError
        When the bypass leaves no block to the upper layers.
    """
    n_input = input_blocks(bypass, int(model.config.num_hidden_layers))
    # the mask that blocks are given here is a boolean one, which eager attention would add to its scores
    implementation = family_of(model.config).attention
    if model.config._attn_implementation != implementation:
        model.set_attn_implementation(implementation)
    return InputLayers(model, n_input), UpperLayers(model, n_input)


def input_blocks(bypass: Bypass, n_blocks: int) -> int:
    """Number of blocks in the input layers of a model of `n_blocks` blocks.

    Raises
    ------
    CompatibilityError
        When the bypass leaves no block behind the input layers.
    """
    n_input = 0 if bypass == "embeddings" else int(bypass)
    if not 0 <= n_input < n_blocks:
        raise CompatibilityError(
            f"bypass is {bypass}, but of the teacher's {n_blocks} blocks at least one must lie behind "
            f"the input layers: set bypass to 'embeddings'{f' or to at most {n_blocks - 1}' if n_blocks > 1 else ''}"
        )
    return n_input
