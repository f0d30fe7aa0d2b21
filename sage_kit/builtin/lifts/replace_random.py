"""Lift `replace_random`: some of the anchor's tokens give way to any tokens, a control for `replace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sage_kit.builtin.lifts.exchange import Exchange
from sage_kit.builtin.lifts.token_replacement import highest_share, replace_tokens
from sage_kit.builtin.lifts.token_sources import ANY, draw_examples
from sage_kit.components import LiftRequest, TokenBatch

if TYPE_CHECKING:
    from sage_kit.builtin.lifts import ReplaceRandomOptions
    from sage_kit.components import BuildContext


class ReplaceRandomLift:
    """Exchanges as many tokens as `replace` at random places for random tokens of random real examples.

    It does not look at the synthetic vector, nor at the neighbours: what `replace` gains over it comes from them.
    Special tokens stay, and positions are as in `replace`.

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
        self.options = options
        self._exchange = Exchange("replace_random", options, context, source=ANY)

    def lift(self, request: LiftRequest) -> TokenBatch:
        """Return token states of the anchors' shape and mask; padding stays zero."""
        if self.options.positions == "new":
            return self._exchange.lift(request)

        def at_random(states: torch.Tensor) -> torch.Tensor:
            return torch.rand(states.shape[:2], generator=request.generator).to(states.device)

        sources = draw_examples(request, ANY, self.options.examples)
        return replace_tokens(request, sources, highest_share(self.options.share), at_random, only_gains=False)
