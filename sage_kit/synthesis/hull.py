"""Which points lie outside the convex hull of a map, where no inverter has seen data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sage_kit.components import Floats

MOST_DIMENSIONS = 4
"""In more the hull has too many facets to list."""

BLOCK_VALUES = 2**24
TOLERANCE = 1e-5
"""Points so near the hull count as inside, as a share of the map's extent; single precision tells no more."""


class Hull:
    """The convex hull of points, by its facets (scipy, Qhull).

    Parameters
    ----------
    points : array of shape (n, d), float32
        Finite; n at least 1.
    """

    def __init__(self, points: Floats) -> None:
        self._points = np.asarray(points, dtype=np.float64)
        self._scale = float(np.ptp(self._points, axis=0).max(initial=0.0))
        self._equations = self._facets()

    def _facets(self) -> NDArray[np.float64] | None:
        """Rows ``(normal, offset)``, negative inside, of the facets; None where they cannot be listed."""
        dimensions = self._points.shape[1]
        if dimensions == 1:
            return np.array([[1.0, -self._points.max()], [-1.0, self._points.min()]])
        if dimensions > MOST_DIMENSIONS or len(self._points) <= dimensions:
            return None
        from scipy.spatial import ConvexHull, QhullError

        try:
            return np.asarray(ConvexHull(self._points).equations)
        except QhullError:  # the points lie in a plane of fewer dimensions
            return None

    def outside_share(self, queries: Floats) -> float:
        """Share of the queries, shape (m, d), that lie outside by more than rounding.

        NaN without queries, above `MOST_DIMENSIONS`, and for points that lie in a plane of fewer dimensions.
        """
        if self._equations is None or not len(queries):
            return float("nan")
        points = np.asarray(queries, dtype=np.float64)
        normals, offsets = self._equations[:, :-1], self._equations[:, -1]
        size = max(1, BLOCK_VALUES // len(offsets))
        blocks = (points[start : start + size] for start in range(0, len(points), size))
        heights = np.concatenate([(block @ normals.T + offsets).max(axis=1) for block in blocks])
        return float((heights > TOLERANCE * self._scale).mean())
