"""Reducer `umap`: what it promises in its spec, and what it hides of the library."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

import sage_kit_umap
from sage_kit.components import BuildContext, Reducer
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError
from sage_kit_umap import UMAPOptions

(SPEC,) = sage_kit_umap.sage_reducers()


def build(n_components: int = 2, seed: int = 0, **options: Any) -> Any:
    """The reducer as sage-kit builds it, with few neighbours and epochs unless told otherwise."""
    checked = SPEC.options.model_validate({"n_neighbors": 8, "n_epochs": 20, **options})
    return SPEC.factory(checked, BuildContext(config=RunConfig(), n_components=n_components, seed=seed))


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """Three clusters of 50 vectors; not writable, as the memory maps are that sage-kit keeps vectors in."""
    rng = np.random.default_rng(0)
    array: NDArray[np.float32] = rng.standard_normal((150, 12)).astype(np.float32)
    array[np.arange(150), np.arange(150) // 50] += 12
    array.flags.writeable = False
    return array


@pytest.fixture(scope="module")
def fitted(vectors: NDArray[np.float32]) -> Any:
    """A fitted reducer and the coordinates of `vectors`."""
    reducer = build()
    return reducer, reducer.fit_transform(vectors)


# ---- what sage-kit sees before a run ------------------------------------------------------------


def test_the_entry_point_leads_here() -> None:
    (point,) = importlib.metadata.entry_points(group="sage_kit", name="umap")
    assert point.load() is sage_kit_umap


def test_looking_for_plugins_imports_nothing_heavy() -> None:
    program = (
        "import sys, sage_kit_umap; list(sage_kit_umap.sage_reducers());"
        "print([name for name in ('umap', 'numba', 'torch', 'numpy', 'sklearn') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_spec() -> None:
    assert SPEC.name == "umap"
    assert SPEC.capabilities() == {
        "has_transform": True,
        "has_inverse": True,
        "max_components": None,
        "uses_gpu": False,
        "repeatable": True,
        "has_state": False,
        "needs_labels": False,
        "inverse_min_components": 2,
    }
    assert SPEC.min_rows is not None
    assert SPEC.min_rows(UMAPOptions(n_neighbors=4), 2) == 5
    assert all(field.description for field in SPEC.options.model_fields.values())


@pytest.mark.parametrize(
    "options", [{"n_neighbors": 1}, {"min_dist": -0.1}, {"metric": "euclidian"}, {"n_epochs": -1}, {"init": "x"}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        UMAPOptions(**options)


# ---- what it does -------------------------------------------------------------------------------


def test_coordinates(fitted: Any) -> None:
    reducer, coordinates = fitted
    assert isinstance(reducer, Reducer)
    assert coordinates.shape == (150, 2)
    assert coordinates.dtype == np.float32
    # the three clusters are apart in the map, too
    clusters = coordinates.reshape(3, 50, 2)
    centres = clusters.mean(axis=1)
    radius = np.linalg.norm(clusters - centres[:, None], axis=2).mean()
    assert min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 2 * radius


def test_the_same_seed_gives_the_same_map(vectors: Any, fitted: Any) -> None:
    np.testing.assert_array_equal(build().fit_transform(vectors), fitted[1])
    assert not np.array_equal(build(seed=1).fit_transform(vectors), fitted[1])
    # seeds of sage-kit may be larger than those of numpy's older generators
    np.testing.assert_array_equal(build(seed=2**32).fit_transform(vectors), fitted[1])


def test_transform_places_new_vectors_near_their_like(vectors: Any, fitted: Any) -> None:
    reducer, coordinates = fitted
    new = vectors[::10] + np.float32(0.01)
    placed = reducer.transform(new)
    assert placed.shape == (15, 2)
    assert placed.dtype == np.float32
    nearest = np.linalg.norm(placed[:, None] - coordinates[None], axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest // 50, np.arange(0, 150, 10) // 50)
    np.testing.assert_array_equal(reducer.transform(new), placed)


def test_inverse_transform(fitted: Any) -> None:
    reducer, coordinates = fitted
    places = np.concatenate([coordinates[:5] + np.float32(0.02), coordinates.max(axis=0, keepdims=True) + 1])
    back = reducer.inverse_transform(places)
    assert back.shape == (6, 12)
    assert back.dtype == np.float32
    assert np.isfinite(back).all()


def test_inputs_are_not_changed_and_not_kept(vectors: Any) -> None:
    given = vectors.copy()
    reducer = build()
    coordinates = reducer.fit_transform(given)
    places = coordinates[:4] + np.float32(0.1)
    places_before = places.copy()
    reducer.transform(given[:3])
    first = reducer.inverse_transform(places)
    np.testing.assert_array_equal(given, vectors)
    np.testing.assert_array_equal(places, places_before)
    # nor does what the caller does with the arrays reach the reducer
    given[:] = 0
    coordinates[:] = 0
    np.testing.assert_array_equal(reducer.inverse_transform(places), first)


@pytest.mark.parametrize("n_components", [1, 3, 9])
def test_other_numbers_of_components(vectors: Any, n_components: int) -> None:
    coordinates = build(n_components, n_neighbors=5).fit_transform(vectors[:60])
    assert coordinates.shape == (60, n_components)
    assert np.isfinite(coordinates).all()


# ---- what it hides: every warning is an error in these tests -------------------------------------


@pytest.mark.parametrize(("rows", "n_components"), [(3, 2), (4, 2), (4, 3), (9, 8)])
@pytest.mark.parametrize("init", ["spectral", "random"])
def test_few_vectors_are_placed_whatever_the_start(vectors: Any, rows: int, n_components: int, init: str) -> None:
    coordinates = build(n_components, n_neighbors=2, init=init).fit_transform(vectors[:rows])
    assert coordinates.shape == (rows, n_components)
    assert np.isfinite(coordinates).all()


def test_duplicates(vectors: Any) -> None:
    copies = np.repeat(vectors[:4], 20, axis=0)
    reducer = build()
    coordinates = reducer.fit_transform(copies)
    assert np.isfinite(coordinates).all()
    assert np.isfinite(reducer.inverse_transform(coordinates[:3])).all()


def test_fewer_vectors_than_neighbours_are_refused(vectors: Any) -> None:
    assert build(n_neighbors=8).fit_transform(vectors[:9]).shape == (9, 2)
    with pytest.raises(CompatibilityError, match="needs at least 9 vectors for n_neighbors=8, and there are 8"):
        build(n_neighbors=8).fit_transform(vectors[:8])


def test_vectors_that_cannot_be_placed_are_reported() -> None:
    opposite = np.zeros((40, 6), np.float32)
    opposite[:, 0] = 1
    opposite[39, 0] = -1
    with pytest.raises(CompatibilityError, match=r"cannot place 1 of 40 vectors.* metric 'cosine'"):
        build(metric="cosine").fit_transform(opposite)
