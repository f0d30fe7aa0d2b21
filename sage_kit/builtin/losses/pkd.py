"""Loss `pkd`: the first token's states in the blocks before the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from sage_kit.builtin.losses.width import to_teacher_width

if TYPE_CHECKING:
    from sage_kit.builtin.losses import PkdOptions
    from sage_kit.components import BuildContext, LossBatch


class Pkd(torch.nn.Module):
    r"""Squared distance of the first token's states, each of norm 1, summed over the blocks before the last.

    .. math:: \sum_j \left| h^S_j / |h^S_j| - h^T_{I(j)} / |h^T_{I(j)}| \right|^2

    (Sun et al. 2019, arXiv 1908.09355, equation 7.) Where the widths differ, a learned map brings the student's states
    to the teacher's.
    """

    def __init__(self, options: PkdOptions, context: BuildContext) -> None:
        super().__init__()
        self.width = to_teacher_width(context)

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """One loss per example, of shape (batch,), float32."""
        student, teacher = batch.student.hidden, batch.teacher.hidden
        assert student is not None
        assert teacher is not None
        one = F.normalize(self.width(student[:, 0]).float(), dim=-1)
        two = F.normalize(teacher[:, 0].float(), dim=-1)
        return (one - two).square().sum((1, 2))
