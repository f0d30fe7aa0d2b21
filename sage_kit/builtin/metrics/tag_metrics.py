"""Metrics of tags, one for each word of a text: labels and predictions are lists of n tuples of str."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.builtin.metrics.ratios import ratio, ratio_contributions
from sage_kit.data.entities import check_lengths, entity_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, Options

Tags = Sequence[Sequence[str]]


class _Ratio(ABC):
    """A quotient of two sums over texts."""

    def __init__(self, options: Options, context: BuildContext) -> None:  # noqa: B027, a metric without options
        pass

    def score(self, labels: Tags, predictions: Tags) -> float:
        """Return the quotient; raises DataError for tags that are not one per word, or mark no entities."""
        return ratio(*self._sums(labels, predictions))

    def contributions(self, labels: Tags, predictions: Tags) -> NDArray[np.float64]:
        """What each text contributes to it."""
        return ratio_contributions(*self._sums(labels, predictions))

    @staticmethod
    @abstractmethod
    def _sums(labels: Tags, predictions: Tags) -> tuple[Any, Any]:
        """The terms of both sums, of shape (n,)."""


class SpanF1(_Ratio):
    """F1 of entities by the rules of conlleval, over all types together; 0 where there is none.

    Tjong Kim Sang and De Meulder 2003, Introduction to the CoNLL-2003 shared task: an entity counts where its type and
    all its words are right. How tags are read says `sage_kit.data.entities.entities`.
    """

    @staticmethod
    def _sums(labels: Tags, predictions: Tags) -> tuple[Any, Any]:
        counts = np.array(entity_counts(labels, predictions), dtype=np.float64).reshape(-1, 3)
        return 2 * counts[:, 0], counts[:, 1] + counts[:, 2]


class TagAccuracy(_Ratio):
    """Share of all words whose tag is right."""

    @staticmethod
    def _sums(labels: Tags, predictions: Tags) -> tuple[Any, Any]:
        check_lengths(labels, predictions)
        rows = zip(labels, predictions, strict=True)
        return [sum(map(str.__eq__, gold, found)) for gold, found in rows], [len(gold) for gold in labels]
