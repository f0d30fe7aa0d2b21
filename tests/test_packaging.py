"""The files around the code agree with each other."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import sage_kit
from sage_kit.config import toml_loads

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sage_kit.__file__).parent

PLUGIN_FOLDERS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))

DISTRIBUTIONS = {
    "IPython": "ipykernel",
    "dask": "distributed",
    "faiss": "faiss-cpu",
    "openTSNE": "opentsne",
    "pydantic_core": "pydantic",
    "sklearn": "scikit-learn",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}
"""Where the import's name is not the distribution's."""


def pyproject(folder: Path) -> dict[str, Any]:
    return toml_loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def tox_ini() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    return parser


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[ ;<>=!~\[]", text, maxsplit=1)[0].lower().replace("_", "-") for text in requirements}


def pinned(file: str) -> dict[str, str]:
    """Version of each distribution that a file of constraints pins, by name; markers are left out."""
    lines = (ROOT / "requirements" / file).read_text(encoding="utf-8").splitlines()
    matches = [re.match(r"([\w.-]+)==([\w.]+)", line) for line in lines]
    assert all(match or not line or line.startswith("#") for match, line in zip(matches, lines, strict=True))
    return {match[1].lower().replace("_", "-"): match[2] for match in matches if match}


def lower_bounds() -> dict[str, set[str]]:
    """Lower bounds that the core and the plugins declare, by the dependency's name."""
    bounds: dict[str, set[str]] = {}
    for folder in (ROOT, *PLUGIN_FOLDERS):
        for requirement in pyproject(folder)["project"]["dependencies"]:
            match = re.match(r"([\w.-]+)>=([\w.]+)", requirement)
            if match and match[1] != "sage-kit":
                bounds.setdefault(match[1].lower().replace("_", "-"), set()).add(match[2])
    return bounds


def third_party_imports(folder: Path) -> set[str]:
    """Distributions of everything that the sources in a folder import from elsewhere."""
    return {name for path in folder.iterdir() for name in imports_of(path)} - {folder.name.replace("_", "-")}


def imports_of(path: Path) -> set[str]:
    """Distributions of what a source, or the sources in a folder, import from elsewhere."""
    modules: set[str] = set()
    sources = path.rglob("*.py") if path.is_dir() else [path] if path.suffix == ".py" else []
    for source in sources:
        if {"templates", "_notebooks"} & set(source.parts):
            continue
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module or "")
    names = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"sage_kit", "tomllib"}
    return {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in names}


# ---- distributions


def test_there_is_a_plugin_distribution() -> None:
    assert ROOT / "plugins" / "umap" in PLUGIN_FOLDERS


def test_core_declares_exactly_what_it_imports() -> None:
    project = pyproject(ROOT)["project"]
    declared = requirement_names(project["dependencies"])
    extra = requirement_names(project["optional-dependencies"]["notebooks"])
    imported = third_party_imports(PACKAGE)
    assert imported - extra == declared
    assert extra - imported == {"ipywidgets", "jupyterlab"}, "for the reader alone, who opens the notebooks"
    # only the studies may need the extra
    assert not {name for path in PACKAGE.iterdir() if path.name != "studies" for name in imports_of(path)} & extra


def test_every_dependency_has_a_lower_bound() -> None:
    for folder in (ROOT, *PLUGIN_FOLDERS):
        for requirement in pyproject(folder)["project"]["dependencies"]:
            assert re.search(r"(>=|==)", requirement), requirement


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS, ids=lambda folder: folder.name)
def test_plugin_declares_what_it_imports_and_its_entry_point(folder: Path) -> None:
    project = pyproject(folder)["project"]
    package = folder / f"sage_kit_{folder.name}"
    # pydantic is part of what sage-kit offers: a component's options are a pydantic model.
    assert requirement_names(project["dependencies"]) >= third_party_imports(package) - {"pydantic"}
    assert folder.name in project["entry-points"]["sage_kit"]
    assert (package / "py.typed").is_file()
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize("folder", PLUGIN_FOLDERS, ids=lambda folder: folder.name)
def test_plugin_has_the_version_of_the_core(folder: Path) -> None:
    settings = pyproject(folder)
    version = settings["project"].get("version")
    if version is None:
        source = (folder / settings["tool"]["hatch"]["version"]["path"]).read_text(encoding="utf-8")
        match = re.search(r'^__version__ = "(.+)"$', source, flags=re.MULTILINE)
        assert match is not None
        version = match[1]
    assert version == sage_kit.__version__
    assert settings["project"]["requires-python"] == pyproject(ROOT)["project"]["requires-python"]


