"""Loss `contrastive`: each embedding of the student finds the teacher's own among those of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from sage_kit.builtin.losses.width import to_teacher_width

if TYPE_CHECKING:
    from sage_kit.builtin.losses import ContrastiveOptions
    from sage_kit.components import BuildContext, LossBatch


class Contrastive(torch.nn.Module):
    r"""Cross-entropy of finding the teacher's embedding of an example among those of the batch, by cosine.

    .. math:: -\log \frac{\exp(\cos(s_i, t_i) / \tau)}{\sum_j \exp(\cos(s_i, t_j) / \tau)}

    (InfoNCE: van den Oord et al. 2018, arXiv 1807.03748, equation 4; between student and teacher as in Tian et al.
    2020, arXiv 1910.10699.) Where the widths differ, a learned map brings the student's to the teacher's.
    """

    def __init__(self, options: ContrastiveOptions, context: BuildContext) -> None:
        super().__init__()
        self.options = options
        self.width = to_teacher_width(context)

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """Each example's share, of shape (batch,), float32; their mean is the loss of the batch."""
        student, teacher = batch.student.embeddings, batch.teacher.embeddings
        assert student is not None
        assert teacher is not None
        cosines = F.normalize(self.width(student), dim=-1) @ F.normalize(teacher, dim=-1).T
        own = torch.arange(len(cosines), device=cosines.device)
        return F.cross_entropy(cosines / self.options.temperature, own, reduction="none")
