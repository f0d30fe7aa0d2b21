"""Inverters `knn` and `anchored`, against references in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sage_kit.builtin.inverters import knn
from sage_kit.builtin.inverters.knn import barycentre_weights
from sage_kit.errors import UnknownComponentError


def barycentre(places: Any, coordinates: Any, vectors: Any, k: int, softening: float) -> Any:
    """The reference, one point at a time."""
    rows = []
    for place in np.asarray(places, np.float64):
        distances = np.linalg.norm(np.asarray(coordinates, np.float64) - place, axis=1)
        nearest = np.argsort(distances, kind="stable")[:k]
        weights = 1 / (distances[nearest] + softening * distances[nearest].mean())
        rows.append((weights / weights.sum()) @ np.asarray(vectors, np.float64)[nearest])
    return np.array(rows)


@pytest.fixture
def fitted_map(vectors: Any) -> Any:
    coordinates = np.ascontiguousarray(vectors[:, :2])
    coordinates.flags.writeable = False
    return coordinates


@pytest.fixture
def anchors() -> Any:
    return np.random.default_rng(0).integers(300, size=500)


@pytest.fixture
def places(fitted_map: Any, anchors: Any) -> Any:
    noise = np.random.default_rng(1).normal(scale=0.1, size=(500, 2))
    return (fitted_map[anchors] + noise).astype(np.float32)


@pytest.mark.parametrize("k", [1, 5, 50])
@pytest.mark.parametrize("softening", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("chunk", [64, 4096])
def test_knn_is_the_weighted_barycentre(
    build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any, k: int, softening: float, chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(knn, "CHUNK", chunk)
    inverter = build("inverter", "knn", {"k": k, "softening": softening}).fit(fitted_map, vectors, None)
    result = inverter.invert(places, anchors)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, barycentre(places, fitted_map, vectors, k, softening), rtol=1e-5, atol=1e-5)


def test_knn_takes_all_examples_when_there_are_fewer_than_k(build: Any, vectors: Any, fitted_map: Any) -> None:
    few = build("inverter", "knn", {"k": 50}).fit(fitted_map[:7], vectors[:7], None)
    expected = barycentre(fitted_map[:3], fitted_map[:7], vectors[:7], 7, 1.0)
    np.testing.assert_allclose(few.invert(fitted_map[:3], np.arange(3)), expected, rtol=1e-5, atol=1e-5)


def test_knn_reads_a_memory_map(
    build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any, tmp_path: Path
) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    inverter = build("inverter", "knn").fit(fitted_map, mapped, None)
    assert np.shares_memory(inverter._vectors, mapped)
    result = inverter.invert(places, anchors)
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(
        result, build("inverter", "knn").fit(fitted_map, vectors, None).invert(places, anchors)
    )


def test_weights_at_distance_zero() -> None:
    distances = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 2.0]])
    plain = barycentre_weights(distances, 0.0)
    np.testing.assert_allclose(plain, [[0.5, 0.5, 0], [1, 0, 0], [1 / 3] * 3, [0.4, 0.4, 0.2]])
    soft = barycentre_weights(distances, 1.0)
    np.testing.assert_allclose(soft[1], np.array([1, 1 / 2, 1 / 3]) / (11 / 6))
    np.testing.assert_allclose(soft[2], [1 / 3] * 3)
    assert (soft[[0, 1, 3]] > 0).all()


def test_plain_inverse_distance_returns_a_real_vector_at_its_place(build: Any, vectors: Any, fitted_map: Any) -> None:
    inverter = build("inverter", "knn", {"softening": 0}).fit(fitted_map, vectors, None)
    np.testing.assert_allclose(inverter.invert(fitted_map, np.arange(300)), vectors, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("k", "softening"), [(50, 1.0), (5, 1.0), (50, 100.0)])
def test_anchored_over_knn(
    build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any, k: int, softening: float
) -> None:
    options = {"base": "knn", "base_options": {"k": k, "softening": softening}}
    inverter = build("inverter", "anchored", options).fit(fitted_map, vectors, None)
    result = inverter.invert(places, anchors)
    expected = (
        vectors[anchors].astype(np.float64)
        + barycentre(places, fitted_map, vectors, k, softening)
        - barycentre(fitted_map[anchors], fitted_map, vectors, k, softening)
    )
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_anchored_returns_the_anchor_where_nothing_moved(
    build: Any, vectors: Any, fitted_map: Any, anchors: Any
) -> None:
    inverter = build("inverter", "anchored").fit(fitted_map, vectors, None)
    np.testing.assert_allclose(inverter.invert(fitted_map[anchors], anchors), vectors[anchors], rtol=1e-6, atol=1e-6)


def test_anchored_gives_the_same_part_by_part(
    build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inverter = build("inverter", "anchored").fit(fitted_map, vectors, None)
    whole = inverter.invert(places, anchors)
    monkeypatch.setattr("sage_kit.builtin.inverters.anchored.MOST_AT_ONCE", 64)
    np.testing.assert_array_equal(inverter.invert(places, anchors), whole)


def test_anchored_asks_native_once_for_all_points(
    build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Inverse:
        asked: ClassVar[list[int]] = []

        def inverse_transform(self, coordinates: Any) -> Any:
            self.asked.append(len(coordinates))
            return np.zeros((len(coordinates), vectors.shape[1]), np.float32)

    monkeypatch.setattr("sage_kit.builtin.inverters.anchored.MOST_AT_ONCE", 64)
    options = {"base": "native", "base_options": {"chunk": 10_000}}
    inverter = build("inverter", "anchored", options).fit(fitted_map, vectors, Inverse())
    np.testing.assert_array_equal(inverter.invert(places, anchors), vectors[anchors])
    # its probes, and the rest in one call: for the anchors and for the points
    assert len(Inverse.asked) == 8
    assert sum(Inverse.asked) == len(places) + len(np.unique(anchors))


def test_anchored_keeps_what_the_map_lost(build: Any, vectors: Any) -> None:
    # the map holds the first two of 24 dimensions; the others are not the map's to change
    reducer = build("reducer", "pca", n_components=2)
    coordinates = reducer.fit_transform(vectors)
    anchors = np.arange(100)
    moved = coordinates[:100] + np.float32([0.3, -0.2])
    native = build("inverter", "native").fit(coordinates, vectors, reducer).invert(moved, anchors)
    anchored = build("inverter", "anchored", {"base": "native"}).fit(coordinates, vectors, reducer)
    result = anchored.invert(moved, anchors)
    directions = reducer.components_
    np.testing.assert_allclose(result @ directions.T, native @ directions.T, rtol=1e-4, atol=1e-4)
    lost = np.eye(24) - directions.T @ directions
    np.testing.assert_allclose(result @ lost, vectors[:100] @ lost, rtol=1e-4, atol=1e-4)


def test_anchored_over_exact_interpolation_is_its_base(
    build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any
) -> None:
    base = build("inverter", "knn", {"softening": 0}).fit(fitted_map, vectors, None).invert(places, anchors)
    options = {"base": "knn", "base_options": {"softening": 0}}
    anchored = build("inverter", "anchored", options).fit(fitted_map, vectors, None).invert(places, anchors)
    np.testing.assert_allclose(anchored, base, rtol=1e-5, atol=1e-5)


def test_inputs_are_not_changed(build: Any, vectors: Any, fitted_map: Any, places: Any, anchors: Any) -> None:
    before = vectors.copy(), fitted_map.copy(), places.copy(), anchors.copy()
    for name in ("knn", "anchored"):
        build("inverter", name).fit(fitted_map, vectors, None).invert(places, anchors)
    for array, copy in zip((vectors, fitted_map, places, anchors), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_an_unknown_base_is_named(build: Any) -> None:
    with pytest.raises(UnknownComponentError, match="Did you mean 'knn'"):
        build("inverter", "anchored", {"base": "knnn"})
