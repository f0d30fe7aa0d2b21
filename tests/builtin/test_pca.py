"""Reducer `pca`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from sage_kit.errors import CompatibilityError


@pytest.mark.parametrize("whiten", [False, True])
def test_agrees_with_scikit_learn(build: Any, vectors: Any, whiten: bool) -> None:
    reducer = build("reducer", "pca", {"whiten": whiten}, n_components=5)
    coordinates = reducer.fit_transform(vectors)
    reference = PCA(n_components=5, whiten=whiten, svd_solver="full").fit(vectors.astype(np.float64))
    expected = reference.transform(vectors)
    assert coordinates.dtype == np.float32
    np.testing.assert_allclose(coordinates, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(
        reducer.inverse_transform(coordinates), reference.inverse_transform(expected), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("whiten", [False, True])
def test_inverse_is_exact_with_all_components(build: Any, vectors: Any, whiten: bool) -> None:
    reducer = build("reducer", "pca", {"whiten": whiten}, n_components=24)
    back = reducer.inverse_transform(reducer.fit_transform(vectors))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, vectors, rtol=0, atol=1e-5)


def test_transform_places_fitted_vectors_where_they_are(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "pca", n_components=3)
    coordinates = reducer.fit_transform(vectors)
    np.testing.assert_array_equal(reducer.transform(vectors), coordinates)
    np.testing.assert_allclose(reducer.transform(vectors[:1]), coordinates[:1], rtol=1e-5, atol=1e-6)


def test_same_seed_same_coordinates_with_the_randomised_solver(build: Any) -> None:
    wide = np.random.default_rng(0).standard_normal((600, 1100)).astype(np.float32)
    first, again, other = (
        build("reducer", "pca", n_components=2, seed=seed).fit_transform(wide) for seed in (2**40, 2**40, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("whiten", [False, True])
def test_state_restores_the_map(build: Any, vectors: Any, whiten: bool) -> None:
    fitted = build("reducer", "pca", {"whiten": whiten}, n_components=4)
    coordinates = fitted.fit_transform(vectors)
    restored = build("reducer", "pca", {"whiten": whiten}, n_components=4)
    restored.set_state({name: np.array(value) for name, value in fitted.get_state().items()})
    np.testing.assert_array_equal(restored.transform(vectors), coordinates)
    np.testing.assert_array_equal(restored.inverse_transform(coordinates), fitted.inverse_transform(coordinates))


def test_whitening_leaves_a_direction_without_variance(build: Any) -> None:
    flat = np.zeros((20, 3), np.float32)
    flat[:, 0] = np.arange(20)
    reducer = build("reducer", "pca", {"whiten": True}, n_components=2)
    coordinates = reducer.fit_transform(flat)
    assert np.isfinite(coordinates).all()
    np.testing.assert_allclose(reducer.inverse_transform(coordinates), flat, atol=1e-5)


@pytest.mark.parametrize(("rows", "components", "most"), [(3, 4, 3), (300, 25, 24)])
def test_more_components_than_fit_are_refused(build: Any, vectors: Any, rows: int, components: int, most: int) -> None:
    reducer = build("reducer", "pca", n_components=components)
    with pytest.raises(CompatibilityError, match=f"n_components may be at most {most}"):
        reducer.fit_transform(vectors[:rows])
