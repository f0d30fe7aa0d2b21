"""Losses `hidden_cosine` and `hidden_mse`: the distance of hidden states, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from sage_kit.builtin.losses.width import to_teacher_width
from sage_kit.training.losses import hidden_state_loss

if TYPE_CHECKING:
    from sage_kit.builtin.losses import HiddenOptions
    from sage_kit.components import BuildContext, LossBatch


class HiddenCosine(torch.nn.Module):
    """One minus the cosine of hidden states, averaged over real tokens and layers.

    Sanh et al. 2019 (DistilBERT, arXiv 1910.01108, section 3); see `sage_kit.training.losses.hidden_state_loss`. Where
    the widths differ, a learned map brings the student's states to the teacher's, the same for all layers.
    """

    distance: ClassVar[Literal["cosine", "mse"]] = "cosine"

    def __init__(self, options: HiddenOptions, context: BuildContext) -> None:
        super().__init__()
        self.width = to_teacher_width(context)

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """One loss per example, of shape (batch,), float32."""
        student, teacher, mask = batch.student.hidden, batch.teacher.hidden, batch.mask
        assert student is not None
        assert teacher is not None
        assert mask is not None
        return hidden_state_loss(self.width(student), teacher, mask, self.distance)


class HiddenMse(HiddenCosine):
    """Mean squared difference of hidden states (Jiao et al. 2020, TinyBERT, arXiv 1909.10351, equation 8)."""

    distance = "mse"
