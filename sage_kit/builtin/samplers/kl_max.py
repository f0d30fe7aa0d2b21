"""Sampler `kl_max`: from hard examples toward the neighbours on which student and teacher differ most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.samplers.draws import points_near
from sage_kit.builtin.samplers.high_loss import hard_anchors
from sage_kit.components import SampleRequest, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.samplers import HighLossOptions
    from sage_kit.components import BuildContext, Floats


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


def divergence(teacher: Floats, student: Floats) -> NDArray[np.float64]:
    r"""Kullback-Leibler divergence of the student's distribution from the teacher's, one per example.

    .. math:: \sum_c p_c (\log p_c - \log q_c), \quad p = \mathrm{softmax}(t), q = \mathrm{softmax}(s)

    For the single output of a regression task it is that of two normal distributions of unit variance about the two
    outputs, half the squared difference.

    Parameters
    ----------
    teacher, student : array of shape (n, n_outputs), float32

    Returns
    -------
    array of shape (n,), float64
        Not finite where an output is not.
    """
    t, s = teacher.astype(np.float64), student.astype(np.float64)
    if t.shape[1] == 1:
        return np.asarray(((t - s) ** 2).sum(axis=1) / 2)
    with np.errstate(invalid="ignore"):  # outputs that are not finite
        log_p, log_q = (x - x.max(axis=1, keepdims=True) for x in (t, s))
        log_p, log_q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (log_p, log_q))
        return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=1))
