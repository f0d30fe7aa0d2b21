from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pluggy
import pytest
from pluginsources import Install, only_cause, reducer

import sage_kit
from sage_kit.components import BuildContext, Options
from sage_kit.components.loader import ALLOW_VARIABLE, Origin
from sage_kit.components.plugins import FIRST_PARTY, Plugins
from sage_kit.components.spec_checks import KINDS, unmet
from sage_kit.config import RunConfig
from sage_kit.errors import (
    CompatibilityError,
    ConfigError,
    MissingPackageError,
    PluginError,
    UnknownComponentError,
)
from sage_kit.storage.fingerprint import fingerprint


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
        if item.spec.kind != "task" and not unmet(item.spec.requires):
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


# ---- one plugin alone


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


def test_hook_marked_optional_may_be_unknown(install: Install) -> None:
    install(reducer() + "@hookimpl(optionalhook=True)\ndef sage_of_tomorrow():\n    pass\n")
    assert "acme_map" in Plugins(allow="acme").names("reducer")


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


def test_a_task_may_depend_on_its_options(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file("""
        class MineOptions(Options):
            language: str = "en"
            labels: int = 2

        def refine(options):
            return {"local": f"mine/{options.language}", "labels": ("no", "yes", "maybe")[: options.labels]}

        @hookimpl
        def sage_tasks():
            yield TaskSpec(name="mine", summary="", text_columns=("text",), options=MineOptions, refine=refine)
            yield TaskSpec(name="odd", summary="", text_columns=("text",), refine=lambda options: {"labels": 3})
    """)
    plugins = Plugins([path], allow="")
    assert plugins.task("mine").local == "mine/en"
    assert plugins.task("mine", {"language": "de", "labels": 3}).source_of("train").local == "mine/de/train"
    assert plugins.task("mine", {"labels": 3}).labels == ("no", "yes", "maybe")
    with pytest.raises(ConfigError, match="task 'mine': Unknown option 'lang'"):
        plugins.task("mine", {"lang": "de"})
    with pytest.raises(PluginError, match=r"task 'odd' .* by refine: labels is 3, not a tuple of text"):
        plugins.task("odd")


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
