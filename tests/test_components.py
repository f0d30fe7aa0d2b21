from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any

import pytest
from pydantic import ValidationError

from sage_kit import components
from sage_kit.components import (
    PROTOCOLS,
    BuildContext,
    ComponentSpec,
    HubSource,
    InverterSpec,
    Options,
    ReducerSpec,
    SamplerSpec,
    TaskSpec,
    lazy,
)
from sage_kit.components.spec_checks import KINDS
from sage_kit.config import RunConfig

SPECS = [value for name, value in vars(components).items() if name.endswith("Spec") and value is not ComponentSpec]


def make(options: Any, context: BuildContext) -> object:
    return object()


def test_options_refuse_unknown_names_and_changes() -> None:
    class MyOptions(Options):
        k: int = 3

    with pytest.raises(ValidationError, match="Extra inputs"):
        MyOptions(kk=4)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        MyOptions().k = 5  # type: ignore[misc]


def test_lazy_imports_on_the_first_call_and_passes_both_arguments() -> None:
    # OrderedDict(options, context) would need mappings: any class of two arguments shows that both arrive.
    factory = lazy("types:MethodType")
    context = BuildContext(config=RunConfig())
    method = factory(lambda self: self, context)
    assert method() is context
    assert factory.__name__ == "types:MethodType"


@pytest.mark.parametrize("target", ["package.module", "package:", ":Class", "", "a b:C", "package.module:Class.method"])
def test_lazy_refuses_a_malformed_target_at_once(target: str) -> None:
    with pytest.raises(ValueError, match=r"expected 'package\.module:Class'"):
        lazy(target)


def test_specs_cannot_be_changed() -> None:
    spec = ReducerSpec(name="x", summary="", factory=make)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "y"  # type: ignore[misc]


def test_capabilities_are_the_fields_beyond_the_head_and_can_be_written_as_json() -> None:
    reducer = ReducerSpec(name="x", summary="", factory=make, has_transform=True, max_components=3)
    assert reducer.capabilities() == {
        "has_transform": True,
        "has_inverse": False,
        "max_components": 3,
        "uses_gpu": False,
        "repeatable": True,
        "has_state": False,
        "needs_labels": False,
        "inverse_min_components": 1,
    }
    assert SamplerSpec(name="x", summary="", factory=make, min_rows=lambda o: 2).capabilities() == {
        "space": "map",
        "needs_classes": False,
        "needs_gradient": False,
        "needs_hidden": False,
        "gives_shares": False,
        "anchors_alone": False,
        "needs_outputs": False,
        "needs_losses": True,
    }
    assert InverterSpec(name="x", summary="", factory=make).capabilities() == {
        "needs_inverse": False,
        "base_option": "",
    }


def test_task_capabilities_name_the_sources_there_are() -> None:
    task = TaskSpec(name="t", summary="", text_columns=("a", "b"), labels=("no", "yes"), hub=HubSource("x/y"))
    assert task.capabilities() == {"texts": 2, "labels": ["no", "yes"], "metrics": ["accuracy"], "sources": ["hub"]}
    assert (task.n_outputs, task.is_regression) == (2, False)
    loaded = TaskSpec(name="t", summary="", text_columns=("a",), local="x", loader=lambda config: {})
    assert loaded.capabilities()["sources"] == ["local", "package"]
    assert (loaded.n_outputs, loaded.is_regression) == (1, True)


def test_every_spec_has_a_kind_of_its_own() -> None:
    kinds = [spec.kind for spec in SPECS]
    assert len(set(kinds)) == len(kinds)
    assert set(kinds) == set(KINDS)


def test_every_kind_has_a_protocol_or_is_known_to_have_none() -> None:
    assert set(PROTOCOLS) == set(KINDS) - {"task", "observer"}


def test_every_protocol_method_tells_what_it_takes_and_gives() -> None:
    for protocol in PROTOCOLS.values():
        methods = [value for name, value in vars(protocol).items() if not name.startswith("_")]
        assert methods
        for method in methods:
            assert method.__doc__
            assert method.__annotations__["return"] is not None


def test_context_defaults_do_nothing() -> None:
    context = BuildContext(config=RunConfig())
    context.announce("text")
    assert context.component("inverter", "knn", OrderedDict()) is None
