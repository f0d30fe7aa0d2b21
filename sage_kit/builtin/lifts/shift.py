"""Lift `shift`: every real token of the anchor moves by the displacement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sage_kit.components import LiftRequest, TokenBatch

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Options


class ShiftLift:
    """Adds the displacement to every real token, so the mean of the real tokens moves by exactly the displacement.

    Differences between tokens, and with them the sentence's structure, stay as they are.

    Parameters
    ----------
    options : Options
    context : BuildContext
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def lift(self, request: LiftRequest) -> TokenBatch:
        """Return token states of the anchors' shape and mask; padding stays zero."""
        states, mask = request.anchor.states, request.anchor.mask
        displacement = request.displacement.to(states.dtype)
        moved = torch.addcmul(states, mask.unsqueeze(-1).to(states.dtype), displacement.unsqueeze(1))
        return TokenBatch(moved, mask)
