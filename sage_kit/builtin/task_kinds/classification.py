"""Kind of task `classification`: one class a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.components import Alignment, Compared

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, EncodedTexts, Floats, Options


class Classification:
    """One distribution over the classes for each text; student and teacher agree where their classes are equal."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def align(self, encoded: EncodedTexts) -> Alignment:
        """Return the labels: a text is one sequence."""
        return Alignment(encoded.labels)

    def compared(self, logits: torch.Tensor, positions: torch.Tensor | None) -> Compared:
        """Return the logits as they are."""
        return Compared(logits)

    def answers(self, compared: Compared) -> torch.Tensor:
        """Return the likeliest classes, of shape (batch,), int64."""
        return compared.logits.argmax(-1)

    def gold(self, encoded: EncodedTexts) -> NDArray[Any]:
        """Return the labels as they are."""
        return encoded.labels

    def predictions(self, outputs: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[Any]:
        """Return the likeliest classes, of shape (rows,)."""
        found: NDArray[np.int64] = outputs.argmax(-1)
        return found

    def agreement(self, student: Floats, teacher: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[Any]:
        """Return 1 where the classes are equal, else 0."""
        found: NDArray[Any] = student.argmax(-1) == teacher.argmax(-1)
        return found.astype(np.float64)
