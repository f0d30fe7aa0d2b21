"""Metrics of embeddings: labels are (n,) numbers or None, predictions (n, 2, dim), the embeddings of two texts a row.

Embeddings that are not finite give NaN; one without length is as like any other as a right angle is, 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.data.metrics import METRICS
from sage_kit.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, Options

BLOCK = 1024
"""Rows whose similarities to all others are in memory at a time."""


def _of_unit_length(vectors: NDArray[Any]) -> NDArray[np.float64]:
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


class _CosineCorrelation:
    """Correlation of a label with the cosine of the two embeddings; 0 for constant labels or cosines."""

    metric: str
    name: str

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def score(self, labels: NDArray[Any] | None, predictions: NDArray[Any]) -> float:
        """Return the correlation; raises DataError without labels."""
        if labels is None:
            raise DataError(
                f"metric {self.name!r} needs labels, how alike the two texts of a row are: take 'retrieval_accuracy' "
                "for texts without labels"
            )
        if not np.isfinite(predictions).all():
            return float("nan")
        one, other = _of_unit_length(predictions[:, 0]), _of_unit_length(predictions[:, 1])
        return METRICS[self.metric](np.asarray(labels), (one * other).sum(axis=1))


class CosineSpearman(_CosineCorrelation):
    """Spearman's rank correlation of label and cosine, the usual score of STS (Reimers et al. 2016, Task-Oriented
    Intrinsic Evaluation of Semantic Textual Similarity, COLING).
    """

    metric, name = "spearman", "cosine_spearman"


class CosinePearson(_CosineCorrelation):
    """Pearson's correlation of label and cosine (Cer et al. 2017, arXiv 1708.00055)."""

    metric, name = "pearson", "cosine_pearson"


class RetrievalAccuracy:
    """Share of texts whose nearest by cosine, among the other texts of all rows, is the one of their own row.

    It is the mean of both directions, as Artetxe and Schwenk 2019 (arXiv 1812.10464, section 4.3) report for Tatoeba
    and XTREME (Hu et al. 2020, arXiv 2003.11080) for the direction to English. Of equally near texts the first counts.
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def score(self, labels: NDArray[Any] | None, predictions: NDArray[Any]) -> float:
        """Return the share; labels are not looked at."""
        return float(self.contributions(labels, predictions).mean())

    def contributions(self, labels: NDArray[Any] | None, predictions: NDArray[Any]) -> NDArray[np.float64]:
        """For each row the share of its two texts that find each other."""
        if not np.isfinite(predictions).all():
            return np.full(len(predictions), np.nan)
        one, other = _of_unit_length(predictions[:, 0]), _of_unit_length(predictions[:, 1])
        return (_finds(one, other) + _finds(other, one)) / 2


def _finds(texts: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for each text whose nearest is that of its own row."""
    nearest = [(texts[start : start + BLOCK] @ others.T).argmax(axis=1) for start in range(0, len(texts), BLOCK)]
    return np.asarray(np.concatenate(nearest) == np.arange(len(texts)), dtype=np.float64)
