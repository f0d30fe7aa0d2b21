"""Nearest neighbours in the map."""

from __future__ import annotations

import numpy as np
import pytest

from sage_kit.builtin.neighbors import TREE_DIMENSIONS, NeighborIndex


@pytest.mark.parametrize("dimensions", [2, TREE_DIMENSIONS, TREE_DIMENSIONS + 1, 40])
@pytest.mark.parametrize("k", [1, 7])
def test_agrees_with_all_distances(dimensions: int, k: int) -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((200, dimensions)).astype(np.float32)
    queries = rng.standard_normal((30, dimensions)).astype(np.float32)
    distances, indices = NeighborIndex(points).query(queries, k)
    everything = np.linalg.norm(queries[:, None].astype(np.float64) - points[None], axis=2)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, np.argsort(everything, axis=1)[:, :k])
    np.testing.assert_allclose(distances, np.sort(everything, axis=1)[:, :k], rtol=1e-5)


@pytest.mark.parametrize("dimensions", [2, TREE_DIMENSIONS + 1])
@pytest.mark.parametrize("copies", [2, 5, 40])
def test_a_point_is_never_its_own_neighbour_among_duplicates(dimensions: int, copies: int) -> None:
    points = np.repeat(np.random.default_rng(0).standard_normal((10, dimensions)), copies, axis=0).astype(np.float32)
    members = np.arange(len(points))
    distances, indices = NeighborIndex(points).query_others(members, 4)
    assert indices.shape == distances.shape == (len(points), 4)
    assert not (indices == members[:, None]).any()
    assert all(len(set(row)) == 4 for row in indices.tolist())
    twins = min(copies - 1, 4)
    np.testing.assert_allclose(distances[:, :twins], 0, atol=1e-6)
    if twins < 4:
        assert (distances[:, twins:] > 1e-3).all()


def test_all_others_can_be_asked_for() -> None:
    points = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
    _, indices = NeighborIndex(points).query_others(np.array([3]), 5)
    assert sorted(indices[0].tolist()) == [0, 1, 2, 4, 5]
