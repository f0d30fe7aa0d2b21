"""Kind of task `embeddings`: a vector a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sage_kit.components import Alignment, Compared
from sage_kit.data.structured_labels import read_similarities

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, EncodedTexts, Floats, LabelColumn, Options

COMPARED = 64
"""Texts that each text is compared with for the agreement."""

DIGITS = 6
"""Digits of a cosine, as many as single precision has."""


class Embeddings:
    """A vector of each text, the two texts of a pair one by one; a label says how alike they are, and may be missing.

    A model gives vectors of one length, so that the divergence of two is one minus their cosine. No label is learned:
    what a student learns of a text is the teacher's vector.
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def read(self, column: LabelColumn) -> NDArray[Any]:
        """Return array of shape (rows,), float32: how alike the two texts of a row are, the larger the more."""
        return read_similarities(column.values, column.where, column.column, rows=column.rows)

    def align(self, encoded: EncodedTexts) -> Alignment:
        """Return the label of its row for each text, NaN where there is none."""
        return Alignment(np.asarray(encoded.labels, np.float32)[encoded.row_of])

    def compared(self, logits: torch.Tensor, positions: torch.Tensor | None) -> Compared:
        """Return the vectors as they are."""
        return Compared(logits)

    def answers(self, compared: Compared) -> torch.Tensor:
        """Return NaN of shape (batch,): a vector stands for no label."""
        return compared.logits.new_full((len(compared.logits),), float("nan"))

    def gold(self, encoded: EncodedTexts) -> NDArray[Any]:
        """Return the labels as they are."""
        return encoded.labels

    def predictions(self, outputs: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[np.float32]:
        """Return the vectors, of shape (rows, 2, dim), or (rows, 1, dim) of single texts."""
        return outputs.reshape(len(encoded.labels), -1, outputs.shape[1])

    def agreement(self, student: Floats, teacher: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[Any]:
        """Return how far both models put other texts in the same order of likeness to a row's own.

        The texts of `COMPARED` rows at even distances, or of all if there are fewer, are compared by cosine with each
        text: of pairs those in the other place, of single texts those of other rows than its own. Of both models'
        cosines Spearman's rank correlation is taken, a negative one as 0, and of the texts of a row the mean. Cosines
        that are equal to `DIGITS` digits share their mean rank. It is 1 where fewer than two texts are compared, and
        where all cosines of a model are equal 0, or 1 if they are in both.
        """
        rows = len(encoded.labels)
        mine, theirs = (_of_unit_length(self.predictions(one, encoded, alignment)) for one in (student, teacher))
        texts = mine.shape[1]
        # one more of single texts, which takes the place of a text among those that it is compared with
        count = min(COMPARED + (texts == 1), rows)
        chosen = np.arange(count) * rows // count if count else np.zeros(0, np.int64)
        found = np.zeros(rows)
        for text in range(texts):
            both = []
            for vectors in (mine, theirs):
                cosines = vectors[:, text] @ vectors[chosen, texts - 1 - text].T
                if texts == 1 and count:
                    cosines[chosen, np.arange(count)] = cosines[chosen, -1]
                    cosines = cosines[:, :-1]
                both.append(np.round(cosines, DIGITS))
            found += np.clip(_rank_correlation(*both), 0.0, 1.0)
        found /= texts
        return found


def _of_unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def _rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Spearman's correlation of each row of two arrays of shape (rows, n)."""
    from scipy.stats import rankdata

    if one.shape[1] < 2:
        return np.ones(len(one))
    ranks = [rankdata(values, axis=1) for values in (one, other)]
    first, second = (values - values.mean(axis=1, keepdims=True) for values in ranks)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    both_alike = ~(first.any(axis=1) | second.any(axis=1))
    found: NDArray[np.float64] = np.where(
        scale > 0, (first * second).sum(axis=1) / np.where(scale > 0, scale, 1.0), both_alike
    )
    return found
