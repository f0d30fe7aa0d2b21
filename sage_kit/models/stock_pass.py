"""Blocks one after the other on a padded batch, by stock operations or by the code of their family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from sage_kit.models.block_parts import padded_block, parts_of
from sage_kit.models.encoder_parts import OwnBlocks
from sage_kit.models.positions import PositionBias, attention_mask
from sage_kit.models.recomputation import Call, kept


def through_blocks(
    blocks: Iterable[nn.Module],
    states: Tensor,
    mask: Tensor | None,
    positions: PositionBias | None,
    own: OwnBlocks | None = None,
    by_parts: bool = False,
    call: Call = kept,
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
    own : OwnBlocks or None
        What computes the blocks instead.
    by_parts : bool
        Whether to compute them from their parts in any case: stock blocks without fused attention take no mask of
        booleans.
    call : callable
        How a block is called.
    """
    if own is not None:
        around = own.code.surroundings(own.model, states, mask)
        for block in blocks:
            states = call(own.code.block, block, states, around)
            yield states
        return
    attention = attention_mask(states, mask, positions)
    for block in blocks:
        if positions is not None or by_parts:
            states = call(padded_block, parts_of(block), states, attention)
        else:
            states = call(block, states, attention_mask=attention)
        yield states
