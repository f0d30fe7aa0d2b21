"""Reducer `hybrid`."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from sage_kit.components import BuildContext
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.errors import CompatibilityError, ConfigError, MissingPackageError, UnknownComponentError
from sage_kit.recipe import resolve

TWO_PCAS = {"steps": [{"reducer": "pca", "n_components": 10}, {"reducer": "pca"}]}
WHITE = {
    "steps": [
        {"reducer": "random_projection", "n_components": 12},
        {"reducer": "pca", "n_components": 5, "options": {"whiten": True}},
        {"reducer": "pca"},
    ]
}


def test_two_pcas_are_one(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "hybrid", TWO_PCAS, n_components=3)
    coordinates = reducer.fit_transform(vectors)
    reference = PCA(3).fit(vectors.astype(np.float64))
    expected = reference.transform(vectors)
    signs = np.sign((coordinates * expected).sum(0))
    np.testing.assert_allclose(coordinates * signs, expected, atol=1e-3)
    assert coordinates.dtype == np.float32
    assert reducer.widths_ == [10, 3]


def test_steps_are_undone_backwards(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "hybrid", WHITE, n_components=2)
    coordinates = reducer.fit_transform(vectors)
    np.testing.assert_allclose(reducer.transform(vectors[:7]), coordinates[:7], atol=1e-4)
    by_hand = coordinates
    for step in reversed(reducer.steps_):
        by_hand = step.inverse_transform(by_hand)
    np.testing.assert_array_equal(reducer.inverse_transform(coordinates), by_hand)
    assert by_hand.shape == vectors.shape


def test_a_step_keeps_no_more_than_it_is_given(build: Any, vectors: Any) -> None:
    options = {"steps": [{"reducer": "pca", "n_components": 50}, {"reducer": "pca"}]}
    reducer = build("reducer", "hybrid", options, n_components=2)
    assert reducer.fit_transform(vectors).shape == (300, 2)
    assert reducer.widths_ == [24, 2]
    few = build("reducer", "hybrid", options, n_components=2)
    assert few.fit_transform(vectors[:6]).shape == (6, 2)
    assert few.widths_ == [5, 2]
    again = build("reducer", "hybrid", options, n_components=2)
    again.set_state(few.get_state())
    np.testing.assert_array_equal(again.transform(vectors), few.transform(vectors))
    np.testing.assert_array_equal(again.inverse_transform(again.transform(vectors)).shape, vectors.shape)


def test_it_can_do_what_all_its_steps_can(plugins: Plugins) -> None:
    plain = plugins.reducer("hybrid", TWO_PCAS)
    assert (plain.has_transform, plain.has_inverse, plain.has_state, plain.repeatable) == (True,) * 4
    assert plain.min_rows is not None
    assert plain.min_rows(plugins.options("reducer", "hybrid", TWO_PCAS), 4) == 5
    # what listings show knows no options, so it promises nothing
    assert not plugins.reducer("pca").refine
    assert not plugins.spec("reducer", "hybrid").has_inverse  # type: ignore[attr-defined]


def write_plugin(folder: Any) -> str:
    """Reducers that lack this or that: `blind` has no transform, `narrow` takes at most 2 components and 7 rows."""
    path = folder / "lacking.py"
    path.write_text(
        "from sage_kit import hookimpl\n"
        "from sage_kit.components import ReducerSpec\n"
        "class Blind:\n"
        "    def __init__(self, options, context):\n"
        "        self.n = context.n_components\n"
        "    def fit_transform(self, vectors):\n"
        "        return vectors[:, :self.n].copy()\n"
        "@hookimpl\n"
        "def sage_reducers():\n"
        "    yield ReducerSpec(name='blind', summary='x', factory=Blind)\n"
        "    yield ReducerSpec(name='narrow', summary='x', factory=Blind, max_components=2,\n"
        "                      min_rows=lambda options, n: 7 + n, repeatable=False)\n"
    )
    return str(path)


def test_one_step_that_lacks_something_takes_it_from_the_chain(tmp_path: Any) -> None:
    plugins = Plugins([write_plugin(tmp_path)], allow="")
    options = {"steps": [{"reducer": "pca", "n_components": 4}, {"reducer": "narrow"}]}
    spec = plugins.reducer("hybrid", options)
    assert (spec.has_transform, spec.has_inverse, spec.has_state, spec.repeatable) == (False,) * 4
    assert spec.max_components == 2
    assert spec.min_rows is not None
    assert spec.min_rows(plugins.options("reducer", "hybrid", options), 2) == 9
    config = load_config({"reducer": "hybrid", "reducer_options": options, "inverter": "native", "lift": "shift"})
    with pytest.raises(CompatibilityError, match="reducer 'hybrid' does not have"):
        resolve(config, plugins)
    with pytest.raises(CompatibilityError, match="n_components is 3, but reducer 'hybrid' takes at most 2"):
        resolve(config.model_copy(update={"inverter": "knn", "n_components": 3}), plugins)
    resolve(config.model_copy(update={"inverter": "knn"}), plugins)
    swapped = {"steps": [{"reducer": "narrow", "n_components": 3}, {"reducer": "pca"}]}
    with pytest.raises(CompatibilityError, match=r"step 1 of reducer 'hybrid' has n_components 3.*at most 2"):
        plugins.reducer("hybrid", swapped)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"reducer": "pca"}], "a list should have at least 2 items"),
        (3, "option 'steps' is 3: input should be a valid list"),
        ([{"reducer": "pca"}, {"reducer": "pca"}], r"step 1 \(pca\) needs n_components"),
        ([{"reducer": "pca", "n_components": 3}, {"reducer": "pca", "n_components": 2}], "leave its own out"),
        ([{"reducer": "pca", "n_components": 3}, {"reducer": "pac"}], "Unknown reducer 'pac'. Did you mean 'pca'"),
        ([{"reducer": "pca", "n_components": 3, "options": {"whitn": 1}}, {"reducer": "pca"}], "whitn"),
        ([{"reducer": "pca", "components": 3}, {"reducer": "pca"}], "'steps', item 1: unknown option 'components'"),
        ([{"n_components": 3}, {"reducer": "pca"}], "'steps', item 1: 'reducer' is required"),
    ],
)
def test_wrong_steps_are_told_in_one_line(plugins: Plugins, build: Any, steps: Any, message: str) -> None:
    with pytest.raises((ConfigError, CompatibilityError), match=message) as caught:
        build("reducer", "hybrid", {"steps": steps}, n_components=2)
    assert "\n" not in str(caught.value)


def test_a_step_that_is_not_there(plugins: Plugins) -> None:
    """The default ends in umap, which is a distribution of its own."""
    with pytest.raises((MissingPackageError, UnknownComponentError), match=r"umap"):
        plugins.reducer("hybrid")


@pytest.mark.plugins
def test_pca_and_then_umap(vectors: Any) -> None:
    plugins = Plugins()
    options = {"steps": [{"reducer": "pca", "n_components": 8}, {"reducer": "umap", "options": {"n_epochs": 20}}]}
    spec = plugins.reducer("hybrid", options)
    assert (spec.has_transform, spec.has_inverse, spec.has_state) == (True, True, False)
    assert spec.min_rows is not None
    assert spec.min_rows(plugins.options("reducer", "hybrid", options), 2) == 16
    context = BuildContext(config=RunConfig(), n_components=2, seed=3)
    reducer = plugins.build("reducer", "hybrid", options, context)
    coordinates = reducer.fit_transform(vectors)
    by_hand = plugins.build("reducer", "umap", {"n_epochs": 20}, context)
    first = plugins.build("reducer", "pca", {}, dataclasses.replace(context, n_components=8))
    np.testing.assert_array_equal(coordinates, by_hand.fit_transform(first.fit_transform(vectors)))
    assert reducer.inverse_transform(coordinates[:3]).shape == (3, 24)


def test_more_components_than_a_step_leaves(build: Any) -> None:
    with pytest.raises(CompatibilityError, match="leaves 10 dimensions"):
        build("reducer", "hybrid", TWO_PCAS, n_components=11)
