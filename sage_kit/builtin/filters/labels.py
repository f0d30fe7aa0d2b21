"""Filters by the teacher's labels: `teacher_confidence` and `agreement_with_anchor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.filters import TeacherConfidenceOptions
    from sage_kit.components import BuildContext, FilterRequest, Floats, Options


class TeacherConfidenceFilter:
    """Keeps a synthetic example if the teacher gives some class a probability of at least ``minimum``.

    Parameters
    ----------
    options : TeacherConfidenceOptions
    context : BuildContext
    """

    def __init__(self, options: TeacherConfidenceOptions, context: BuildContext) -> None:
        self.options = options

    def keep(self, request: FilterRequest) -> NDArray[np.bool_]:
        """Return an array of shape (m,): True for the examples to keep.

        Raises
        ------
        CompatibilityError
            For a regression task.
        """
        logits = class_logits(request, "teacher_confidence").astype(np.float64)
        below_highest = logits - logits.max(axis=1, keepdims=True)
        # the largest probability is 1 / sum(exp(logit - largest logit))
        return np.asarray(1 / np.exp(below_highest).sum(axis=1) >= self.options.minimum)


class AgreementWithAnchorFilter:
    """Keeps a synthetic example if the teacher predicts the same class for it as for its anchor.

    Parameters
    ----------
    options : Options
    context : BuildContext
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def keep(self, request: FilterRequest) -> NDArray[np.bool_]:
        """Return an array of shape (m,): True for the examples to keep.

        Raises
        ------
        CompatibilityError
            For a regression task.
        """
        predicted = class_logits(request, "agreement_with_anchor").argmax(axis=1)
        return np.asarray(predicted == request.real_logits[request.anchors].argmax(axis=1))


def class_logits(request: FilterRequest, name: str) -> Floats:
    """The teacher's logits of the synthetic examples, of shape (m, n_classes).

    Raises
    ------
    CompatibilityError
        When they are not there, or are the single number of a regression task.
    """
    if request.logits is None:
        raise CompatibilityError(f"filter {name!r} needs the teacher's labels, and the examples have none yet")
    if request.logits.shape[1] < 2:
        raise CompatibilityError(
            f"filter {name!r} compares the teacher's classes, and a regression task has none: take filter 'none', "
            "'cosine' or 'density'"
        )
    return request.logits
