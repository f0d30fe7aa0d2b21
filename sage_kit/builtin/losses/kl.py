"""Loss `kl`: the divergence of the student's outputs from the teacher's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_kit.training.losses import kl_divergence, squared_error

if TYPE_CHECKING:
    import torch

    from sage_kit.builtin.losses import KlOptions
    from sage_kit.components import BuildContext, LossBatch


class Kl:
    """KL divergence of the softened distributions times the squared temperature, or for regression the squared error.

    Hinton et al. 2015 (arXiv 1503.02531, section 2); see `sage_kit.training.losses.kl_divergence`.
    """

    def __init__(self, options: KlOptions, context: BuildContext) -> None:
        self._temperature = options.temperature or context.config.temperature

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """One loss per example, of shape (batch,), float32."""
        student, teacher = batch.student.logits, batch.teacher.logits
        if batch.regression:
            return batch.per_example(squared_error(student, teacher))
        return batch.per_example(kl_divergence(student, teacher, self._temperature))
