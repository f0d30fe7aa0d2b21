"""Reducer `identity`: no reduction, so that what a map gains or loses can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, Floats, Options


class IdentityReducer:
    """The vectors themselves are the map; ``n_components`` must be their width.

    With inverter `native`, which is then exact, samplers that work in the map work in full space. Their jitter is noise
    in each coordinate, so its length grows with the square root of the width: to compare with a map of two dimensions,
    set ``jitter=0`` or divide it.

    Parameters
    ----------
    options : Options
    context : BuildContext
        Gives the number of components.
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        self.n_components = context.n_components

    def fit_transform(self, vectors: Floats) -> Floats:
        """Return a copy of vectors of shape (n, dim).

        Raises
        ------
        CompatibilityError
            When ``n_components`` is not their width.
        """
        if self.n_components != vectors.shape[1]:
            raise CompatibilityError(
                f"n_components is {self.n_components}, but reducer 'identity' keeps all dimensions: set n_components "
                f"to {vectors.shape[1]}"
            )
        return self.transform(vectors)

    def transform(self, vectors: Floats) -> Floats:
        """Return a copy, float32."""
        return np.array(vectors, dtype=np.float32)

    def inverse_transform(self, coordinates: Floats) -> Floats:
        """Return a copy, float32."""
        return np.array(coordinates, dtype=np.float32)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Nothing: it learns nothing."""
        return {}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over nothing."""
