"""Loss `minilm_relations`: how queries, keys and values relate to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_kit.training.losses import relation_loss

if TYPE_CHECKING:
    import torch

    from sage_kit.builtin.losses import RelationOptions
    from sage_kit.components import BuildContext, LossBatch


class MinilmRelations:
    """Divergence of the relations among queries, among keys and among values.

    Wang et al. 2020 (MiniLMv2, arXiv 2012.15828, section 3.1); see `sage_kit.training.losses.relation_loss`. The widths
    of the models may differ.
    """

    def __init__(self, options: RelationOptions, context: BuildContext) -> None:
        assert context.sizes is not None
        self._heads = options.heads or context.sizes.teacher_heads

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """One loss per example, of shape (batch,), float32."""
        student, teacher, mask = batch.student.projections, batch.teacher.projections, batch.mask
        assert student is not None
        assert teacher is not None
        assert mask is not None
        return relation_loss(student[:, :, 0], teacher[:, :, 0], mask, self._heads)
