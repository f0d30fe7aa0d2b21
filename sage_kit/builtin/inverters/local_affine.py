"""Inverter `local_affine`: a plane through the real vectors nearest in the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.builtin.neighbors import NeighborIndex, along_curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.inverters import LocalAffineOptions
    from sage_kit.components import BuildContext, Floats, Integers

CHUNK = 4096
"""Points that are inverted at once, so that memory does not grow with their number."""

ONE_PLACE = 1e-12
"""Standard deviation, as a share of the largest coordinate, below which points of single precision are the same."""


class LocalAffineInverter:
    """Fits, at each point, the vectors of its k nearest real examples as an affine function of their coordinates.

    The fit is a ridge regression: the stronger the ridge, the more the plane flattens to the mean of the k vectors.
    Beyond the map's edge the plane goes on, so a point far outside is taken far outside.

    Parameters
    ----------
    options : LocalAffineOptions
    context : BuildContext
    """

    def __init__(self, options: LocalAffineOptions, context: BuildContext) -> None:
        self.options = options

    def fit(self, coordinates: Floats, vectors: Floats, reducer: Any) -> LocalAffineInverter:
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
            points = np.asarray(coordinates[chosen], dtype=np.float64)
            _, indices = self._index.query(coordinates[chosen], self._k)
            rows = len(indices)
            weights = affine_weights(points, self._coordinates[indices], self.options.ridge).astype(np.float32)
            ends = np.arange(0, rows * self._k + 1, self._k)
            matrix = csr_array((weights.ravel(), indices.ravel(), ends), shape=(rows, n))
            result[chosen] = matrix @ self._vectors
        return result


def affine_weights(points: NDArray[np.float64], neighbors: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    r"""Weights of the neighbours' values in what their ridge regression predicts at a point; they sum to one.

    With Z the neighbours' k coordinates of d dimensions less their mean, the prediction at z is the weighted sum of
    their values with the weights

    .. math:: 1/k + (z - \bar z) (Z^T Z + \lambda I)^{-1} Z^T, \quad \lambda = ridge \cdot tr(Z^T Z) / d

    which depend on coordinates only, so that the vectors themselves are never gathered. The intercept is not penalised.

    Parameters
    ----------
    points : array of shape (m, d), float64
    neighbors : array of shape (m, k, d), float64
        Coordinates of each point's neighbours.
    ridge : float
        Above 0.

    Returns
    -------
    array of shape (m, k), float64
    """
    k, dimensions = neighbors.shape[1:]
    means = neighbors.mean(axis=1, keepdims=True)
    centred = neighbors - means
    gram = np.einsum("mki,mkj->mij", centred, centred)
    penalty = ridge * np.trace(gram, axis1=1, axis2=2) / dimensions
    # neighbours that all lie in one place, as far as rounding lets one see, have no slope: their mean is all there is
    negligible = ridge * k * (ONE_PLACE * np.abs(neighbors).max(axis=(1, 2))) ** 2
    penalty = np.where(penalty > negligible, penalty, 1.0)
    gram += penalty[:, None, None] * np.eye(dimensions)
    slopes = np.linalg.solve(gram, (points[:, None] - means).transpose(0, 2, 1))
    return np.asarray(1 / k + (centred @ slopes)[:, :, 0])
