"""Installed plugins and one-file plugins: which are found and loaded, and which are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pluginsources import Install, only_cause, reducer

from sage_kit.components.loader import ALLOW_VARIABLE, Origin
from sage_kit.components.plugins import Plugins
from sage_kit.errors import (
    PluginError,
    UnknownComponentError,
)

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
