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


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_agrees_with_linear_programming(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    points = rng.standard_normal((80, dimensions)).astype(np.float32)
    queries = (1.2 * rng.standard_normal((120, dimensions))).astype(np.float32)
    expected = np.array([really_outside(points.astype(float), query) for query in queries.astype(float)])
    assert 0.01 < expected.mean() < 0.999
    found = Hull(points)
    assert [found.outside_share(query[None]) for query in queries] == expected.tolist()
    assert found.outside_share(queries) == expected.mean()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_points_themselves_and_what_lies_between_them_are_inside(dimensions: int) -> None:
    rng = np.random.default_rng(0)
    points = (1000 + rng.standard_normal((60, dimensions))).astype(np.float32)
    shares = rng.dirichlet(np.ones(60), size=50)
    between = (shares @ points.astype(float)).astype(np.float32)
    assert Hull(points).outside_share(points) == 0
    assert Hull(points).outside_share(between) == 0


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    points, queries = (rng.standard_normal((n, 2)).astype(np.float32) for n in (50, 90))
    whole = Hull(points).outside_share(queries)
    assert 0 < whole < 1
    monkeypatch.setattr(hull, "BLOCK_VALUES", 100)
    assert Hull(points).outside_share(queries) == whole


@pytest.mark.parametrize(
    "points",
    [np.zeros((1, 2)), np.ones((20, 2)), np.linspace(0, 1, 20)[:, None] * [1, 2], np.eye(6, hull.MOST_DIMENSIONS + 1)],
    ids=["one point", "one place", "a line in the plane", "many dimensions"],
)
def test_a_hull_whose_facets_cannot_be_listed_tells_nothing(points: Any) -> None:
    assert np.isnan(Hull(points.astype(np.float32)).outside_share(points.astype(np.float32)))


def test_without_queries_there_is_no_share() -> None:
    points = np.random.default_rng(3).standard_normal((9, 2)).astype(np.float32)
    assert np.isnan(Hull(points).outside_share(points[:0]))
