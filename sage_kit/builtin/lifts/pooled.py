"""Lift `pooled`: the synthetic vector by itself, as a sequence of one token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sage_kit.components import LiftRequest, TokenBatch

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Options


class PooledLift:
    """Makes each synthetic vector a sequence of length one, on which self-attention has nothing to weigh.

    With ``granularity="token"`` only the synthetic examples become such sequences, and real ones keep their tokens.

    Parameters
    ----------
    options : Options
    context : BuildContext
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def lift(self, request: LiftRequest) -> TokenBatch:
        """Return token states of shape (batch, 1, dim)."""
        states = request.vectors.to(request.anchor.states.dtype).unsqueeze(1)
        return TokenBatch(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))
