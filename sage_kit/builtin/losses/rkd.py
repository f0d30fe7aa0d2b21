"""Loss `rkd`: distances and angles among the embeddings of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from sage_kit.builtin.losses import RkdOptions
    from sage_kit.components import BuildContext, LossBatch


class Rkd:
    r"""Huber distances of relations: of pairs their distance, of triplets their angle.

    .. math:: \lambda_D\, l(|s_i - s_j| / \mu_S, |t_i - t_j| / \mu_T)
        + \lambda_A\, l(\cos \angle s_i s_j s_k, \cos \angle t_i t_j t_k)

    with :math:`\mu` the mean distance of the batch's pairs (Park et al. 2019, arXiv 1904.05068, equations 5 to 10; the
    means over pairs and over triplets are taken). A pair that coincides in either model has no direction and is left
    out. An example's share is that of the pairs that it is the first of, and of the triplets whose vertex it is. The
    widths of the models may differ.
    """

    def __init__(self, options: RkdOptions, context: BuildContext) -> None:
        self.options = options

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """Each example's share, of shape (batch,), float32; their mean is the loss of the batch."""
        student, teacher = batch.student.embeddings, batch.teacher.embeddings
        assert student is not None
        assert teacher is not None
        steps = [one[None] - one[:, None] for one in (student, teacher)]  # [j, i]: from j to i
        apart = torch.stack([step.square().sum(-1) > 0 for step in steps]).all(0)
        # where there is no direction any will do: it has no weight, and no gradient of a norm of 0
        steps = [step.masked_fill(~apart[..., None], 1.0) for step in steps]
        distances, angles = self._distances(steps, apart), self._angles(steps, apart)
        return self.options.distance * distances + self.options.angle * angles

    def _distances(self, steps: list[torch.Tensor], apart: torch.Tensor) -> torch.Tensor:
        pairs = apart.float()
        count = pairs.sum().clamp(min=1)
        lengths = [step.norm(dim=-1) for step in steps]
        one, two = (length / ((length * pairs).sum() / count).clamp(min=1e-12) for length in lengths)
        return len(apart) / count * (F.smooth_l1_loss(one, two, reduction="none") * pairs).sum(1)

    def _angles(self, steps: list[torch.Tensor], apart: torch.Tensor) -> torch.Tensor:
        one, two = (direction @ direction.transpose(1, 2) for direction in (F.normalize(s, dim=-1) for s in steps))
        other = ~torch.eye(len(apart), dtype=torch.bool, device=apart.device)
        triplets = (apart[:, :, None] & apart[:, None, :] & other).float()
        error = (F.smooth_l1_loss(one, two, reduction="none") * triplets).sum((1, 2))
        return len(apart) / triplets.sum().clamp(min=1) * error
