"""Reducers `torchdr_umap` and `torchdr_tsne`: what they promise in their specs, and what they hide of the library."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchdr
from numpy.typing import NDArray
from pydantic import ValidationError

import sage_kit_torchdr
from sage_kit.components import BuildContext, Reducer
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError, DataError, MissingPackageError
from sage_kit_torchdr import TorchTSNEOptions, TorchUMAPOptions

SPECS = {spec.name: spec for spec in sage_kit_torchdr.sage_reducers()}
QUICK = {
    "torchdr_umap": {"n_neighbors": 8, "n_epochs": 120},
    "torchdr_tsne": {"perplexity": 8, "early_exaggeration_iter": 50, "n_iter": 70},
}
BOTH = pytest.mark.parametrize("name", SPECS)


def build(name: str, n_components: int = 2, seed: int = 0, device: str = "cpu", **options: Any) -> Any:
    """The reducer as sage-kit builds it, with few neighbours and iterations unless told otherwise."""
    checked = SPECS[name].options.model_validate({**QUICK[name], **options})
    context = BuildContext(config=RunConfig(), n_components=n_components, seed=seed, device=device)
    return SPECS[name].factory(checked, context)


def library(name: str, n_components: int = 2, seed: int = 0, **parameters: Any) -> Any:
    """The library's own estimator under the same parameters; to be fitted before anything else draws."""
    shared = {"n_components": n_components, "random_state": seed, "backend": None}
    if name == "torchdr_umap":
        return torchdr.UMAP(**{"n_neighbors": 8, "max_iter": 120, **shared, **parameters})
    quick = {"perplexity": 8, "early_exaggeration_iter": 50, "max_iter": 120}
    return torchdr.TSNE(**{**quick, **shared, **parameters})


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """Three clusters of 50 vectors; not writable, as the memory maps are that sage-kit keeps vectors in."""
    rng = np.random.default_rng(0)
    array: NDArray[np.float32] = rng.standard_normal((150, 12)).astype(np.float32)
    array[np.arange(150), np.arange(150) // 50] += 12
    array.flags.writeable = False
    return array


# ---- what sage-kit sees before a run ------------------------------------------------------------


def test_the_entry_point_leads_here() -> None:
    (point,) = importlib.metadata.entry_points(group="sage_kit", name="torchdr")
    assert point.load() is sage_kit_torchdr


def test_looking_for_plugins_imports_nothing_heavy() -> None:
    program = (
        "import sys, sage_kit_torchdr; list(sage_kit_torchdr.sage_reducers());"
        "print([name for name in ('torchdr', 'faiss', 'torch', 'numpy', 'sklearn') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_specs() -> None:
    assert list(SPECS) == ["torchdr_umap", "torchdr_tsne"]
    shared = {
        "has_inverse": False, "max_components": None, "uses_gpu": True, "repeatable": True, "has_state": False,
        "needs_labels": False, "inverse_min_components": 1,
    }  # fmt: skip
    assert SPECS["torchdr_umap"].capabilities() == {"has_transform": True, **shared}
    assert SPECS["torchdr_tsne"].capabilities() == {"has_transform": False, **shared}
    for spec in SPECS.values():
        assert all(field.description for field in spec.options.model_fields.values())


@BOTH
def test_only_what_can_place_new_vectors_has_transform(name: str) -> None:
    assert hasattr(build(name), "transform") == SPECS[name].has_transform


def test_min_rows() -> None:
    umap, tsne = SPECS["torchdr_umap"].min_rows, SPECS["torchdr_tsne"].min_rows
    assert umap is not None
    assert tsne is not None
    assert (umap(TorchUMAPOptions(n_neighbors=4), 2), umap(TorchUMAPOptions(n_neighbors=4), 9)) == (6, 10)
    assert (tsne(TorchTSNEOptions(perplexity=4), 2), tsne(TorchTSNEOptions(perplexity=4), 20)) == (14, 21)


@BOTH
@pytest.mark.parametrize("options", [{"metric": "angular"}, {"init": "normal"}, {"backend": "keops"}])
def test_bad_shared_options_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        SPECS[name].options(**options)


@pytest.mark.parametrize(
    "options",
    [{"n_neighbors": 1}, {"min_dist": -0.1}, {"n_epochs": 0}, {"negative_sample_rate": 0}, {"learning_rate": 0}],
)
def test_bad_options_of_umap_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        TorchUMAPOptions(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"perplexity": 1},
        {"perplexity": 7.5},  # the library would make 7 of it
        {"early_exaggeration": 0.5},
        {"early_exaggeration_iter": -1},
        {"n_iter": 0},
        {"learning_rate": -1},
    ],
)
def test_bad_options_of_tsne_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        TorchTSNEOptions(**options)


