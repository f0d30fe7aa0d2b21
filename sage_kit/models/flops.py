"""FLOPs of an encoder's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sage_kit.models.encoder_parts import OwnBlocks


def block_flops(
    blocks: Sequence[nn.Module], dim: int, lengths: NDArray[np.integer], own: OwnBlocks | None = None
) -> int:
    """Forward FLOPs of whole blocks, as `sage_kit.models.split.UpperLayers.flops` counts them.

    Parameters
    ----------
    blocks : sequence of Module
    dim : int
        Their width.
    lengths : integer array of shape (n,)
        Real tokens of each example.
    own : OwnBlocks or None
        What computes them where they are built otherwise than BERT's; it may count for itself.
    """
    count = getattr(own.code, "flops", None) if own is not None else None
    if count is not None:
        return sum(int(count(block, lengths)) for block in blocks)
    wide = lengths.astype("int64")
    tokens, squares = int(wide.sum()), int((wide * wide).sum())
    total = 0
    for block in blocks:
        weights = sum(module.weight.numel() for module in block.modules() if isinstance(module, nn.Linear))
        total += 2 * weights * tokens + 4 * dim * squares
    return total
