"""Which points lie outside the convex hull of a map, where no inverter has seen data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sage_kit.components import Floats

FACET_DIMENSIONS = 4
"""In more dimensions the hull has too many facets to list."""

MOST_DIMENSIONS = 32
"""In more, nearly every point is a corner of the hull and the question says little."""

ITERATIONS = 300
MOST_QUERIES = 1000
"""Points that are looked at where the facets are not listed."""

BLOCK_VALUES = 2**24
TOLERANCE = 1e-5
"""Points so near the hull count as inside, as a share of the map's extent; single precision tells no more."""


class Hull:
    """The convex hull of points.

    In up to four dimensions its facets are listed (scipy, Qhull). In more, each query is projected onto the hull by the
    Frank-Wolfe algorithm until a hyperplane separates the two, which proves it outside, or the projection meets it.

    Parameters
    ----------
    points : array of shape (n, d), float32
        Finite; n at least 1.

    Notes
    -----
    Frank and Wolfe, An algorithm for quadratic programming (1956); as a distance to a polytope, Gilbert (1966).
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
        if dimensions > FACET_DIMENSIONS or len(self._points) <= dimensions:
            return None
        from scipy.spatial import ConvexHull, QhullError

        try:
            return np.asarray(ConvexHull(self._points).equations)
        except QhullError:  # the points lie in a plane of fewer dimensions
            return None

    def outside_share(self, queries: Floats) -> float:
        """Share of the queries, shape (m, d), that lie outside.

        In more than four dimensions at most `MOST_QUERIES` of them, evenly spread, are looked at, and those whose
        projection has come to neither end count as inside. NaN without queries or above `MOST_DIMENSIONS`.
        """
        if not len(queries) or queries.shape[1] > MOST_DIMENSIONS:
            return float("nan")
        if self._equations is None and len(queries) > MOST_QUERIES:
            queries = queries[np.linspace(0, len(queries) - 1, MOST_QUERIES).astype(np.int64)]
        return float(self.outside(queries).mean())

    def outside(self, queries: Floats) -> NDArray[np.bool_]:
        """Of shape (m,): True for queries of shape (m, d) that lie outside by more than rounding."""
        points = np.asarray(queries, dtype=np.float64)
        result = np.zeros(len(points), dtype=bool)
        facets = self._equations
        others = len(self._points) if facets is None else len(facets)
        size = max(1, BLOCK_VALUES // others)
        for start in range(0, len(points), size):
            block = points[start : start + size]
            if facets is None:
                result[start : start + size] = self._separated(block)
            else:
                heights = block @ facets[:, :-1].T + facets[:, -1]
                result[start : start + size] = heights.max(axis=1) > TOLERANCE * self._scale
        return result

    def _separated(self, queries: NDArray[np.float64]) -> NDArray[np.bool_]:
        result = np.zeros(len(queries), dtype=bool)
        active = np.arange(len(queries))
        nearest = np.repeat(self._points.mean(axis=0)[None], len(queries), axis=0)
        reach = TOLERANCE * self._scale
        for _ in range(ITERATIONS):
            gap = queries[active] - nearest[active]
            length = np.linalg.norm(gap, axis=1)
            corners = self._points[(gap @ self._points.T).argmax(axis=1)]
            # every point lies behind the plane through the farthest corner; does the query lie before it?
            before = np.einsum("ij,ij->i", gap, queries[active] - corners)
            result[active[before > reach * length]] = True
            going = (before <= reach * length) & (length > reach)
            active, gap, corners = active[going], gap[going], corners[going]
            if not len(active):
                break
            step = corners - nearest[active]
            squared = np.square(step).sum(axis=1)
            share = np.einsum("ij,ij->i", gap, step) / np.where(squared > 0, squared, 1)
            nearest[active] += np.clip(share, 0, 1)[:, None] * step
        return result
