"""The pages of the documentation hang together, and those that are written by tools are up to date."""

from __future__ import annotations

import ast
import importlib
import os
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
import repository_address
import write_choosing_page
import write_messages_page
import write_plugin_directory

import sage_kit
from sage_kit import components, errors
from sage_kit.components.plugins import Plugins
from sage_kit.errors import ConfigError, SageError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "results/README.md")),
    *sorted(DOCS.glob("**/*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
]
needs_results = pytest.mark.skipif(
    not any(ROOT.glob("results/*/*/result.json")),
    reason="needs a clone of the repository: the source distribution has no results",
)
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---- links


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as the repository's host and the site make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    kept = {character for character in string.punctuation if character not in "-_"}
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {"".join(c for c in title.lower() if c not in kept).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        if page.parent.name == "results" and not any(page.parent.glob("*/*/result.json")):
            continue  # the source distribution has the page alone
        assert path.exists(), f"{name_of(page)} links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{name_of(page)} links to {target}#{anchor}"


def test_the_front_page_lists_every_page_once() -> None:
    targets = [
        target for target, _ in LINK.findall((DOCS / "index.md").read_text(encoding="utf-8").partition("## ")[2])
    ]
    listed = [os.path.normpath(DOCS / target) for target in targets if target.endswith(".md")]
    assert sorted(listed) == sorted(set(listed))
    assert {str(path) for path in PAGES if path != DOCS / "index.md"} <= set(listed)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


# ---- what is written by tools


@needs_results
def test_the_page_of_choices_is_that_of_the_results() -> None:
    results, faults = write_choosing_page.read_results(ROOT / "results")
    assert faults == []
    for path, text in write_choosing_page.texts(results).items():
        assert path.read_text(encoding="utf-8") == text, f"{name_of(path)}: run {write_choosing_page.COMMAND}"
    assert write_choosing_page.BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))


@needs_results
def test_numbers_on_the_page_of_choices_follow_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    results, _ = write_choosing_page.read_results(ROOT / "results")
    titles = write_choosing_page.question_titles()
    page = write_choosing_page.page(results, titles)
    real = write_choosing_page.read_tables

    def shifted(result):
        tables = real(result)
        return {
            name: table.assign(mean=table["mean"] + 0.01) if "mean" in table else table
            for name, table in tables.items()
        }

    monkeypatch.setattr(write_choosing_page, "read_tables", shifted)
    assert write_choosing_page.page(results, titles) != page
    assert page.count("Nothing is measured here yet") < write_choosing_page.page([], titles).count(
        "Nothing is measured"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full: /dev/full")
def test_messages_are_what_the_mistakes_say() -> None:
    assert write_messages_page.PAGE.read_text(encoding="utf-8") == write_messages_page.page(), (
        f"docs/messages.md: run {write_messages_page.REGENERATE}"
    )


def test_every_class_of_errors_has_its_remedy() -> None:
    classes = {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, SageError)}
    assert set(write_messages_page.MISTAKES) == set(write_messages_page.ADVICE) == classes - {SageError}


def test_a_mistake_that_is_none_is_noticed() -> None:
    with write_messages_page.folder_of_files(), pytest.raises(RuntimeError, match="not with one DataError"):
        write_messages_page.made("run --rounds 0", errors.DataError)


def test_the_plugin_directory_names_every_component() -> None:
    page = write_plugin_directory.PAGE.read_text(encoding="utf-8")
    missing = [
        item.spec.name
        for item in Plugins(allow="").components()
        if not re.search(rf"^\| `{item.spec.name}` \| sage-kit ", page, flags=re.MULTILINE)
    ]
    assert missing == [], f"run {write_plugin_directory.COMMAND} --run"
    found = write_plugin_directory.json.loads(write_plugin_directory.FOUND.read_text(encoding="utf-8"))
    assert page == write_plugin_directory.page(found), f"run {write_plugin_directory.COMMAND}"
    assert found["date"] in page
    assert f"torch {found['packages']['torch']}" in page


# ---- environment variables

IGNORED = {
    "PYTEST_CURRENT_TEST": "pytest's own, which the checks leave alone",
    "COMP_WORDS": "the shell's own, in which it asks for completions",
    "_TYPER_COMPLETE_ARGS": "typer's own, for the same",
}


def variables_of(path: Path) -> Iterator[str]:
    """Environment variables that a source names: keys of `os.environ`, and words that begin with `SAGE_KIT_`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\bSAGE_KIT_[A-Z_]*[A-Z]\b", node.value)
        key: ast.expr | None = None
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            key = node.slice
        elif isinstance(node, ast.Call) and re.fullmatch(
            r"os\.(getenv|environ\.(get|setdefault|pop))", ast.unparse(node.func)
        ):
            key = node.args[0]
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


def test_every_environment_variable_is_on_its_page() -> None:
    sources = [*Path(sage_kit.__file__).parent.rglob("*.py"), *ROOT.glob("plugins/*/sage_kit_*/**/*.py")]
    sources += [*ROOT.glob("benchmarks/**/*.py"), *ROOT.glob("docs/**/*.py"), *ROOT.glob("tools/*.py")]
    used = {name for path in sources for name in variables_of(path)} - set(IGNORED)
    assert {"SAGE_KIT_DATA_DIR", "SAGE_KIT_PLUGINS", "OMP_WAIT_POLICY", "TERM", "STUDENT"} <= used
    page = (DOCS / "environment-variables.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([A-Z_]+)", page, flags=re.MULTILINE))
    assert (
        sorted(name for name in used if name.removesuffix("_") not in {one.removesuffix("_") for one in listed}) == []
    )
    of_ours = {name for name in listed if name.startswith("SAGE_KIT_") and not name.endswith("_")}
    assert of_ours <= used, "the page lists what nothing reads"


# ---- the Python interface


@pytest.mark.parametrize(
    "module", ["sage_kit", "sage_kit.components", "sage_kit.errors", "sage_kit.testing", "sage_kit.studies"]
)
def test_public_names_have_their_documentation(module: str) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCS.glob("api/*.md"))
    documented = set(re.findall(r"^\.\. auto(?!summary)\w+:: (\w+)$", text, flags=re.MULTILINE))
    offered = getattr(importlib.import_module(module), "__all__", None)
    names = set(offered or [name for name in vars(errors) if name.endswith("Error")])
    assert names - documented - {"PROJECT", "__version__", "hookimpl"} == set()


def test_documented_names_are_there() -> None:
    for path in DOCS.glob("api/*.md"):
        module = ""
        for kind, name in re.findall(r"^\.\. (\w+):: ([\w.]+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if kind == "currentmodule":
                module = name
            elif kind.startswith("auto"):
                assert hasattr(importlib.import_module(module), name), f"{name_of(path)}: {module} has no {name}"
    assert components.__all__


# ---- the repository's address


def test_links_to_the_repository_need_its_address(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text("[project]\nname = 'x'\n")
    assert repository_address.address(file) is None
    file.write_text("[project]\nname = 'x'\n[project.urls]\nSource = 'https://github.com/some-one/sage_kit'\n")
    found = repository_address.address(file)
    assert found is not None
    assert found.colab("notebooks/00_tour.ipynb") == (
        "https://colab.research.google.com/github/some-one/sage_kit/blob/main/notebooks/00_tour.ipynb"
    )
    assert found.binder("a.ipynb") == "https://mybinder.org/v2/gh/some-one/sage_kit/main?labpath=a.ipynb"
    file.write_text("[project]\nname = 'x'\n[project.urls]\nSource = 'git@host:x'\n")
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        repository_address.address(file)
