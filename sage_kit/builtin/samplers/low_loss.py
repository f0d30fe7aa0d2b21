"""Sampler `low_loss`: new points near the examples that the student finds easiest, a control for `high_loss`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.samplers.draws import draw_anchors, points_near
from sage_kit.builtin.samplers.high_loss import hardest
from sage_kit.components import SampleRequest, Samples

if TYPE_CHECKING:
    from sage_kit.builtin.samplers import LowLossOptions
    from sage_kit.components import BuildContext


class LowLossSampler:
    """Draws anchors among the examples of lowest loss, each as often as any other, and places new points near them.

    Parameters
    ----------
    options : LowLossOptions
    context : BuildContext
    """

    def __init__(self, options: LowLossOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples.

        Raises
        ------
        ConfigError
            When no example has a finite loss.
        CompatibilityError
            Without a map, or with too few examples.
        """
        easy = hardest(-request.losses, self.options.fraction, request.rng)
        anchors = draw_anchors(easy, np.zeros(len(easy)), request.count, request.rng)
        return points_near(anchors, request, self.options, "low_loss")
