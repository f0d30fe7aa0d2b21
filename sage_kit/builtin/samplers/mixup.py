"""Sampler `mixup`: hard examples and random partners, whose token states lift `mixup` mixes. A control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.samplers.full_space import part_of_the_way
from sage_kit.builtin.samplers.high_loss import hard_anchors
from sage_kit.components import SampleRequest, Samples
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from sage_kit.builtin.samplers import MixupOptions
    from sage_kit.components import BuildContext


class MixupSampler:
    """Pairs hard examples with random others and draws how far each goes toward its partner.

    The share of the way is drawn from Beta(alpha, alpha); one above one half is turned over, so that the anchor always
    has the larger part. The vectors are the pooled vectors mixed by that share. Lift `mixup` mixes the token states
    instead; where anchor and partner differ in length, the mean of its tokens is not exactly the vector here.

    Parameters
    ----------
    options : MixupOptions
    context : BuildContext

    Notes
    -----
    Zhang, Cisse, Dauphin and Lopez-Paz, mixup: beyond empirical risk minimization (ICLR 2018, arXiv 1710.09412). There
    the labels are mixed, too; here the teacher labels the mixture.
    """

    def __init__(self, options: MixupOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples with their partners and shares.

        Raises
        ------
        ConfigError
            When no example has a finite loss.
        CompatibilityError
            With a single example, which has no partner.
        """
        n = len(request.losses)
        if n < 2:
            raise CompatibilityError("sampler 'mixup' needs a partner for each example, and there is only one example")
        anchors = hard_anchors(request, self.options)
        partners = (anchors + request.rng.integers(1, n, size=len(anchors))) % n
        drawn = request.rng.beta(self.options.alpha, self.options.alpha, size=len(anchors))
        shares = np.minimum(drawn, 1 - drawn).astype(np.float32)
        return Samples(
            anchors=anchors,
            vectors=part_of_the_way(request.vectors, anchors, anchors, partners, shares),
            neighbors=partners[:, None].astype(np.int64),
            shares=shares,
        )
