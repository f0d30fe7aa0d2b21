"""What the map's samplers share: drawing anchors by weight, and new points between anchors and their neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.neighbors import map_index
from sage_kit.components import SampleRequest, Samples
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.samplers import NeighborOptions
    from sage_kit.components import Floats, Integers


def draw_anchors(
    candidates: Integers, log_weights: NDArray[np.float64], count: int, rng: np.random.Generator
) -> Integers:
    """Draw `count` candidates by weight, in random order.

    As evenly as the weights allow: a candidate whose share of the weight is p appears count * p times, rounded down or
    up. So none is drawn twice whose share is not large enough for it, and yet, however few candidates there are, the
    weights decide: a draw without replacement of as many as there are would take each once, whatever it weighs.

    Parameters
    ----------
    candidates : array of shape (c,), int64
    log_weights : array of shape (c,), float64
        Natural logarithms of the weights, up to a constant.
    count : int
    rng : numpy Generator

    Returns
    -------
    array of shape (count,), int64

    Notes
    -----
    Systematic resampling in random order (Kitagawa, J. Comput. Graph. Stat. 5, 1996).
    """
    order = rng.permutation(len(candidates))
    shares = np.exp(log_weights[order] - log_weights.max())
    edges = np.cumsum(shares) * (count / shares.sum())
    marks = np.arange(count) + rng.random()
    # rounding may put the last mark on or behind the last edge
    found = np.minimum(np.searchsorted(edges, marks, side="right"), len(order) - 1)
    drawn: NDArray[np.int64] = candidates[order[rng.permutation(found)]]
    return drawn


def points_near(
    anchors: Integers,
    request: SampleRequest,
    options: NeighborOptions,
    sampler: str,
    scores: NDArray[np.float64] | None = None,
) -> Samples:
    """A new point for each anchor: part of the way to one of its k nearest neighbours in the map, and Gaussian noise.

    Parameters
    ----------
    anchors : array of shape (m,), int64
    request : SampleRequest
    options : NeighborOptions
    sampler : str
        Name for error messages.
    scores : array of shape (n,), float64, or None
        The neighbour of the highest score is chosen, the nearest of several; None chooses at random.

    Returns
    -------
    Samples
        With the coordinates and all k neighbours of each anchor; the anchors alone for a request without a map.

    Raises
    ------
    CompatibilityError
        For fewer than k other examples, and for scores without a map.
    """
    if request.coordinates is None:
        if scores is not None:
            raise CompatibilityError(f"sampler {sampler!r} works in the map, and there is none: name a reducer")
        return Samples(anchors=anchors)
    n, dimensions = request.coordinates.shape
    if n <= options.k:
        raise CompatibilityError(
            f"sampler {sampler!r} looks for {options.k} neighbours among {n - 1} other examples: lower its option k or "
            "use more data"
        )
    rng, m = request.rng, len(anchors)
    unique, position = np.unique(anchors, return_inverse=True)
    distances, neighbors = map_index(request.coordinates).query_others(unique, options.k)
    choice = rng.integers(options.k, size=m) if scores is None else scores[neighbors].argmax(axis=1)[position]
    chosen = neighbors[position, choice]
    start, end = request.coordinates[anchors], request.coordinates[chosen]
    points = start + rng.uniform(0, options.interpolation, size=(m, 1)) * (end - start)
    scale = options.jitter * distances.mean(axis=1)[position]
    points += scale[:, None] * rng.standard_normal((m, dimensions))
    coordinates: Floats = points.astype(np.float32)
    return Samples(anchors=anchors, coordinates=coordinates, neighbors=neighbors[position])
