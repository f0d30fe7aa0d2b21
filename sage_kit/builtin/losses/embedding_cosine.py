"""Loss `embedding_cosine`: the cosine of student's and teacher's embedding of an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from sage_kit.builtin.losses.width import to_teacher_width

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, LossBatch, Options


class EmbeddingCosine(torch.nn.Module):
    """One minus the cosine of the pooled output of the last blocks.

    The cosine distance of Sanh et al. 2019 (arXiv 1910.01108, section 3), of one vector per example. Where the widths
    differ, a learned map brings the student's to the teacher's.
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__()
        self.width = to_teacher_width(context)

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """One loss per example, of shape (batch,), float32."""
        student, teacher = batch.student.embeddings, batch.teacher.embeddings
        assert student is not None
        assert teacher is not None
        return 1 - F.cosine_similarity(self.width(student), teacher, dim=-1)
