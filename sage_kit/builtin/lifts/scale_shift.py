"""Lift `scale_shift`: every real token moves by the displacement and is scaled back to its own length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sage_kit.components import LiftRequest, TokenBatch

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Options


class ScaleShiftLift:
    """Adds the displacement to every real token, then scales each to the norm it had before.

    Token states keep the norms that the upper layers know from real text; in exchange the mean of the real tokens moves
    by the displacement only approximately.

    Parameters
    ----------
    options : Options
    context : BuildContext
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def lift(self, request: LiftRequest) -> TokenBatch:
        """Return token states of the anchors' shape and mask; padding stays zero.

        A token that the displacement takes to the origin has no direction left to scale, and stays as it was.
        """
        states, mask = request.anchor.states, request.anchor.mask
        # the squares of a norm would overflow half precision
        exact = states if states.dtype == torch.float64 else states.float()
        moved = exact + request.displacement.to(exact.dtype).unsqueeze(1)
        norms = torch.linalg.vector_norm(moved, dim=-1, keepdim=True)
        scaled = moved * (torch.linalg.vector_norm(exact, dim=-1, keepdim=True) / norms)
        kept = mask.unsqueeze(-1) & (norms > 0)
        return TokenBatch(torch.where(kept, scaled, exact).to(states.dtype), mask)
