from __future__ import annotations

import itertools
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pluggy
import pytest

import sage_kit
from sage_kit import hookimpl
from sage_kit.components import BuildContext, Options
from sage_kit.components.loader import ALLOW_VARIABLE, Origin
from sage_kit.components.plugins import FIRST_PARTY, Plugins
from sage_kit.components.records import Costs, RoundResult, RunInfo
from sage_kit.components.spec_checks import KINDS, missing_requirements
from sage_kit.config import RunConfig
from sage_kit.errors import (
    CompatibilityError,
    ConfigError,
    MissingPackageError,
    PluginError,
    SageError,
    UnknownComponentError,
)
from sage_kit.storage.fingerprint import fingerprint

HEAD = """
from sage_kit import hookimpl
from sage_kit.components import *
from sage_kit.components import lazy
"""

REDUCER = """
class Reducer:
    def fit_transform(self, vectors):
        return vectors[:, :2]

@hookimpl
def sage_reducers():
    yield ReducerSpec(name="{name}", summary="A reducer", factory=lambda options, context: Reducer(){more})
"""

counter = itertools.count()

Install = Callable[..., str]


@pytest.fixture(autouse=True)
def no_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_VARIABLE, raising=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with one entry point on the path: a module and the dist-info that an installer would write."""

    def install_one(
        source: str, *, plugin: str = "acme", distribution: str = "acme-sage", version: str = "1.2", attribute: str = ""
    ) -> str:
        folder = tmp_path / f"site{next(counter)}"
        module = f"sage_kit_test_plugin_{next(counter)}"
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(HEAD + textwrap.dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[sage_kit]\n{plugin} = {module}{attribute and ':'}{attribute}\n")
        monkeypatch.syspath_prepend(str(folder))
        return module

    return install_one


@pytest.fixture
def plugin_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a one-file plugin."""

    def write(source: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(HEAD + textwrap.dedent(source))
        return path

    return write


def reducer(name: str = "acme_map", more: str = "") -> str:
    return REDUCER.format(name=name, more=f", {more}" if more else "")


def context() -> BuildContext:
    return BuildContext(config=RunConfig())


# ---- built-ins


def test_built_ins_are_there_without_any_plugin() -> None:
    plugins = Plugins(allow="")
    assert plugins.quarantined == []
    assert {item.origin.distribution for item in plugins.components()} == {"sage-kit"}
    assert {item.origin.version for item in plugins.components()} == {sage_kit.__version__}
    assert plugins.reducer("pca").has_inverse


def test_components_are_ordered_by_kind_and_name() -> None:
    items = [(KINDS.index(item.spec.kind), item.spec.name) for item in Plugins(allow="").components()]
    assert items == sorted(items)
    assert [item.spec.kind for item in Plugins(allow="").components("lift")] == ["lift"] * len(
        Plugins(allow="").names("lift")
    )


def test_every_built_in_has_a_summary_of_one_line_and_options_that_stand_without_values() -> None:
    plugins = Plugins(allow="")
    for item in plugins.components():
        assert item.spec.summary
        assert "\n" not in item.spec.summary
        if item.spec.kind != "task":
            plugins.options(item.spec.kind, item.spec.name, {})


def test_every_option_of_a_built_in_has_a_description() -> None:
    for item in Plugins(allow="").components():
        options = getattr(item.spec, "options", Options)
        for name, field in options.model_fields.items():
            assert field.description, (item.spec.name, name)


def test_the_default_and_the_paper_preset_name_components_that_exist() -> None:
    from sage_kit.config import PRESETS, load_config

    plugins = Plugins(allow="")
    for preset in PRESETS:
        config = load_config(preset=preset)
        for kind in ("sampler", "inverter", "lift", "filter", "stop_rule"):
            assert config.component_choice(kind)[0] in plugins.names(kind)
        assert config.reducer in plugins.names("reducer") or ("reducer", config.reducer) in FIRST_PARTY
        assert set(config.observers) <= set(plugins.names("observer"))


# ---- installed plugins


def test_installed_plugin_contributes_and_its_origin_is_known(install: Install) -> None:
    install(reducer())
    item = Plugins(allow="acme").registered("reducer", "acme_map")
    assert item.origin == Origin("acme", "acme-sage", "1.2")
    assert str(item.origin) == "acme-sage 1.2"


def test_all_installed_plugins_load_by_default(install: Install) -> None:
    install(reducer())
    install(reducer("bell_map"), plugin="bell", distribution="bell-sage")
    assert {"acme_map", "bell_map"} <= set(Plugins().names("reducer"))


def test_allow_list_chooses(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(reducer())
    install(reducer("bell_map"), plugin="bell", distribution="bell-sage")
    assert {"acme_map", "bell_map"} & set(Plugins(allow="bell").names("reducer")) == {"bell_map"}
    assert {"acme_map", "bell_map"} <= set(Plugins(allow=" bell , acme,").names("reducer"))
    monkeypatch.setenv(ALLOW_VARIABLE, "acme")
    assert {"acme_map", "bell_map"} & set(Plugins().names("reducer")) == {"acme_map"}
    # An argument beats the variable.
    assert {"acme_map", "bell_map"} & set(Plugins(allow="").names("reducer")) == set()


def test_empty_allow_list_loads_no_external_plugin(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("raise AssertionError('this must not be imported')")
    monkeypatch.setenv(ALLOW_VARIABLE, "")
    plugins = Plugins()
    assert plugins.quarantined == []
    assert "acme-sage" in {origin.distribution for origin in plugins.not_allowed}


def test_allow_list_with_an_unknown_name(install: Install) -> None:
    install(reducer())
    with pytest.raises(PluginError, match=r"names the plugin 'acm', which is not installed\. Did you mean 'acme'\?"):
        Plugins(allow="acm")


def test_names_with_a_minus_are_left_out(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("raise AssertionError('this must not be imported')")
    install(reducer("bell_map"), plugin="bell", distribution="bell-sage")
    install(reducer("cord_map"), plugin="cord", distribution="cord-sage")
    ours = {"bell_map", "cord_map"}
    plugins = Plugins(allow="-acme")
    assert ours <= set(plugins.names("reducer"))
    assert not [bad for bad in plugins.quarantined if bad.origin.plugin == "acme"]
    assert Origin("acme", "acme-sage", "1.2") in plugins.not_allowed
    monkeypatch.setenv(ALLOW_VARIABLE, " -acme , - bell,")
    assert ours & set(Plugins().names("reducer")) == {"cord_map"}


@pytest.mark.parametrize("allow", ["acme,-bell", "-acme,bell", "-acme,acme"])
def test_names_with_and_without_a_minus_make_no_sense(install: Install, allow: str) -> None:
    install(reducer())
    install(reducer("bell_map"), plugin="bell", distribution="bell-sage")
    with pytest.raises(PluginError, match=f"{ALLOW_VARIABLE} is '{allow}', which names both .* keep one kind"):
        Plugins(allow=allow)


def test_a_plugin_to_leave_out_that_is_not_installed(install: Install) -> None:
    install(reducer())
    with pytest.raises(PluginError, match=r"names the plugin 'acm', which is not installed\. Did you mean 'acme'\?"):
        Plugins(allow="-acm")


def test_component_of_a_plugin_that_is_left_out_says_so(install: Install) -> None:
    install(reducer("acme"))
    with pytest.raises(
        UnknownComponentError, match=f"'acme' .acme-sage 1.2. is installed, but {ALLOW_VARIABLE} leaves"
    ):
        Plugins(allow="").reducer("acme")


# ---- quarantine


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise RuntimeError", "RuntimeError"),
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("from sage_kit.components import NoLongerThere", "ImportError: cannot import name 'NoLongerThere'"),
        ("", "it implements no hook: decorate its functions with sage_kit.hookimpl"),
        ("def sage_reducers():\n    return []\n", "it implements no hook"),
        ("@hookimpl\ndef sage_reducers():\n    raise SystemExit(3)\n", "sage_reducers raised SystemExit: 3"),
        ("@hookimpl\nasync def sage_reducers():\n    return []\n", "sage_reducers is async: write a plain function"),
        (
            "class Mine(ReducerSpec):\n    kind = 'mapper'\n\n"
            "@hookimpl\ndef sage_reducers():\n    yield Mine(name='one', summary='', factory=print)\n",
            "sage_reducers yielded a spec of kind 'mapper', not 'reducer'",
        ),
        (
            "@hookimpl\ndef sage_reducers():\n    ReducerSpec(name='one', summary='', factory=print)\n",
            "`sage_reducers` returned nothing: yield the spec or return a list",
        ),
        (
            "@hookimpl\ndef sage_reducers():\n    return 3\n",
            "sage_reducers raised TypeError: 'int' object is not iterable",
        ),
        (
            "@hookimpl\ndef sage_reducers():\n"
            "    yield ReducerSpec(name='acme_map', summary='', factory=print)\n    raise KeyboardInterrupt\n",
            "sage_reducers raised KeyboardInterrupt",
        ),
        (
            "@hookimpl\ndef sage_reducers():\n    yield ReducerSpec(name='one', summary='')\n",
            "sage_reducers raised TypeError: ",
        ),
        ("@hookimpl\ndef sage_reducers():\n    raise ValueError('a\\nb')\n", "sage_reducers raised ValueError: a b"),
        ("@hookimpl\ndef sage_reducers():\n    yield 'map'\n", "sage_reducers yielded 'map', which is no ReducerSpec"),
        (
            "@hookimpl\ndef sage_lifts():\n    yield TaskSpec(name='t', summary='', text_columns=('a',))\n",
            "which is no LiftSpec",
        ),
        (
            "@hookimpl\ndef sage_reducers():\n    return ReducerSpec(name='one', summary='', factory=lazy('a:B'))\n",
            "sage_reducers returned one ReducerSpec: yield it, or return a list",
        ),
        (
            "@hookimpl\ndef sage_reducers():\n    yield ReducerSpec(name='one', summary='', factory=lazy('a.B'))\n",
            "sage_reducers raised ValueError: lazy('a.B')",
        ),
    ],
)
def test_broken_plugin_is_quarantined_with_its_cause(install: Install, source: str, cause: str) -> None:
    install(source)
    plugins = Plugins(allow="acme")
    assert [bad.origin for bad in plugins.quarantined] == [Origin("acme", "acme-sage", "1.2")]
    assert cause in plugins.quarantined[0].cause
    # Everything else works ...
    assert plugins.reducer("pca").name == "pca"
    # ... and only a name that may have come from the plugin is an error, which names it and its cause.
    with pytest.raises(UnknownComponentError) as caught:
        plugins.reducer("acme_map")
    assert str(caught.value).startswith("Unknown reducer 'acme_map'.")
    assert "Plugin 'acme' (acme-sage 1.2) is in quarantine: " in str(caught.value)
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_quarantined_plugin_leaves_nothing_behind(install: Install) -> None:
    module = install(
        reducer()
        + "heard = []\n"
        + "@hookimpl\ndef sage_message(text):\n    heard.append(text)\n"
        + "@hookimpl\ndef sage_lifts():\n    raise ValueError('no')\n"
    )
    plugins = Plugins(allow="acme")
    assert "acme_map" not in plugins.names("reducer")
    plugins.message(None, "hello")
    assert sys.modules[module].heard == []


def test_entry_point_found_twice_counts_once(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = install(reducer())
    # Metadata of a second distribution with the same entry point, as a renamed one leaves behind.
    info = tmp_path / "site_again" / "acme_sage_old-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-sage-old\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sage_kit]\nacme = {module}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site_again"))
    assert Plugins(allow="acme").names("reducer").count("acme_map") == 1


# ---- one plugin alone


def only_cause(plugins: Plugins) -> str:
    """Why the one plugin is in quarantine, while everything else works."""
    assert [str(bad) for bad in plugins.quarantined] == ["plugin 'acme' (acme-sage 1.2)"]
    assert plugins.reducer("pca").name == "pca"
    return plugins.quarantined[0].cause


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


def test_a_name_that_two_plugins_contribute_is_an_error_and_all_else_works(install: Install) -> None:
    install(
        reducer("same") + "\n@hookimpl\ndef sage_lifts():\n    yield LiftSpec(name='a', summary='', factory=print)\n"
    )
    install(
        reducer("same") + "\n@hookimpl\ndef sage_lifts():\n    yield LiftSpec(name='b', summary='', factory=print)\n",
        plugin="bell", distribution="bell-sage", version="3.0",
    )  # fmt: skip
    plugins = Plugins(allow="acme,bell")
    assert {"a", "b"} <= set(plugins.names("lift"))
    assert "same" not in plugins.names("reducer")
    assert [str(bad) for bad in plugins.quarantined] == ["reducer 'same' of plugin 'bell' (bell-sage 3.0)"]
    with pytest.raises(PluginError) as caught:
        plugins.reducer("same")
    assert str(caught.value) == (
        "reducer 'same' is contributed by both acme-sage 1.2 and bell-sage 3.0: leave out one with "
        f"{ALLOW_VARIABLE}=-bell or {ALLOW_VARIABLE}=-acme"
    )
    # both remedies help
    assert "same" in Plugins(allow="-acme").names("reducer")
    assert Plugins(allow="-bell").registered("reducer", "same").origin.plugin == "acme"


def test_a_name_that_three_plugins_contribute(install: Install) -> None:
    for plugin in ("acme", "bell", "cord"):
        install(reducer("same"), plugin=plugin, distribution=f"{plugin}-sage")
    with pytest.raises(PluginError) as caught:
        Plugins(allow="acme,bell,cord").reducer("same")
    assert str(caught.value) == (
        "reducer 'same' is contributed by acme-sage 1.2, bell-sage 1.2, cord-sage 1.2: leave out all but one with "
        f"{ALLOW_VARIABLE}=-bell,-cord or {ALLOW_VARIABLE}=-acme,-cord or {ALLOW_VARIABLE}=-acme,-bell"
    )
    assert "same" in Plugins(allow="-bell,-cord").names("reducer")


def test_two_plugins_of_one_name_cannot_be_told_apart_by_it(install: Install) -> None:
    install(reducer("same"))
    install(reducer("same"), distribution="bell-sage")
    with pytest.raises(PluginError, match=r"both acme-sage 1\.2 and bell-sage 1\.2: uninstall one$"):
        Plugins(allow="acme").reducer("same")


def test_a_file_that_takes_a_name_is_told_to_take_another(install: Install, plugin_file: Callable[..., Path]) -> None:
    with pytest.raises(PluginError, match=r"mine\.py: reducer 'pca' is contributed by both .*give yours another name"):
        Plugins([plugin_file(reducer("pca"))], allow="")
    install(reducer("same"))
    install(reducer("same"), plugin="bell", distribution="bell-sage")
    with pytest.raises(PluginError, match=r"by acme-sage 1\.2 and bell-sage 1\.2 and .*give yours another name"):
        Plugins([plugin_file(reducer("same"))], allow="acme,bell")


def test_a_built_in_keeps_its_name(install: Install) -> None:
    install(
        reducer("pca") + "\n@hookimpl\ndef sage_lifts():\n    yield LiftSpec(name='a', summary='', factory=print)\n"
    )
    plugins = Plugins(allow="acme")
    assert plugins.registered("reducer", "pca").origin.distribution == "sage-kit"
    assert "a" in plugins.names("lift")
    assert [str(bad) for bad in plugins.quarantined] == ["reducer 'pca' of plugin 'acme' (acme-sage 1.2)"]
    assert plugins.quarantined[0].cause == (
        f"contributed by both sage-kit {sage_kit.__version__} and acme-sage 1.2: the built-in one keeps the name"
    )
    # a component in quarantine is no reason for an unknown name
    with pytest.raises(UnknownComponentError) as caught:
        plugins.reducer("acme_map")
    assert "quarantine" not in str(caught.value)


def test_one_name_in_two_kinds_is_no_collision(install: Install) -> None:
    install(reducer("shift"))
    assert "shift" in Plugins(allow="acme").names("reducer")


def test_mistyped_hook(install: Install) -> None:
    install("@hookimpl\ndef sage_reducer():\n    return []\n")
    plugins = Plugins(allow="acme")
    assert only_cause(plugins).startswith(
        "it implements an unknown hook 'sage_reducer'. Did you mean 'sage_reducers'? Hooks: "
    )
    with pytest.raises(UnknownComponentError, match="in quarantine: it implements an unknown hook 'sage_reducer'"):
        plugins.reducer("acme_map")
    # what a quarantined plugin implements is no burden to the next one
    assert "mine_map" not in plugins.names("reducer")
    install(reducer("bell_map"), plugin="bell", distribution="bell-sage")
    assert "bell_map" in Plugins(allow="acme,bell").names("reducer")


def test_hook_with_an_unknown_parameter(install: Install) -> None:
    module = install(
        "heard = []\n"
        "@hookimpl\ndef sage_message(text):\n    heard.append(text)\n"
        "@hookimpl\ndef sage_round_finished(results):\n    pass\n"
    )
    plugins = Plugins(allow="acme")
    assert re.search(r"'results'.* can not be found", only_cause(plugins))
    plugins.message(None, "hello")
    assert sys.modules[module].heard == []


def test_hook_wrapper_is_refused(install: Install) -> None:
    install("@hookimpl(wrapper=True)\ndef sage_message(text):\n    return (yield)\n")
    plugins = Plugins(allow="acme")
    assert "has a hook wrapper, which sage_kit does not call" in only_cause(plugins)
    plugins.message(None, "hello")


def test_object_that_cannot_even_be_looked_at(install: Install) -> None:
    install(
        "class Meta(type):\n"
        "    def __dir__(self):\n        raise SystemExit(7)\n"
        "class Plugin(metaclass=Meta):\n    pass\n",
        attribute="Plugin",
    )
    assert "its hooks cannot be read: SystemExit: 7 at " in only_cause(Plugins(allow="acme"))


def test_two_entry_points_that_name_one_module(install: Install, tmp_path: Path) -> None:
    module = install(reducer())
    (next(tmp_path.glob("site*/*.dist-info")) / "entry_points.txt").write_text(
        f"[sage_kit]\nacme = {module}\nbell = {module}\n"
    )
    plugins = Plugins(allow="acme,bell")
    assert "acme_map" in plugins.names("reducer")
    assert [(bad.origin.plugin, bad.cause) for bad in plugins.quarantined] == [("bell", "it is registered already")]


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        ("no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("sage_kit.builtin:nothing", "AttributeError: "),
        ("not valid!", "its entry point 'not valid!' is neither MODULE nor MODULE:OBJECT"),
    ],
)
def test_entry_point_that_points_to_nothing(install: Install, tmp_path: Path, value: str, cause: str) -> None:
    install("")
    (next(tmp_path.glob("site*/*.dist-info")) / "entry_points.txt").write_text(f"[sage_kit]\nacme = {value}\n")
    assert only_cause(Plugins(allow="acme")).startswith(cause)


