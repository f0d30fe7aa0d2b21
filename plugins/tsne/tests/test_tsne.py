"""Reducer `tsne`: what it promises in its spec, and what it hides of the library."""

from __future__ import annotations

import importlib.metadata
import logging
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from openTSNE.sklearn import TSNE
from pydantic import ValidationError

import sage_kit_tsne
from sage_kit.components import BuildContext, Reducer, StatefulReducer
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError, DataError
from sage_kit_tsne import TSNEOptions
from sage_kit_tsne import reducer as module

(SPEC,) = sage_kit_tsne.sage_reducers()
QUICK = {"perplexity": 8, "early_exaggeration_iter": 50, "n_iter": 70, "transform_iter": 40}


def build(n_components: int = 2, seed: int = 0, **options: Any) -> Any:
    """The reducer as sage-kit builds it, with few neighbours and iterations unless told otherwise."""
    checked = SPEC.options.model_validate({**QUICK, **options})
    return SPEC.factory(checked, BuildContext(config=RunConfig(), n_components=n_components, seed=seed))


def library(n_components: int = 2, seed: int = 0, **parameters: Any) -> TSNE:
    """The library's own estimator under the same parameters."""
    quick = {"perplexity": 8, "early_exaggeration_iter": 50, "n_iter": 70, "negative_gradient_method": "bh"}
    return TSNE(n_components=n_components, random_state=seed, **{**quick, **parameters})


def centred(coordinates: Any) -> NDArray[np.float64]:
    """Shifted so that the middle of the range is the origin, which is where `transform` of the library puts the map."""
    array = np.array(coordinates, dtype=float)
    return array - (array.max(axis=0) + array.min(axis=0)) / 2


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
    (point,) = importlib.metadata.entry_points(group="sage_kit", name="tsne")
    assert point.load() is sage_kit_tsne


def test_looking_for_plugins_imports_nothing_heavy() -> None:
    program = (
        "import sys, sage_kit_tsne; list(sage_kit_tsne.sage_reducers());"
        "print([name for name in ('openTSNE', 'numba', 'torch', 'numpy', 'sklearn', 'scipy') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_spec() -> None:
    assert SPEC.name == "tsne"
    assert SPEC.capabilities() == {
        "has_transform": True,
        "has_inverse": False,
        "max_components": 3,
        "uses_gpu": False,
        "repeatable": True,
        "has_state": True,
        "needs_labels": False,
        "inverse_min_components": 1,
    }
    assert SPEC.min_rows is not None
    assert SPEC.min_rows(TSNEOptions(perplexity=4), 2) == 13
    assert SPEC.min_rows(TSNEOptions(perplexity=4.5), 2) == 15
    assert all(field.description for field in SPEC.options.model_fields.values())


def test_the_defaults_are_the_librarys() -> None:
    options, theirs = TSNEOptions(), TSNE()
    same = set(TSNEOptions.model_fields) & set(theirs.get_params()) - {"learning_rate", "exaggeration"}
    assert len(same) == 10
    assert {name: getattr(options, name) for name in same} == {name: getattr(theirs, name) for name in same}
    # the library says these two in other words
    assert (theirs.learning_rate, theirs.exaggeration) == ("auto", None)
    assert (options.learning_rate, options.exaggeration) == (0, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"perplexity": 1},
        {"early_exaggeration": 0.5},
        {"early_exaggeration_iter": -1},
        {"n_iter": 0},
        {"exaggeration": 0},
        {"learning_rate": -1},
        {"dof": 0},
        {"metric": "euclidian"},
        {"neighbors": "hnsw"},
        {"initialization": "x"},
        {"negative_gradient_method": "interpolation"},
        {"theta": 1.5},
        {"transform_perplexity": 1},
        {"transform_iter": -1},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        TSNEOptions(**options)


# ---- what it does -------------------------------------------------------------------------------


def test_coordinates(fitted: Any) -> None:
    reducer, coordinates = fitted
    assert isinstance(reducer, Reducer)
    assert isinstance(reducer, StatefulReducer)
    assert type(coordinates) is np.ndarray
    assert coordinates.shape == (150, 2)
    assert coordinates.dtype == np.float32
    assert coordinates.flags.c_contiguous
    # the three clusters are apart in the map, too
    clusters = coordinates.reshape(3, 50, 2)
    centres = clusters.mean(axis=1)
    radius = np.linalg.norm(clusters - centres[:, None], axis=2).mean()
    assert min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 2 * radius


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"n_components": 1, "metric": "cosine"}, {"n_components": 1, "metric": "cosine"}),
        ({"n_components": 3, "seed": 3}, {"n_components": 3, "seed": 3}),
        ({"negative_gradient_method": "fft"}, {"negative_gradient_method": "fft"}),
        (
            {"initialization": "spectral", "neighbors": "annoy", "learning_rate": 20, "exaggeration": 2, "dof": 0.8},
            {"initialization": "spectral", "neighbors": "annoy", "learning_rate": 20, "exaggeration": 2, "dof": 0.8},
        ),
        (
            {"initialization": "random", "metric": "manhattan", "early_exaggeration": 4, "theta": 0.3},
            {"initialization": "random", "metric": "manhattan", "early_exaggeration": 4, "theta": 0.3},
        ),
    ],
)
def test_coordinates_are_those_of_the_library(vectors: Any, ours: Any, theirs: Any) -> None:
    reducer, estimator = build(**ours), library(**theirs)
    coordinates = reducer.fit_transform(vectors)
    expected = centred(estimator.fit_transform(vectors))
    np.testing.assert_allclose(coordinates, expected, atol=1e-5)
    estimator.embedding_.gradient_descent_params["negative_gradient_method"] = "bh"
    new = vectors[::7] + np.float32(0.1)
    np.testing.assert_allclose(reducer.transform(new), estimator.transform(new, n_iter=40), atol=1e-5)


