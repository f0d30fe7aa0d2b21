"""Families that contest a name or a model type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pluginsources import Install

import sage_kit
from sage_kit.components.loader import ALLOW_VARIABLE
from sage_kit.components.plugins import Plugins
from sage_kit.errors import ModelError, PluginError
from sage_kit.models.families import family_of, model_types


@pytest.fixture(autouse=True)
def built_in_again() -> Any:
    """The families of the process are the built-in ones again."""
    yield
    Plugins(allow="")


def family(name: str, *model_types: str) -> str:
    """A plugin with one family."""
    return f"""
        @hookimpl
        def sage_families():
            yield FamilySpec(
                name={name!r}, summary="A family", model_types={model_types!r}, embeddings="a.embeddings",
                blocks="a.layer", head=HeadParts(dense="d", output="o", dropout="p"),
            )
    """


def test_a_plugin_adds_a_type(plugin_file: Callable[..., Path]) -> None:
    plugins = Plugins([plugin_file(family("mine", "roformer", "luke"))], allow="")
    assert plugins.families()[-1].name == "mine"
    assert model_types()[:2] == ("bert", "roberta")
    assert model_types()[-2:] == ("roformer", "luke")
    assert family_of(SimpleNamespace(model_type="luke")).name == "mine"
    item = plugins.registered("family", "mine")
    assert item.spec.capabilities() == {"model_types": ["roformer", "luke"], "own_blocks": False, "masked_lm": False}
    # the families of others are as they were, and those of a run are its own
    others = Plugins(allow="")
    with pytest.raises(ModelError, match="'luke'"):
        family_of(SimpleNamespace(model_type="luke"))
    assert plugins.use().families()[-1].name == "mine"
    assert family_of(SimpleNamespace(model_type="luke")).name == "mine"
    assert "mine" not in others.names("family")


def test_two_plugins_of_one_type(install: Install) -> None:
    install(family("one", "luke", "roformer"))
    install(family("two", "mra", "luke"), plugin="bell", distribution="bell-sage", version="3.0")
    plugins = Plugins(allow="acme,bell")
    assert not {"one", "two"} & set(plugins.names("family"))
    assert [str(bad) for bad in plugins.quarantined] == ["family 'two' of plugin 'bell' (bell-sage 3.0)"]
    told = (
        "is contributed by both acme-sage 1.2 and bell-sage 3.0: leave out one with "
        f"{ALLOW_VARIABLE}=-bell or {ALLOW_VARIABLE}=-acme"
    )
    with pytest.raises(PluginError) as caught:
        family_of(SimpleNamespace(model_type="luke"))
    assert str(caught.value) == f"model type 'luke' {told}"
    with pytest.raises(PluginError) as caught:
        plugins.registered("family", "one")
    assert str(caught.value) == f"family 'one' {told}"
    # both remedies help
    Plugins(allow="-acme")
    assert family_of(SimpleNamespace(model_type="luke")).name == "two"
    Plugins(allow="-bell")
    assert family_of(SimpleNamespace(model_type="luke")).name == "one"


def test_a_built_in_keeps_its_type(install: Install) -> None:
    install(family("mine", "luke", "bert"))
    plugins = Plugins(allow="acme")
    assert "mine" not in plugins.names("family")
    assert family_of(SimpleNamespace(model_type="bert")).name == "bert"
    (bad,) = plugins.quarantined
    assert bad.cause == (
        f"model type 'bert' is contributed by both sage-kit {sage_kit.__version__} and acme-sage 1.2: the built-in one "
        "keeps it"
    )


@pytest.mark.parametrize(
    ("name", "types", "message"),
    [
        ("mine", ("luke", "bert"), r"model type 'bert' is contributed by both sage-kit .* leave it out of yours$"),
        ("bert", ("luke",), r"family 'bert' is contributed by both sage-kit .* give yours another name$"),
        ("mine", (), "family 'mine': model_types names no model type$"),
    ],
)
def test_a_file_is_told_at_once(
    plugin_file: Callable[..., Path], name: str, types: tuple[str, ...], message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        Plugins([plugin_file(family(name, *types))], allow="")


def test_a_plugin_in_quarantine_is_named_where_its_type_is_missed(install: Install) -> None:
    install("raise ImportError('no such library')")
    Plugins(allow="acme")
    with pytest.raises(ModelError, match=r"'luke': supported are .*in quarantine: .*no such library"):
        family_of(SimpleNamespace(model_type="luke"))


def test_what_a_family_raises_is_told_in_one_line(plugin_file: Callable[..., Path]) -> None:
    source = family("mine", "luke").replace(
        'summary="A family",', 'summary="A family", refuses=lambda config: config.no,'
    )
    Plugins([plugin_file(source)], allow="")
    with pytest.raises(PluginError, match=r"family 'mine' \(.*mine\.py\) failed in refuses: AttributeError"):
        family_of(SimpleNamespace(model_type="luke"), "x")
