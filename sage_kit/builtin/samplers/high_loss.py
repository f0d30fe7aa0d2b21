"""Sampler `high_loss`: new points near the examples that the student finds hardest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.samplers.draws import draw_anchors, points_near
from sage_kit.components import SampleRequest, Samples
from sage_kit.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.samplers import HardOptions, HighLossOptions
    from sage_kit.components import BuildContext, Floats, Integers


class HighLossSampler:
    """Draws anchors among the hardest examples by weight and places new points near them.

    Parameters
    ----------
    options : HighLossOptions
    context : BuildContext
    """

    def __init__(self, options: HighLossOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples; see `hardest` and `draw_anchors` for which anchors they have.

        Raises
        ------
        ConfigError
            When no example has a finite loss.
        CompatibilityError
            Without a map, or with too few examples.
        """
        return points_near(hard_anchors(request, self.options), request, self.options, "high_loss")


def hard_anchors(request: SampleRequest, options: HardOptions) -> Integers:
    """Anchors of shape (count,), drawn among the hardest examples by loss; see `hardest` and `draw_anchors`.

    Raises
    ------
    ConfigError
        When no example has a finite loss.
    """
    hard = hardest(request.losses, options.fraction, request.rng)
    log_weights = log_losses(request.losses[hard]) / options.temperature
    return draw_anchors(hard, log_weights, request.count, request.rng)


def hardest(losses: Floats | NDArray[np.float64], fraction: float, rng: np.random.Generator) -> Integers:
    """The ``ceil(fraction * n)`` of n examples that have the highest loss, ties broken at random.

    Losses that are not finite are of examples the student has not seen, or has diverged on; they are left out.

    Parameters
    ----------
    losses : array of shape (n,), float32 or float64
    fraction : float
        Between 0 and 1.
    rng : numpy Generator

    Returns
    -------
    array of int64
        At least one example, the hardest first.

    Raises
    ------
    ConfigError
        When no loss is finite.
    """
    known = np.flatnonzero(np.isfinite(losses))
    if not len(known):
        raise ConfigError("no training example has a finite loss: lower learning_rate")
    # the tiny term keeps 0.07 * 100 = 7.000000000000001 from becoming 8
    count = min(len(known), max(1, math.ceil(fraction * len(known) - 1e-9)))
    known = rng.permutation(known)
    return known[np.argsort(-losses[known], kind="stable")[:count]]


def log_losses(losses: Floats) -> NDArray[np.float64]:
    """Natural logarithms of losses, of shape (n,); losses of less than a millionth of the highest count as that.

    With these as log-weights, an example is drawn in proportion to its loss, whatever the losses' scale, and no single
    outlier takes over as it would with the exponential of its loss. Zeros where no loss is above zero.
    """
    exact = losses.astype(np.float64)
    highest = float(exact.max())
    if highest <= 0:
        return np.zeros_like(exact)
    return np.log(np.maximum(exact, 1e-6 * highest))
