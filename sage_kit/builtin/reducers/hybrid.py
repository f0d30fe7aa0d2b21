"""Reducer `hybrid`: a chain of other reducers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.reducers import HybridOptions
    from sage_kit.components import BuildContext, Floats, Reducer

WIDTHS = "widths"
"""Name of the array of the steps' dimensions in the state."""


class HybridReducer:
    """Reduces in steps, each of which is fitted on the coordinates of the one before it, and inverts them backwards.

    A step before the last keeps at most as many dimensions as it is given, and fewer than there are vectors.

    Parameters
    ----------
    options : HybridOptions
    context : BuildContext
        Builds the steps; the last has the map's number of components.

    Attributes
    ----------
    steps_ : list of reducers
        In order; fitted after `fit`.
    widths_ : list of int
        Dimensions after each step.
    """

    steps_: list[Any]
    widths_: list[int]

    def __init__(self, options: HybridOptions, context: BuildContext) -> None:
        self.options = options
        self.context = context
        self.widths_ = [step.n_components or context.n_components for step in options.steps]
        narrowest = min(self.widths_[:-1])
        if context.n_components > narrowest:
            raise CompatibilityError(
                f"n_components is {context.n_components}, but a step of reducer 'hybrid' leaves {narrowest} "
                "dimensions: raise the step's n_components"
            )
        # built at once, so that a wrong option is told early and their code counts in the map's key
        self.steps_ = [self._build(number, width) for number, width in enumerate(self.widths_)]

    def fit(self, vectors: Floats) -> HybridReducer:
        """Fit each step on what the one before it makes of vectors of shape (n, dim); return self."""
        self.fit_transform(vectors)
        return self

    def fit_transform(self, vectors: Floats) -> Floats:
        """Fit, and return the coordinates of the same vectors, shape (n, n_components), float32."""
        coordinates = vectors
        for number in range(len(self.steps_)):
            if number < len(self.steps_) - 1:
                rows, dimensions = coordinates.shape
                self._set_width(number, min(self.options.steps[number].n_components, dimensions, max(1, rows - 1)))
            coordinates = np.asarray(self.steps_[number].fit_transform(coordinates), dtype=np.float32)
        return coordinates

    def transform(self, vectors: Floats) -> Floats:
        """Coordinates of vectors it was not fitted on, if every step can place such."""
        for step in self.steps_:
            vectors = np.asarray(step.transform(vectors), dtype=np.float32)
        return vectors

    def inverse_transform(self, coordinates: Floats) -> Floats:
        """Vectors for coordinates, if every step has an inverse."""
        for step in reversed(self.steps_):
            coordinates = np.asarray(step.inverse_transform(coordinates), dtype=np.float32)
        return coordinates

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The steps' states, each name behind the step's number, and their widths."""
        states = {
            f"{number}.{name}": values
            for number, step in enumerate(self.steps_)
            for name, values in step.get_state().items()
        }
        return {WIDTHS: np.array(self.widths_, dtype=np.int64), **states}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `get_state` returned."""
        for number, width in enumerate(state[WIDTHS].tolist()):
            self._set_width(number, width)
            head = f"{number}."
            own = {name.removeprefix(head): values for name, values in state.items() if name.startswith(head)}
            self.steps_[number].set_state(own)

    def _set_width(self, number: int, width: int) -> None:
        if width != self.widths_[number]:
            self.widths_[number] = width
            self.steps_[number] = self._build(number, width)

    def _build(self, number: int, width: int) -> Reducer:
        step = self.options.steps[number]
        reducer: Reducer = self.context.component("reducer", step.reducer, step.options, n_components=width)
        return reducer
