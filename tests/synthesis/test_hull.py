"""Points outside the convex hull, against linear programming."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from sage_kit.synthesis import hull
from sage_kit.synthesis.hull import Hull


def really_outside(points: Any, query: Any) -> bool:
    """Whether no convex combination of the points gives the query, by linear programming in double precision."""
    equations = np.vstack([points.T, np.ones(len(points))])
    result = linprog(np.zeros(len(points)), A_eq=equations, b_eq=np.append(query, 1.0), bounds=(0, None))
    return int(result.status) == 2  # infeasible


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4, 5, 8])
def test_agrees_with_linear_programming(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    points = rng.standard_normal((80, dimensions)).astype(np.float32)
    queries = (1.2 * rng.standard_normal((120, dimensions))).astype(np.float32)
    expected = np.array([really_outside(points.astype(float), query) for query in queries.astype(float)])
    assert 0.01 < expected.mean() < 0.999
    assert np.array_equal(Hull(points).outside(queries), expected)
    assert Hull(points).outside_share(queries) == pytest.approx(expected.mean())


@pytest.mark.parametrize("dimensions", [1, 2, 3, 6])
def test_the_points_themselves_and_what_lies_between_them_are_inside(dimensions: int) -> None:
    rng = np.random.default_rng(0)
    points = (1000 + rng.standard_normal((60, dimensions))).astype(np.float32)
    shares = rng.dirichlet(np.ones(60), size=50)
    between = (shares @ points.astype(float)).astype(np.float32)
    assert Hull(points).outside_share(points) == 0
    assert Hull(points).outside_share(between) == 0


def test_points_on_a_line_in_the_plane() -> None:
    steps = np.linspace(0, 1, 20, dtype=np.float32)
    line = np.stack([steps, 2 * steps], axis=1)
    queries = np.array([[0.5, 1.0], [0.5, 1.2], [1.1, 2.2], [0.0, 0.0]], np.float32)
    assert Hull(line).outside(queries).tolist() == [False, True, True, False]


def test_one_point_has_no_extent() -> None:
    found = Hull(np.zeros((1, 2), np.float32)).outside(np.array([[0, 0], [0, 1]], np.float32))
    assert found.tolist() == [False, True]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    points, queries = rng.standard_normal((50, 2)), rng.standard_normal((90, 2))
    whole = Hull(points.astype(np.float32)).outside(queries.astype(np.float32))
    monkeypatch.setattr(hull, "BLOCK_VALUES", 100)
    assert np.array_equal(Hull(points.astype(np.float32)).outside(queries.astype(np.float32)), whole)


def test_many_queries_in_many_dimensions_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hull, "MOST_QUERIES", 10)
    points = np.random.default_rng(3).standard_normal((60, 6)).astype(np.float32)
    queries = np.concatenate([points[:50], 100 + points[:50]])
    assert Hull(points).outside_share(queries) == 0.5


def test_what_is_not_told() -> None:
    wide = np.zeros((3, hull.MOST_DIMENSIONS + 1), np.float32)
    assert np.isnan(Hull(wide).outside_share(wide))
    assert np.isnan(Hull(wide[:, :2]).outside_share(wide[:0, :2]))
