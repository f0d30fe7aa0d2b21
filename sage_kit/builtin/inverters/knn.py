"""Inverter `knn`: the distance-weighted barycentre of the real vectors nearest in the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.builtin.neighbors import NeighborIndex, along_curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, Floats, Integers

CHUNK = 4096
"""Points that are averaged at once, so that memory does not grow with their number."""


class KNNInverter:
    """Averages the vectors of the k real examples nearest in the map, the nearer ones with more weight.

    Parameters
    ----------
    options : KNNOptions
    context : BuildContext
    """

    def __init__(self, options: Any, context: BuildContext) -> None:
        self.options = options

    def fit(self, coordinates: Floats, vectors: Floats, reducer: Any) -> KNNInverter:
        """Index the real examples; return self. `vectors` may be a read-only memory map; it is not copied."""
        self._index = NeighborIndex(coordinates)
        self._coordinates = np.asarray(coordinates, dtype=np.float64)
        self._vectors = np.asarray(vectors)
        self._k = min(self.options.k, len(coordinates))
        return self

    def invert(self, coordinates: Floats, anchors: Integers) -> Floats:
        """Vectors of shape (m, dim), float32."""
        from scipy.sparse import csr_array

        total, n = len(coordinates), len(self._vectors)
        result = np.empty((total, self._vectors.shape[1]), dtype=np.float32)
        # neighbours of points that lie near each other are nearly the same and still in the processor's cache
        order = along_curve(coordinates)
        for start in range(0, total, CHUNK):
            chosen = order[start : start + CHUNK]
            distances, indices = self._index.query(coordinates[chosen], self._k)
            rows = len(indices)
            weights = self._weights(coordinates[chosen], distances, indices).astype(np.float32)
            ends = np.arange(0, rows * self._k + 1, self._k)
            matrix = csr_array((weights.ravel(), indices.ravel(), ends), shape=(rows, n))
            result[chosen] = matrix @ self._vectors
        return result

    def _weights(
        self, points: Floats, distances: NDArray[np.float64], indices: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """What each of the k neighbours, at these distances and places, weighs at each point; shape (m, k)."""
        return barycentre_weights(distances, self.options.softening)


def barycentre_weights(distances: NDArray[np.float64], softening: float) -> NDArray[np.float64]:
    """Weights ``1 / (distance + softening * mean distance)``, scaled to sum to one.

    Parameters
    ----------
    distances : array of shape (m, k), float64
    softening : float
        At 0, points at distance zero share the whole weight.

    Returns
    -------
    array of shape (m, k), float64
    """
    widened = distances + softening * distances.mean(axis=1, keepdims=True)
    at_zero = widened == 0
    weights = np.where(at_zero.any(axis=1, keepdims=True), at_zero, 1 / np.where(at_zero, 1, widened))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
