"""Reducer `pacmap`: what it promises in its spec, and what it hides of the library."""

from __future__ import annotations

import importlib.metadata
import logging
import subprocess
import sys
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray
from pacmap import PaCMAP
from pydantic import ValidationError

import sage_kit_pacmap
from sage_kit.components import BuildContext, Reducer
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError, DataError
from sage_kit_pacmap import PaCMAPOptions

(SPEC,) = sage_kit_pacmap.sage_reducers()
QUICK = {"n_iter_global": 20, "n_iter_middle": 20, "n_iter_local": 40}


def build(n_components: int = 2, seed: int = 0, **options: Any) -> Any:
    """The reducer as sage-kit builds it, with few iterations unless told otherwise."""
    checked = SPEC.options.model_validate({**QUICK, **options})
    return SPEC.factory(checked, BuildContext(config=RunConfig(), n_components=n_components, seed=seed))


def library(n_components: int = 2, seed: int = 0, **parameters: Any) -> PaCMAP:
    """The library's own estimator under the same parameters."""
    return PaCMAP(n_components=n_components, random_state=seed, num_iters=(20, 20, 40), save_tree=True, **parameters)


def three_clusters(dim: int) -> NDArray[np.float32]:
    """Three clusters of 50 vectors; not writable, as the memory maps are that sage-kit keeps vectors in."""
    rng = np.random.default_rng(0)
    array: NDArray[np.float32] = rng.standard_normal((150, dim)).astype(np.float32)
    array[np.arange(150), np.arange(150) // 50] += 12
    array.flags.writeable = False
    return array


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return three_clusters(12)


@pytest.fixture(scope="module")
def wide() -> NDArray[np.float32]:
    """Vectors that the library reduces to 100 principal components."""
    return three_clusters(130)


@pytest.fixture(scope="module")
def fitted(vectors: NDArray[np.float32]) -> Any:
    """A fitted reducer and the coordinates of `vectors`."""
    reducer = build()
    return reducer, reducer.fit_transform(vectors)


# ---- what sage-kit sees before a run ------------------------------------------------------------


def test_the_entry_point_leads_here() -> None:
    (point,) = importlib.metadata.entry_points(group="sage_kit", name="pacmap")
    assert point.load() is sage_kit_pacmap


def test_looking_for_plugins_imports_nothing_heavy() -> None:
    program = (
        "import sys, sage_kit_pacmap; list(sage_kit_pacmap.sage_reducers());"
        "print([name for name in ('pacmap', 'faiss', 'numba', 'torch', 'numpy', 'sklearn') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_spec() -> None:
    assert SPEC.name == "pacmap"
    assert SPEC.capabilities() == {
        "has_transform": True,
        "has_inverse": False,
        "max_components": None,
        "uses_gpu": False,
        "repeatable": True,
        "has_state": False,
        "needs_labels": False,
        "inverse_min_components": 1,
    }
    assert SPEC.min_rows is not None
    assert SPEC.min_rows(PaCMAPOptions(), 2) == 36
    assert SPEC.min_rows(PaCMAPOptions(n_neighbors=2, further_ratio=0.5), 2) == 7
    assert SPEC.min_rows(PaCMAPOptions(n_neighbors=2, mid_near_ratio=5, further_ratio=0.5), 2) == 16
    assert SPEC.min_rows(PaCMAPOptions(n_neighbors=1, mid_near_ratio=1, further_ratio=1), 9) == 10
    assert all(field.description for field in SPEC.options.model_fields.values())


def test_the_defaults_are_the_librarys() -> None:
    options, theirs = PaCMAPOptions(), PaCMAP()
    assert (options.n_neighbors, options.mid_near_ratio) == (theirs.n_neighbors, theirs.MN_ratio)
    assert (options.further_ratio, options.learning_rate) == (theirs.FP_ratio, theirs.lr)
    assert (options.metric, options.apply_pca) == (theirs.distance, theirs.apply_pca)
    assert (options.n_iter_global, options.n_iter_middle, options.n_iter_local) == theirs.num_iters


@pytest.mark.parametrize(
    "options",
    [
        {"n_neighbors": 0},
        {"mid_near_ratio": -1},
        {"further_ratio": 0},
        {"further_ratio": 0.04},
        {"metric": "hamming"},
        {"init": "x"},
        {"learning_rate": 0},
        {"n_iter_global": -1},
        {"n_iter_middle": -1},
        {"n_iter_local": -1},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        PaCMAPOptions(**options)


# ---- what it does -------------------------------------------------------------------------------


def test_coordinates(fitted: Any) -> None:
    reducer, coordinates = fitted
    assert isinstance(reducer, Reducer)
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
        ({"seed": 3}, {"seed": 3}),
        ({"n_components": 1, "metric": "manhattan"}, {"n_components": 1, "distance": "manhattan"}),
        ({"n_components": 5, "metric": "angular"}, {"n_components": 5, "distance": "angular"}),
        (
            {"n_neighbors": 6, "mid_near_ratio": 1, "further_ratio": 3, "learning_rate": 0.5, "apply_pca": False},
            {"n_neighbors": 6, "MN_ratio": 1, "FP_ratio": 3, "lr": 0.5, "apply_pca": False},
        ),
    ],
)
@pytest.mark.parametrize("dim", [12, 130])
def test_coordinates_are_those_of_the_library(ours: Any, theirs: Any, dim: int) -> None:
    vectors = three_clusters(dim)
    reducer, estimator = build(**ours), library(**theirs)
    np.testing.assert_array_equal(reducer.fit_transform(vectors), estimator.fit_transform(vectors))
    new = vectors[::7] + np.float32(0.1)
    np.testing.assert_array_equal(reducer.transform(new), estimator.transform(new))


def test_a_random_start_is_the_librarys(vectors: Any) -> None:
    expected = library(seed=5).fit_transform(vectors, init="random")
    np.testing.assert_array_equal(build(seed=5, init="random").fit_transform(vectors), expected)
    assert not np.array_equal(build(seed=5).fit_transform(vectors), expected)


@pytest.mark.parametrize("init", ["pca", "random"])
def test_the_same_seed_gives_the_same_map(vectors: Any, init: str) -> None:
    first = build(init=init).fit_transform(vectors)
    np.random.seed(5)
    np.testing.assert_array_equal(build(init=init).fit_transform(vectors), first)
    assert not np.array_equal(build(init=init, seed=1).fit_transform(vectors), first)
    # seeds of sage-kit may be larger than those of the library's compiled code
    np.testing.assert_array_equal(build(init=init, seed=2**31).fit_transform(vectors), first)


def test_another_process_gives_the_same_map(vectors: Any, tmp_path: Any) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    program = (
        "import sys, numpy as np, sage_kit_pacmap\n"
        "from sage_kit.components import BuildContext\n"
        "from sage_kit.config import RunConfig\n"
        "(spec,) = sage_kit_pacmap.sage_reducers()\n"
        f"reducer = spec.factory(spec.options(**{QUICK!r}), BuildContext(config=RunConfig(), seed=4))\n"
        "vectors = np.load(sys.argv[1] + '/vectors.npy')\n"
        "np.save(sys.argv[1] + '/map.npy', reducer.fit_transform(vectors))\n"
        "np.save(sys.argv[1] + '/new.npy', reducer.transform(vectors[:20] + 1))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    reducer = build(seed=4)
    np.testing.assert_array_equal(reducer.fit_transform(vectors), np.load(tmp_path / "map.npy"))
    np.testing.assert_array_equal(reducer.transform(vectors[:20] + 1), np.load(tmp_path / "new.npy"))


@pytest.mark.parametrize("init", ["pca", "random"])
def test_transform_places_new_vectors_near_their_like(vectors: Any, init: str) -> None:
    reducer = build(init=init)
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


def test_inputs_are_not_changed_and_not_kept(wide: Any) -> None:
    given = wide.copy()
    reducer = build()
    coordinates = reducer.fit_transform(given)
    first = reducer.transform(given[:3])
    np.testing.assert_array_equal(given, wide)
    # nor does what the caller does with the arrays reach the reducer
    given[:] = 0
    coordinates[:] = 0
    np.testing.assert_array_equal(reducer.transform(wide[:3]), first)


# ---- what it hides: every warning is an error in these tests -------------------------------------


def test_reducers_do_not_share_their_seed(vectors: Any, fitted: Any) -> None:
    """The library keeps the seed of the estimator that was made last, whichever is fitted."""
    one, other = library(seed=0), library(seed=1)
    assert not np.array_equal(one.fit_transform(vectors), library(seed=0).fit_transform(vectors))
    assert other.random_state == 1
    first, second = build(seed=0), build(seed=1)
    np.testing.assert_array_equal(first.fit_transform(vectors), fitted[1])
    assert not np.array_equal(second.fit_transform(vectors), fitted[1])


def test_what_the_library_sets_for_the_process_is_put_back(
    vectors: Any, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    level = logging.getLogger("pacmap").level
    threads = faiss.omp_get_max_threads()
    np.random.seed(11)
    expected = np.random.random(3)
    try:
        faiss.omp_set_num_threads(3)
        np.random.seed(11)
        reducer = build(3, init="random", apply_pca=False)
        reducer.fit_transform(vectors)
        reducer.transform(vectors[:5])
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(threads)
    np.testing.assert_array_equal(np.random.random(3), expected)
    assert logging.getLogger("pacmap").level == level
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


# a ratio of 0.5 would leave one neighbour no further pair
NEIGHBORS_AND_RATIOS = [(n, mid, far) for n in (1, 2, 4) for mid, far in ((0.5, 2), (0, 1), (3, 0.5)) if n * far > 0.5]


@pytest.mark.parametrize(("n_neighbors", "mid_near", "further"), NEIGHBORS_AND_RATIOS)
def test_the_fewest_vectors_are_placed_with_all_their_pairs(
    vectors: Any, n_neighbors: int, mid_near: float, further: float
) -> None:
    """With fewer the library makes fewer pairs, or draws mid-near pairs for ever."""
    options = {"n_neighbors": n_neighbors, "mid_near_ratio": mid_near, "further_ratio": further}
    rows = SPEC.min_rows(PaCMAPOptions(**options), 2)
    reducer = build(**options)
    assert np.isfinite(reducer.fit_transform(vectors[:rows])).all()
    assert np.isfinite(reducer.transform(vectors[:9])).all()
    found = reducer.pacmap_
    assert (found.n_neighbors, found.n_MN, found.n_FP) == PaCMAPOptions(**options).pairs
    with pytest.raises(CompatibilityError, match=f"needs at least {rows} vectors .* there are {rows - 1}: lower n_nei"):
        build(**options).fit_transform(vectors[: rows - 1])


def test_duplicates(vectors: Any) -> None:
    copies = np.repeat(vectors[::30], 30, axis=0)
    reducer = build()
    assert np.isfinite(reducer.fit_transform(copies)).all()
    assert np.isfinite(reducer.transform(copies[::10])).all()


@pytest.mark.parametrize("dim", [6, 130])
def test_equal_vectors_are_refused(dim: int) -> None:
    with pytest.raises(CompatibilityError, match="cannot make a map of 40 vectors that are all the same"):
        build().fit_transform(np.ones((40, dim), np.float32))


def test_more_components_than_the_start_has_are_refused(vectors: Any, wide: Any) -> None:
    """The library would return 100 columns where 101 are asked for."""
    assert build(12).fit_transform(vectors).shape == (150, 12)
    with pytest.raises(CompatibilityError, match=r"cannot start 13 .* with 12 dimensions: take at most 12 for n_comp"):
        build(13).fit_transform(vectors)
    with pytest.raises(CompatibilityError, match=r"take at most 100 for n_components, or apply_pca=false"):
        build(101).fit_transform(wide)
    assert library(101).fit_transform(wide).shape == (150, 100)
    assert build(101, apply_pca=False).fit_transform(wide).shape == (150, 101)


def test_zeros_have_a_place_in_metric_angular(vectors: Any) -> None:
    zeros = vectors.copy()
    zeros[[3, 7]] = 0
    reducer = build(metric="angular")
    assert np.isfinite(reducer.fit_transform(zeros)).all()
    assert np.isfinite(reducer.transform(zeros[:10])).all()


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


def test_vectors_that_cannot_be_placed_are_reported(vectors: Any) -> None:
    with pytest.raises(CompatibilityError, match="cannot place 150 of 150 vectors: lower learning_rate"):
        build(learning_rate=1e38).fit_transform(vectors)
