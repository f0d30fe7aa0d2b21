"""Loss `dist`: how the probabilities of the student correlate with the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from sage_kit.builtin.losses import DistOptions
    from sage_kit.components import BuildContext, LossBatch


class Dist:
    r"""One minus Pearson's correlation, over the classes of an example and over the examples of a batch.

    .. math:: \beta T^2 (1 - \rho(p^S_{i, \cdot}, p^T_{i, \cdot}))
        + \gamma T^2 \frac{1}{C} \sum_c (1 - \rho(p^S_{\cdot, c}, p^T_{\cdot, c}))

    (Huang et al. 2022, arXiv 2205.10536, equations 6, 8 and 10; T as in the authors' code.) With
    :math:`a, b` centred and of norm 1, :math:`1 - \rho = |a - b|^2 / 2`: that sum says what an example's share of the
    second term is. Of two classes, the correlation over classes is 1 or -1 and has no gradient; that over examples
    knows no level of the probabilities, so that `kl` or `hard_labels` belongs beside it.
    """

    def __init__(self, options: DistOptions, context: BuildContext) -> None:
        self.options = options

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """Each example's share, of shape (batch,), float32; their mean is the loss of the batch."""
        options, positions = self.options, batch.positions
        logits = [outputs.logits.float() / options.temperature for outputs in (batch.student, batch.teacher)]
        rows = [one if positions is None else one[positions] for one in logits]
        student, teacher = (F.softmax(one, dim=-1) for one in rows)
        inter = _parting(student, teacher, 1).sum(1)
        intra = len(student) * _parting(student, teacher, 0).mean(1)
        shares = options.temperature**2 * (options.inter * inter + options.intra * intra)
        if positions is None:
            return shares
        return batch.per_example(torch.zeros_like(positions, dtype=shares.dtype).masked_scatter(positions, shares))


def _parting(student: torch.Tensor, teacher: torch.Tensor, dim: int) -> torch.Tensor:
    """The terms whose sum over `dim` is one minus the correlation over it; 0 where both are constant."""
    one, two = (F.normalize(values - values.mean(dim, keepdim=True), dim=dim) for values in (student, teacher))
    return (one - two).square() / 2
