"""Metrics of answers: labels are a list of n Answers, predictions one of n str, "" for no answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sage_kit.data.answer_scores import best_scores, hotpot_overlap, is_exact, word_overlap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import Answers, BuildContext, Options


class _OfAnswers(ABC):
    """The mean over questions of a prediction's best score against one of the answers that count as right."""

    def __init__(self, options: Options, context: BuildContext) -> None:  # noqa: B027, a metric without options
        pass

    def score(self, labels: Sequence[Answers], predictions: Sequence[str]) -> float:
        """Return the mean."""
        return float(self.contributions(labels, predictions).mean())

    def contributions(self, labels: Sequence[Answers], predictions: Sequence[str]) -> NDArray[np.float64]:
        """Each question's score."""
        return np.array(best_scores(labels, predictions, self._one), dtype=np.float64)

    @abstractmethod
    def _one(self, reference: str, prediction: str) -> float:
        """The score of a prediction against one right answer."""


class ExactMatch(_OfAnswers):
    """Share of questions that are answered exactly, by the rules of SQuAD 2.0: case, punctuation and articles apart."""

    def _one(self, reference: str, prediction: str) -> float:
        return float(is_exact(reference, prediction))


class AnswerF1(_OfAnswers):
    """Mean F1 of the words that a prediction and the best answer share, by the rules of SQuAD 2.0."""

    def _one(self, reference: str, prediction: str) -> float:
        return word_overlap(reference, prediction)[0]


class HotpotF1(_OfAnswers):
    """Mean F1 of words by the rules of HotpotQA, where "yes" and "no" are right or wrong as wholes."""

    def _one(self, reference: str, prediction: str) -> float:
        return hotpot_overlap(reference, prediction)[0]
