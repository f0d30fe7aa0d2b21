"""`sklearn_reducer`: any scikit-learn style transformer as a reducer."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import NMF, PCA, FastICA, TruncatedSVD
from sklearn.manifold import TSNE
from sklearn.random_projection import GaussianRandomProjection

from sage_kit.adapters import FreeOptions, sklearn_reducer
from sage_kit.components import BuildContext, Reducer, ReducerSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError, ConfigError, PluginError


@pytest.fixture
def vectors() -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.random.default_rng(0).standard_normal((80, 12)).astype(np.float32)
    array.flags.writeable = False
    return array


def build(spec: ReducerSpec, n_components: int = 3, seed: int = 5, **options: Any) -> Any:
    context = BuildContext(config=RunConfig(), n_components=n_components, seed=seed)
    return spec.factory(spec.options.model_validate(options), context)


def test_a_class_gives_options_and_capabilities() -> None:
    svd = sklearn_reducer("svd", TruncatedSVD, n_iter=7)
    assert svd.summary == "TruncatedSVD (sklearn)"
    assert (svd.has_transform, svd.has_inverse, svd.has_state) == (True, True, False)
    assert set(svd.options.model_fields) == {"algorithm", "n_oversamples", "power_iteration_normalizer", "tol"}
    assert svd.options().model_dump(mode="json")["algorithm"] == "randomized"
    tsne = sklearn_reducer("tsne", TSNE, summary="t-SNE", max_components=3)
    assert (tsne.summary, tsne.has_transform, tsne.has_inverse, tsne.max_components) == ("t-SNE", False, False, 3)
    assert "copy" not in sklearn_reducer("pca2", PCA).options.model_fields


def test_what_a_class_cannot_tell_is_said_by_keyword() -> None:
    spec = sklearn_reducer(
        "x", NMF, has_inverse=False, has_transform=False, repeatable=False, requires=("scikit-learn>=1.4",), install="i"
    )
    assert (spec.has_transform, spec.has_inverse, spec.repeatable) == (False, False, False)
    assert (spec.requires, spec.install) == (("scikit-learn>=1.4",), "i")


def test_a_string_is_not_imported_before_it_is_used() -> None:
    spec = sklearn_reducer("x", "no_such_module:Thing", has_transform=True)
    assert spec.options is FreeOptions
    assert (spec.summary, spec.has_transform, spec.has_inverse) == ("Thing (no_such_module)", True, False)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        build(spec)
    with pytest.raises(PluginError, match="has no class 'Nothing'"):
        build(sklearn_reducer("x", "sklearn.decomposition:Nothing"))


@pytest.mark.parametrize("estimator", [TruncatedSVD, "sklearn.decomposition:TruncatedSVD"])
def test_it_is_the_estimator_with_seed_components_and_options(vectors: Any, estimator: Any) -> None:
    spec = sklearn_reducer("svd", estimator, has_transform=True, has_inverse=True, n_iter=3)
    reducer = build(spec, n_components=4, seed=2**32 + 9, n_oversamples=6)
    assert isinstance(reducer, Reducer)
    parameters = reducer.estimator.get_params()
    assert {name: parameters[name] for name in ("n_components", "random_state", "n_iter", "n_oversamples")} == {
        "n_components": 4, "random_state": 9, "n_iter": 3, "n_oversamples": 6,
    }  # fmt: skip
    coordinates = reducer.fit_transform(vectors)
    reference = TruncatedSVD(4, random_state=9, n_iter=3, n_oversamples=6)
    np.testing.assert_allclose(coordinates, reference.fit_transform(vectors), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reducer.transform(vectors), reference.transform(vectors), rtol=1e-4, atol=1e-5)
    back = reducer.inverse_transform(coordinates)
    np.testing.assert_allclose(back, reference.inverse_transform(coordinates), rtol=1e-4, atol=1e-5)
    assert coordinates.dtype == back.dtype == reducer.transform(vectors).dtype == np.float32


def test_other_estimators(vectors: Any) -> None:
    before = vectors.copy()
    for estimator in (PCA, FastICA, GaussianRandomProjection):
        assert build(sklearn_reducer("x", estimator)).fit_transform(vectors).shape == (80, 3)
    np.testing.assert_array_equal(vectors, before)


def test_an_estimator_without_fit_transform(vectors: Any) -> None:
    class First:
        """Keeps the first columns; takes neither components nor a seed."""

        def __init__(self, width: int = 3, scale: float = 1.0) -> None:
            self.width, self.scale = width, scale

        def fit(self, x: Any) -> First:
            return self

        def transform(self, x: Any) -> Any:
            return x[:, : self.width].astype(np.float64) * self.scale

    spec = sklearn_reducer("first", First)
    assert (spec.has_transform, spec.has_inverse) == (True, False)
    np.testing.assert_allclose(build(spec, scale=2.0).fit_transform(vectors), vectors[:, :3] * 2)
    with pytest.raises(PluginError, match=r"shape \(80, 2\) instead of \(80, 3\)"):
        build(spec, width=2).fit_transform(vectors)


def test_defaults_that_json_cannot_hold_are_left_to_the_constructor(vectors: Any) -> None:
    class Odd(TruncatedSVD):
        def __init__(self, n_components: int, strategy: Any = np.mean, weights: Any = (1, None)) -> None:
            super().__init__(n_components)
            self.strategy, self.weights = strategy, weights

    spec = sklearn_reducer("odd", Odd)
    assert set(spec.options.model_fields) == {"weights"}
    assert build(spec).estimator.strategy is np.mean


def test_keyword_arguments_of_any_name(vectors: Any) -> None:
    class Anything(TruncatedSVD):
        def __init__(self, **given: Any) -> None:
            super().__init__(3)
            self.given = given

    spec = sklearn_reducer("anything", Anything)
    assert build(spec, colour="red").estimator.given == {"colour": "red"}


def test_mistakes_are_one_clear_line(vectors: Any) -> None:
    with pytest.raises(CompatibilityError, match=r"reducer 'nmf' cannot be fitted on 80 vectors with 12 dim.*Negative"):
        build(sklearn_reducer("nmf", NMF)).fit_transform(vectors)
    with pytest.raises(CompatibilityError, match="The 'algorithm' parameter of TruncatedSVD") as caught:
        build(sklearn_reducer("svd", TruncatedSVD), algorithm="fast").fit_transform(vectors)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"does not take these options: .*colour"):
        build(sklearn_reducer("svd", "sklearn.decomposition:TruncatedSVD"), colour="red")


def test_a_plugin_of_one_line(vectors: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        textwrap.dedent(
            """
            from sage_kit import hookimpl
            from sage_kit.adapters import sklearn_reducer

            @hookimpl
            def sage_reducers():
                yield sklearn_reducer("ica", "sklearn.decomposition:FastICA", has_transform=True, has_inverse=True)
            """
        ),
        "utf-8",
    )
    plugins = Plugins(files=[file], allow="")
    context = BuildContext(config=RunConfig(), n_components=2)
    reducer = plugins.build("reducer", "ica", {"whiten": "unit-variance", "max_iter": 500}, context)
    coordinates = reducer.fit_transform(vectors)
    assert reducer.estimator.max_iter == 500
    assert coordinates.shape == (80, 2)
    assert reducer.inverse_transform(coordinates).shape == (80, 12)
