"""Inverter `anchored`: ``x_anchor + inverse(z_new) - inverse(z_anchor)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.builtin.neighbors import along_curve

if TYPE_CHECKING:
    from sage_kit.builtin.inverters import AnchoredOptions
    from sage_kit.components import BuildContext, Floats, Integers, Inverter

CHUNK = 4096
"""Rows of the real vectors that are gathered at once."""

MOST_AT_ONCE = 2**13
"""Points that are inverted at once where the base may be called more than once, so that memory stays flat."""


class AnchoredInverter:
    """Moves the anchor's own vector by the difference between another inverter's answers at the two places.

    What the map does not hold of the anchor cancels out in that difference and stays in the anchor's vector. It follows
    that a base which returns a real example's own vector at its own place (`knn` with ``softening=0``) makes this
    inverter the same as its base.

    Parameters
    ----------
    options : AnchoredOptions
    context : BuildContext
        Builds the base.
    """

    def __init__(self, options: AnchoredOptions, context: BuildContext) -> None:
        self.options = options
        self._base: Inverter = context.component("inverter", options.base, options.base_options)

    def fit(self, coordinates: Floats, vectors: Floats, reducer: Any) -> AnchoredInverter:
        """Fit the base; return self. `reducer` is handed on to it; `vectors` is not copied."""
        self._base.fit(coordinates, vectors, reducer)
        self._coordinates = coordinates
        self._vectors = vectors
        return self

    def invert(self, coordinates: Floats, anchors: Integers) -> Floats:
        """Vectors of shape (m, dim), float32; the base inverts each anchor's place once however often it is used."""
        # native keeps to a time budget for all of a round's points and takes long for each call
        if len(anchors) <= MOST_AT_ONCE or self.options.base == "native":
            return self._moved(coordinates, anchors)
        result = np.empty((len(anchors), self._vectors.shape[1]), dtype=np.float32)
        order = along_curve(self._coordinates[anchors])  # the points of an anchor stay together
        for start in range(0, len(anchors), MOST_AT_ONCE):
            rows = order[start : start + MOST_AT_ONCE]
            result[rows] = self._moved(coordinates[rows], anchors[rows])
        return result

    def _moved(self, coordinates: Floats, anchors: Integers) -> Floats:
        unique, position = np.unique(anchors, return_inverse=True)
        at_anchor = self._base.invert(self._coordinates[unique], unique)
        result = np.array(self._base.invert(coordinates, anchors), dtype=np.float32)
        for start in range(0, len(anchors), CHUNK):
            part = slice(start, start + CHUNK)
            result[part] += self._vectors[anchors[part]] - at_anchor[position[part]]
        return result
