"""Lift `replace`: some of the anchor's tokens give way to tokens that move its text toward the synthetic vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sage_kit.builtin.lifts.exchange import Exchange
from sage_kit.builtin.lifts.token_replacement import highest_share, refuse_pooled, replace_tokens
from sage_kit.builtin.lifts.token_sources import draw_examples
from sage_kit.components import LiftRequest, TokenBatch

if TYPE_CHECKING:
    from sage_kit.builtin.lifts import ReplaceOptions
    from sage_kit.components import BuildContext


class ReplaceLift:
    """Exchanges a share of the anchor's tokens for tokens of a source, by how far that moves the text.

    A token's score is the dot product of its embedding, at its place, with the displacement ``x_new - x_anchor``.
    Exchanging token p for c moves the mean of n real tokens by ``(c - p) / n``. At temperature 0 the lowest-scored
    tokens give way, each to the highest-scored of its candidates, and an exchange that would move the text back is left
    out; above it places and newcomers are drawn by the softmax of the scores over the temperature, in units of their
    standard deviation within the row. Behind encoder blocks (``bypass=k``) the scores are those of the embeddings, and
    so an approximation.

    Special tokens stay. The new text is embedded as any other, so a newcomer gets the position and type of its place.
    With ``positions="carried"`` it brings the token state that it had in its own text instead; the first and the last
    real token stay then, and a separator within a pair is a token like any other.

    Parameters
    ----------
    options : ReplaceOptions
    context : BuildContext

    Raises
    ------
    CompatibilityError
        For ``granularity="pooled"``.
    """

    def __init__(self, options: ReplaceOptions, context: BuildContext) -> None:
        refuse_pooled("replace", context)
        self.options = options
        self._context = context
        self._exchanges: dict[str, Exchange] = {}

    def lift(self, request: LiftRequest) -> TokenBatch:
        """Return token states of the anchors' shape and mask; padding stays zero.

        Raises
        ------
        CompatibilityError
            When neighbours are to be the source and the sampler names none.
        """
        source = self.options.source
        if source == "auto":
            source = "any" if request.neighbors is None else "neighbors"
        if self.options.positions == "carried":
            sources = draw_examples(request, source, self.options.examples)

            def along_displacement(states: torch.Tensor) -> torch.Tensor:
                return torch.einsum("btd,bd->bt", states, request.displacement.to(states.dtype))

            return replace_tokens(
                request, sources, highest_share(self.options.share), along_displacement, only_gains=True
            )
        if source not in self._exchanges:
            self._exchanges[source] = Exchange(
                "replace",
                self.options,
                self._context,
                source=source,
                temperature=self.options.temperature,
                candidates=self.options.candidates,
            )
        return self._exchanges[source].lift(request)
