"""Reducers `random_projection` and `identity`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.random_projection import GaussianRandomProjection

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError
from sage_kit.recipe import resolve


def test_random_projection_agrees_with_scikit_learn(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "random_projection", n_components=5, seed=3)
    coordinates = reducer.fit_transform(vectors)
    exact = vectors.astype(np.float64)
    mean = exact.mean(0)
    reference = GaussianRandomProjection(n_components=5, random_state=3).fit(exact)
    expected = reference.transform(exact - mean)
    assert coordinates.dtype == np.float32
    np.testing.assert_allclose(coordinates, expected, rtol=1e-4, atol=1e-4)
    back = reducer.inverse_transform(coordinates)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, expected @ np.linalg.pinv(reference.components_).T + mean, rtol=1e-4, atol=1e-4)
    # a random plane: what comes back has the coordinates it came from
    np.testing.assert_allclose(reducer.transform(back), coordinates, rtol=1e-3, atol=1e-3)


def test_random_projection_inverse_is_exact_with_all_components(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "random_projection", n_components=24)
    np.testing.assert_allclose(reducer.inverse_transform(reducer.fit_transform(vectors)), vectors, atol=1e-3)


def test_random_projection_comes_from_its_seed(build: Any, vectors: Any) -> None:
    first, again, other = (
        build("reducer", "random_projection", n_components=2, seed=seed).fit_transform(vectors)
        for seed in (2**40, 2**40, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_random_projection_places_vectors_one_by_one(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "random_projection", n_components=3)
    coordinates = reducer.fit_transform(vectors)
    np.testing.assert_allclose(reducer.transform(vectors[7:8]), coordinates[7:8], rtol=1e-4, atol=1e-5)


def test_random_projection_takes_no_more_components_than_dimensions(build: Any, vectors: Any) -> None:
    with pytest.raises(CompatibilityError, match="at most 24") as caught:
        build("reducer", "random_projection", n_components=25).fit_transform(vectors)
    assert "\n" not in str(caught.value)


def test_identity_is_the_vectors(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "identity", n_components=24)
    coordinates = reducer.fit_transform(vectors)
    np.testing.assert_array_equal(coordinates, vectors)
    for values in (coordinates, reducer.transform(vectors), reducer.inverse_transform(coordinates)):
        assert values.dtype == np.float32
        assert not np.shares_memory(values, vectors)
    np.testing.assert_array_equal(reducer.inverse_transform(coordinates), vectors)


@pytest.mark.parametrize("components", [2, 23, 25])
def test_identity_says_what_to_set(build: Any, vectors: Any, components: int) -> None:
    with pytest.raises(CompatibilityError, match="set n_components to 24") as caught:
        build("reducer", "identity", n_components=components).fit_transform(vectors)
    assert "\n" not in str(caught.value)


def test_identity_with_the_native_inverter_is_exact(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "identity", n_components=24)
    coordinates = reducer.fit_transform(vectors)
    inverter = build("inverter", "native").fit(coordinates, vectors, reducer)
    np.testing.assert_array_equal(inverter.invert(coordinates + 1, np.arange(300)), vectors + 1)


def test_identity_passes_the_check_of_sizes(plugins: Plugins) -> None:
    config = RunConfig(reducer="identity", n_components=24, inverter="native")
    resolve(config, plugins).check_sizes(rows=300, dim=24)


@pytest.mark.parametrize("name", ["random_projection", "identity"])
def test_state_restores_the_map(build: Any, vectors: Any, name: str) -> None:
    fitted = build("reducer", name, n_components=24)
    coordinates = fitted.fit_transform(vectors)
    restored = build("reducer", name, n_components=24, seed=9)
    restored.set_state({key: np.array(value) for key, value in fitted.get_state().items()})
    np.testing.assert_array_equal(restored.transform(vectors), coordinates)
    np.testing.assert_array_equal(restored.inverse_transform(coordinates), fitted.inverse_transform(coordinates))


@pytest.mark.parametrize("name", ["random_projection", "identity"])
def test_one_row_and_duplicates(build: Any, vectors: Any, name: str) -> None:
    reducer = build("reducer", name, n_components=24)
    assert reducer.fit_transform(vectors[:1]).shape == (1, 24)
    same = build("reducer", name, n_components=24).fit_transform(np.repeat(vectors[:1], 9, axis=0))
    np.testing.assert_array_equal(same, np.repeat(same[:1], 9, axis=0))
