"""Kind of task `regression`: a number a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.builtin.task_kinds.classification import Classification
from sage_kit.data.metrics import AGREEMENT_TOLERANCE

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from sage_kit.components import Alignment, Compared, EncodedTexts, Floats


class Regression(Classification):
    """One number for each text; student and teacher agree where they differ by little of the range of the labels."""

    def answers(self, compared: Compared) -> torch.Tensor:
        """Return the numbers, of shape (batch,)."""
        return compared.logits[:, 0]

    def predictions(self, outputs: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[Any]:
        """Return the numbers, of shape (rows,)."""
        return outputs[:, 0]

    def agreement(self, student: Floats, teacher: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[Any]:
        """Return 1 where the numbers differ by at most `AGREEMENT_TOLERANCE` of the range of the labels, else 0."""
        low, high = encoded.label_range
        found: NDArray[Any] = np.abs(student[:, 0] - teacher[:, 0]) <= AGREEMENT_TOLERANCE * (high - low)
        return found.astype(np.float64)
