"""Inverters `local_affine` and `rbf`, against references in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from sage_kit.builtin.inverters import knn, rbf
from sage_kit.builtin.inverters.local_affine import affine_weights
from sage_kit.errors import CompatibilityError

KERNELS = {
    "linear": lambda r: -r,
    "thin_plate_spline": lambda r: np.where(r > 0, r**2 * np.log(np.where(r > 0, r, 1)), 0),
    "cubic": lambda r: r**3,
}


def nearest_to(place: Any, coordinates: Any, k: int) -> Any:
    return np.argsort(np.linalg.norm(np.asarray(coordinates, np.float64) - place, axis=1), kind="stable")[:k]


def ridge_at(places: Any, coordinates: Any, vectors: Any, k: int, ridge: float) -> Any:
    """scikit-learn's ridge regression, one point at a time."""
    rows = []
    for place in np.asarray(places, np.float64):
        near = nearest_to(place, coordinates, k)
        inputs = np.asarray(coordinates, np.float64)[near]
        strength = ridge * len(near) * inputs.var(axis=0).mean()
        model = Ridge(alpha=strength, solver="svd").fit(inputs, np.asarray(vectors, np.float64)[near])
        rows.append(model.predict(place[None])[0])
    return np.array(rows)


def interpolation_at(places: Any, coordinates: Any, vectors: Any, k: int, kernel: str, smoothing: float) -> Any:
    """The system of equations of radial basis functions with a polynomial, one point at a time."""
    rows = []
    for place in np.asarray(places, np.float64):
        near = nearest_to(place, coordinates, k)
        points = np.asarray(coordinates, np.float64)[near]
        terms = np.ones((k, 1)) if kernel == "linear" else np.column_stack([np.ones(k), points])
        at_place = np.ones(1) if kernel == "linear" else np.append(1, place)
        distances = np.linalg.norm(points[:, None] - points, axis=2)
        width = terms.shape[1]
        system = np.block(
            [[KERNELS[kernel](distances) + smoothing * np.eye(k), terms], [terms.T, np.zeros((width, width))]]
        )
        values = np.concatenate([np.asarray(vectors, np.float64)[near], np.zeros((width, vectors.shape[1]))])
        solved = np.linalg.solve(system, values)
        rows.append(np.append(KERNELS[kernel](np.linalg.norm(points - place, axis=1)), at_place) @ solved)
    return np.array(rows)


@pytest.fixture
def fitted_map(vectors: Any) -> Any:
    coordinates = np.ascontiguousarray(vectors[:, :2])
    coordinates.flags.writeable = False
    return coordinates


@pytest.fixture
def anchors() -> Any:
    return np.random.default_rng(0).integers(300, size=120)


@pytest.fixture
def places(fitted_map: Any, anchors: Any) -> Any:
    noise = np.random.default_rng(1).normal(scale=0.1, size=(120, 2))
    return (fitted_map[anchors] + noise).astype(np.float32)


# ---- local_affine


@pytest.mark.parametrize("k", [1, 2, 8, 150])
@pytest.mark.parametrize("ridge", [1e-6, 0.01, 10.0])
@pytest.mark.parametrize("chunk", [50, 4096])
def test_local_affine_is_a_ridge_regression_of_the_neighbours(
    build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any, k: int, ridge: float, chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(knn, "CHUNK", chunk)
    inverter = build("inverter", "local_affine", {"k": k, "ridge": ridge}).fit(fitted_map, vectors, None)
    result = inverter.invert(places, anchors)
    assert result.dtype == np.float32
    expected = ridge_at(places, fitted_map, vectors, k, ridge)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4 * max(1, np.abs(expected).max()))


def test_local_affine_recovers_an_affine_map_beyond_its_points(build: Any) -> None:
    rng = np.random.default_rng(0)
    coordinates = rng.standard_normal((100, 3)).astype(np.float32)
    slope, start = rng.standard_normal((3, 10)), rng.standard_normal(10)
    vectors = (coordinates @ slope + start).astype(np.float32)
    inverter = build("inverter", "local_affine", {"k": 20, "ridge": 1e-9}).fit(coordinates, vectors, None)
    places = rng.standard_normal((30, 3)).astype(np.float32) * 5
    result = inverter.invert(places, np.zeros(30, np.int64))
    np.testing.assert_allclose(result, places @ slope + start, rtol=1e-3, atol=1e-3)


def test_affine_weights_sum_to_one_and_need_no_slope() -> None:
    rng = np.random.default_rng(0)
    neighbors = rng.standard_normal((4, 6, 2))
    neighbors[1] = neighbors[1, 0]  # all in one place
    neighbors[2, :, 1] = 3 * neighbors[2, :, 0]  # on a line
    weights = affine_weights(rng.standard_normal((4, 2)), neighbors, 1e-6)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-9)
    np.testing.assert_allclose(weights[1], 1 / 6, rtol=1e-9)
    assert np.isfinite(weights).all()


