"""Kind of task `label_sets`: any number of labels a text (multi-label classification)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sage_kit.builtin.task_kinds.classification import Classification
from sage_kit.components import Alignment, Compared
from sage_kit.data.structured_labels import find_label_names, read_label_sets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import EncodedTexts, Floats, LabelColumn


class LabelSets(Classification):
    """Two probabilities for each label, that it is there and that it is not; the set has those of at least one half.

    A logit z stands for the distribution softmax(0, z), whose second part is sigmoid(z), so every loss of distributions
    is that of the labels one by one, and their mean.
    """

    def read(self, column: LabelColumn) -> NDArray[Any]:
        """Return array of shape (rows, n_labels), int8: 1 for the labels that a text has."""
        return read_label_sets(
            column.values, column.names, column.where, column.column, names=column.embedded, rows=column.rows
        )

    def find_names(self, column: LabelColumn) -> tuple[str, ...]:
        """Return the different labels of a column, sorted."""
        return find_label_names(column.values, column.where, column.column, rows=column.rows)

    def align(self, encoded: EncodedTexts) -> Alignment:
        """Return the sets as int64, -1 throughout where no text has any: a text is one sequence."""
        if encoded.labels.dtype.hasobject:
            return Alignment(np.full((len(encoded.labels), len(encoded.names)), -1, np.int64))
        return Alignment(encoded.labels.astype(np.int64))

    def compared(self, logits: torch.Tensor, positions: torch.Tensor | None) -> Compared:
        """Return logits of shape (batch, n_labels, 2), all of which count."""
        counts = torch.ones(logits.shape, dtype=torch.bool, device=logits.device)
        return Compared(torch.stack([torch.zeros_like(logits), logits], dim=-1), counts)

    def answers(self, compared: Compared) -> torch.Tensor:
        """Return the sets, of shape (batch, n_labels), int64."""
        return (compared.logits[..., 1] >= 0).long()

    def predictions(self, outputs: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[np.float32]:
        """Return the probability of each label, of shape (rows, n_labels)."""
        from scipy.special import expit

        found: NDArray[np.float32] = expit(outputs)
        return found

    def agreement(self, student: Floats, teacher: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[Any]:
        """Return 1 where the sets are equal, else 0."""
        found: NDArray[Any] = ((student >= 0) == (teacher >= 0)).all(-1)
        return found.astype(np.float64)
