"""Sampler `boundary`: new points near the examples between whose classes the teacher hesitates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.samplers.draws import draw_anchors, points_near
from sage_kit.builtin.samplers.high_loss import hardest
from sage_kit.components import SampleRequest, Samples
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.samplers import BoundaryOptions
    from sage_kit.components import BuildContext, Floats


class BoundarySampler:
    """Draws anchors among the examples of smallest teacher margin, each as often as any other.

    The margin does not change from round to round, and neither do the examples that anchors are drawn from.

    Parameters
    ----------
    options : BoundaryOptions
    context : BuildContext
    """

    def __init__(self, options: BoundaryOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples.

        Raises
        ------
        CompatibilityError
            For a regression task, without a map, or with too few examples.
        """
        if request.teacher_logits.shape[1] < 2:
            raise CompatibilityError(
                "sampler 'boundary' looks for the border between classes, and a regression task has none: take sampler "
                "'high_loss' or 'random'"
            )
        near = hardest(-margins(request.teacher_logits), self.options.fraction, request.rng)
        anchors = draw_anchors(near, np.zeros(len(near)), request.count, request.rng)
        return points_near(anchors, request, self.options, "boundary")


def margins(logits: Floats) -> NDArray[np.float64]:
    """Probability of the most probable class less that of the second, of shape (n,), from logits (n, n_classes)."""
    exact = logits.astype(np.float64)
    exponents = np.exp(exact - exact.max(axis=1, keepdims=True))
    largest = np.partition(exponents, -2, axis=1)
    return np.asarray((largest[:, -1] - largest[:, -2]) / exponents.sum(axis=1))