# ---- what they do -------------------------------------------------------------------------------


@BOTH
def test_coordinates(vectors: Any, name: str) -> None:
    reducer = build(name)
    coordinates = reducer.fit_transform(vectors)
    assert isinstance(reducer, Reducer)
    assert type(coordinates) is np.ndarray
    assert coordinates.shape == (150, 2)
    assert coordinates.dtype == np.float32
    assert coordinates.flags.c_contiguous
    assert coordinates.flags.writeable
    # the three clusters are apart in the map, too
    clusters = coordinates.reshape(3, 50, 2)
    centres = clusters.mean(axis=1)
    radius = np.linalg.norm(clusters - centres[:, None], axis=2).mean()
    assert min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 2 * radius


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"seed": 3}, {"seed": 3}),
        ({"n_components": 3, "metric": "euclidean"}, {"n_components": 3, "metric": "euclidean"}),
        ({"init": "random"}, {"init": "normal"}),
        (
            {"min_dist": 0.4, "n_epochs": 60, "negative_sample_rate": 3, "learning_rate": 0.5},
            {"min_dist": 0.4, "max_iter": 60, "negative_sample_rate": 3, "lr": 0.5},
        ),
    ],
)
@pytest.mark.parametrize("duplicates", [0, 20])
def test_umap_is_that_of_the_library(vectors: Any, ours: Any, theirs: Any, duplicates: int) -> None:
    given = np.concatenate([vectors, vectors[:duplicates]])
    new = given[::7] + np.float32(0.1)
    seed = theirs.get("seed", 0)
    reducer, estimator = build("torchdr_umap", **ours), library("torchdr_umap", **theirs)
    expected = estimator.fit_transform(given)
    torch.manual_seed(seed)
    placed = estimator.transform(new, X_train=given)
    np.testing.assert_array_equal(reducer.fit_transform(given), expected)
    if not duplicates:  # among which the library takes equal vectors for several neighbours
        np.testing.assert_array_equal(reducer.transform(new), placed)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"seed": 3}, {"seed": 3}),
        ({"n_components": 3, "metric": "euclidean"}, {"n_components": 3, "metric": "euclidean"}),
        ({"init": "random"}, {"init": "normal"}),
        (
            {"early_exaggeration": 4, "early_exaggeration_iter": 20, "n_iter": 30, "learning_rate": 30},
            {"early_exaggeration_coeff": 4, "early_exaggeration_iter": 20, "max_iter": 50, "lr": 30.0},
        ),
        ({"early_exaggeration_iter": 0}, {"early_exaggeration_coeff": None, "max_iter": 70}),
    ],
)
@pytest.mark.parametrize("duplicates", [0, 20])
def test_tsne_is_that_of_the_library(vectors: Any, ours: Any, theirs: Any, duplicates: int) -> None:
    given = np.concatenate([vectors, vectors[:duplicates]])
    expected = library("torchdr_tsne", **{"init": start(given, theirs.get("n_components", 2)), **theirs})
    np.testing.assert_array_equal(build("torchdr_tsne", **ours).fit_transform(given), expected.fit_transform(given))


def start(vectors: NDArray[np.float32], n_components: int) -> torch.Tensor:
    """Principal components of the different vectors, row after row.

    The library's own start has the same numbers column after column, which rounds sums otherwise, and t-SNE makes
    another map of that.
    """
    distinct = torch.unique(torch.tensor(vectors), dim=0)
    given = distinct if len(distinct) < len(vectors) else torch.tensor(vectors)
    components: torch.Tensor = torchdr.PCA(n_components=n_components).fit_transform(given)
    return components.contiguous()


def test_the_start_of_tsne_is_that_of_the_library(vectors: Any) -> None:
    """Over few iterations, in which rounding does not tell."""
    expected = library("torchdr_tsne", early_exaggeration_iter=8, max_iter=10).fit_transform(vectors.copy())
    coordinates = build("torchdr_tsne", early_exaggeration_iter=8, n_iter=2).fit_transform(vectors)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(coordinates, expected, atol=1e-3 * np.abs(expected).max())


@BOTH
def test_cosine_does_not_look_at_lengths(vectors: Any, name: str) -> None:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = library(name, init=start(unit, 2)).fit_transform(unit)
    np.testing.assert_array_equal(build(name, metric="cosine").fit_transform(vectors), expected)
    longer = vectors * np.float32(4)  # by a power of two, which rounds nothing
    np.testing.assert_array_equal(build(name, metric="cosine").fit_transform(longer), expected)


