"""Nearest neighbours in the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import Floats, Integers

TREE_DIMENSIONS = 12
"""Above so many dimensions a KD-tree visits nearly every point, and comparing with all of them is faster."""


class NeighborIndex:
    """Exact Euclidean nearest neighbours among fixed points.

    Parameters
    ----------
    points : array of shape (n, d)
        A few dimensions are served by a KD-tree, many by brute force in blocks; both use all cores.
    """

    def __init__(self, points: Floats | NDArray[np.float64]) -> None:
        self.n_points, dimensions = points.shape
        self._points = points
        self._use_tree = dimensions <= TREE_DIMENSIONS
        if self._use_tree:
            from scipy.spatial import cKDTree

            self._tree = cKDTree(points)
        else:
            from sklearn.neighbors import NearestNeighbors

            self._brute = NearestNeighbors(algorithm="brute").fit(points)

    def query(self, queries: Floats | NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], Integers]:
        """Distances and indices, each of shape (m, k), of the k points nearest to each query, the nearest first.

        `k` may be at most the number of points.
        """
        if self._use_tree:
            distances, indices = self._tree.query(queries, k=np.arange(1, k + 1), workers=-1)
        else:
            distances, indices = self._brute.kneighbors(queries, k)
        return np.asarray(distances, dtype=np.float64), np.asarray(indices, dtype=np.int64)

    def query_others(self, members: Integers, k: int) -> tuple[NDArray[np.float64], Integers]:
        """The same for some of the points themselves, given by index: a point is never its own neighbour.

        `k` may be at most the number of points less one. Other points in the same place are neighbours like any.
        """
        distances, indices = self.query(self._points[members], k + 1)
        drop = indices == members[:, None]
        # among more than k duplicates the point itself may not be found: then the last one found is dropped
        drop[~drop.any(axis=1), -1] = True
        return distances[~drop].reshape(-1, k), indices[~drop].reshape(-1, k)
