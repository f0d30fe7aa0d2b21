"""The two parts of a model: the input layers, from tokens to token states, and the upper layers, from token states to
logits.

Both are views: they hold the very modules of the transformers model they are made from, so training the upper layers
trains the model. The blocks are the stock ones; only the code around them is ours, which is what lets upper layers
start from any token states, real or synthetic. On a CPU the blocks' parameters are used by `sage_kit.models.packed`,
which computes the same faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sage_kit.errors import CompatibilityError
from sage_kit.models.block_parts import first_token_block, padded_block, parts_of, project_padded
from sage_kit.models.families import Family, family_of
from sage_kit.models.packed import pack, packed_block, packed_linear, products_dtype, project, runs_packed, unpack
from sage_kit.models.positions import PositionBias, position_bias, score_bias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

Bypass = Literal["embeddings"] | int

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "gelu": F.gelu}
"""By name, what stands between the two layers of a head."""


class UpperOutput(NamedTuple):
    """What upper layers return.

    Attributes
    ----------
    logits : Tensor of shape (batch, n_outputs)
        Outputs of the head.
    hidden : tuple of Tensor of shape (batch, tokens, dim)
        Output of every block in order, the last one being the final hidden states; empty unless asked for. What stands
        at padding positions has no meaning.
    projections : Tensor of shape (batch, tokens, 3, dim) or None
        Queries, keys and values of the last block, heads beside each other; None unless asked for. What stands at
        padding positions has no meaning.
    """

    logits: Tensor
    hidden: tuple[Tensor, ...]
    projections: Tensor | None = None


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
    """

    def __init__(self, model: PreTrainedModel, n_blocks: int = 0) -> None:
        super().__init__()
        family = family_of(model.config)
        self.dim = int(model.config.hidden_size)
        self.embeddings = model.get_submodule(family.embeddings)
        self.blocks = nn.ModuleList(_blocks(model, family)[:n_blocks])
        self._positions = position_bias(model, family)
        if self._positions is not None:
            self.relative_positions = self._positions.weights
        self._takes_types = family.token_types
        self._uses_types = family.uses_token_types(model.config)
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
        for output in through_blocks(self.blocks, states, mask, self._positions):
            states = output
        return states if mask is None else states * mask.unsqueeze(-1)

    def alone(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """What the embeddings make of each token at its place, of shape (batch, tokens, dim), without any block."""
        # the modules are shared: a train() of the whole model would have turned their dropout on
        self.eval()
        types = (token_type_ids if self._uses_types else torch.zeros_like(input_ids)) if self._takes_types else None
        return embed(self.embeddings, input_ids, types)

    def flops(self, lengths: NDArray[np.integer]) -> int:
        """Forward FLOPs of the blocks, counted as in `UpperLayers.flops`; a look-up in the embeddings is none."""
        return _block_flops(self.blocks, self.dim, lengths)


class Head(nn.Module):
    """The classifier on the first token, the same five steps for every family.

    Its parameters are called ``dense.*`` and ``output.*`` whatever the family calls them.
    """

    def __init__(self, model: PreTrainedModel, family: Family) -> None:
        super().__init__()
        self.dense = cast(nn.Linear, model.get_submodule(family.head_dense))
        self.output = cast(nn.Linear, model.get_submodule(family.head_output))
        self.dropout = model.get_submodule(family.head_dropout)
        self.activation = ACTIVATIONS[family.activation]
        self._dropout_first = family.dropout_first

    def forward(self, states: Tensor) -> Tensor:
        """Logits of shape (batch, n_outputs) from final states of shape (batch, tokens, dim)."""
        first = states[:, 0]
        if self._dropout_first:
            first = self.dropout(first)
        logits: Tensor = self.output(self.dropout(self.activation(self.dense(first))))
        return logits


class UpperLayers(nn.Module):
    """A model without its input layers: blocks and head, from token states to logits.

    Parameters
    ----------
    model : PreTrainedModel
        A sequence classifier of a supported family; its modules are shared.
    first_block : int
        The first block that belongs to the upper layers.
    family : Family or None
        The model's; None finds it.
    projection : Linear or None
        What narrows the token states in front of the blocks; None where the blocks are as wide as these.

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
    """

    def __init__(
        self,
        model: PreTrainedModel,
        first_block: int = 0,
        family: Family | None = None,
        projection: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        family = family or family_of(model.config)
        self.projection = projection
        self.blocks = nn.ModuleList(_blocks(model, family)[first_block:])
        self.head = Head(model, family)
        self.n_blocks = len(self.blocks)
        self.dim = int(model.config.hidden_size)
        self.n_outputs = int(self.head.output.out_features)
        # a plain list: the parts are the blocks' modules, which are registered once already
        self._parts = [parts_of(block) for block in self.blocks]
        self.heads = self._parts[-1].heads
        self._positions = position_bias(model, family)
        # a new module says that it trains; this one is in the mode of the model that it shows
        self.train(model.training)

    def forward(
        self, states: Tensor, mask: Tensor | None = None, hidden: bool = False, projections: bool = False
    ) -> UpperOutput:
        """Logits and, if asked for, the output of every block and the last one's queries, keys and values.

        Parameters
        ----------
        states : Tensor of shape (batch, tokens, width)
            Token states.
        mask : BoolTensor of shape (batch, tokens) or None
            True at real tokens; None when there is no padding, which is faster. The first token must be real.
        hidden : bool
            Whether to return the blocks' outputs.
        projections : bool
            Whether to return the last block's queries, keys and values.
        """
        if runs_packed(states):
            return self._packed(states, mask, hidden, projections)
        if self.projection is not None:
            states = self.projection(states)
        outputs: list[Tensor] = []
        projected: Tensor | None = None
        stock = hidden and not projections
        for output in through_blocks(self.blocks if stock else self.blocks[:-1], states, mask, self._positions):
            states = output
            if hidden:
                outputs.append(states)
        if not stock:
            last, bias = self._parts[-1], _score_bias(states, mask, self._positions)
            projected = project_padded(last, states) if projections else None
            states = (padded_block if hidden else first_token_block)(last, states, bias, projected)
            if hidden:
                outputs.append(states)
        return UpperOutput(self.head(states), tuple(outputs), projected)

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
        return project_padded(self._parts[layer - 1], states)

    def score_mask(self, states: Tensor, mask: Tensor | None) -> Tensor | None:
        """The mask that the blocks take for states of shape (batch, tokens, dim), or what is added to their scores."""
        return _score_bias(states, mask, self._positions)

    def _packed(self, states: Tensor, mask: Tensor | None, hidden: bool, projections: bool) -> UpperOutput:
        """The same on packed rows."""
        tokens = states.shape[1]
        rows, layout = pack(states, mask)
        layout = replace(layout, products=products_dtype())
        if self._positions is not None:
            layout = replace(layout, positions=self._positions(layout.tokens).to(states.dtype))
        outputs: list[Tensor] = []
        *others, last = self._parts
        with torch.autocast("cpu", enabled=False):  # the pass makes its own casts
            if self.projection is not None:
                rows = packed_linear(self.projection, rows, layout)
            for parts in others:
                rows = packed_block(parts, rows, layout)
                if hidden:
                    outputs.append(unpack(rows, layout, tokens))
            projected = project(last, rows, layout) if projections else None
            first = packed_block(last, rows, layout, first_only=not hidden, projected=projected)
            if hidden:
                outputs.append(unpack(first, layout, tokens))
                first = layout.take_first(first)
            if projected is not None:
                projected = unpack(projected, layout, tokens).unflatten(-1, (3, -1))
            return UpperOutput(self.head(first[:, None]), tuple(outputs), projected)

    def flops(self, lengths: NDArray[np.integer], hidden: bool = False, projections: bool = False) -> int:
        """Forward FLOPs, multiplications and additions of matrix products, over real tokens; what is computed counts.

        With d the width and f the inner width, a block costs ``2 (4 d^2 + 2 d f)`` per token for its linear layers and
        ``4 d n^2`` per example of n tokens for attention (``Q K^T`` and the weighted sum of V). Without hidden states
        the last block is computed for the first token only: keys and values cost ``4 d^2`` per token, and an example
        ``2 (2 d^2 + 2 d f)`` for the other layers and ``4 d n`` for attention. Where its queries, keys and values are
        asked for, its queries are computed for every token, too. The head costs ``2 (d^2 + d n_outputs)`` per example,
        and a projection from token states of width e ``2 d e`` per token.

        Parameters
        ----------
        lengths : integer array of shape (n,)
            Real tokens of each example.
        hidden, projections : bool
            What is asked for beside the logits, as in `forward`.
        """
        examples, tokens = len(lengths), int(lengths.astype("int64").sum())
        total = 2 * examples * (self.head.dense.weight.numel() + self.head.output.weight.numel())
        if self.projection is not None:
            total += 2 * self.projection.weight.numel() * tokens
        if hidden:
            return total + _block_flops(self.blocks, self.dim, lengths)
        last = self._parts[-1]
        every = last.key.weight.numel() + last.value.weight.numel()
        first = sum(layer.weight.numel() for layer in (last.out, last.inner, last.outer))
        if projections:
            every += last.query.weight.numel()
        else:
            first += last.query.weight.numel()
        total += 2 * (every * tokens + first * examples) + 4 * self.dim * tokens
        return total + _block_flops(self.blocks[:-1], self.dim, lengths)

    def training_flops(self, lengths: NDArray[np.integer], hidden: bool = False, projections: bool = False) -> int:
        """FLOPs of a training step, counted as in `flops`: three forward passes less what no gradient needs.

        A backward pass has two products for each of the forward pass, the gradient of the weights and that of the
        input. The input layers are frozen, so the first block's queries, keys and values need no gradient of their
        input, or, where there is one, the projection.

        Parameters
        ----------
        lengths : integer array of shape (n,)
            Real tokens of each example.
        hidden, projections : bool
            What is asked for beside the logits, as in `forward`.
        """
        examples, tokens = len(lengths), int(lengths.astype("int64").sum())
        if self.projection is not None:
            return 3 * self.flops(lengths, hidden, projections) - 2 * self.projection.weight.numel() * tokens
        first = self._parts[0]
        queries = tokens if hidden or projections or len(self.blocks) > 1 else examples
        every = first.key.weight.numel() + first.value.weight.numel()
        unneeded = 2 * (every * tokens + first.query.weight.numel() * queries)
        return 3 * self.flops(lengths, hidden, projections) - unneeded


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


def through_blocks(
    blocks: Iterable[nn.Module], states: Tensor, mask: Tensor | None, positions: PositionBias | None
) -> Iterator[Tensor]:
    """The output of each of some blocks, one after the other, on a padded batch.

    Parameters
    ----------
    blocks : iterable of Module
    states : Tensor of shape (batch, tokens, dim)
    mask : BoolTensor of shape (batch, tokens) or None
    positions : PositionBias or None
        Of the model that the blocks are from. With it, they are computed from their parts: the stock ones differ in
        what they take and return, and know no fused attention.
    """
    attention = _score_bias(states, mask, positions)
    for block in blocks:
        if positions is None:
            states = block(states, attention_mask=attention)
        else:
            states = padded_block(parts_of(block), states, attention)
        yield states


def _score_bias(states: Tensor, mask: Tensor | None, positions: PositionBias | None) -> Tensor | None:
    """The mask that a block takes, or what is added to its scores."""
    return score_bias(mask, None if positions is None else positions(states.shape[1]).to(states.dtype))


def embed(embeddings: nn.Module, input_ids: Tensor, token_type_ids: Tensor | None) -> Tensor:
    """Output of a family's embedding module; it finds the position ids itself."""
    types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    states: Tensor = embeddings(input_ids, **types)
    return states


def _blocks(model: PreTrainedModel, family: Family) -> nn.ModuleList:
    return cast(nn.ModuleList, model.get_submodule(family.blocks))


def _block_flops(blocks: Iterable[nn.Module], dim: int, lengths: NDArray[np.integer]) -> int:
    wide = lengths.astype("int64")
    tokens, squares = int(wide.sum()), int((wide * wide).sum())
    total = 0
    for block in blocks:
        weights = sum(module.weight.numel() for module in block.modules() if isinstance(module, nn.Linear))
        total += 2 * weights * tokens + 4 * dim * squares
    return total
