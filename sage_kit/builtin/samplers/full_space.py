"""Samplers that bypass the map: `gaussian`, `smote` and `shuffled`, controls for what the map is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.neighbors import NeighborIndex
from sage_kit.builtin.samplers.high_loss import hard_anchors
from sage_kit.components import SampleRequest, Samples
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.samplers import FullSpaceOptions, LengthOptions, SmoteOptions
    from sage_kit.components import BuildContext, Floats, Integers

CHUNK = 8192
"""Examples whose neighbours are looked for at once, so that memory does not grow with their number."""


class GaussianSampler:
    """Moves hard examples in random directions, about as far as `smote` would.

    The direction is that of Gaussian noise. The length is ``scale`` times the mean distance of the anchor to its k
    nearest neighbours in full space: at 0.25, the mean displacement of `smote`, which goes 0 to 0.5 of the way.

    Parameters
    ----------
    options : LengthOptions
    context : BuildContext
    """

    def __init__(self, options: LengthOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples.

        Raises
        ------
        ConfigError
            When no example has a finite loss.
        CompatibilityError
            With too few examples.
        """
        anchors = hard_anchors(request, self.options)
        lengths = move_lengths(anchors, request, self.options, "gaussian")
        moved = request.rng.standard_normal((len(anchors), request.vectors.shape[1]), dtype=np.float32)
        for start in range(0, len(anchors), CHUNK):
            part = slice(start, start + CHUNK)
            moved[part] *= (lengths[part] / np.linalg.norm(moved[part], axis=1)).astype(np.float32)[:, None]
            moved[part] += request.vectors[anchors[part]]
        return Samples(anchors=anchors, vectors=moved)


