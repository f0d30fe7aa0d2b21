"""The blocks of DeBERTa v2 and v3: the stock ones, with the relative positions that they attend to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DisentangledBlocks:
    """Blocks of DeBERTa v2 and v3 (He et al. 2021, arXiv 2006.03654): scores of content and of relative positions.

    Parameters
    ----------
    options, context
        As for every component; not used.
    """

    def __init__(self, options: Any, context: Any) -> None:
        pass

    def surroundings(
        self, model: Any, states: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Mask, relative position of each pair of tokens, and the embeddings of relative positions."""
        encoder = model.base_model.encoder
        real = states.new_ones(states.shape[:2]) if mask is None else mask
        return encoder.get_attention_mask(real.long()), encoder.get_rel_pos(states), encoder.get_rel_embedding()

    def block(self, block: Any, states: Tensor, surroundings: tuple[Tensor, Tensor | None, Tensor | None]) -> Tensor:
        """Output of a stock block."""
        mask, positions, embeddings = surroundings
        output: Tensor = block(states, mask, relative_pos=positions, rel_embeddings=embeddings)[0]
        return output

    def project(self, block: Any, states: Tensor) -> Tensor:
        """Queries, keys and values of the content."""
        own = block.attention.self
        return torch.stack([layer(states) for layer in (own.query_proj, own.key_proj, own.value_proj)], dim=-2)

    def flops(self, block: Any, lengths: NDArray[np.integer]) -> int:
        """Forward FLOPs over real tokens.

        Besides what every block costs, each token's query meets the keys of the ``2 k`` relative positions, and its key
        their queries: ``4 d k`` each, where the block has them. The positions' own projections are made once a batch,
        whatever its size, and not counted.
        """
        own = block.attention.self
        wide = lengths.astype("int64")
        tokens, squares = int(wide.sum()), int((wide * wide).sum())
        positional = {getattr(own, name, None) for name in ("pos_key_proj", "pos_query_proj")}
        layers = [part for part in block.modules() if isinstance(part, nn.Linear) and part not in positional]
        total: int = 2 * sum(layer.weight.numel() for layer in layers) * tokens + 4 * own.all_head_size * squares
        if own.relative_attention:
            total += len({"c2p", "p2c"} & set(own.pos_att_type)) * 4 * own.all_head_size * own.pos_ebd_size * tokens
        return total