@BOTH
@pytest.mark.parametrize("init", ["pca", "random"])
def test_the_same_seed_gives_the_same_map(vectors: Any, name: str, init: str) -> None:
    first = build(name, init=init).fit_transform(vectors)
    second = build(name, init=init)
    torch.manual_seed(5)
    np.random.seed(5)
    np.testing.assert_array_equal(second.fit_transform(vectors), first)
    if init == "random" or name == "torchdr_umap":  # t-SNE from principal components draws nothing
        assert not np.array_equal(build(name, init=init, seed=1).fit_transform(vectors), first)
    # seeds of sage-kit may be larger than those of torch
    np.testing.assert_array_equal(build(name, init=init, seed=2**63).fit_transform(vectors), first)


def test_another_process_gives_the_same_map(vectors: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    program = (
        "import sys, numpy as np, sage_kit_torchdr\n"
        "from sage_kit.components import BuildContext\n"
        "from sage_kit.config import RunConfig\n"
        "vectors = np.load(sys.argv[1] + '/vectors.npy')\n"
        f"quick = {QUICK!r}\n"
        "for spec in sage_kit_torchdr.sage_reducers():\n"
        "    reducer = spec.factory(spec.options(**quick[spec.name]), BuildContext(config=RunConfig(), seed=4))\n"
        "    np.save(f'{sys.argv[1]}/{spec.name}.npy', reducer.fit_transform(vectors))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    for name in SPECS:
        coordinates = build(name, seed=4).fit_transform(vectors)
        np.testing.assert_array_equal(coordinates, np.load(tmp_path / f"{name}.npy"))


def test_transform_places_new_vectors_near_their_like(vectors: Any) -> None:
    reducer = build("torchdr_umap")
    coordinates = reducer.fit_transform(vectors)
    new = vectors[::10] + np.float32(0.01)
    placed = reducer.transform(new)
    assert type(placed) is np.ndarray
    assert placed.shape == (15, 2)
    assert placed.dtype == np.float32
    assert placed.flags.c_contiguous
    nearest = np.linalg.norm(placed[:, None] - coordinates[None], axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest // 50, np.arange(0, 150, 10) // 50)
    torch.manual_seed(9)
    np.testing.assert_array_equal(reducer.transform(new), placed)
    assert reducer.transform(new[:1]).shape == (1, 2)


@BOTH
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_inputs_are_not_changed_and_not_kept(vectors: Any, name: str, metric: str) -> None:
    given = vectors.copy()
    reducer = build(name, metric=metric)
    coordinates = reducer.fit_transform(given)
    np.testing.assert_array_equal(given, vectors)
    if SPECS[name].has_transform:
        first = reducer.transform(given[:3])
        np.testing.assert_array_equal(given, vectors)
        # nor does what the caller does with the arrays reach the reducer
        given[:] = 0
        coordinates[:] = 0
        np.testing.assert_array_equal(reducer.transform(vectors[:3]), first)


@BOTH
def test_the_device_of_the_run_reaches_the_library(name: str) -> None:
    estimator = build(name, device="cuda:3")._library("normal")
    assert estimator.device == estimator.affinity_in.device == "cuda:3"


@BOTH
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_map_twice(vectors: Any, name: str) -> None:
    reducer = build(name, device="cuda:0")
    first = reducer.fit_transform(vectors)
    assert str(reducer.estimator_.device_) == "cuda:0"
    np.testing.assert_array_equal(build(name, device="cuda:0").fit_transform(vectors), first)
    if SPECS[name].has_transform:
        assert np.isfinite(reducer.transform(vectors[:9])).all()


@BOTH
def test_faiss_finds_the_same_neighbours(vectors: Any, name: str) -> None:
    pytest.importorskip("faiss")
    quick = {"torchdr_umap": {"n_epochs": 1}, "torchdr_tsne": {"early_exaggeration_iter": 0, "n_iter": 2}}[name]
    by_torch = build(name, **quick).fit_transform(vectors)
    np.testing.assert_allclose(build(name, backend="faiss", **quick).fit_transform(vectors), by_torch, atol=1e-3)


# ---- what they hide: every warning is an error in these tests ------------------------------------


@BOTH
def test_what_the_library_would_set_for_the_process_is_left_alone(
    vectors: Any, name: str, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    torch.manual_seed(11)
    np.random.seed(11)
    state, other = torch.random.get_rng_state(), np.random.get_state()[1]
    reducer = build(name, init="random")
    benchmark, hash_seed = torch.backends.cudnn.benchmark, os.environ.get("PYTHONHASHSEED")
    with torch.no_grad():  # the library differentiates
        reducer.fit_transform(vectors)
        assert not torch.is_grad_enabled()
    if SPECS[name].has_transform:
        reducer.transform(vectors[:5])
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], other)
    assert torch.backends.cudnn.benchmark == benchmark
    assert os.environ.get("PYTHONHASHSEED") == hash_seed
    assert not torch.are_deterministic_algorithms_enabled()
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@BOTH
def test_one_process_of_several_can_fit(vectors: Any, name: str, tmp_path: Path) -> None:
    """The library would take part with the others, who wait, and refuses to do so on a CPU."""
    expected = build(name).fit_transform(vectors)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match="Distributed"):
            library(name, device="cpu").fit_transform(vectors)
        np.testing.assert_array_equal(build(name).fit_transform(vectors), expected)
    finally:
        torch.distributed.destroy_process_group()


@BOTH
@pytest.mark.parametrize("n_components", [1, 3])
@pytest.mark.parametrize("init", ["pca", "random"])
def test_the_fewest_vectors_are_placed(vectors: Any, name: str, n_components: int, init: str) -> None:
    size = {"torchdr_umap": "n_neighbors", "torchdr_tsne": "perplexity"}[name]
    least = SPECS[name].min_rows(SPECS[name].options(**{size: 4}), n_components)
    reducer = build(name, n_components, init=init, **{size: 4})
    coordinates = reducer.fit_transform(vectors[:least])
    assert coordinates.shape == (least, n_components)
    assert np.isfinite(coordinates).all()
    if SPECS[name].has_transform:
        assert np.isfinite(reducer.transform(vectors[:9])).all()
    message = f"needs at least {least} different vectors for {size}=4, and there are {least - 1}: lower {size}"
    with pytest.raises(CompatibilityError, match=message):
        build(name, n_components, init=init, **{size: 4}).fit_transform(vectors[: least - 1])


@BOTH
def test_equal_vectors_have_one_place(vectors: Any, name: str) -> None:
    copies = np.tile(vectors[::3], (3, 1))
    reducer = build(name)
    coordinates = reducer.fit_transform(copies).reshape(3, 50, 2)
    assert np.isfinite(coordinates).all()
    np.testing.assert_array_equal(coordinates[0], coordinates[1])
    np.testing.assert_array_equal(coordinates[0], coordinates[2])
    if SPECS[name].has_transform:
        assert np.isfinite(reducer.transform(copies[::10])).all()


@BOTH
def test_too_few_different_vectors_are_refused(vectors: Any, name: str) -> None:
    with pytest.raises(CompatibilityError, match=r"different vectors for .*=8, and of 150 only 5 differ: lower"):
        build(name).fit_transform(np.repeat(vectors[::30], 30, axis=0))


@BOTH
def test_more_components_than_the_start_has_are_refused(vectors: Any, name: str) -> None:
    """The library would return 12 columns where 13 are asked for."""
    with pytest.raises(CompatibilityError, match=r"12 dimensions: take init=random .* at most 12 for n_components"):
        build(name, 13).fit_transform(vectors)
    assert library(name, 13).fit_transform(vectors.copy()).shape == (150, 12)
    assert build(name, 13, init="random").fit_transform(vectors).shape == (150, 13)


@BOTH
def test_vectors_without_direction_are_reported(vectors: Any, name: str) -> None:
    zeros = vectors.copy()
    zeros[[3, 7]] = 0
    with pytest.raises(CompatibilityError, match=r"cannot place 2 of 150 vectors, which are zero .* metric 'cosine'"):
        build(name, metric="cosine").fit_transform(zeros)


@BOTH
def test_numbers_that_are_none_are_reported(vectors: Any, name: str) -> None:
    broken = vectors.copy()
    broken[4, 2] = np.nan
    broken[9, 0] = np.inf
    with pytest.raises(DataError, match="2 of 150 vectors hold NaN or infinity"):
        build(name).fit_transform(broken)


@BOTH
def test_faiss_that_is_missing_is_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(MissingPackageError, match="needs faiss: pip install faiss-cpu, or take backend=torch"):
        build(name, backend="faiss")
    build(name)


def test_without_faiss_the_library_is_imported_in_silence() -> None:
    program = (
        "import sys, warnings; sys.modules['faiss'] = None; warnings.simplefilter('error');"
        "import sage_kit_torchdr.reducer; print('torchdr' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (process.stdout.strip(), process.stderr) == ("True", "")