class SmoteSampler:
    """Moves hard examples part of the way to one of their k nearest neighbours in full space.

    Parameters
    ----------
    options : SmoteOptions
    context : BuildContext

    Notes
    -----
    Chawla, Bowyer, Hall and Kegelmeyer, SMOTE: synthetic minority over-sampling technique (JAIR 16, 2002), which
    goes up to all the way (``interpolation=1``), with k = 5.
    """

    def __init__(self, options: SmoteOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples, with the neighbours in full space.

        Raises
        ------
        ConfigError
            When no example has a finite loss.
        CompatibilityError
            With too few examples.
        """
        anchors = hard_anchors(request, self.options)
        chosen, shares, neighbors = steps(anchors, request, self.options, "smote")
        vectors = part_of_the_way(request.vectors, anchors, anchors, chosen, shares)
        return Samples(anchors=anchors, vectors=vectors, neighbors=neighbors)


class ShuffledSampler:
    """Moves hard examples by the displacements that `smote` would give to others of them.

    Directions and lengths are those of real differences near hard examples, but of other ones than they are applied
    to: what `smote` gains over this comes from moving toward an example's own neighbours.

    Parameters
    ----------
    options : SmoteOptions
    context : BuildContext
    """

    def __init__(self, options: SmoteOptions, context: BuildContext) -> None:
        self.options = options

    def sample(self, request: SampleRequest) -> Samples:
        """Return ``request.count`` samples; no example is moved by a displacement of its own.

        Raises
        ------
        ConfigError
            When no example has a finite loss.
        CompatibilityError
            With too few examples.
        """
        refuse_few(request, self.options.k, "shuffled")
        anchors = hard_anchors(request, self.options)
        owners = others(anchors, len(request.losses), request.rng)
        chosen, shares, _ = steps(owners, request, self.options, "shuffled")
        return Samples(anchors=anchors, vectors=part_of_the_way(request.vectors, anchors, owners, chosen, shares))


def move_lengths(
    anchors: Integers, request: SampleRequest, options: LengthOptions, sampler: str
) -> NDArray[np.float64]:
    """How far each anchor is moved, of shape (m,).

    Raises
    ------
    CompatibilityError
        For fewer than k other examples, where the neighbours are asked.
    """
    if options.length > 0:
        return np.full(len(anchors), options.length)
    return np.asarray(options.scale * neighborhood(anchors, request, options, sampler)[0].mean(axis=1))


def refuse_few(request: SampleRequest, k: int, sampler: str) -> None:
    """Refuse a request with fewer than k + 1 real examples.

    Raises
    ------
    CompatibilityError
        Then.
    """
    n = len(request.vectors)
    if n <= k:
        raise CompatibilityError(
            f"sampler {sampler!r} looks for {k} neighbours among {n - 1} other examples: lower its option k or use "
            "more data"
        )


def neighborhood(
    examples: Integers, request: SampleRequest, options: FullSpaceOptions, sampler: str
) -> tuple[NDArray[np.float64], Integers]:
    """Distances and indices, each of shape (m, k), of the k nearest others of some examples in full space.

    In a space of many dimensions the nearest of a sample are hardly farther than the nearest of all: among one in f
    examples, by about the factor ``f ** (1 / d)`` in d intrinsic dimensions.

    Raises
    ------
    CompatibilityError
        For fewer than k other examples.
    """
    k, n = options.k, len(request.vectors)
    refuse_few(request, k, sampler)
    unique, position = np.unique(examples, return_inverse=True)
    most = max(options.candidates, k + 1)
    if n <= most:
        distances, neighbors = NeighborIndex(request.vectors).query_others(unique, k)
        return distances[position], neighbors[position]
    candidates = np.sort(request.rng.choice(n, most, replace=False))
    index = NeighborIndex(request.vectors[candidates])
    distances, neighbors = np.empty((len(unique), k)), np.empty((len(unique), k), dtype=np.int64)
    for start in range(0, len(unique), CHUNK):
        part = slice(start, start + CHUNK)
        near, found = index.query(request.vectors[unique[part]], k + 1)
        ids = candidates[found]
        drop = ids == unique[part, None]
        drop[~drop.any(axis=1), -1] = True  # an example that is no candidate: the farthest is one too many
        distances[part], neighbors[part] = near[~drop].reshape(-1, k), ids[~drop].reshape(-1, k)
    return distances[position], neighbors[position]


def steps(
    examples: Integers, request: SampleRequest, options: SmoteOptions, sampler: str
) -> tuple[Integers, Floats, Integers]:
    """One of each example's k neighbours, the share of the way to it, each of shape (m,), and all k, of shape (m, k).

    Raises
    ------
    CompatibilityError
        For fewer than k other examples.
    """
    _, neighbors = neighborhood(examples, request, options, sampler)
    m = len(examples)
    chosen = neighbors[np.arange(m), request.rng.integers(options.k, size=m)]
    shares = request.rng.uniform(0, options.interpolation, size=m).astype(np.float32)
    return chosen, shares, neighbors


def part_of_the_way(vectors: Floats, anchors: Integers, starts: Integers, ends: Integers, shares: Floats) -> Floats:
    """The anchors' vectors moved by a share of the way between two others, one block after the other.

    Parameters
    ----------
    vectors : array of shape (n, dim), float32
        May be a memory map.
    anchors, starts, ends : array of shape (m,), int64
    shares : array of shape (m,), float32

    Returns
    -------
    array of shape (m, dim), float32
    """
    result = np.empty((len(anchors), vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(anchors), CHUNK):
        part = slice(start, start + CHUNK)
        moved = shares[part, None] * (vectors[ends[part]] - vectors[starts[part]])
        result[part] = vectors[anchors[part]] + moved
    return result


def others(examples: Integers, n: int, rng: np.random.Generator) -> Integers:
    """The same examples in another order, so that at no place an example meets itself.

    Where one makes up more than half of them that cannot be; then any of the n examples but itself stands in.

    Parameters
    ----------
    examples : array of shape (m,), int64
    n : int
        Number of all examples, at least two.
    rng : numpy Generator

    Returns
    -------
    array of shape (m,), int64
    """
    unique, position, counts = np.unique(examples, return_inverse=True, return_counts=True)
    # with equal examples side by side in an order of their own chance, a turn by the longest run takes each off its run
    order = np.argsort(rng.permutation(len(unique))[position], kind="stable")
    result = np.empty_like(examples)
    result[order] = np.roll(examples[order], int(counts.max()))
    same = np.flatnonzero(result == examples)
    result[same] = (examples[same] + rng.integers(1, n, size=len(same))) % n
    return result
