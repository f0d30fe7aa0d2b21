"""The built-in metrics: those of `sage_kit.data.metrics.METRICS`, one class each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sage_kit.data.metrics import METRICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, Options


class _OfTable:
    """A metric of the table.

    Studies know what each example contributes to it (`sage_kit.studies.statistics.cells`).
    """

    name: str

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def score(self, labels: NDArray[Any], predictions: NDArray[Any]) -> float:
        """Return the score of predictions of shape (n,)."""
        return METRICS[self.name](labels, predictions)


class Accuracy(_OfTable):
    """Share of examples whose class is right."""

    name = "accuracy"


class F1(_OfTable):
    """F1 of class 1; 0 where there is none."""

    name = "f1"


class MacroF1(_OfTable):
    """Mean F1 of the classes that are there, as label or as prediction."""

    name = "macro_f1"


class Matthews(_OfTable):
    """Matthews' correlation; 0 for constant labels or predictions."""

    name = "matthews"


class Pearson(_OfTable):
    """Pearson's correlation; 0 for constant labels or predictions, NaN for predictions that are not finite."""

    name = "pearson"


class Spearman(_OfTable):
    """Spearman's rank correlation; 0 and NaN as for Pearson's."""

    name = "spearman"
