"""Nearest neighbours in the map."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import Floats, Integers

TREE_DIMENSIONS = 12
"""Above so many dimensions a KD-tree visits nearly every point, and comparing with all of them is faster."""

ORDERED_FROM = 8192
"""So many queries and more are looked up along a curve through the map, so that what they visit is still in a cache."""

CURVE_DIMENSIONS, CURVE_BITS = 3, 16
"""Dimensions that the curve goes through, the first ones, and into how many steps, as a power of two, it cuts each."""


class NeighborIndex:
    """Exact Euclidean nearest neighbours among fixed points.

    Parameters
    ----------
    points : array of shape (n, d)
        A few dimensions are served by a KD-tree, many by brute force in blocks; both use all cores.
    """

    def __init__(self, points: Floats | NDArray[np.float64]) -> None:
        self.n_points, dimensions = points.shape
        self._use_tree = dimensions <= TREE_DIMENSIONS
        if self._use_tree:
            from scipy.spatial import cKDTree

            self._tree = cKDTree(points)
            self._points = self._tree.data  # its own copy, so that the map need not outlive its arrays for the index
        else:
            self._points = points
            from sklearn.neighbors import NearestNeighbors

            self._brute = NearestNeighbors(algorithm="brute").fit(points)

    def query(self, queries: Floats | NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], Integers]:
        """Distances and indices, each of shape (m, k), of the k points nearest to each query, the nearest first.

        `k` may be at most the number of points.
        """
        if self._use_tree and len(queries) >= ORDERED_FROM:
            order = along_curve(queries)
            distances, indices = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
            distances[order], indices[order] = self._tree.query(queries[order], k=np.arange(1, k + 1), workers=-1)
        elif self._use_tree:
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


def along_curve(points: Floats | NDArray[np.float64]) -> Integers:
    """An order of points in which those that come one after the other lie near each other: along a Z-curve.

    What is done with neighbours in this order finds most of their vectors in the processor's cache.

    Parameters
    ----------
    points : array of shape (n, d)

    Returns
    -------
    array of shape (n,), int64
        Points of one cell in their own order.

    Notes
    -----
    Morton, A computer oriented geodetic data base and a new technique in file sequencing (IBM, 1966).
    """
    some = np.asarray(points[:, :CURVE_DIMENSIONS], dtype=np.float64)
    if not some.size:
        return np.arange(len(points), dtype=np.int64)
    with np.errstate(invalid="ignore"):  # NaN has no place; whoever asks the tree next is told so
        low, extent = some.min(axis=0), np.ptp(some, axis=0)
        steps = ((some - low) * ((2**CURVE_BITS - 1) / np.where(extent > 0, extent, 1))).astype(np.int64)
    codes = np.zeros(len(points), dtype=np.int64)
    dimensions = some.shape[1]
    for axis in range(dimensions):
        for bit in range(CURVE_BITS):
            codes |= ((steps[:, axis] >> bit) & 1) << (bit * dimensions + axis)
    return np.argsort(codes, kind="stable")


_indexes: dict[tuple[Any, ...], tuple[weakref.ref[Any], NeighborIndex]] = {}


def map_index(coordinates: Floats) -> NeighborIndex:
    """The index of a map, made at the first call and kept as long as the map's array is.

    Parameters
    ----------
    coordinates : array of shape (n, n_components), float32
        An array that is not written to any more, or a view of one.
    """
    if coordinates.shape[1] > TREE_DIMENSIONS:
        return NeighborIndex(coordinates)  # nothing is made in advance, and it would keep the map alive
    owner = coordinates
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    place = coordinates.__array_interface__
    key = (id(owner), place["data"][0], coordinates.shape, coordinates.strides, coordinates.dtype.str)
    if key not in _indexes:
        # the entry goes when the owner does, so no other array can be found under its address
        _indexes[key] = (weakref.ref(owner, lambda _: _indexes.pop(key, None)), NeighborIndex(coordinates))
    return _indexes[key][1]
