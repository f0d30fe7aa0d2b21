"""Inverter `local_affine`: a plane through the real vectors nearest in the map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.inverters.knn import KNNInverter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import Floats

ONE_PLACE = 1e-12
"""Standard deviation, as a share of the largest coordinate, below which points of single precision are the same."""


class LocalAffineInverter(KNNInverter):
    """Fits, at each point, the vectors of its k nearest real examples as an affine function of their coordinates.

    The fit is a ridge regression: the stronger the ridge, the more the plane flattens to the mean of the k vectors.
    Beyond the map's edge the plane goes on, so a point far outside is taken far outside.

    Parameters
    ----------
    options : LocalAffineOptions
    context : BuildContext
    """

    def _weights(
        self, points: Floats, distances: NDArray[np.float64], indices: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        return affine_weights(np.asarray(points, dtype=np.float64), self._coordinates[indices], self.options.ridge)


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
