"""Landmarks: fit a reducer on a sample of the vectors and place the rest, so that a million vectors are possible.

Memory beyond the vectors themselves: the sample, and blocks of `BLOCK_VALUES` numbers at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sage_kit.components import Floats, Integers

ROUNDS = 8
"""Rounds in which spread landmarks are drawn; each sees the distances to all that the earlier ones drew."""

BLOCK_VALUES = 2**24
"""Numbers in a block of distances (64 MB in float32)."""

PLACED_AT_ONCE = 4096
"""Vectors that are placed at once. Fixed, since some reducers place the vectors of a batch together."""

NEIGHBORS = 10
"""Landmarks that a vector's coordinates are averaged from where the reducer cannot place it."""


def choose_landmarks(
    vectors: Floats, count: int, choice: Literal["random", "kmeans++"], rng: np.random.Generator
) -> Integers:
    """Draw the rows that a reducer is fitted on.

    Parameters
    ----------
    vectors : array of shape (n, dim), float32
        May be a memory map.
    count : int
        From 1; all rows if there are no more.
    choice : "random" or "kmeans++"
        Uniformly, or spread out: a row is drawn with a chance in proportion to its squared distance to the nearest
        landmark so far, a share of `count` at a time.
    rng : numpy Generator

    Returns
    -------
    array of shape (min(count, n),), int64
        In rising order.

    Notes
    -----
    Drawing by squared distance is k-means++ (Arthur and Vassilvitskii, SODA 2007); drawing many between two looks at
    the distances is k-means|| (Bahmani et al., VLDB 2012). It takes ``n * count * dim`` multiplications.
    """
    n = len(vectors)
    if count >= n:
        return np.arange(n, dtype=np.int64)
    if choice == "random":
        return np.sort(rng.choice(n, count, replace=False)).astype(np.int64)
    chosen = np.array([rng.integers(n)], dtype=np.int64)
    distances = np.full(n, np.inf, dtype=np.float32)
    fresh = chosen
    while True:
        _lower_to_nearest(distances, vectors, np.asarray(vectors[fresh]))
        distances[chosen] = 0
        if len(chosen) == count:
            return np.sort(chosen)
        wanted = min(-(-count // ROUNDS), count - len(chosen))
        # the largest of log-weight plus Gumbel noise are a weighted sample without replacement
        with np.errstate(divide="ignore"):
            keys = np.log(distances) + rng.gumbel(size=n).astype(np.float32)
        far = np.flatnonzero(distances > 0)
        if len(far) >= wanted:
            fresh = far[np.argpartition(keys[far], len(far) - wanted)[len(far) - wanted :]]
        else:  # what is left lies on landmarks
            unused = np.setdiff1d(np.flatnonzero(distances == 0), chosen)
            fresh = np.concatenate([far, rng.choice(unused, wanted - len(far), replace=False)])
        chosen = np.concatenate([chosen, fresh])


def place(
    vectors: Floats,
    landmarks: Integers,
    coordinates: Floats,
    transform: Callable[[Floats], Floats] | None,
) -> Floats:
    """Coordinates of all rows from those of the landmarks.

    Parameters
    ----------
    vectors : array of shape (n, dim), float32
        May be a memory map; it is read in blocks.
    landmarks : array of shape (m,), int64
        Rows whose coordinates are known.
    coordinates : array of shape (m, n_components), float32
        Theirs.
    transform : callable or None
        Places vectors; None places them by :func:`neighbor_average`.

    Returns
    -------
    array of shape (n, n_components), float32
    """
    result = np.empty((len(vectors), coordinates.shape[1]), dtype=np.float32)
    result[landmarks] = coordinates
    rest = np.ones(len(vectors), dtype=bool)
    rest[landmarks] = False
    placing = transform or neighbor_average(np.asarray(vectors[landmarks]), coordinates)
    for rows in _blocks(np.flatnonzero(rest), PLACED_AT_ONCE):
        result[rows] = placing(np.array(vectors[rows], dtype=np.float32))
    return result


def neighbor_average(vectors: Floats, coordinates: Floats) -> Callable[[Floats], Floats]:
    """A function that places vectors at the average of the places of their `NEIGHBORS` nearest, weighted by 1/distance.

    Parameters
    ----------
    vectors : array of shape (n, dim), float32
        Those whose places are known.
    coordinates : array of shape (n, n_components), float32
        The places.

    Returns
    -------
    callable
        Vectors of shape (m, dim) to coordinates of shape (m, n_components), float32.
    """
    from sklearn.neighbors import KNeighborsRegressor

    regressor = KNeighborsRegressor(min(NEIGHBORS, len(vectors)), weights="distance", algorithm="brute")
    regressor.fit(vectors, coordinates)
    return lambda others: np.asarray(regressor.predict(others), dtype=np.float32).reshape(len(others), -1)


def _lower_to_nearest(distances: NDArray[np.float32], vectors: Floats, centres: Floats) -> None:
    """Lower each row's squared distance to that of the nearest of some centres, in place."""
    norms = np.square(centres).sum(axis=1)
    for rows in _blocks(np.arange(len(vectors)), max(1, BLOCK_VALUES // max(len(centres), vectors.shape[1]))):
        block = np.asarray(vectors[rows[0] : rows[-1] + 1])
        nearest = (norms - 2 * (block @ centres.T)).min(axis=1) + np.square(block).sum(axis=1)
        distances[rows] = np.minimum(distances[rows], np.maximum(nearest, 0))


def _blocks(rows: Integers, size: int) -> Iterator[Integers]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
