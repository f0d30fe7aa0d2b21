"""The blocks of ModernBERT and NomicBERT: the stock ones, with the masks and rotary tables that they take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ModernBlocks:
    """Blocks of ModernBERT (Warner et al. 2024, arXiv 2412.13663): attention to all tokens, or to those near.

    Parameters
    ----------
    options, context
        As for every component; not used.
    """

    def __init__(self, options: Any, context: Any) -> None:
        pass

    def surroundings(self, model: Any, states: Tensor, mask: Tensor | None) -> dict[str, Any]:
        """Mask and rotary table of each kind of attention, by its name in the configuration."""
        config, encoder = model.config, model.base_model
        tokens = states.shape[1]
        places = torch.arange(tokens, device=states.device)
        apart = (places[:, None] - places).abs()
        keys = None if mask is None else mask[:, None, None, :]
        found: dict[str, Any] = {}
        for kind in sorted(set(config.layer_types)):
            allowed = keys
            if kind == "sliding_attention" and tokens > config.sliding_window + 1:
                near = apart <= config.sliding_window
                # padding sees itself, so that no token sees nothing at all
                allowed = near[None, None] if keys is None else (near & keys) | (apart == 0)
            found[kind] = allowed, encoder.rotary_emb(states, places[None], kind)
        return found

    def block(self, block: Any, states: Tensor, surroundings: dict[str, Any]) -> Tensor:
        """Output of a stock block."""
        allowed, table = surroundings[block.attention_type]
        output: Tensor = block(states, attention_mask=allowed, position_embeddings=table)
        return output

    def project(self, block: Any, states: Tensor) -> Tensor:
        """Queries, keys and values before their rotation."""
        projected: Tensor = block.attn.Wqkv(block.attn_norm(states)).unflatten(-1, (3, -1))
        return projected


class NomicBlocks:
    """Blocks of NomicBERT (Nussbaum et al. 2024, arXiv 2402.01613).

    Parameters
    ----------
    options, context
        As for every component; not used.
    """

    def __init__(self, options: Any, context: Any) -> None:
        pass

    def surroundings(self, model: Any, states: Tensor, mask: Tensor | None) -> tuple[Tensor | None, Any]:
        """Mask and rotary table."""
        places = torch.arange(states.shape[1], device=states.device)[None]
        return None if mask is None else mask[:, None, None, :], model.base_model.rotary_emb(states, places)

    def block(self, block: Any, states: Tensor, surroundings: tuple[Tensor | None, Any]) -> Tensor:
        """Output of a stock block."""
        allowed, table = surroundings
        output: Tensor = block(states, attention_mask=allowed, position_embeddings=table)
        return output

    def project(self, block: Any, states: Tensor) -> Tensor:
        """Queries, keys and values before their rotation."""
        attention = block.self_attn
        return torch.stack([layer(states) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)], dim=-2)
