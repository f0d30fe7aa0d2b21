"""The map: landmarks, what is stored, and when a reducer is fitted again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage_kit import hookimpl
from sage_kit.adapters import sklearn_reducer
from sage_kit.components import BuildContext, ReducerSpec
from sage_kit.components.loader import Origin
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import CompatibilityError, DataError, PluginError
from sage_kit.models.vectors import Pooled
from sage_kit.recipe import choose, resolve
from sage_kit.storage.cache import Cache
from sage_kit.synthesis.maps import BLOCK_ROWS, check_distinct, fit_map

BLIND = """
from sage_kit import hookimpl
from sage_kit.components import ReducerSpec

class Blind:
    "Has no transform; counts its fits."
    fits = []
    def __init__(self, options, context):
        self.n = context.n_components
    def fit_transform(self, vectors):
        Blind.fits.append(len(vectors))
        return vectors[:, :self.n].copy()

class Wrong(Blind):
    def transform(self, vectors):
        return vectors[:, :1]

@hookimpl
def sage_reducers():
    yield ReducerSpec(name="blind", summary="x", factory=Blind)
    yield ReducerSpec(name="wrong", summary="x", factory=Wrong, has_transform=True)
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    (tmp_path / "blind.py").write_text(BLIND)
    return Plugins([tmp_path / "blind.py"], allow="")


@pytest.fixture
def vectors() -> Any:
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((500, 2)) @ rng.standard_normal((2, 10))
    return (plane + 0.01 * rng.standard_normal((500, 10))).astype(np.float32)


def fit(tmp_path: Path, plugins: Plugins, vectors: Any, said: list[str] | None = None, **settings: Any) -> Any:
    needs_reducer = settings.pop("needs_reducer", False)
    config = load_config({"reducer": "pca", **settings})
    context = BuildContext(config=config, n_components=2, announce=(said if said is not None else []).append)
    reducer, cache = choose("reducer", config, plugins), Cache(tmp_path / "cache")
    return fit_map(Pooled(vectors, "key"), reducer, cache, context, needs_reducer=needs_reducer)


@pytest.mark.parametrize("choice", ["random", "kmeans++"])
def test_landmarks_of_a_plane_give_nearly_the_map_of_all(
    tmp_path: Path, plugins: Plugins, vectors: Any, choice: str
) -> None:
    said: list[str] = []
    whole = fit(tmp_path, plugins, vectors).coordinates
    part = fit(tmp_path, plugins, vectors, said, landmarks=60, landmark_choice=choice).coordinates
    # of other rows, the directions and the mean are others: the same plane, turned and moved
    part = np.column_stack([part, np.ones(500)])
    turned = part @ np.linalg.lstsq(part, whole, rcond=None)[0]
    assert np.abs(turned - whole).max() < 0.03 * whole.std()
    assert said == [
        "reducer 'pca': fitting 60 landmarks of 500 vectors",
        "reducer 'pca': placing the other 440 vectors by its transform",
    ]


def test_without_transform_the_rest_is_placed_by_its_neighbours(tmp_path: Path, plugins: Plugins, vectors: Any) -> None:
    said: list[str] = []
    found = fit(tmp_path, plugins, vectors, said, reducer="blind", landmarks=100).coordinates
    assert "average of their neighbours" in said[-1]
    exact = (np.abs(found - vectors[:, :2]).max(axis=1) < 1e-6).sum()
    assert exact == 100
    error = np.square(found - vectors[:, :2]).sum() / np.square(vectors[:, :2] - vectors[:, :2].mean(0)).sum()
    assert error < 0.15


def test_more_landmarks_than_vectors_are_all_of_them(tmp_path: Path, plugins: Plugins, vectors: Any) -> None:
    said: list[str] = []
    whole = fit(tmp_path, plugins, vectors)
    again = fit(tmp_path, plugins, vectors, said, landmarks=500)
    assert np.array_equal(whole.coordinates, again.coordinates)
    assert said == []  # found in the cache


def test_a_reducer_is_fitted_again_only_where_it_is_needed_and_cannot_be_stored(
    tmp_path: Path, plugins: Plugins, vectors: Any
) -> None:
    fits = type(plugins.build("reducer", "blind", {}, BuildContext(config=load_config()))).fits
    assert fit(tmp_path, plugins, vectors, reducer="blind").reducer is None
    assert fits == [500]
    fit(tmp_path, plugins, vectors, reducer="blind")
    assert fits == [500]
    assert fit(tmp_path, plugins, vectors, reducer="blind", needs_reducer=True).reducer is not None
    assert fits == [500, 500]
    stored = fit(tmp_path, plugins, vectors, needs_reducer=True)
    said: list[str] = []
    found = fit(tmp_path, plugins, vectors, said, needs_reducer=True)
    assert said == []
    assert np.array_equal(found.reducer.transform(vectors[:5]), stored.reducer.transform(vectors[:5]))


def test_a_transform_of_the_wrong_width_is_named(tmp_path: Path, plugins: Plugins, vectors: Any) -> None:
    with pytest.raises(PluginError, match=r"reducer 'wrong' .* shape \(400, 1\) instead of \(400, 2\)"):
        fit(tmp_path, plugins, vectors, reducer="wrong", landmarks=100)


def test_too_few_landmarks_are_told_before_anything_is_fitted(plugins: Plugins) -> None:
    config = load_config(
        {"reducer": "pca", "n_components": 8, "landmarks": 5, "lift": "shift", "sampler_options": {"k": 3}}
    )
    with pytest.raises(CompatibilityError, match=r"at least 9 landmarks .* there are 5"):
        resolve(config, plugins).check_sizes(1000, 16)
    resolve(config.model_copy(update={"landmarks": 9}), plugins).check_sizes(1000, 16)


