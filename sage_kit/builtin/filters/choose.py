"""Filter `choose`: of more examples than are wanted, those from which the student has most to learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.data.metrics import divergence
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.filters import ChooseOptions
    from sage_kit.components import BuildContext, FilterRequest


class ChooseFilter:
    """Keeps as many examples as are wanted: the hardest of all that were made, or of each class.

    Making many and training on those where student and teacher differ most is Glitter's way (Kamalloo et al. 2022,
    arXiv 2203.09391). The teacher labels all of them, and the student reads all of them, which `costs.json` counts.

    Parameters
    ----------
    options : ChooseOptions
    context : BuildContext
    """

    def __init__(self, options: ChooseOptions, context: BuildContext) -> None:
        self.options = options
        self._seed = context.config.seed

    def keep(self, request: FilterRequest) -> NDArray[np.bool_]:
        """Return an array of shape (m,): True for the examples to keep.

        Raises
        ------
        CompatibilityError
            Without outputs of teacher and student, and for classes to balance in a regression task.
        """
        if request.logits is None or request.student_logits is None:
            raise CompatibilityError(
                "filter 'choose' compares what teacher and student make of the examples, and that is not there"
            )
        rng = np.random.default_rng([self._seed, request.round])
        divergences = request.divergences
        if divergences is None:
            divergences = divergence(request.logits, request.student_logits)
        keys = self._keys(np.asarray(divergences), rng)
        wanted = min(request.wanted or len(keys) // self.options.factor, len(keys))
        keep = np.zeros(len(keys), bool)
        if self.options.balance == "none":
            keep[_largest(keys, wanted)] = True
            return keep
        if not request.of_classes or request.logits.shape[1] < 2:
            raise CompatibilityError(
                "filter 'choose' is to balance classes, and regression and other kinds of task have none: set balance "
                "to 'none' in filter_options"
            )
        classes = request.logits.argmax(axis=1)
        for label, quota in enumerate(self._quotas(request, classes, wanted)):
            own = np.flatnonzero(classes == label)
            keep[own[_largest(keys[own], int(quota))]] = True
        return keep

    def _keys(self, divergences: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """Numbers of which the largest are kept."""
        if self.options.by == "chance":
            return rng.random(len(divergences))
        finite = np.where(np.isfinite(divergences), divergences, np.inf)
        if self.options.draw == "largest":
            return finite + 0.0
        # the largest of log-weights with Gumbel noise are a draw without replacement (Kool et al. 2019, 1903.06059)
        floor = max(float(np.min(finite, initial=np.inf, where=finite > 0)) * 1e-6, 1e-300)
        return np.asarray(np.log(np.maximum(finite, floor)) + rng.gumbel(size=len(finite)))

    def _quotas(self, request: FilterRequest, classes: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
        """How many of each class to keep, no more than there are; what one lacks is shared among the others."""
        n_classes = request.logits.shape[1] if request.logits is not None else 0
        there = np.bincount(classes, minlength=n_classes)
        if self.options.balance == "equal":
            shares = np.full(n_classes, 1 / n_classes)
        else:
            real = np.bincount(request.real_logits.argmax(axis=1), minlength=n_classes)
            shares = real / real.sum()
        quotas = np.zeros(n_classes, np.int64)
        while quotas.sum() < min(wanted, there.sum()):
            open_ = (quotas < there) & (shares > 0) if ((quotas < there) & (shares > 0)).any() else quotas < there
            left = wanted - quotas.sum()
            weights = np.where(open_, np.maximum(shares, 1e-12), 0)
            more = np.floor(left * weights / weights.sum()).astype(np.int64)
            if not more.any():  # fewer are left than there are classes: the largest shares get one each
                more[np.argsort(-weights, kind="stable")[:left]] = 1
                more[~open_] = 0
            quotas = np.minimum(quotas + more, there)
        return quotas


def _largest(keys: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return np.argsort(-keys, kind="stable")[:count]
