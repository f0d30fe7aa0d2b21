"""Lift `replace`: some of the anchor's tokens give way to tokens that move the mean toward the synthetic vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sage_kit.builtin.lifts.token_replacement import random_examples, refuse_pooled, replace_tokens
from sage_kit.components import LiftRequest, TokenBatch
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from sage_kit.builtin.lifts import ReplaceOptions
    from sage_kit.components import BuildContext


class ReplaceLift:
    """Exchanges a share of the anchor's tokens for token states of other real examples.

    A token's score is its dot product with the displacement ``x_new - x_anchor``. Exchanging token p for c moves the
    mean of n real tokens by ``(c - p) / n``, so the exchanges of lowest-scored tokens for highest-scored ones move it
    as far along the displacement as that many exchanges can; one that would move it back is left out. The mean may pass
    the synthetic vector, and moves in other directions as well.

    The first and the last real token stay, since they are the special ones; a separator within a pair of texts is a
    token like any other. At ``cut="embeddings"`` a token state contains the position that the token had in its own text
    and keeps it at its new place; behind encoder blocks it contains its own text's context.

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
        if source == "any":
            sources = random_examples(request, self.options.examples)
        elif request.neighbors is None:
            raise CompatibilityError(
                "lift 'replace' takes tokens of the neighbours in the map, and this sampler names none: set "
                "source='any' in lift_options or take another sampler"
            )
        else:
            sources = np.asarray(request.neighbors[:, : self.options.examples], dtype=np.int64)

        def along_displacement(states: torch.Tensor) -> torch.Tensor:
            return torch.einsum("btd,bd->bt", states, request.displacement.to(states.dtype))

        return replace_tokens(request, sources, self.options.share, along_displacement, only_gains=True)
