"""`sage-kit new-plugin` writes distributions that pass their own checks."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import sage_kit
from sage_kit.config import toml_loads
from sage_kit.errors import ConfigError, RunDirectoryError, SageError
from sage_kit.scaffold import SCAFFOLD_KINDS, TEMPLATES, new_plugin, next_steps
from sage_kit.testing import check_component


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_a_new_plugin_passes_every_check(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"fresh_{kind}"
    folder = new_plugin(kind, name, tmp_path / "plugins")
    monkeypatch.syspath_prepend(folder)
    package = importlib.import_module(f"sage_kit_{name}")
    (spec,) = getattr(package, f"sage_{kind}s")()
    results = {result.name: result for result in check_component(spec)}
    assert {name: r.message for name, r in results.items() if not r.passed} == {}
    assert not results["light_discovery"].skipped
    skipped = {name for name, result in results.items() if result.skipped}
    assert skipped <= {"loop_run"} if kind == "decoder" else skipped <= {"reducer_limit_is_kept"}


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_files_of_a_new_plugin(kind: str, tmp_path: Path) -> None:
    folder = new_plugin(kind, "two_words", tmp_path)
    assert folder == tmp_path / "two_words"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "README.md",
        "pyproject.toml",
        "sage_kit_two_words/__init__.py",
        f"sage_kit_two_words/{kind}.py",
        "sage_kit_two_words/py.typed",
        "tests/test_conformance.py",
    }
    project = toml_loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "sage-kit-two-words"
    assert project["entry-points"]["sage_kit"] == {"two_words": "sage_kit_two_words"}
    own = toml_loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == own["requires-python"]
    package = (folder / "sage_kit_two_words" / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{sage_kit.__version__}"' in package
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert "$" not in text, path
            assert max((len(line) for line in text.splitlines()), default=0) <= 120, path
            if path.suffix == ".py":
                ast.parse(text)


def test_every_kind_has_its_folder_of_templates() -> None:
    assert {path.name for path in TEMPLATES.iterdir() if path.is_dir()} == {"common", *SCAFFOLD_KINDS}


@pytest.mark.parametrize("name", ["Mine", "my-plugin", "2d", "", "_x", "class", "json", "../up"])
def test_bad_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(name))) as caught:
        new_plugin("reducer", name, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_and_an_existing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'sampler'"):
        new_plugin("smapler", "mine", tmp_path)
    folder = new_plugin("filter", "mine", tmp_path)
    before = (folder / "README.md").read_text(encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="exists already") as caught:
        new_plugin("lift", "mine", tmp_path)
    assert isinstance(caught.value, SageError)
    assert (folder / "README.md").read_text(encoding="utf-8") == before


def test_next_steps_name_what_must_be_added(tmp_path: Path) -> None:
    text = next_steps(tmp_path / "mine", "lift", "mine")
    for part in (
        "pip install -e",
        "sage-kit check mine --kind lift",
        "tox.ini",
        "requirements/plugins.txt",
        "requirements/min.txt",
        "known-first-party",
    ):
        assert part in text
