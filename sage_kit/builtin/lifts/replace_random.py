"""Lift `replace_random`: some of the anchor's tokens give way to any tokens, a control for `replace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sage_kit.builtin.lifts.token_replacement import random_examples, refuse_pooled, replace_tokens
from sage_kit.components import LiftRequest, TokenBatch

if TYPE_CHECKING:
    from sage_kit.builtin.lifts import ReplaceRandomOptions
    from sage_kit.components import BuildContext


class ReplaceRandomLift:
    """Exchanges as many tokens as `replace` at random places for random tokens of random real examples.

    It does not look at the synthetic vector, nor at the neighbours: what `replace` gains over it comes from them. The
    first and the last real token stay, and what token states contain beside the token is as in `replace`.

    Parameters
    ----------
    options : ReplaceRandomOptions
    context : BuildContext

    Raises
    ------
    CompatibilityError
        For ``granularity="pooled"``.
    """

    def __init__(self, options: ReplaceRandomOptions, context: BuildContext) -> None:
        refuse_pooled("replace_random", context)
        self.options = options

    def lift(self, request: LiftRequest) -> TokenBatch:
        """Return token states of the anchors' shape and mask; padding stays zero."""
        sources = random_examples(request, self.options.examples)

        def at_random(states: torch.Tensor) -> torch.Tensor:
            return torch.rand(states.shape[:2], generator=request.generator).to(states.device)

        return replace_tokens(request, sources, self.options.share, at_random, only_gains=False)