def with_reducer(spec: ReducerSpec) -> Plugins:
    class Contributed:
        @hookimpl
        def sage_reducers(self) -> list[ReducerSpec]:
            return [spec]

    plugins = Plugins(allow="")
    plugins._register(Contributed(), Origin("mine", "my-distribution", "1"))
    return plugins


class Supervised:
    """Places each class apart; counts its fits."""

    fits = 0

    def __init__(self, options: Any, context: Any) -> None:
        pass

    def fit_transform(self, vectors: Any, labels: Any) -> Any:
        Supervised.fits += 1
        assert labels.shape == (len(vectors),)
        labels[:] += 0  # a copy, which it may write to
        return np.stack([labels, vectors[:, 0]], axis=1).astype(np.float32)


def test_a_reducer_that_needs_labels_gets_them_and_they_enter_the_key(tmp_path: Path, vectors: Any) -> None:
    plugins = with_reducer(ReducerSpec(name="supervised", summary="", factory=Supervised, needs_labels=True))
    context = BuildContext(config=load_config({"reducer": "supervised"}), n_components=2)
    labels = np.arange(len(vectors)) % 3
    cache = Cache(tmp_path / "cache")
    Supervised.fits = 0

    def coordinates(labels: Any, **settings: Any) -> Any:
        chosen = replace(context, config=load_config({"reducer": "supervised", **settings}))
        reducer = choose("reducer", chosen.config, plugins)
        return fit_map(Pooled(vectors, "key"), reducer, cache, chosen, needs_reducer=False, labels=labels).coordinates

    np.testing.assert_array_equal(coordinates(labels)[:, 0], labels)
    coordinates(labels)
    assert Supervised.fits == 1
    np.testing.assert_array_equal(coordinates(2 - labels)[:, 0], 2 - labels)
    assert Supervised.fits == 2
    at_landmarks = coordinates(labels, landmarks=50)
    assert np.isin(at_landmarks[:, 0], [0, 1, 2]).sum() >= 50
    with pytest.raises(CompatibilityError, match=r"reducer 'supervised' .* learns from labels, and here are none"):
        coordinates(None)


def test_a_scikit_learn_transformer_that_learns_from_labels(tmp_path: Path, vectors: Any) -> None:
    spec = sklearn_reducer(
        "lda", "sklearn.discriminant_analysis:LinearDiscriminantAnalysis", has_transform=True, needs_labels=True
    )
    plugins = with_reducer(spec)
    config = load_config({"reducer": "lda", "n_components": 1})
    context = BuildContext(config=config, n_components=1)
    labels = (vectors[:, 0] > np.median(vectors[:, 0])).astype(np.int64)
    reducer, cache = choose("reducer", config, plugins), Cache(tmp_path / "cache")
    fitted = fit_map(Pooled(vectors, "key"), reducer, cache, context, needs_reducer=False, labels=labels)
    found = fitted.coordinates
    apart = found[labels == 1].mean() - found[labels == 0].mean()
    assert abs(apart) > found[labels == 0].std()


# ---- vectors that are alike

REDUCERS = sorted(item.spec.name for item in Plugins().components() if item.spec.kind == "reducer")
OPTIONS = {"hybrid": {"steps": [{"reducer": "pca", "n_components": 2}, {"reducer": "pca"}]}}
"""Options of reducers whose defaults need a plugin."""


@pytest.mark.parametrize("noise", [0.0, 1e-7])
@pytest.mark.parametrize("reducer", REDUCERS)
def test_all_reducers_answer_alike_to_vectors_that_are_alike(tmp_path: Path, reducer: str, noise: float) -> None:
    rng = np.random.default_rng(0)
    vectors = (np.array([0.3, -2.0]) * (1 + noise * rng.uniform(-1, 1, (200, 2)))).astype(np.float32)
    assert (len(np.unique(vectors, axis=0)) > 1) == (noise > 0)
    with pytest.raises(DataError) as caught:
        fit(tmp_path, Plugins(), vectors, reducer=reducer, reducer_options=OPTIONS.get(reducer, {}))
    assert str(caught.value) == (
        "the vectors of the 200 texts are all alike, of which no map can be made: look at the texts, and at whether "
        "the tokenizer knows their words (settings text_column, tokenizer and teacher), or set schedule='none' to "
        "distil without a map"
    )


@pytest.mark.parametrize("reducer", REDUCERS)
def test_two_different_vectors_make_no_map_of_two_dimensions(tmp_path: Path, reducer: str) -> None:
    vectors = np.float32([[0, 1], [1, 0]])[np.arange(200) % 2]
    with pytest.raises(DataError, match=r"the vectors of the 200 texts are but 2 different ones, of which no map"):
        fit(tmp_path, Plugins(), vectors, reducer=reducer, reducer_options=OPTIONS.get(reducer, {}))


def test_landmarks_that_are_alike(tmp_path: Path, plugins: Plugins, vectors: Any) -> None:
    vectors[:-3] = vectors[0]
    with pytest.raises(DataError, match="the vectors of the 20 texts are all alike"):
        fit(tmp_path, plugins, vectors, landmarks=20, landmark_choice="random")


def test_few_different_vectors_are_found_wherever_they_stand() -> None:
    vectors = np.ones((2 * BLOCK_ROWS + 1, 3), np.float32)
    check_distinct(vectors[:1], 2)  # of one text there is nothing to compare
    vectors[-1] = 2
    check_distinct(vectors, 1)
    with pytest.raises(DataError, match="2 different ones"):
        check_distinct(vectors, 2)
    vectors[BLOCK_ROWS, 0] = 1.001
    check_distinct(vectors, 2)
    check_distinct(vectors, 3)
    # a vector of zeros, and others far from it
    check_distinct(np.diag(np.float32([0, 1, 1e-30])), 2)
