"""Sampler `adversarial`: hard examples moved to where student and teacher differ more. A control."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.samplers.full_space import CHUNK, move_lengths
from sage_kit.builtin.samplers.high_loss import hard_anchors
from sage_kit.components import SampleRequest, Samples
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from sage_kit.builtin.samplers import LengthOptions
    from sage_kit.components import BuildContext


class AdversarialSampler:
    """Moves hard examples by one normalised gradient step that raises the student-teacher divergence.

    The step is that of a rigid shift of the example's token states, so with lift `shift` the student and the teacher
    see exactly what the gradient was taken of. Its length is that of `gaussian`. An example whose gradient vanishes
    stays where it is.

    Parameters
    ----------
    options : LengthOptions
    context : BuildContext

    Notes
    -----
    The step in the L2 norm of the fast gradient method: Miyato, Dai and Goodfellow, Adversarial training methods for
    semi-supervised text classification (ICLR 2017, arXiv 1605.07725), equation 5, with the divergence for the loss.
    """

    def __init__(self, options: LengthOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples.

        Raises
        ------
        ConfigError
            When no example has a finite loss.
        CompatibilityError
            With too few examples, or without a gradient.
        """
        if request.divergence_gradient is None:
            raise CompatibilityError("sampler 'adversarial' needs student and teacher, which only a run can give it")
        anchors = hard_anchors(request, self.options)
        lengths = move_lengths(anchors, request, self.options, "adversarial")
        gradients = np.asarray(request.divergence_gradient(anchors))
        vectors = np.empty((len(anchors), request.vectors.shape[1]), dtype=np.float32)
        for start in range(0, len(anchors), CHUNK):
            part = slice(start, start + CHUNK)
            gradient = gradients[part].astype(np.float64)
            norms = np.linalg.norm(gradient, axis=1)
            factors = np.divide(lengths[part], norms, out=np.zeros_like(norms), where=norms > 0)
            vectors[part] = request.vectors[anchors[part]] + (factors[:, None] * gradient).astype(np.float32)
        return Samples(anchors=anchors, vectors=vectors)
