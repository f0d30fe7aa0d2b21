"""Nearest neighbours in the map."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from sage_kit.builtin import neighbors
from sage_kit.builtin.neighbors import TREE_DIMENSIONS, NeighborIndex, along_curve, map_index


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


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_many_queries_give_what_few_do(dimensions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    index = NeighborIndex(rng.standard_normal((200, dimensions)).astype(np.float32))
    queries = rng.standard_normal((50, dimensions)).astype(np.float32)
    few = index.query(queries, 3)
    monkeypatch.setattr(neighbors, "ORDERED_FROM", 50)
    many = index.query(queries, 3)
    np.testing.assert_array_equal(many[0], few[0])
    np.testing.assert_array_equal(many[1], few[1])


def test_the_curve_visits_each_point_once_and_mostly_goes_to_one_nearby() -> None:
    points = np.random.default_rng(0).uniform(size=(4000, 2)).astype(np.float32)
    order = along_curve(points)
    np.testing.assert_array_equal(np.sort(order), np.arange(4000))
    way = np.linalg.norm(np.diff(points[order], axis=0), axis=1)
    random_way = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.mean(way) < 0.06 * np.mean(random_way)


@pytest.mark.parametrize("points", [np.zeros((0, 2)), np.zeros((5, 2)), np.full((3, 2), np.nan)])
def test_the_curve_takes_any_points(points: np.ndarray) -> None:
    np.testing.assert_array_equal(np.sort(along_curve(points)), np.arange(len(points)))


def test_the_index_of_a_map_is_made_once_and_goes_with_the_map() -> None:
    coordinates = np.random.default_rng(0).standard_normal((30, 2)).astype(np.float32)
    index = map_index(coordinates.view())
    assert map_index(coordinates.view()) is index
    assert map_index(coordinates[:20]) is not index
    assert map_index(coordinates[:20]).n_points == 20
    assert map_index(coordinates.copy()) is not index
    kept = len(neighbors._indexes)
    del coordinates
    gc.collect()
    assert len(neighbors._indexes) <= kept - 2


def test_the_index_of_a_map_of_many_dimensions_is_not_kept() -> None:
    coordinates = np.zeros((30, TREE_DIMENSIONS + 1), np.float32)
    kept = len(neighbors._indexes)
    assert map_index(coordinates).n_points == 30
    assert len(neighbors._indexes) == kept
