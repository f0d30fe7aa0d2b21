"""Choices that do not exist, do not go together or do not fit the data, with the built-ins and a one-file plugin."""

from __future__ import annotations

from typing import Any

import pytest

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.errors import CompatibilityError, ConfigError, MissingPackageError, SageError, UnknownComponentError
from sage_kit.recipe import CHOSEN_KINDS, calls_inverse, resolve

PLUGIN = """
from pydantic import Field
from sage_kit import hookimpl
from sage_kit.components import InverterSpec, ObserverSpec, Options, ReducerSpec, SamplerSpec


def factory(options, context):
    raise AssertionError("nothing is built before everything is checked")


class Neighbors(Options):
    k: int = Field(default=10, ge=1)


class Over(Options):
    inner: str = "knn"
    inner_options: dict = {}


class OverWithoutOptions(Options):
    inner: str = "native"


@hookimpl
def sage_reducers():
    yield ReducerSpec(name="plane", summary="At most two dimensions, no inverse", factory=factory, max_components=2,
                      options=Neighbors, min_rows=lambda options, n_components: options.k * n_components)
    yield ReducerSpec(name="both_ways", summary="With an inverse", factory=factory, has_inverse=True)
    yield ReducerSpec(name="exotic", summary="Needs a package", factory=factory, requires=("no-such-package-1",),
                      install="pip install that")


@hookimpl
def sage_samplers():
    yield SamplerSpec(name="near", summary="Needs neighbours", factory=factory, options=Neighbors,
                      min_rows=lambda options: options.k + 1)
    yield SamplerSpec(name="any", summary="Needs nothing", factory=factory)
    yield SamplerSpec(name="direct", summary="Without a map", factory=factory, space="full")


@hookimpl
def sage_inverters():
    yield InverterSpec(name="over", summary="Over another", factory=factory, options=Over, base_option="inner")
    yield InverterSpec(name="bare", summary="Over another", factory=factory, options=OverWithoutOptions,
                       base_option="inner")
    yield InverterSpec(name="itself", summary="Calls the inverse, over one that does not", factory=factory,
                       options=Over, base_option="inner", needs_inverse=True)


@hookimpl
def sage_observers():
    yield ObserverSpec(name="recorder", summary="Records", factory=factory, options=Neighbors)
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    file = tmp_path_factory.mktemp("plugin") / "fakes.py"
    file.write_text(PLUGIN, encoding="utf-8")
    return Plugins([file], allow="")


def config(**changes: Any) -> RunConfig:
    return RunConfig(**{"reducer": "plane", "sampler": "near", **changes})


def refused(error: type[SageError], plugins: Plugins, **changes: Any) -> str:
    with pytest.raises(error) as caught:
        resolve(config(**changes), plugins)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- what a run uses


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, CHOSEN_KINDS),
        ({"sampler": "direct"}, ("sampler", "lift", "filter", "stop_rule")),
        ({"schedule": "none"}, ("stop_rule",)),
        ({"schedule": "static"}, CHOSEN_KINDS),
    ],
)
def test_kinds_that_are_needed(plugins: Plugins, changes: dict[str, Any], kinds: tuple[str, ...]) -> None:
    assert tuple(resolve(config(**changes), plugins)) == kinds


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reducer": "both_ways", "inverter": "native", "n_components": 7},
        {"inverter": "anchored", "inverter_options": {"base": "knn", "base_options": {"k": 5}}},
        {"reducer": "both_ways", "inverter_options": {"base": "native", "base_options": {"chunk": 5}}},
        {"inverter": "over", "inverter_options": {"inner": "anchored"}},
        {"observers": [], "observer_options": {}},
        {"observers": ["recorder"], "observer_options": {"recorder": {"k": 3}}},
        # what is not used is not looked at
        {"sampler": "direct", "reducer": "absent", "inverter": "absent", "n_components": 99},
        {"schedule": "none", "sampler": "absent", "filter_options": {"absent": 1}},
    ],
)
def test_choices_that_go_together(plugins: Plugins, changes: dict[str, Any]) -> None:
    resolve(config(**changes), plugins)


# ---- choices that do not exist


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "sst"}, "Unknown task 'sst'. Did you mean 'sst2'? Available: "),
        ({"reducer": "plain"}, "Unknown reducer 'plain'. Did you mean 'plane'? Available: "),
        ({"sampler": "nearly"}, "Unknown sampler 'nearly'. Did you mean 'near'? Available: "),
        ({"inverter": "kn"}, "Unknown inverter 'kn'. Did you mean 'knn'? Available: anchored, bare, "),
        ({"lift": "shft"}, "Unknown lift 'shft'. Did you mean 'shift'? Available: "),
        ({"filter": "cosin"}, "Unknown filter 'cosin'. Did you mean 'cosine'? Available: "),
        ({"stop_rule": "agree"}, "Unknown stop rule 'agree'. Did you mean 'agreement'? Available: "),
        ({"observers": ["jsnl"]}, "Unknown observer 'jsnl'. Did you mean 'jsonl'? Available: "),
        ({"observer_options": {"jsnl": {}}}, "Unknown observer 'jsnl'. Did you mean 'jsonl'? Available: "),
        ({"inverter_options": {"base": "kn"}}, "Unknown inverter 'kn'. Did you mean 'knn'? Available: "),
    ],
)
def test_an_unknown_component(plugins: Plugins, changes: dict[str, Any], message: str) -> None:
    assert refused(UnknownComponentError, plugins, **changes).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reducer_options": {"kk": 1}}, "reducer 'plane': Unknown option 'kk'. Did you mean 'k'? Available: k."),
        ({"sampler_options": {"k": 0}}, "sampler 'near': option 'k' is 0: input should be greater than or equal to 1"),
        ({"sampler_options": {"k": "many"}}, "sampler 'near': option 'k' is 'many': input should be a valid integer"),
        (
            {"observers": ["recorder"], "observer_options": {"recorder": {"x": 1}}},
            "observer 'recorder': Unknown option",
        ),
        ({"observer_options": {"recorder": 3}, "observers": ["recorder"]}, "observer 'recorder': its options are 3"),
        ({"inverter_options": {"base_options": {"kk": 1}}}, "inverter 'knn': Unknown option 'kk'. Did you mean 'k'?"),
    ],
)
def test_an_unknown_option_or_a_bad_value(plugins: Plugins, changes: dict[str, Any], message: str) -> None:
    assert refused(ConfigError, plugins, **changes).startswith(message)


def test_a_component_without_its_package(plugins: Plugins) -> None:
    message = refused(MissingPackageError, plugins, reducer="exotic")
    assert message == "reducer 'exotic' needs no-such-package-1: pip install that"


# ---- choices that do not go together


def test_more_components_than_the_reducer_takes(plugins: Plugins) -> None:
    message = refused(CompatibilityError, plugins, n_components=3)
    assert message == "n_components is 3, but reducer 'plane' takes at most 2"
    resolve(config(n_components=2), plugins)


@pytest.mark.parametrize(
    ("changes", "chain"),
    [
        ({"inverter": "native"}, "'native'"),
        ({"inverter": "anchored", "inverter_options": {"base": "native"}}, "'anchored' over 'native'"),
        ({"inverter": "bare"}, "'bare' over 'native'"),
        ({"inverter": "itself"}, "'itself'"),
        (
            {
                "inverter": "over",
                "inverter_options": {"inner": "anchored", "inner_options": {"base": "native"}},
            },
            "'over' over 'anchored' over 'native'",
        ),
    ],
)
def test_an_inverter_that_calls_the_inverse_of_a_reducer_without_one(
    plugins: Plugins, changes: dict[str, Any], chain: str
) -> None:
    message = refused(CompatibilityError, plugins, **changes)
    assert message.startswith(f"inverter {chain} calls the reducer's inverse, which reducer 'plane' does not have: ")
    assert "'anchored' over 'knn', or a reducer that has one (autoencoder, both_ways, " in message
    assert calls_inverse(config(**changes), plugins)
    assert resolve(config(**changes, reducer="both_ways"), plugins).needs_inverse


@pytest.mark.parametrize("changes", [{"inverter": "knn"}, {"inverter": "anchored"}, {"inverter": "over"}])
def test_an_inverter_that_calls_no_inverse(plugins: Plugins, changes: dict[str, Any]) -> None:
    assert not calls_inverse(config(**changes), plugins)


def test_an_inverter_built_over_itself(plugins: Plugins) -> None:
    message = refused(ConfigError, plugins, inverter="anchored", inverter_options={"base": "anchored"})
    assert "an inverter cannot be its own base; take 'knn' or 'native'" in message
    loop = {"inner": "over", "inner_options": {"inner": "over"}}
    message = refused(CompatibilityError, plugins, inverter="over", inverter_options=loop)
    assert message == "inverter 'over' is built over itself: over over over"
    longer = {"inner": "anchored", "inner_options": {"base": "over", "base_options": {"inner": "anchored"}}}
    message = refused(CompatibilityError, plugins, inverter="over", inverter_options=longer)
    assert message == "inverter 'over' is built over itself: over over anchored over over"


@pytest.mark.parametrize(
    "changes", [{"sampler": "boundary"}, {"filter": "teacher_confidence"}, {"filter": "agreement_with_anchor"}]
)
def test_components_that_look_at_classes_are_refused_for_regression(plugins: Plugins, changes: dict[str, Any]) -> None:
    (name,) = changes.values()
    for task in ({"task": "stsb"}, {"task": "file", "task_kind": "regression"}):
        message = refused(CompatibilityError, plugins, **changes, **task)
        assert f"'{name}' looks at classes, and task '{task['task']}' is a regression task" in message
    resolve(config(**changes), plugins)


# ---- choices that do not fit the data


def too_small(plugins: Plugins, rows: int, dim: int = 8, **changes: Any) -> str:
    with pytest.raises(CompatibilityError) as caught:
        resolve(config(**changes), plugins).check_sizes(rows, dim)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_fewer_rows_than_the_samplers_neighbours(plugins: Plugins) -> None:
    settings = {"reducer": "both_ways", "sampler_options": {"k": 15}}
    assert too_small(plugins, 15, **settings) == (
        "sampler 'near' needs at least 16 training examples with these options, and there are 15: ask for fewer "
        "neighbours or use more data"
    )
    resolve(config(**settings), plugins).check_sizes(16, 8)


def test_fewer_rows_than_the_reducer_needs(plugins: Plugins) -> None:
    settings = {"sampler": "any", "reducer_options": {"k": 10}}
    assert too_small(plugins, 19, **settings) == (
        "reducer 'plane' needs at least 20 training examples with these options, and there are 19: ask for fewer "
        "neighbours or components, or use more data"
    )
    resolve(config(**settings), plugins).check_sizes(20, 8)


def test_fewer_rows_than_components(plugins: Plugins) -> None:
    settings = {"sampler": "any", "reducer": "both_ways", "n_components": 5}
    assert "reducer 'both_ways' needs at least 6 training examples" in too_small(plugins, 5, **settings)
    resolve(config(**settings), plugins).check_sizes(6, 8)
    # a reducer that says less than one row more than it has components is not believed
    few = {"sampler": "any", "reducer_options": {"k": 1}}
    assert "reducer 'plane' needs at least 3 training examples" in too_small(plugins, 2, **few)


def test_more_components_than_dimensions(plugins: Plugins) -> None:
    settings = {"sampler": "any", "reducer": "both_ways", "n_components": 9}
    assert too_small(plugins, 100, **settings) == "n_components is 9, but the vectors have 8 dimensions"
    resolve(config(**settings), plugins).check_sizes(100, 9)


@pytest.mark.parametrize("changes", [{"sampler": "direct", "n_components": 99}, {"schedule": "none"}])
def test_what_is_not_used_needs_no_rows(plugins: Plugins, changes: dict[str, Any]) -> None:
    resolve(config(**changes), plugins).check_sizes(1, 1)


def test_the_built_in_samplers_need_one_row_more_than_neighbours(plugins: Plugins) -> None:
    for sampler in ("high_loss", "random"):
        settings = {"sampler": sampler, "sampler_options": {"k": 4}, "reducer": "pca", "lift": "shift"}
        assert "needs at least 5 training examples" in too_small(plugins, 4, **settings)
        resolve(config(**settings), plugins).check_sizes(5, 8)


@pytest.mark.plugins
@pytest.mark.parametrize("inverter", [{"inverter": "native"}, {"inverter_options": {"base": "native"}}])
def test_the_inverse_of_umap_needs_a_plane(inverter: dict[str, Any]) -> None:
    plugins = Plugins()
    settings = {"task": "sst2", "reducer": "umap", "n_components": 1, "lift": "shift"}
    resolve(load_config(settings), plugins)
    with pytest.raises(CompatibilityError, match=r"'umap' has from 2 dimensions on, and n_components is 1: raise"):
        resolve(load_config({**settings, **inverter}), plugins)


def test_the_inverse_of_a_chain_has_the_least_dimensions_of_its_last_step(plugins: Plugins) -> None:
    steps = {"steps": [{"reducer": "pca", "n_components": 8}, {"reducer": "pca"}]}
    assert plugins.reducer("hybrid", steps).inverse_min_components == 1
    chosen = {"reducer": "hybrid", "reducer_options": steps, "n_components": 1, "inverter": "native"}
    resolve(load_config({"task": "sst2", **chosen}), plugins)