def test_the_same_seed_gives_the_same_map(vectors: Any, fitted: Any) -> None:
    np.random.seed(5)
    np.testing.assert_array_equal(build().fit_transform(vectors), fitted[1])
    assert not np.array_equal(build(seed=1).fit_transform(vectors), fitted[1])
    # seeds of sage-kit may be larger than those of numpy's older generators
    np.testing.assert_array_equal(build(seed=2**32).fit_transform(vectors), fitted[1])


def test_another_process_gives_the_same_map(vectors: Any, tmp_path: Any) -> None:
    """With approximate neighbours and interpolation, the parts that are random or run in threads elsewhere."""
    options = {**QUICK, "neighbors": "annoy", "negative_gradient_method": "fft", "initialization": "random"}
    np.save(tmp_path / "vectors.npy", vectors)
    program = (
        "import sys, numpy as np, sage_kit_tsne\n"
        "from sage_kit.components import BuildContext\n"
        "from sage_kit.config import RunConfig\n"
        "(spec,) = sage_kit_tsne.sage_reducers()\n"
        f"reducer = spec.factory(spec.options(**{options!r}), BuildContext(config=RunConfig(), seed=4))\n"
        "vectors = np.load(sys.argv[1] + '/vectors.npy')\n"
        "np.save(sys.argv[1] + '/map.npy', reducer.fit_transform(vectors))\n"
        "np.save(sys.argv[1] + '/new.npy', reducer.transform(vectors[:20] + 1))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    reducer = build(seed=4, **options)
    np.testing.assert_array_equal(reducer.fit_transform(vectors), np.load(tmp_path / "map.npy"))
    np.testing.assert_array_equal(reducer.transform(vectors[:20] + 1), np.load(tmp_path / "new.npy"))


@pytest.mark.parametrize("method", ["bh", "fft"])
def test_transform_places_new_vectors_near_their_like(vectors: Any, method: str) -> None:
    reducer = build(negative_gradient_method=method)
    coordinates = reducer.fit_transform(vectors)
    new = vectors[::10] + np.float32(0.01)
    placed = reducer.transform(new)
    assert placed.shape == (15, 2)
    assert placed.dtype == np.float32
    assert placed.flags.c_contiguous
    nearest = np.linalg.norm(placed[:, None] - coordinates[None], axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest // 50, np.arange(0, 150, 10) // 50)
    # a vector's place does not depend on the others, nor on their order, nor on how often it is asked
    one_by_one = np.concatenate([reducer.transform(new[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(one_by_one, placed[:4], atol=1e-5)
    np.testing.assert_allclose(reducer.transform(new[::-1]), placed[::-1], atol=1e-5)


def test_the_map_stays_where_it_was_given_out(vectors: Any) -> None:
    """The library shifts its map in place at the first transform, and with it what it returned before."""
    estimator = library()
    theirs = estimator.fit_transform(vectors)
    before = theirs.copy()
    estimator.transform(vectors[:3])
    assert np.abs(theirs - before).max() > 0.01
    reducer = build()
    ours = reducer.fit_transform(vectors)
    before = ours.copy()
    reducer.transform(vectors[:3])
    np.testing.assert_array_equal(ours, before)
    np.testing.assert_allclose(reducer.tsne_.embedding_, before, atol=1e-5)


def test_inputs_are_not_changed_and_not_kept(vectors: Any) -> None:
    given = vectors.copy()
    reducer = build()
    coordinates = reducer.fit_transform(given)
    first = reducer.transform(given[:3])
    np.testing.assert_array_equal(given, vectors)
    # nor does what the caller does with the arrays reach the reducer
    given[:] = 0
    coordinates[:] = 0
    np.testing.assert_array_equal(reducer.transform(vectors[:3]), first)


@pytest.mark.parametrize("options", [{}, {"neighbors": "annoy", "negative_gradient_method": "fft"}])
def test_a_stored_state_is_the_fitted_map(vectors: Any, options: Any) -> None:
    reducer = build(seed=3, **options)
    coordinates = reducer.fit_transform(vectors)
    state = reducer.get_state()
    assert {name: (values.shape, str(values.dtype)) for name, values in state.items()} == {
        "map": ((150, 2), "float64"),
        "vectors": ((150, 12), "float32"),
        "seed": ((1,), "int64"),
    }
    np.testing.assert_allclose(state["map"], coordinates, atol=1e-5)
    other = build(seed=99, **options)  # the state brings its own seed
    other.set_state(state)
    new = vectors[::9] + np.float32(0.3)
    np.testing.assert_array_equal(other.transform(new), reducer.transform(new))
    # what was handed out is the caller's
    for values in state.values():
        values[:] = 0
    np.testing.assert_array_equal(other.transform(new), reducer.transform(new))


# ---- what it hides: every warning is an error in these tests -------------------------------------


def test_interpolation_is_refused_where_the_library_has_none(vectors: Any) -> None:
    with pytest.raises(CompatibilityError, match=r"cannot interpolate .* in 3 dimensions: take negative_gradient_me"):
        build(3, negative_gradient_method="fft")


@pytest.mark.parametrize(("n_components", "chosen"), [(1, "fft"), (2, "fft"), (3, "bh")])
def test_auto_interpolates_large_data_where_it_can(
    vectors: Any, monkeypatch: pytest.MonkeyPatch, n_components: int, chosen: str
) -> None:
    assert build(n_components).fit(vectors).tsne_.negative_gradient_method == "bh"
    monkeypatch.setattr(module, "FFT_ROWS", 150)
    assert build(n_components).fit(vectors).tsne_.negative_gradient_method == chosen


def test_interpolation_does_not_misplace_new_points(vectors: Any) -> None:
    """Where points lie apart, the library's interpolation moves new ones away from those that they are like."""
    reducer = build(negative_gradient_method="fft", transform_iter=200)
    coordinates = reducer.fit_transform(vectors)
    new = vectors + np.float32(1e-3)
    by_barnes_hut = np.linalg.norm(reducer.transform(new) - coordinates, axis=1)
    reducer.tsne_.embedding_.gradient_descent_params["negative_gradient_method"] = "fft"
    by_interpolation = np.linalg.norm(reducer.transform(new) - coordinates, axis=1)
    assert by_barnes_hut.max() < 0.5
    assert by_interpolation.max() > 2


def test_the_librarys_log_is_kept_from_the_user(vectors: Any, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    level = logging.getLogger("openTSNE").level
    reducer = build(perplexity=2)
    reducer.fit_transform(vectors[:7])  # placing new vectors among so few, the library would say that it lowers 5 to 2
    reducer.transform(vectors[:7])
    build(perplexity=2).set_state(reducer.get_state())
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("openTSNE").level == level


@pytest.mark.parametrize("n_components", [1, 3])
@pytest.mark.parametrize("initialization", ["pca", "spectral", "random"])
def test_few_vectors_are_placed_whatever_the_start(vectors: Any, n_components: int, initialization: str) -> None:
    reducer = build(n_components, perplexity=2, initialization=initialization)
    coordinates = reducer.fit_transform(vectors[:7])
    assert coordinates.shape == (7, n_components)
    assert np.isfinite(coordinates).all()
    assert np.isfinite(reducer.transform(vectors[:9])).all()


@pytest.mark.parametrize("neighbors", ["exact", "annoy"])
@pytest.mark.parametrize("initialization", ["pca", "spectral"])
def test_duplicates(vectors: Any, neighbors: str, initialization: str) -> None:
    copies = np.repeat(vectors[::30], 30, axis=0)
    reducer = build(neighbors=neighbors, initialization=initialization)
    assert np.isfinite(reducer.fit_transform(copies)).all()
    assert np.isfinite(reducer.transform(copies[::10])).all()


def test_fewer_vectors_than_the_perplexity_needs_are_refused(vectors: Any) -> None:
    assert build(perplexity=8).fit_transform(vectors[:25]).shape == (25, 2)
    with pytest.raises(CompatibilityError, match=r"at least 25 vectors for perplexity=8, and there are 24: lower"):
        build(perplexity=8).fit_transform(vectors[:24])


def test_equal_vectors_are_refused() -> None:
    with pytest.raises(CompatibilityError, match="cannot make a map of 40 vectors that are all the same"):
        build().fit_transform(np.ones((40, 6), np.float32))


def test_vectors_too_narrow_for_the_start_are_refused(vectors: Any) -> None:
    with pytest.raises(CompatibilityError, match="take initialization=random"):
        build(3).fit_transform(vectors[:, :2])
    assert build(3, initialization="random").fit_transform(vectors[:, :2]).shape == (150, 3)


def test_vectors_without_direction_are_reported(vectors: Any) -> None:
    zeros = vectors.copy()
    zeros[[3, 7]] = 0
    with pytest.raises(CompatibilityError, match=r"cannot place 2 of 150 vectors, which are zero .* metric 'cosine'"):
        build(metric="cosine").fit_transform(zeros)
    reducer = build(metric="cosine")
    reducer.fit_transform(vectors)
    with pytest.raises(CompatibilityError, match=r"cannot place 2 of 10 vectors, which are zero"):
        reducer.transform(zeros[:10])


def test_numbers_that_are_none_are_reported(vectors: Any) -> None:
    broken = vectors.copy()
    broken[4, 2] = np.nan
    broken[9, 0] = np.inf
    with pytest.raises(DataError, match="2 of 150 vectors hold NaN or infinity"):
        build().fit_transform(broken)
    reducer = build()
    reducer.fit_transform(vectors)
    with pytest.raises(DataError, match="1 of 5 vectors hold NaN or infinity"):
        reducer.transform(broken[:5])


def test_a_spectral_start_that_is_not_found_is_reported(vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise module.ArpackError(-1)

    monkeypatch.setattr("openTSNE.initialization.spectral", fail)
    with pytest.raises(CompatibilityError, match=r"finds no spectral start.* take initialization=pca or random"):
        build(initialization="spectral").fit_transform(vectors)
