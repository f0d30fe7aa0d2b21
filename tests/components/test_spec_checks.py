"""What is wrong with a spec is told by its plugin."""

from __future__ import annotations

import pytest
from pluginsources import Install, only_cause, reducer

from sage_kit.components.plugins import Plugins
from sage_kit.components.spec_checks import missing_requirements


@pytest.mark.parametrize("name", ["Acme", "1acme", "acme-map", "acme map", "", "acme\\n", "_acme"])
def test_malformed_name(install: Install, name: str) -> None:
    install(reducer(name))
    assert "': a name is lower case letters, digits and underscores" in only_cause(Plugins(allow="acme"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("requires=('bad requirement!',)", "'bad requirement!' is no requirement"),
        ("requires='openTSNE'", "requires is the text 'openTSNE', not a tuple"),
        ("requires=None", "requires is None, not a tuple of text"),
        ("requires=(3,)", "requires is (3,), not a tuple of text"),
        ("options=dict", "its options <class 'dict'> are no subclass of sage_kit.components.Options"),
        ("options=Options()", "its options Options() are no subclass"),
        ("install=3", "install is 3, not text"),
        ("has_transform='yes'", "has_transform is 'yes', not True or False"),
        ("max_components='2'", "max_components is '2', not an integer or None"),
        ("min_rows=3", "min_rows is 3, not a function or None"),
        ("refine={}", "refine is {}, not a function or None"),
    ],
)
def test_malformed_spec(install: Install, more: str, words: str) -> None:
    install(reducer(more=more))
    cause = only_cause(Plugins(allow="acme"))
    assert cause.startswith("reducer 'acme_map': ")
    assert words in cause


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("text_columns='text'", "text_columns is 'text', not a tuple of text"),
        ("text_columns=()", "text_columns names 0 columns, not one or two"),
        ("text_columns=('a',), labels=(0, 1)", "labels is (0, 1), not a tuple of text"),
        ("text_columns=('a',), label_range=(1,)", "label_range is (1,), not two numbers"),
        ("text_columns=('a',), hub='glue'", "hub is 'glue', not a HubSource or None"),
        ("text_columns=('a',), loader='load'", "loader is 'load', not a function or None"),
        ("text_columns=('a',), summary=None", "summary is None, not text"),
    ],
)
def test_malformed_task(install: Install, fields: str, words: str) -> None:
    summary = "" if "summary" in fields else "summary='', "
    install(f"@hookimpl\ndef sage_tasks():\n    yield TaskSpec(name='one', {summary}{fields})\n")
    assert words in only_cause(Plugins(allow="acme"))


def test_sampler_of_an_unknown_space(install: Install) -> None:
    install(
        "@hookimpl\ndef sage_samplers():\n    yield SamplerSpec(name='one', summary='', factory=print, space='plane')\n"
    )
    assert "space is 'plane', not 'map' or 'full'" in only_cause(Plugins(allow="acme"))


def test_factory_that_cannot_be_called(install: Install) -> None:
    install("@hookimpl\ndef sage_reducers():\n    yield ReducerSpec(name='one', summary='', factory=3)\n")
    assert only_cause(Plugins(allow="acme")) == "reducer 'one': its factory 3 cannot be called"


def test_one_plugin_contributes_a_name_twice(install: Install) -> None:
    spec = "ReducerSpec(name='same', summary='', factory=print)"
    install(f"@hookimpl\ndef sage_reducers():\n    yield {spec}\n    yield {spec}\n")
    assert only_cause(Plugins(allow="acme")) == "it contributes reducer 'same' twice"


def test_missing_requirements_heed_markers() -> None:
    assert missing_requirements(["no-such-package; python_version < '3'", "pluggy>=1"]) == []
    assert missing_requirements(["no-such-package; python_version >= '3'"]) == [
        "no-such-package; python_version >= '3'"
    ]