def test_package_is_typed_and_licensed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert pyproject(ROOT)["project"]["license"] == "Apache-2.0"


def test_python_versions_are_the_same_everywhere() -> None:
    project = pyproject(ROOT)["project"]
    minors = [int(text.rpartition(".")[2]) for text in project["classifiers"] if ":: 3." in text]
    assert project["requires-python"] == f">=3.{min(minors)},<3.{max(minors) + 1}"
    assert f"py3{{{','.join(map(str, minors))}}}-" in tox_ini()["tox"]["env_list"]
    assert pyproject(ROOT)["tool"]["ruff"]["target-version"] == f"py3{min(minors)}"


# ---- environments


def test_lowest_versions_are_those_that_are_declared() -> None:
    bounds = lower_bounds()
    assert {name: versions for name, versions in bounds.items() if len(versions) > 1} == {}, "bounds differ"
    lowest = pinned("min.txt")
    # torch is the tests' own everywhere, for its old builds are large and know no new Python
    assert lowest.pop("torch") == pinned("constraints.txt")["torch"]
    assert lowest == {name: version for name, (version,) in bounds.items() if name != "torch"}


def test_tox_runs_no_long_environment_unless_it_is_named() -> None:
    settings = tox_ini()
    named = {name.partition(":")[2] for name in settings.sections() if name.startswith("testenv:")}
    assert {"all", "min", "scaffold", "dist", "quickstart"} <= named
    listed = settings["tox"]["env_list"].split()
    assert listed[:-1] == ["lint", "type"]
    assert listed[-1].startswith("py3{")


def test_contributing_tells_of_every_environment() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    sections = [name for name in tox_ini().sections() if name.startswith("testenv:")]
    # those of single plugins are told of together, and the development environment as `tox devenv`
    named = {name.partition(":")[2] for name in sections if "{" not in name} - {"py"}
    assert {name for name in named if f"`tox run -e {name}`" not in text} == set()
    assert "tox devenv" in text


@pytest.mark.parametrize("section", [name for name in tox_ini().sections() if name.startswith("testenv")])
def test_every_tox_env_has_a_description(section: str) -> None:
    description = tox_ini()[section]["description"].strip()
    assert description
    if section == "testenv":
        described = {line.partition(":")[0].strip() for line in description.splitlines()}
        factors = re.search(r"py3\{[\d,]+\}-\{([a-z,]+)\}", tox_ini()["tox"]["env_list"])
        assert factors is not None
        assert described == set(factors[1].split(","))


def test_every_plugin_distribution_is_installed_and_tested() -> None:
    names = {folder.name for folder in PLUGIN_FOLDERS}
    for file in ("plugins.txt", "dev.txt"):
        listed = re.findall(
            r"^(?:-e )?\./plugins/(\w+)$", (ROOT / "requirements" / file).read_text(), flags=re.MULTILINE
        )
        assert sorted(listed) == sorted(names), file
    braces = [re.fullmatch(r"testenv:\{([\w,]+)\}", section) for section in tox_ini().sections()]
    assert [set(match[1].split(",")) for match in braces if match] == [names]
    for folder in PLUGIN_FOLDERS:
        assert list((folder / "tests").glob("test_*.py"))


# ---- changes


def test_every_news_fragment_has_a_valid_name_and_says_something() -> None:
    types = [entry["directory"] for entry in pyproject(ROOT)["tool"]["towncrier"]["type"]]
    for path in (ROOT / "changelog.d").iterdir():
        if path.name == "README.md":
            continue
        assert re.fullmatch(rf"(\+[a-z0-9_]+|[0-9]+)\.({'|'.join(types)})\.md", path.name), path.name
        text = path.read_text(encoding="utf-8")
        assert text.strip()
        assert text.strip().endswith("."), path.name


def test_changelog_has_the_mark_that_news_go_below() -> None:
    mark = pyproject(ROOT)["tool"]["towncrier"]["start_string"].strip()
    assert mark in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
