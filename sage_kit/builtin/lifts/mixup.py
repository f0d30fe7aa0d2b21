"""Lift `mixup`: the anchor's token states mixed with its partner's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sage_kit.builtin.lifts.token_replacement import refuse_pooled
from sage_kit.components import LiftRequest, TokenBatch
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Options


class MixupLift:
    """Mixes token states place by place, so that both sides of a mixture carry the same position.

    The mixture is as long as its anchor, which has the larger part. Its last token, which ends the text, stays the
    anchor's own, and so do the tokens beyond the end of a shorter partner: mixed with padding they would only shrink.

    Parameters
    ----------
    options : Options
    context : BuildContext

    Raises
    ------
    CompatibilityError
        For ``granularity="pooled"``.
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        refuse_pooled("mixup", context)

    def lift(self, request: LiftRequest) -> TokenBatch:
        """Return token states of the anchors' shape and mask; padding stays zero.

        Raises
        ------
        CompatibilityError
            When the sampler named no partners or shares.
        """
        if request.neighbors is None or request.shares is None:
            raise CompatibilityError(
                "lift 'mixup' needs a sampler that names partners and shares: take sampler 'mixup'"
            )
        states, mask = request.anchor.states, request.anchor.mask
        partner = request.states(request.neighbors[:, 0])
        common = min(states.shape[1], partner.states.shape[1])
        places = torch.arange(common, device=mask.device)
        last = mask.sum(dim=1, keepdim=True) - 1
        mixed = mask[:, :common] & partner.mask[:, :common] & (places < last)
        shares = torch.from_numpy(request.shares).to(states)[:, None, None] * mixed.unsqueeze(-1)
        result = states.clone()
        result[:, :common] += shares * (partner.states[:, :common].to(states.dtype) - states[:, :common])
        return TokenBatch(result, mask)
