"""Inverter `rbf`: radial basis functions through the real vectors nearest in the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.builtin.neighbors import NeighborIndex
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.inverters import RBFOptions
    from sage_kit.components import BuildContext, Floats, Integers

CHUNK = 1024
"""Points that are inverted at once, so that memory does not grow with their number."""

LEAST_DEGREE = {"linear": 0, "thin_plate_spline": 1, "cubic": 1}
"""Degree of the polynomial that each kernel needs beside it."""

FLAT = 1e-13
"""Smallest as a share of largest variance at which single precision cannot tell a plane from a line."""


class RBFInverter:
    """Interpolates between the vectors of the k real examples nearest in the map (scipy's RBFInterpolator).

    The kernels are those that do not depend on the map's scale. Real examples in the very same place of the map count
    as one, with the mean of their vectors. scipy keeps the vectors in double precision, twice their size in memory.

    Parameters
    ----------
    options : RBFOptions
    context : BuildContext
    """

    def __init__(self, options: RBFOptions, context: BuildContext) -> None:
        self.options = options

    def fit(self, coordinates: Floats, vectors: Floats, reducer: Any) -> RBFInverter:
        """Prepare the interpolation; return self.

        Raises
        ------
        CompatibilityError
            For fewer places than the kernel's polynomial has terms.
        """
        from scipy.interpolate import RBFInterpolator
        from scipy.sparse import csr_array

        kernel = self.options.kernel
        places, members, counts = np.unique(coordinates, axis=0, return_inverse=True, return_counts=True)
        least = 1 + places.shape[1] * LEAST_DEGREE[kernel]
        if min(len(places), self.options.k) < least:
            raise CompatibilityError(
                f"inverter 'rbf' with kernel {kernel!r} needs {least} different places among the neighbours, and there "
                f"are {min(len(places), self.options.k)}: raise its option k, or take kernel='linear' or inverter 'knn'"
            )
        members = members.reshape(-1)
        averaging = csr_array((1 / counts[members], (members, np.arange(len(members)))))
        self._dim = vectors.shape[1]
        self._places = places.astype(np.float64)
        self._k = min(self.options.k, len(places))
        self._index = NeighborIndex(self._places)
        self._interpolator = RBFInterpolator(
            self._places,
            averaging @ np.asarray(vectors),
            neighbors=self._k,
            smoothing=self.options.smoothing,
            kernel=kernel,
            degree=LEAST_DEGREE[kernel],
        )
        return self

    def invert(self, coordinates: Floats, anchors: Integers) -> Floats:
        """Vectors of shape (m, dim), float32.

        Raises
        ------
        CompatibilityError
            When the neighbours of a point do not determine its value, since all lie on a line.
        """
        parts = [np.empty((0, self._dim), dtype=np.float32)]
        for start in range(0, len(coordinates), CHUNK):
            points = np.asarray(coordinates[start : start + CHUNK], dtype=np.float64)
            if LEAST_DEGREE[self.options.kernel] and self._undetermined(points):
                raise CompatibilityError(
                    f"inverter 'rbf' finds no single solution with kernel {self.options.kernel!r}, since all "
                    "neighbours of a point lie on a line: take kernel='linear' or a larger k"
                )
            parts.append(self._interpolator(points).astype(np.float32))
        return np.concatenate(parts)

    def _undetermined(self, points: NDArray[np.float64]) -> bool:
        """Whether some point's neighbours span fewer dimensions than the map, which scipy would not notice."""
        neighbors = self._places[self._index.query(points, self._k)[1]]
        centred = neighbors - neighbors.mean(axis=1, keepdims=True)
        spreads = np.linalg.eigvalsh(np.einsum("mki,mkj->mij", centred, centred))
        return bool((spreads[:, 0] <= FLAT * spreads[:, -1]).any())