@pytest.mark.parametrize("content", [b"[sage_kit]\nnot an entry point\n", b"[sage_kit]\nacme = \xff\n"])
def test_metadata_that_cannot_be_read_hides_no_other_plugin(install: Install, tmp_path: Path, content: bytes) -> None:
    install("", distribution="torn-sage", plugin="torn")
    torn = next(tmp_path.glob("site*/torn_sage*.dist-info"))
    install(reducer())
    (torn / "entry_points.txt").write_bytes(content)
    plugins = Plugins(allow="acme")
    assert "acme_map" in plugins.names("reducer")
    assert [str(bad) for bad in plugins.quarantined] == ["plugin 'torn-sage' (torn-sage 1.2)"]
    assert plugins.quarantined[0].cause.startswith("its entry points cannot be read: ")


def test_distribution_without_name_and_version(install: Install, tmp_path: Path) -> None:
    install(reducer())
    (next(tmp_path.glob("site*/*.dist-info")) / "METADATA").write_text("Metadata-Version: 2.1\n")
    origin = Plugins(allow="acme").registered("reducer", "acme_map").origin
    assert (origin.plugin, origin.version) == ("acme", "unknown")


def test_hook_marked_optional_may_be_unknown(install: Install) -> None:
    install(reducer() + "@hookimpl(optionalhook=True)\ndef sage_of_tomorrow():\n    pass\n")
    assert "acme_map" in Plugins(allow="acme").names("reducer")


