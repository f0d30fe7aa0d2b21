"""Loss `tinybert_attention`: the squared error of attention scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from sage_kit.builtin.losses import AttentionOptions
    from sage_kit.components import BuildContext, LossBatch


class TinybertAttention:
    r"""Mean squared difference of attention scores before the softmax.

    .. math:: \frac{1}{L h n^2} \sum_{l, a} \sum_{i, j \le n} (A^S_{l, a, i, j} - A^T_{l, a, i, j})^2

    over the n real tokens of an example (Jiao et al. 2020, arXiv 1909.10351, equation 7, which sums over the layers;
    here their mean is taken).
    """

    def __init__(self, options: AttentionOptions, context: BuildContext) -> None:
        pass

    def per_example(self, batch: LossBatch) -> torch.Tensor:
        """One loss per example, of shape (batch,), float32."""
        student, teacher, mask = batch.student.scores, batch.teacher.scores, batch.mask
        assert student is not None
        assert teacher is not None
        assert mask is not None
        weights = mask.float()
        # over layers and heads, then over keys and over queries
        error = (student - teacher).square().mean((1, 2))
        return batch.per_token((error * weights[:, None]).sum(-1) / weights.sum(1, keepdim=True))
