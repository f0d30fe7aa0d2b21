"""Sampler `random`: new points near any example, so that what `high_loss` gains can be told from more data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.samplers.draws import draw_anchors, points_near
from sage_kit.components import SampleRequest, Samples

if TYPE_CHECKING:
    from sage_kit.builtin.samplers import NeighborOptions
    from sage_kit.components import BuildContext


class AnyAnchorSampler:
    """Draws anchors among all examples, each as often as any other, and places new points near them.

    Parameters
    ----------
    options : NeighborOptions
    context : BuildContext
    """

    def __init__(self, options: NeighborOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples; without a map, anchors alone.

        Raises
        ------
        CompatibilityError
            With too few examples.
        """
        n = len(request.losses)
        anchors = draw_anchors(np.arange(n), np.zeros(n), request.count, request.rng)
        return points_near(anchors, request, self.options, "random")