# ---- one-file plugins


def test_one_file_plugin(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file(reducer("mine"))
    plugins = Plugins([path], allow="")
    assert plugins.registered("reducer", "mine").origin == Origin("mine", str(path), "")
    assert str(plugins.registered("reducer", "mine").origin) == str(path)


def test_two_files_of_one_name(plugin_file: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [plugin_file(reducer("first")), plugin_file(reducer("second"), "other/mine.py")]
    assert {"first", "second"} <= set(Plugins(files, allow="").names("reducer"))


def test_edited_file_is_read_anew_and_nothing_is_written_beside_it(plugin_file: Callable[..., Path]) -> None:
    for name in ("one", "two"):  # of equal length, within the same second
        path = plugin_file(reducer(name))
        assert name in Plugins([path], allow="").names("reducer")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_package", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit", "cannot be loaded: SystemExit"),
        ("x = (", "cannot be loaded: SyntaxError"),
        (
            "def sage_reducers():\n    return []\n",
            "it implements no hook: decorate its functions with sage_kit.hookimpl",
        ),
        ("@hookimpl\ndef sage_reducers():\n    raise ValueError('no')\n", "sage_reducers raised ValueError: no"),
        ("@hookimpl\ndef sage_reducer():\n    pass\n", "unknown hook 'sage_reducer'. Did you mean 'sage_reducers'?"),
        (
            "@hookimpl\ndef sage_reducers():\n    pass\n",
            "`sage_reducers` returned nothing: yield the spec or return a list",
        ),
        ("raise KeyboardInterrupt", "cannot be loaded: KeyboardInterrupt"),
    ],
)
def test_broken_file_is_an_error_since_the_user_named_it(
    plugin_file: Callable[..., Path], source: str, words: str
) -> None:
    path = plugin_file(source)
    with pytest.raises(PluginError) as caught:
        Plugins([path], allow="")
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"no\.py does not exist"):
        Plugins([tmp_path / "no.py"], allow="")