# ---- rbf


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize(("k", "smoothing"), [(10, 0.0), (30, 0.0), (30, 0.5)])
@pytest.mark.parametrize("chunk", [50, 1024])
def test_rbf_solves_its_equations(
    build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any, kernel: str, k: int, smoothing: float,
    chunk: int, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(rbf, "CHUNK", chunk)
    options = {"kernel": kernel, "k": k, "smoothing": smoothing}
    result = build("inverter", "rbf", options).fit(fitted_map, vectors, None).invert(places, anchors)
    assert result.dtype == np.float32
    expected = interpolation_at(places, fitted_map, vectors, k, kernel, smoothing)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_rbf_passes_through_the_real_vectors(build: Any, vectors: Any, fitted_map: Any, kernel: str) -> None:
    inverter = build("inverter", "rbf", {"kernel": kernel}).fit(fitted_map, vectors, None)
    np.testing.assert_allclose(inverter.invert(fitted_map, np.arange(300)), vectors, atol=1e-4)


def test_rbf_takes_the_mean_where_places_coincide(build: Any, vectors: Any, fitted_map: Any) -> None:
    coordinates = np.repeat(fitted_map[:100], 3, axis=0)
    inverter = build("inverter", "rbf").fit(coordinates, vectors, None)
    result = inverter.invert(coordinates[::3], np.arange(0, 300, 3))
    means = vectors.astype(np.float64).reshape(100, 3, 24).mean(1)
    np.testing.assert_allclose(result, means, atol=1e-4)


def test_rbf_with_neighbours_on_a_line(build: Any, vectors: Any) -> None:
    line = np.arange(300, dtype=np.float32)
    coordinates = np.stack([line, 2 * line], axis=1)
    linear = build("inverter", "rbf").fit(coordinates, vectors, None)
    np.testing.assert_allclose(linear.invert(coordinates[:5], np.arange(5)), vectors[:5], atol=1e-4)
    cubic = build("inverter", "rbf", {"kernel": "cubic"}).fit(coordinates, vectors, None)
    with pytest.raises(CompatibilityError, match="take kernel='linear'") as caught:
        cubic.invert(coordinates[:5], np.arange(5))
    assert "\n" not in str(caught.value)


def test_rbf_with_fewer_places_than_terms_is_refused(build: Any, vectors: Any, fitted_map: Any) -> None:
    with pytest.raises(CompatibilityError, match="needs 3 different places among the neighbours, and there are 2"):
        build("inverter", "rbf", {"kernel": "cubic"}).fit(np.repeat(fitted_map[:2], 5, axis=0), vectors[:10], None)
    with pytest.raises(CompatibilityError, match="there are 1: raise its option k"):
        build("inverter", "rbf", {"kernel": "cubic", "k": 1}).fit(fitted_map, vectors, None)


# ---- both


@pytest.mark.parametrize("name", ["local_affine", "rbf"])
def test_few_rows_and_one_row(build: Any, vectors: Any, fitted_map: Any, name: str) -> None:
    few = build("inverter", name).fit(fitted_map[:7], vectors[:7], None)
    assert few.invert(fitted_map[:3], np.arange(3)).shape == (3, 24)
    assert few.invert(fitted_map[:0], np.arange(0)).shape == (0, 24)
    one = build("inverter", name).fit(fitted_map[:1], vectors[:1], None)
    np.testing.assert_allclose(one.invert(fitted_map[5:7], np.zeros(2, np.int64)), vectors[[0, 0]], atol=1e-5)


@pytest.mark.parametrize("name", ["local_affine", "rbf"])
def test_inputs_are_not_changed_and_results_repeat(
    build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any, name: str
) -> None:
    before = vectors.copy(), fitted_map.copy(), places.copy(), anchors.copy()
    first = build("inverter", name).fit(fitted_map, vectors, None).invert(places, anchors)
    again = build("inverter", name).fit(fitted_map, vectors, None).invert(places, anchors)
    np.testing.assert_array_equal(first, again)
    for array, copy in zip((vectors, fitted_map, places, anchors), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("dimensions", [1, 15])
@pytest.mark.parametrize("name", ["local_affine", "rbf"])
def test_maps_of_one_and_of_many_dimensions(build: Any, vectors: Any, name: str, dimensions: int) -> None:
    coordinates = np.ascontiguousarray(vectors[:, :dimensions])
    result = build("inverter", name).fit(coordinates, vectors, None).invert(coordinates[:20], np.arange(20))
    assert np.isfinite(result).all()
    assert np.corrcoef(result.ravel(), vectors[:20].ravel())[0, 1] > 0.7


@pytest.mark.parametrize("name", ["local_affine", "rbf"])
def test_they_serve_as_a_base(build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any, name: str) -> None:
    base = build("inverter", name).fit(fitted_map, vectors, None)
    anchored = build("inverter", "anchored", {"base": name}).fit(fitted_map, vectors, None)
    expected = vectors[anchors] + base.invert(places, anchors) - base.invert(fitted_map[anchors], anchors)
    np.testing.assert_allclose(anchored.invert(places, anchors), expected, atol=1e-4)
