from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

import sage_kit
from sage_kit import hookimpl
from sage_kit.components import BuildContext, Options
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError, ConfigError, MissingPackageError, PluginError, UnknownComponentError
from sage_kit.fingerprint import fingerprint
from sage_kit.plugins import ALLOW_VARIABLE, FIRST_PARTY, KINDS, Origin, Plugins, missing_requirements

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

    def install_one(source: str, *, plugin: str = "acme", distribution: str = "acme-sage", version: str = "1.2") -> str:
        folder = tmp_path / f"site{next(counter)}"
        module = f"sage_kit_test_plugin_{next(counter)}"
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(HEAD + textwrap.dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[sage_kit]\n{plugin} = {module}\n")
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
        ("", "it implements no hook: decorate its functions with sage_kit.hookimpl"),
        ("def sage_reducers():\n    return []\n", "it implements no hook"),
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


# ---- errors at once


@pytest.mark.parametrize("name", ["Acme", "1acme", "acme-map", "acme map", "", "acme\\n", "_acme"])
def test_malformed_name(install: Install, name: str) -> None:
    install(reducer(name))
    with pytest.raises(PluginError, match=r"of acme-sage 1\.2: a name is lower case letters, digits and underscores"):
        Plugins(allow="acme")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("requires=('bad requirement!',)", "'bad requirement!' is no requirement"),
        ("requires='openTSNE'", "requires is the text 'openTSNE', not a tuple"),
        ("options=dict", "its options <class 'dict'> are no subclass of sage_kit.components.Options"),
    ],
)
def test_malformed_spec(install: Install, more: str, words: str) -> None:
    install(reducer(more=more))
    with pytest.raises(PluginError) as caught:
        Plugins(allow="acme")
    assert str(caught.value).startswith("reducer 'acme_map' of acme-sage 1.2: ")
    assert words in str(caught.value)


def test_factory_that_cannot_be_called(install: Install) -> None:
    install("@hookimpl\ndef sage_reducers():\n    yield ReducerSpec(name='one', summary='', factory=3)\n")
    with pytest.raises(PluginError, match="its factory 3 cannot be called"):
        Plugins(allow="acme")


def test_collision_names_both_distributions(install: Install) -> None:
    install(reducer("same"))
    install(reducer("same"), plugin="bell", distribution="bell-sage", version="3.0")
    with pytest.raises(PluginError) as caught:
        Plugins(allow="acme,bell")
    assert "reducer 'same' is contributed by both acme-sage 1.2 and bell-sage 3.0" in str(caught.value)
    assert ALLOW_VARIABLE in str(caught.value)
    assert "same" in Plugins(allow="bell").names("reducer")


def test_a_file_that_takes_a_name_is_told_to_take_another(plugin_file: Callable[..., Path]) -> None:
    path = plugin_file("""
        @hookimpl
        def sage_reducers():
            yield ReducerSpec(name="pca", summary="", factory=print)
    """)
    with pytest.raises(PluginError, match="give yours another name"):
        Plugins([path], allow="")


def test_collision_with_a_built_in(install: Install) -> None:
    install(reducer("pca"))
    with pytest.raises(PluginError, match=r"contributed by both sage-kit [\d.]+ and acme-sage 1\.2"):
        Plugins(allow="acme")


def test_one_name_in_two_kinds_is_no_collision(install: Install) -> None:
    install(reducer("shift"))
    assert "shift" in Plugins(allow="acme").names("reducer")


def test_mistyped_hook(install: Install) -> None:
    install("@hookimpl\ndef sage_reducer():\n    return []\n")
    with pytest.raises(PluginError) as caught:
        Plugins(allow="acme")
    text = str(caught.value)
    assert (
        "plugin 'acme' (acme-sage 1.2) implements an unknown hook 'sage_reducer'. Did you mean 'sage_reducers'?" in text
    )
    assert text.endswith(f"Without it: uninstall acme-sage, or leave it out of {ALLOW_VARIABLE}")


def test_hook_with_an_unknown_parameter(install: Install) -> None:
    install("@hookimpl\ndef sage_round_finished(results):\n    pass\n")
    with pytest.raises(PluginError, match=r"'acme' .acme-sage 1.2.: .*'results'.* can not be found"):
        Plugins(allow="acme")


def test_hook_wrapper_is_refused(install: Install) -> None:
    install("@hookimpl(wrapper=True)\ndef sage_message(text):\n    return (yield)\n")
    with pytest.raises(PluginError, match="has a hook wrapper, which sage_kit does not call"):
        Plugins(allow="acme")


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
    path.write_text(path.read_text() + "# edited")
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
    cause = "sage_round_started raised RuntimeError: bad round 1"
    assert plugins.disabled == {"observer:failing": cause}
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


def test_interruption_is_not_swallowed() -> None:
    class Interrupted:
        @hookimpl
        def sage_message(self) -> None:
            raise KeyboardInterrupt

    plugins = Plugins(allow="")
    plugins.add_observer("interrupted", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        plugins.message(None, "hello")


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


def test_same_observer_twice() -> None:
    plugins = Plugins(allow="")
    plugins.add_observer("one", Recorder())
    with pytest.raises(PluginError, match="observer 'one' is registered already"):
        plugins.add_observer("one", Recorder())


def test_observing_hooks_of_an_installed_plugin_are_called_and_isolated(install: Install) -> None:
    install("@hookimpl\ndef sage_message(text):\n    raise ValueError(text)\n")
    plugins, recorder = Plugins(allow="acme"), Recorder()
    plugins.add_observer("recorder", recorder)
    plugins.message(None, "hello")
    assert plugins.disabled == {"acme-sage:acme": "sage_message raised ValueError: hello"}
    assert ("hello", "default") in recorder.heard