def test_file_that_is_not_python(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("")
    with pytest.raises(PluginError, match=r"mine\.txt is not a Python file"):
        Plugins([path], allow="")


def test_same_file_twice(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file(reducer("mine"))
    with pytest.raises(PluginError, match="is registered already"):
        Plugins([path, path], allow="")


def test_file_with_only_an_observing_hook(plugin_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    plugins = Plugins([plugin_file("@hookimpl\ndef sage_message(text):\n    print('heard', text)\n")], allow="")
    plugins.message(None, "hello")
    assert capsys.readouterr().out == "heard hello\n"


# ---- look-up


def test_unknown_component() -> None:
    with pytest.raises(UnknownComponentError) as caught:
        Plugins(allow="").spec("stop_rule", "agrement")
    assert str(caught.value) == "Unknown stop rule 'agrement'. Did you mean 'agreement'? Available: agreement."


@pytest.mark.parametrize(("kind", "name"), FIRST_PARTY)
def test_first_party_component_that_is_not_installed(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    with pytest.raises(MissingPackageError) as caught:
        Plugins().spec(kind, name)
    words = kind.replace("_", " ")
    assert str(caught.value) == f"{words} {name!r} is not installed: pip install ./plugins/{FIRST_PARTY[kind, name]}"


def test_missing_package_shows_the_install_command(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file("""
        needs = ("no-such-package>=1.0", "pluggy>=99", "pluggy>=1.0")

        @hookimpl
        def sage_reducers():
            yield ReducerSpec(name="plain", summary="", factory=lazy("a:B"), requires=needs)
            told = "pip install ./plugins/acme"
            yield ReducerSpec(name="told", summary="", factory=lazy("a:B"), requires=needs, install=told)
    """)
    plugins = Plugins([path], allow="")
    with pytest.raises(MissingPackageError) as caught:
        plugins.reducer("plain")
    assert str(caught.value) == (
        f"reducer 'plain' needs no-such-package>=1.0, pluggy>=99 (version {pluggy.__version__} is installed): "
        "pip install 'no-such-package>=1.0' 'pluggy>=99'"
    )
    with pytest.raises(MissingPackageError, match=r": pip install \./plugins/acme$"):
        plugins.reducer("told")


def test_missing_requirements_heed_markers() -> None:
    assert missing_requirements(["no-such-package; python_version < '3'", "pluggy>=1"]) == []
    assert missing_requirements(["no-such-package; python_version >= '3'"]) == [
        "no-such-package; python_version >= '3'"
    ]


def test_options_are_checked() -> None:
    plugins = Plugins(allow="")
    with pytest.raises(ConfigError, match=r"^reducer 'pca': Unknown option 'whitten'\. Did you mean 'whiten'\?"):
        plugins.options("reducer", "pca", {"whitten": True})
    with pytest.raises(
        ConfigError, match=r"^reducer 'pca': option 'whiten' is 'perhaps': input should be a valid bool"
    ):
        plugins.options("reducer", "pca", {"whiten": "perhaps"})
    with pytest.raises(ConfigError, match=r"its options are 5: expected a table"):
        plugins.options("observer", "jsonl", 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("def model_dump(self, **how):\n        raise SystemExit(3)", "SystemExit: 3"),
        ("value: object = print", "PydanticSerializationError: "),
    ],
)
def test_options_that_cannot_be_written(plugin_file: Callable[..., Path], body: str, cause: str) -> None:
    path = plugin_file(f"class Mine(Options):\n    {body}\n" + reducer("mine", "options=Mine"))
    with pytest.raises(PluginError, match="reducer 'mine' .* has options that JSON cannot hold: " + cause):
        Plugins([path], allow="").options("reducer", "mine", {})


def test_options_given_as_an_object_are_taken_or_checked() -> None:
    plugins = Plugins(allow="")
    given = plugins.reducer("pca").options(whiten=True)  # type: ignore[call-arg]
    assert plugins.options("reducer", "pca", given) is given
    with pytest.raises(ConfigError, match="Unknown option 'whiten'"):
        plugins.options("stop_rule", "agreement", given)


# ---- building


def test_build_passes_options_and_context(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file("""
        class Mine:
            def __init__(self, options, context):
                self.options, self.context = options, context
            def fit_transform(self, vectors):
                return vectors

        class MineOptions(Options):
            k: int = 3

        @hookimpl
        def sage_reducers():
            yield ReducerSpec(name="mine", summary="", factory=Mine, options=MineOptions)
    """)
    plugins = Plugins([path], allow="")
    built = plugins.build("reducer", "mine", {"k": 4}, context())
    assert built.options.k == 4
    # The context can build further components.
    assert type(built.context.component("reducer", "mine", {})) is type(built)
    other = built.context.component("reducer", "mine", {}, n_components=7, seed=5)
    assert (other.context.n_components, other.context.seed, built.context.n_components) == (7, 5, 2)


def test_build_tells_what_it_built() -> None:
    plugins = Plugins(allow="")
    built: list[Any] = []
    inverter = plugins.build("inverter", "anchored", {"base": "knn"}, context(), built)
    assert [item.spec.name for item, _ in built] == ["knn", "anchored"]
    assert built[1][1] is inverter


def test_what_a_component_caches_is_told_apart_by_component_options_seed_and_source(
    plugin_file: Callable[..., Path],
) -> None:
    path = plugin_file("""
        class Mine:
            def __init__(self, options, context):
                self.value = context.cached("thing", [1, "a"], lambda: {"x": options.k})
            def fit_transform(self, vectors):
                return vectors

        class MineOptions(Options):
            k: int = 3

        @hookimpl
        def sage_reducers():
            yield ReducerSpec(name="mine", summary="", factory=Mine, options=MineOptions)
            yield ReducerSpec(name="other", summary="", factory=Mine, options=MineOptions)
    """)
    keys = []

    def cached(name: str, parts: Any, compute: Any) -> Any:
        keys.append(fingerprint(name, *parts))
        return compute()

    def build(name: str = "mine", k: int = 3, seed: int = 0) -> Any:
        chosen = replace(context(), cached=cached, seed=seed)
        return Plugins([path], allow="").build("reducer", name, {"k": k}, chosen)

    assert build().value == {"x": 3}
    build()
    build(k=4)
    build(seed=1)
    build(name="other")
    path.write_text(path.read_text() + "edited = True\n")
    build()
    assert keys[0] == keys[1]
    assert len(set(keys)) == 5


def test_a_spec_may_depend_on_the_options(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file("""
        class Mine:
            def __init__(self, options, context):
                if options.k > 3:
                    self.transform = lambda vectors: vectors
            def fit_transform(self, vectors):
                return vectors

        class MineOptions(Options):
            k: int = 3

        def refine(options, spec_of):
            return {"has_transform": options.k > 2, "max_components": spec_of("pca", {}).max_components or options.k}

        @hookimpl
        def sage_reducers():
            yield ReducerSpec(name="mine", summary="", factory=Mine, options=MineOptions, refine=refine)
    """)
    plugins = Plugins([path], allow="")
    assert not plugins.reducer("mine", {"k": 2}).has_transform
    assert plugins.reducer("mine", {"k": 2}).max_components == 2
    assert plugins.reducer("mine").has_transform
    assert plugins.reducer("mine").capabilities() == {"by_options": True}
    plugins.build("reducer", "mine", {"k": 4}, context())
    with pytest.raises(PluginError, match=r"without transform\(\)"):
        plugins.build("reducer", "mine", {"k": 3}, context())
    with pytest.raises(ConfigError, match="Unknown option"):
        plugins.reducer("mine", {"j": 1})


@pytest.mark.parametrize(
    ("more", "lacking"),
    [
        ("has_transform=True", "transform()"),
        ("has_inverse=True", "inverse_transform()"),
        ("has_state=True", "get_state(), set_state()"),
    ],
)
def test_declared_capability_needs_its_methods(plugin_file: Callable[..., Path], more: str, lacking: str) -> None:
    plugins = Plugins([plugin_file(reducer("mine", more))], allow="")
    with pytest.raises(PluginError) as caught:
        plugins.build("reducer", "mine", {}, context())
    assert f"is a Reducer without {lacking}: see ReducerSpec" in str(caught.value)


def test_object_without_the_methods_of_its_kind(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file(
        "@hookimpl\ndef sage_inverters():\n"
        "    yield InverterSpec(name='mine', summary='', factory=lambda options, context: 3)\n"
    )
    with pytest.raises(PluginError, match=r"inverter 'mine' .* is a int without fit\(\), invert\(\): see InverterSpec"):
        Plugins([path], allow="").build("inverter", "mine", {}, context())


def test_factory_that_raises(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file(reducer("mine").replace("Reducer()", "1 / 0"))
    with pytest.raises(
        PluginError, match=r"^reducer 'mine' \(.*mine\.py\) cannot be built: ZeroDivisionError: division"
    ):
        Plugins([path], allow="").build("reducer", "mine", {}, context())


def test_factory_whose_import_fails(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file(
        "@hookimpl\ndef sage_reducers():\n"
        "    yield ReducerSpec(name='mine', summary='', factory=lazy('no_such_package.module:Class'))\n"
    )
    with pytest.raises(PluginError, match="cannot be built: ModuleNotFoundError: No module named 'no_such_package'"):
        Plugins([path], allow="").build("reducer", "mine", {}, context())


def test_errors_of_sage_kit_pass_through_a_factory(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file(
        "from sage_kit.errors import CompatibilityError\n"
        "def factory(options, context):\n    raise CompatibilityError('too many components')\n"
        "@hookimpl\ndef sage_reducers():\n    yield ReducerSpec(name='mine', summary='', factory=factory)\n"
    )
    with pytest.raises(CompatibilityError, match=r"^too many components$"):
        Plugins([path], allow="").build("reducer", "mine", {}, context())


# ---- observers


class Recorder:
    """Notes what it hears, each hook with another subset of its parameters."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    @hookimpl
    def sage_run_started(self) -> None:
        self.heard.append("started")

    @hookimpl
    def sage_step_finished(self, total: int, activity: str) -> None:
        self.heard.append((activity, total))

    @hookimpl
    def sage_round_finished(self, result: Any, run: Any) -> None:
        self.heard.append((run, result))

    @hookimpl
    def sage_message(self, text: str, run: Any = "default") -> None:
        self.heard.append((text, run))


class Failing:
    """Raises whenever it hears one of two hooks."""

    calls = 0

    @hookimpl
    def sage_round_started(self, round: int) -> None:
        self.calls += 1
        raise RuntimeError(f"bad\nround {round}")

    @hookimpl
    def sage_message(self, text: str) -> None:
        self.calls += 1
        raise RuntimeError("mute")


RUN: Any = SimpleNamespace(name="run")


def test_observers_get_the_parameters_they_ask_for() -> None:
    plugins, recorder = Plugins(allow=""), Recorder()
    plugins.add_observer("recorder", recorder)
    plugins.run_started(RUN)
    plugins.step_finished(RUN, "train", 1, 9)
    plugins.round_finished(RUN, "result")  # type: ignore[arg-type]
    plugins.message(RUN, "text")
    # A parameter with a default is not a hook's parameter, as in pluggy.
    assert recorder.heard == ["started", ("train", 9), (RUN, "result"), ("text", "default")]


def test_failing_observer_is_disabled_reported_once_and_recorded() -> None:
    plugins, failing, recorder = Plugins(allow=""), Failing(), Recorder()
    plugins.add_observer("failing", failing)
    plugins.add_observer("recorder", recorder)
    plugins.round_started(RUN, 1)
    plugins.round_started(RUN, 2)
    plugins.message(RUN, "still here")
    cause = plugins.disabled["observer:failing"]
    assert re.fullmatch(rf"sage_round_started raised RuntimeError: bad round 1 at {re.escape(__file__)}:\d+", cause)
    assert [text for text, _ in recorder.heard] == [f"observer:failing is disabled: {cause}", "still here"]
    assert failing.calls == 1


def test_observer_that_fails_on_a_message_is_reported_to_the_others() -> None:
    plugins, recorder = Plugins(allow=""), Recorder()
    plugins.add_observer("failing", Failing())
    plugins.add_observer("also_failing", Failing())
    plugins.add_observer("recorder", recorder)
    plugins.message(None, "hello")
    assert set(plugins.disabled) == {"observer:failing", "observer:also_failing"}
    assert sorted(text.split()[0] for text, _ in recorder.heard) == [
        "hello",
        "observer:also_failing",
        "observer:failing",
    ]


@pytest.mark.parametrize("error", [SystemExit(4), KeyboardInterrupt(), GeneratorExit(), SageError("no"), Exception()])
def test_whatever_an_observer_raises_disables_it_alone(error: BaseException) -> None:
    class Leaving:
        @hookimpl
        def sage_round_started(self) -> None:
            raise error

    plugins, recorder, told = Plugins(allow=""), Recorder(), []
    plugins.record_disabled = lambda name, cause: told.append((name, cause))
    plugins.add_observer("leaving", Leaving())
    plugins.add_observer("recorder", recorder)
    plugins.round_started(RUN, 1)
    plugins.round_started(RUN, 2)
    (cause,) = plugins.disabled.values()
    assert cause.startswith(f"sage_round_started raised {type(error).__name__}")
    assert re.search(rf" at {re.escape(__file__)}:\d+$", cause)
    assert told == [("observer:leaving", cause)]
    assert recorder.heard == [(f"observer:leaving is disabled: {cause}", "default")]


def test_the_persons_own_interruption_is_not_swallowed() -> None:
    class Slow:
        @hookimpl
        def sage_message(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    plugins = Plugins(allow="")
    plugins.add_observer("slow", Slow())
    with pytest.raises(KeyboardInterrupt):
        plugins.message(None, "hello")
    assert plugins.disabled == {}


def test_an_observer_can_change_nothing_of_a_run(tmp_path: Path) -> None:
    class Meddler:
        @hookimpl
        def sage_round_finished(self, run: RunInfo, result: RoundResult) -> None:
            changes: list[Callable[[], Any]] = [
                lambda: run.costs.add("teacher", 1.0),
                lambda: run.examples.__setitem__("train", 0),  # type: ignore[attr-defined]
                lambda: run.parameters.__setitem__("student", 0),  # type: ignore[attr-defined]
                lambda: result.dev.__setitem__("agreement", 1.0),  # type: ignore[attr-defined]
                lambda: result.validation["v"].__setitem__("agreement", 1.0),  # type: ignore[index]
                lambda: run.history[0].dev.clear(),  # type: ignore[attr-defined]
            ]
            for number, change in enumerate(changes):
                with pytest.raises(TypeError, match="read-only"):
                    change()
                done.append(number)
            kept.append(run.costs)

        @hookimpl
        def sage_losses_profiled(self, losses: Any) -> None:
            with pytest.raises(ValueError, match="WRITEABLE"):
                losses.flags.writeable = True
            kept.append(losses)

        @hookimpl
        def sage_run_finished(self, summary: dict[str, Any]) -> None:
            summary["validation"]["v"]["agreement"] = 1.0

    done: list[int] = []
    kept: list[Any] = []
    scores = {"agreement": 0.5}
    result = RoundResult(1, 2, 2, 0.1, 0.9, 0.1, 3, 0, scores, {"v": scores}, 1.0, 0.0)
    costs = Costs()
    costs.add("teacher", 2.0)
    run = RunInfo(tmp_path, RunConfig(), {"train": 3}, {"student": 4}, "accuracy", (result,), costs)
    plugins = Plugins(allow="")
    plugins.add_observer("meddler", Meddler())
    plugins.round_finished(run, result)
    assert (done, plugins.disabled) == (list(range(6)), {})
    losses = np.zeros(3, np.float32)
    plugins.losses_profiled(run, 1, losses)
    costs.add("teacher", 1.0)
    losses[:] = 1
    # neither grew behind its back
    assert kept[0].seconds == {"teacher": 2.0}
    assert kept[1].tolist() == [0, 0, 0]
    summary = {"validation": {"v": {"agreement": 0.5}}}
    plugins.run_finished(run, summary)
    assert (summary, plugins.disabled) == ({"validation": {"v": {"agreement": 0.5}}}, {})
    assert result.dev == scores


def test_observers_are_called_in_order_of_registration_save_those_that_ask_otherwise() -> None:
    heard: list[str] = []

    def observer(name: str, **marks: bool) -> object:
        class Observer:
            @hookimpl(**marks)  # type: ignore[call-overload]
            def sage_message(self) -> None:
                heard.append(name)

        return Observer()

    plugins = Plugins(allow="")
    plugins.add_observer("last", observer("last", trylast=True))
    plugins.add_observer("a", observer("a"))
    plugins.add_observer("b", observer("b"))
    plugins.add_observer("first", observer("first", tryfirst=True))
    plugins.message(None, "hello")
    assert heard == ["first", "a", "b", "last"]


def test_removed_observers_hear_nothing_and_may_come_again() -> None:
    plugins, recorder = Plugins(allow=""), Recorder()
    plugins.add_observer("recorder", recorder)
    plugins.add_observer("failing", Failing())
    plugins.message(None, "one")
    plugins.remove_observers()
    plugins.message(None, "two")
    assert plugins.disabled == {}
    assert "two" not in [text for text, _ in recorder.heard]
    plugins.add_observer("recorder", recorder)
    plugins.message(None, "three")
    assert recorder.heard[-1] == ("three", "default")


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("sage_round_ended", "unknown hook 'sage_round_ended'. Did you mean 'sage_round_"),
        ("", "implements no hook: decorate its functions with sage_kit.hookimpl"),
    ],
)
def test_observer_with_the_wrong_hooks_is_refused_and_left_out(hook: str, words: str) -> None:
    methods = {hook: hookimpl(lambda self: None)} if hook else {}
    plugins = Plugins(allow="")
    with pytest.raises(PluginError) as caught:
        plugins.add_observer("mine", type("Mine", (), methods)())
    assert str(caught.value).startswith("observer 'mine' implements ")
    assert words in str(caught.value)
    plugins.add_observer("mine", Recorder())


def test_observer_with_an_unknown_parameter_is_refused_and_left_out() -> None:
    class Mine(Recorder):
        @hookimpl
        def sage_run_failed(self, reason: str) -> None:
            """Asks for a parameter that the hook does not have."""

    plugins, mine = Plugins(allow=""), Mine()
    with pytest.raises(PluginError, match=r"observer 'mine': .*'reason'"):
        plugins.add_observer("mine", mine)
    plugins.message(None, "hello")
    assert mine.heard == []


def test_an_observer_that_is_none_at_all() -> None:
    plugins = Plugins(allow="")
    with pytest.raises(PluginError, match="observer 'one' is None, not an object with hooks"):
        plugins.add_observer("one", None)
    plugins.add_observer("one", Recorder())


def test_same_observer_twice() -> None:
    plugins = Plugins(allow="")
    plugins.add_observer("one", Recorder())
    with pytest.raises(PluginError, match="observer 'one' is registered already"):
        plugins.add_observer("one", Recorder())


def test_observing_hooks_of_an_installed_plugin_are_called_and_isolated(install: Install) -> None:
    module = install("@hookimpl\ndef sage_message(text):\n    raise ValueError(text)\n")
    plugins, recorder = Plugins(allow="acme"), Recorder()
    plugins.add_observer("recorder", recorder)
    plugins.message(None, "hello")
    file = sys.modules[module].__file__
    assert plugins.disabled == {"acme-sage:acme": f"sage_message raised ValueError: hello at {file}:7"}
    assert ("hello", "default") in recorder.heard
