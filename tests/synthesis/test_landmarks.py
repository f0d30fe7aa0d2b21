"""Landmarks: which are drawn, and where the rest is placed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage_kit.synthesis import landmarks
from sage_kit.synthesis.landmarks import choose_landmarks, neighbor_average, place


def vectors_of(n: int, dim: int = 6, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


@pytest.mark.parametrize("choice", ["random", "kmeans++"])
@pytest.mark.parametrize("count", [1, 2, 17, 199])
def test_as_many_as_asked_for_and_none_twice(choice: Any, count: int) -> None:
    chosen = choose_landmarks(vectors_of(200), count, choice, np.random.default_rng(3))
    again = choose_landmarks(vectors_of(200), count, choice, np.random.default_rng(3))
    other = choose_landmarks(vectors_of(200), count, choice, np.random.default_rng(4))
    assert chosen.dtype == np.int64
    assert len(set(chosen.tolist())) == count
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, again)
    assert not np.array_equal(chosen, other)


@pytest.mark.parametrize("choice", ["random", "kmeans++"])
def test_all_rows_where_there_are_no_more(choice: Any) -> None:
    chosen = choose_landmarks(vectors_of(9), 9, choice, np.random.default_rng(0))
    assert chosen.tolist() == list(range(9))


def test_spread_landmarks_reach_every_small_group() -> None:
    """Of 20 groups, one with 2,000 rows and the others with 5 each, a uniform draw of 40 rows misses many."""
    rng = np.random.default_rng(1)
    sizes = [2000] + [5] * 19
    groups = np.repeat(np.arange(20), sizes)
    vectors = (50 * rng.standard_normal((20, 8))[groups] + rng.standard_normal((len(groups), 8))).astype(np.float32)
    found = {
        choice: len(set(groups[choose_landmarks(vectors, 40, choice, np.random.default_rng(2))].tolist()))
        for choice in ("random", "kmeans++")
    }
    assert found["kmeans++"] == 20
    assert found["random"] < 10


def test_a_row_is_drawn_with_a_chance_in_proportion_to_its_squared_distance() -> None:
    """From 0, with one landmark there, the second of two is 1 with chance 1/(1 + 9), and 3 with 9/(1 + 9)."""
    vectors = np.array([[0.0], [1.0], [3.0]], np.float32)
    seconds = []
    for seed in range(3000):
        chosen = choose_landmarks(vectors, 2, "kmeans++", np.random.default_rng(seed))
        if 0 in chosen and np.random.default_rng(seed).integers(3) == 0:  # the first draw was row 0
            seconds.append(int(chosen[chosen != 0][0]))
    share = np.mean(np.array(seconds) == 2)
    assert len(seconds) > 900
    assert share == pytest.approx(0.9, abs=0.03)


def test_duplicates_do_not_keep_it_from_its_count() -> None:
    vectors = np.repeat(vectors_of(3), 50, axis=0)
    chosen = choose_landmarks(vectors, 60, "kmeans++", np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 60
    assert {row // 50 for row in chosen.tolist()} == {0, 1, 2}


def test_small_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = vectors_of(300)
    whole = choose_landmarks(vectors, 50, "kmeans++", np.random.default_rng(5))
    monkeypatch.setattr(landmarks, "BLOCK_VALUES", 64)
    assert np.array_equal(choose_landmarks(vectors, 50, "kmeans++", np.random.default_rng(5)), whole)


def test_landmarks_keep_their_places_and_the_rest_is_transformed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "PLACED_AT_ONCE", 7)
    vectors, seen = vectors_of(40), []

    def transform(block: Any) -> Any:
        seen.append(len(block))
        assert block.flags.writeable
        return block[:, :2] * 2

    chosen = np.array([3, 8, 30])
    at = np.full((3, 2), 9.0, np.float32)
    result = place(vectors, chosen, at, transform)
    rest = np.setdiff1d(np.arange(40), chosen)
    assert np.array_equal(result[chosen], at)
    assert np.array_equal(result[rest], vectors[rest, :2] * 2)
    assert seen == [7, 7, 7, 7, 7, 2]


def test_without_transform_the_rest_lies_at_the_average_of_its_neighbours() -> None:
    vectors = vectors_of(120).astype(np.float64)
    chosen = np.arange(0, 120, 2)
    at = np.random.default_rng(1).standard_normal((60, 3)).astype(np.float32)
    result = place(vectors.astype(np.float32), chosen, at, None)
    for row in (1, 57, 119):
        distances = np.linalg.norm(vectors[chosen] - vectors[row], axis=1)
        nearest = np.argsort(distances)[: landmarks.NEIGHBORS]
        weights = 1 / distances[nearest]
        expected = (weights[:, None] * at[nearest]).sum(0) / weights.sum()
        np.testing.assert_allclose(result[row], expected, rtol=1e-4, atol=1e-5)


def test_a_vector_that_is_known_is_placed_where_it_is() -> None:
    vectors, places = vectors_of(30), vectors_of(30, 1, seed=9)
    found = neighbor_average(vectors, places)(vectors[4:6])
    assert found.shape == (2, 1)
    np.testing.assert_allclose(found, places[4:6], atol=1e-6)
