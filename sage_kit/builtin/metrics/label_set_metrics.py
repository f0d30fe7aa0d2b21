"""Metrics of label sets: any number of labels for a text. They compute by scikit-learn.

Labels are (n, C), 1 for each label that a row has, and predictions (n, C) the probability of each. Predictions that are
not finite give NaN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.builtin.metrics.ratios import ratio_contributions
from sage_kit.data.metrics import predicted_sets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, Options


class _OfLabelSets(ABC):
    def __init__(self, options: Options, context: BuildContext) -> None:  # noqa: B027, a metric without options
        pass

    def score(self, labels: NDArray[Any], predictions: NDArray[Any]) -> float:
        """Return the score of probabilities of shape (n, C)."""
        return self._score(labels, predictions) if np.isfinite(predictions).all() else float("nan")

    @abstractmethod
    def _score(self, labels: NDArray[Any], predictions: NDArray[Any]) -> float:
        """The score of finite probabilities."""


class MicroF1(_OfLabelSets):
    """F1 of all labels of all texts taken together; 0 where there is none."""

    def _score(self, labels: NDArray[Any], predictions: NDArray[Any]) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(labels, predicted_sets(predictions), average="micro", zero_division=0.0))

    def contributions(self, labels: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.float64]:
        """What each text contributes to 2 hits / (true + predicted)."""
        found = predicted_sets(predictions)
        return ratio_contributions(2.0 * (labels * found).sum(axis=1), labels.sum(axis=1) + found.sum(axis=1))


class ExactSet(_OfLabelSets):
    """Share of texts whose set of labels is right."""

    def _score(self, labels: NDArray[Any], predictions: NDArray[Any]) -> float:
        from sklearn.metrics import accuracy_score

        return float(accuracy_score(labels, predicted_sets(predictions)))

    def contributions(self, labels: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.float64]:
        """1 for each text whose set is right."""
        return np.asarray((labels == predicted_sets(predictions)).all(axis=1), dtype=np.float64)


class MeanAveragePrecision(_OfLabelSets):
    """Mean over labels of the average precision, the area below the curve of precision over recall (Zhu 2004).

    Labels that no text has are left out, for their recall is undefined; 0 where no text has a label.
    """

    def _score(self, labels: NDArray[Any], predictions: NDArray[Any]) -> float:
        from sklearn.metrics import average_precision_score

        there = labels.any(axis=0)
        if not there.any():
            return 0.0
        return float(average_precision_score(labels[:, there], predictions[:, there], average="macro"))
