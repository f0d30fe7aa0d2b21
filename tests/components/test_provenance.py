"""What a key of cached results holds of the code."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from sage_kit.components import Options
from sage_kit.components.plugins import Plugins
from sage_kit.components.provenance import code_parts, commit, component_parts, plain_fields


def test_origin_sources_and_versions_count(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("x = 1")
    origin, sources, versions = code_parts("mine 1.0", str(plugin), ("numpy>=1",), code_parts)
    assert origin == "mine 1.0"
    assert versions == {"numpy": importlib.metadata.version("numpy")}
    assert code_parts("mine 1.0", str(plugin), ("numpy>=1",), Plugins)[1] != sources
    plugin.write_text("x = 2")
    assert code_parts("mine 1.0", str(plugin), ("numpy>=1",), code_parts)[1] != sources
    plugin.write_text("# as it was\nx = 1")
    assert code_parts("mine 1.0", str(plugin), ("numpy>=1",), code_parts)[1] == sources


def test_the_folder_of_a_plugin_does_not_count(tmp_path: Path) -> None:
    found = []
    for name in ("here", "there"):
        plugin = tmp_path / name / "mine.py"
        plugin.parent.mkdir()
        plugin.write_text("x = 1")
        found.append(code_parts(f"{plugin} 1.0", str(plugin), ()))
    assert found[0] == found[1]
    assert found[0][0] == "mine.py 1.0"


def test_a_requirement_for_another_python_need_not_be_installed() -> None:
    needed = ("numpy>=1", "no-such-backport; python_version < '3'")
    assert code_parts("a", "a distribution", needed)[2] == {"numpy": importlib.metadata.version("numpy")}


def test_what_has_no_source_is_left_out() -> None:
    assert code_parts("a", "a distribution", (), dict, len) == code_parts("a", "a distribution", ())


def test_the_version_of_the_core_does_not_count() -> None:
    assert code_parts("sage-kit 0.1", "sage-kit", ()) == code_parts("sage-kit 0.2", "sage-kit", ())
    assert code_parts("other 0.1", "other", ()) != code_parts("other 0.2", "other", ())


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of an installed plugin, whose reducer takes its steps from a module of its own."""
    package = tmp_path / "site" / "acme_keys"
    info = tmp_path / "site" / "acme_keys-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-keys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sage_kit]\nacme_keys = acme_keys\n")
    (package / "__init__.py").write_text(
        "from sage_kit import hookimpl\n"
        "from sage_kit.components import ReducerSpec, lazy\n"
        "@hookimpl\n"
        "def sage_reducers():\n"
        "    for name in ('one', 'two'):\n"
        "        yield ReducerSpec(name=f'acme_{name}', summary='x', factory=lazy(f'acme_keys.{name}:Reducer'))\n"
    )
    (package / "one.py").write_text("from .inner import step\nclass Reducer:\n    pass\n")
    (package / "two.py").write_text("class Reducer:\n    pass\n")
    (package / "inner.py").write_text("def step(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "acme_keys", raising=False)
    return package


def test_an_installed_plugin_counts_by_the_modules_behind_the_component(installed: Path) -> None:
    plugins = Plugins(allow="acme_keys")

    def parts() -> list[list[Any]]:
        return [component_parts(plugins, "reducer", name, {}) for name in ("acme_one", "acme_two")]

    before = parts()
    (installed / "inner.py").write_text("def step(x):\n    return 2 * x\n")
    after = parts()
    assert after[0] != before[0]
    assert after[1] == before[1]
    (installed / "__init__.py").write_text((installed / "__init__.py").read_text() + "x = 1\n")
    assert [one != other for one, other in zip(after, parts(), strict=True)] == [True, True]


def test_components_that_are_built_over_others_count_with_them() -> None:
    plugins = Plugins(allow="")

    def names(kind: str, name: str, **options: Any) -> list[list[str]]:
        return [part[:2] for part in component_parts(plugins, kind, name, options)]

    assert names("inverter", "anchored") == [["inverter", "anchored"], ["inverter", "knn"]]
    assert names("inverter", "anchored", base="rbf") == [["inverter", "anchored"], ["inverter", "rbf"]]
    steps = [{"reducer": "pca", "n_components": 8}, {"reducer": "random_projection"}]
    chain = names("reducer", "hybrid", steps=steps)
    assert chain == [["reducer", "hybrid"], ["reducer", "pca"], ["reducer", "random_projection"]]


def test_a_component_that_another_names_in_its_code_counts(tmp_path: Path) -> None:
    plugin = tmp_path / "over_pca.py"
    plugin.write_text(
        "from sage_kit import hookimpl\n"
        "from sage_kit.components import ReducerSpec\n"
        "def make(options, context):\n"
        "    return context.component('reducer', 'pca', {})\n"
        "@hookimpl\n"
        "def sage_reducers():\n"
        "    yield ReducerSpec(name='over_pca', summary='x', factory=make)\n"
    )
    parts = component_parts(Plugins([plugin], allow=""), "reducer", "over_pca", {})
    assert [part[:2] for part in parts] == [["reducer", "over_pca"], ["reducer", "pca"]]


def test_built_in_options_are_known_by_their_values() -> None:
    # the modules that declare them are not part of a digest, so nothing may be computed there
    for item in Plugins(allow="").components():
        options = getattr(item.spec, "options", Options)
        for base in options.__mro__[: options.__mro__.index(Options)]:
            own = {name for name, value in vars(base).items() if callable(value) or isinstance(value, property)}
            validators = set(base.__pydantic_decorators__.field_validators)
            validators |= set(base.__pydantic_decorators__.model_validators)
            validators |= set(base.__pydantic_decorators__.field_serializers)  # how values are written
            assert {name for name in own if not name.startswith("__")} <= validators | {"model_post_init"}, base
        lazily = getattr(item.spec, "factory", None)
        assert lazily is None or ":" in lazily.__qualname__, f"{item.spec.name} is not built by lazy()"


def test_plain_fields_hold_no_text_for_readers() -> None:
    spec = Plugins(allow="").spec("reducer", "pca")
    fields = plain_fields(spec)
    assert fields["has_inverse"] is True
    assert not {"summary", "name", "factory", "options", "install"} & set(fields)


def test_the_commit_of_a_source_tree() -> None:
    assert re.fullmatch(r"([0-9a-f]{40,64}\+?)?", commit())
