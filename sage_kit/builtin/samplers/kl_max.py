"""Sampler `kl_max`: from hard examples toward the neighbours on which student and teacher differ most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.samplers.draws import points_near
from sage_kit.builtin.samplers.high_loss import hard_anchors
from sage_kit.components import SampleRequest, Samples
from sage_kit.data.metrics import divergence

if TYPE_CHECKING:
    from sage_kit.builtin.samplers import HighLossOptions
    from sage_kit.components import BuildContext


class KLMaxSampler:
    """Draws anchors as `high_loss` does; new points lie toward the one of k neighbours with the largest divergence.

    Parameters
    ----------
    options : HighLossOptions
    context : BuildContext
    """

    def __init__(self, options: HighLossOptions, context: BuildContext) -> None:
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
        scores = divergence(request.teacher_logits, request.student_logits)
        # the student has not seen these, or has diverged on them: other neighbours are chosen first
        scores[~np.isfinite(scores)] = -1
        return points_near(hard_anchors(request, self.options), request, self.options, "kl_max", scores)
