"""Loss `hard_labels`: the error of the student by the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sage_kit.training.losses import hard_label_loss, squared_error

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, LossBatch, Options


class HardLabels:
    """Cross-entropy to the gold label, or for regression the squared error; of synthetic examples to the teacher's."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """One loss per example, of shape (batch,), float32."""
        logits, labels = batch.student.logits, batch.labels
        if batch.regression:
            return batch.per_example(squared_error(logits, labels[..., None]))
        if batch.positions is None:
            return hard_label_loss(logits, labels)
        # labels where nothing counts need be none
        labels = torch.where(batch.positions, labels, 0)
        return batch.per_example(hard_label_loss(logits.flatten(0, 1), labels.flatten()).view_as(labels))
