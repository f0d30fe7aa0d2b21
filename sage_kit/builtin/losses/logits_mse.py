"""Loss `logits_mse`: the squared error of the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage_kit.training.losses import squared_error

if TYPE_CHECKING:
    import torch

    from sage_kit.components import BuildContext, LossBatch, Options


class LogitsMse:
    """Mean squared difference of the logits (Ba and Caruana 2014, arXiv 1312.6184, equation 1, as a mean)."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """One loss per example, of shape (batch,), float32."""
        values = squared_error(batch.student.logits, batch.teacher.logits)
        if batch.outcomes is not None:  # the others add nothing to the sum, and do not count
            values = values * (batch.outcomes.shape[1] / batch.outcomes.sum(1, keepdim=True))
        return batch.per_example(values)
