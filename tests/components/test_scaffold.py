"""`sage-kit new-plugin` writes distributions that pass their own checks."""

from __future__ import annotations

import ast
import configparser
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import sage_kit
from sage_kit.components.plugins import Plugins
from sage_kit.components.scaffold import LONGEST_NAME, SCAFFOLD_KINDS, TEMPLATES, new_plugin, next_steps
from sage_kit.components.spec_checks import KINDS, plural
from sage_kit.config import load_config, toml_loads
from sage_kit.errors import ConfigError, RunDirectoryError, SageError
from sage_kit.recipe import resolve
from sage_kit.testing import check_component

MAY_BE_SKIPPED = {
    "decoder": {"loop_run"},
    "metric": {"metric_contributions"},
    "reducer": {"reducer_limit_is_kept"},
    # they look at a factory and its options
    "task": {"loop_run", "options_are_checked", "protocol"},
    "family": {"loop_run"},
}


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_a_new_plugin_passes_every_check(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"fresh_{kind}"
    folder = new_plugin(kind, name, tmp_path / "plugins")
    monkeypatch.syspath_prepend(folder)
    package = importlib.import_module(f"sage_kit_{name}")
    (spec,) = getattr(package, f"sage_{plural(kind)}")()
    results = {result.name: result for result in check_component(spec)}
    assert {name: r.message for name, r in results.items() if not r.passed} == {}
    assert not results["light_discovery"].skipped
    skipped = {name for name, result in results.items() if result.skipped}
    assert skipped <= MAY_BE_SKIPPED.get(kind, set())


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_lines_stay_short_with_the_longest_name(kind: str, tmp_path: Path) -> None:
    folder = new_plugin(kind, "_".join(["word"] * 6) + "s", tmp_path)
    assert len(folder.name) == LONGEST_NAME
    for path in folder.rglob("*"):
        if path.is_file():
            assert max(map(len, path.read_text(encoding="utf-8").splitlines()), default=0) <= 120, path


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
        f"tests/test_{kind}.py",
        "tox.ini",
        *({f"sage_kit_two_words/{split}.jsonl" for split in ("train", "validation")} if kind == "task" else ()),
    }
    project = toml_loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "sage-kit-two-words"
    assert project["entry-points"]["sage_kit"] == {"two_words": "sage_kit_two_words"}
    own = toml_loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
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


def test_own_tests_of_new_plugins_pass(tmp_path: Path) -> None:
    # the last two are names of classes that the templates use
    names = {**{f"fresh_{kind}": kind for kind in SCAFFOLD_KINDS}, "samples": "sampler", "token_batch": "lift"}
    folders = {name: new_plugin(kind, name, tmp_path) for name, kind in names.items()}
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n", encoding="utf-8")
    path = os.pathsep.join([*map(str, folders.values()), str(Path(sage_kit.__file__).parents[1])])
    files = [str(folder / "tests" / f"test_{names[name]}.py") for name, folder in folders.items()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *files],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", SCAFFOLD_KINDS)
def test_the_readme_of_a_new_plugin_is_true(kind: str, tmp_path: Path) -> None:
    folder = new_plugin(kind, "fresh_one", tmp_path)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"The {kind.replace('_', ' ')} `fresh_one`" in text
    for file in re.findall(r"`([\w/]+\.\w+)`", text):
        assert (folder / file).is_file(), file
    plugins = Plugins([folder / "sage_kit_fresh_one" / "__init__.py"], allow="")
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith("    sage-kit ")]
    assert [command[1] for command in commands] == ["plugins", "check", "decode" if kind == "decoder" else "run"]
    if kind in ("decoder", "family"):
        last = ["--decoder", "fresh_one"] if kind == "decoder" else ["--teacher", "CHECKPOINT"]
        assert commands[-1][-2:] == last
        return
    flags = commands[-1][2:]
    settings = {flag[2:].replace("-", "_"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    config = load_config(settings)
    resolve(config, plugins)
    named = {name: getattr(config, name) for name in ("task", "task_kind")}
    named |= {"observer": config.observers, "loss": config.losses, "metric": config.metrics}
    chosen = named.get(kind) or config.component_choice(kind)[0]
    assert "fresh_one" in chosen


def test_tox_of_a_new_plugin_tests_every_combination(tmp_path: Path) -> None:
    pytest.importorskip("tox", reason="needs tox")
    folder = new_plugin("stop_rule", "fresh_one", tmp_path)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("TOX", "SAGE_KIT"))}

    def settings(**more: str) -> dict[str, dict[str, str]]:
        done = subprocess.run(
            [sys.executable, "-m", "tox", "config", "-e", "ALL", "-k", "commands", "deps", "description"],
            cwd=folder,
            env={**variables, **more},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(done.stdout)
        sections = {name.partition(":")[2]: dict(parser[name]) for name in parser.sections()}
        return {name: section for name, section in sections.items() if name.startswith("py3")}

    found = settings()
    pythons = {name.partition("-")[0] for name in found}
    assert pythons == {"py310", "py311", "py312", "py313", "py314"}
    assert len(found) == 16
    for name, section in found.items():
        assert section["commands"] == "pytest"
        wanted = {
            "sagelowest": "sage-kit==0.1",
            "sagenewest": "sage-kit",
            "torch25": "torch==2.5.*",
            "torchnewest": "torch",
        }
        assert sorted(section["deps"].split()) == sorted(
            ["pytest>=8.0", *(wanted[part] for part in name.split("-")[1:])]
        )
    project = toml_loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "sage-kit>=0.1,<0.2" in project["dependencies"]
    assert "torch>=2.5" in project["dependencies"]
    local = settings(SAGE_KIT="../clone")
    assert "../clone" in local["py311-sagenewest-torchnewest"]["deps"].split()
    assert "../clone" not in local["py311-sagelowest-torchnewest"]["deps"].split()


def test_every_kind_has_its_folder_of_templates() -> None:
    assert set(SCAFFOLD_KINDS) == set(KINDS)
    assert {path.name for path in TEMPLATES.iterdir() if path.is_dir()} == {"common", *SCAFFOLD_KINDS}


@pytest.mark.parametrize(
    "name", ["Mine", "my-plugin", "2d", "", "_x", "class", "json", "../up", "a__b", "x_", "x" * 31]
)
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


def test_next_steps_name_what_comes_next(tmp_path: Path) -> None:
    text = next_steps(tmp_path / "mine", "stop_rule", "mine")
    for part in ("pip install -e", "sage-kit check mine --kind stop_rule", "your own stop rule", "--register"):
        assert part in text
    text = next_steps(tmp_path / "mine", "lift", "mine", ["tox.ini", "pyproject.toml"], is_registered=True)
    for part in (
        "Registered in: tox.ini, pyproject.toml",
        "requirements/min.txt",
        "sage_kit.reports.reference docs",
        "mypy",
    ):
        assert part in text
    assert "--register" not in text


def test_an_interrupted_plugin_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str, encoding: str = "") -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(KeyboardInterrupt):
        new_plugin("lift", "mine", tmp_path)
    assert list(tmp_path.iterdir()) == []
