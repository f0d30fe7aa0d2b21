"""The files around the code agree with each other."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version

import sage_kit
from sage_kit.components.registration import unregistered
from sage_kit.config import toml_loads

pytest.importorskip("tox", reason="needs tox")

ROOT = Path(__file__).parents[1]
PACKAGE = Path(sage_kit.__file__).parent

needs_clone = pytest.mark.skipif(
    not (ROOT / ".github").is_dir(), reason="needs a clone of the repository: the source distribution has no workflows"
)

PLUGIN_FOLDERS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))

DISTRIBUTIONS = {
    "IPython": "ipython",
    "PIL": "pillow",
    "dask": "distributed",
    "faiss": "faiss-cpu",
    "openTSNE": "opentsne",
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


def pins(file: str) -> list[Requirement]:
    """Every pin in a file of constraints and in the files that it names."""
    path = ROOT / "requirements" / file
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-c "):
            found += pins((path.parent / line[3:]).relative_to(ROOT / "requirements").as_posix())
        elif line and not line.startswith("#"):
            found.append(Requirement(line))
    assert all(len(pin.specifier) == 1 and "==" in str(pin.specifier) for pin in found)
    return found


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
    extra, search = (requirement_names(project["optional-dependencies"][name]) for name in ("notebooks", "search"))
    imported = third_party_imports(PACKAGE)
    assert imported - extra - search == declared
    # the kernel, which is started as a program, and what is there for the reader who opens the notebooks
    assert extra - imported == {"ipykernel", "ipywidgets", "jupyterlab"}
    # only the studies may need the one extra, and only the search the other
    for room, names in (("studies", extra), ("searching", search)):
        assert not {name for path in PACKAGE.iterdir() if path.name != room for name in imports_of(path)} & names
    assert search <= imported


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
    for key in ("authors", "license", "requires-python", "urls"):
        assert settings["project"][key] == pyproject(ROOT)["project"][key]
    of_python = [text for text in settings["project"]["classifiers"] if ":: Python ::" in text]
    assert of_python == [text for text in pyproject(ROOT)["project"]["classifiers"] if ":: Python ::" in text]


def test_package_is_typed_and_licensed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert pyproject(ROOT)["project"]["license"] == "Apache-2.0"


@needs_clone
def test_python_versions_are_the_same_everywhere() -> None:
    project = pyproject(ROOT)["project"]
    assert project["requires-python"] == f">=3.{min(minors())}", "no upper cap: a later Python is not known to fail"
    assert f"py3{{{','.join(map(str, minors()))}}}-" in tox_ini()["tox"]["env_list"]
    assert "target-version" not in pyproject(ROOT)["tool"]["ruff"], "ruff takes it from requires-python"
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    listed = ", ".join(f'"3.{minor}"' for minor in minors())
    assert f"python: [{listed}]" in workflow


@needs_clone
def test_workflows_run_environments_that_there_are() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").iterdir())
    lists = [part for found in re.findall(r" env: \[(.+)\]", text) for part in found.split(", ")]
    named = {*lists, *re.findall(r" env: ([\w-]+)", text), *re.findall(r"tox run -e ([\w-]+)", text)}
    assert {"core", "plugins", "min", "lint", "type", "repo", "dist"} <= named
    assert {name: fault for name in named if (fault := TOXFILE.fault_of(name, OWN_SECTIONS))} == {}


def test_citation_names_this_version() -> None:
    assert f"\nversion: {sage_kit.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


# ---- versions


def minors() -> list[int]:
    return [int(text.rpartition(".")[2]) for text in pyproject(ROOT)["project"]["classifiers"] if ":: 3." in text]


def wrong_lowest_versions(lines: list[str], declared: dict[str, str]) -> list[str]:
    """Line of `requirements/min.txt` and what to do there, for each version that is not the declared one."""
    places: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines, start=1):
        match = re.match(r"([\w.-]+)==([\w.]+)", line)
        if match:  # the first of a package's lines is that of the oldest Python
            places.setdefault(match[1].lower().replace("_", "-"), (number, match[2]))
    faults = [(number, f"remove {name}") for name, (number, _) in places.items() if name not in declared]
    for name, version in declared.items():
        later = [number for other, (number, _) in places.items() if other > name]
        number, there = places.get(name, (min(later, default=len(lines) + 1), ""))
        if there != version:
            faults.append((number, f"{f'it is {there}: ' if there else ''}write '{name}=={version}'"))
    return [f"requirements/min.txt:{number}: {what}" for number, what in sorted(faults)]


def test_lowest_versions_are_those_that_are_declared() -> None:
    bounds = lower_bounds()
    assert {name: versions for name, versions in bounds.items() if len(versions) > 1} == {}, "bounds differ"
    # torch's old builds are large and know no new Python, so it is lowest only where the factor torch25 asks for it
    declared = {name: version for name, (version,) in bounds.items() if name != "torch"}
    faults = wrong_lowest_versions((ROOT / "requirements" / "min.txt").read_text().splitlines(), declared)
    assert not faults, "\n".join(["", *faults])


def test_a_wrong_lowest_version_is_named_with_its_line() -> None:
    lines = ["# text", "alpha==1.0", "beta_x==2.0; python_version < '3.12'", "beta_x==3.0", "old==1", "zeta==1"]
    declared = {"alpha": "1.1", "beta-x": "2.0", "gamma": "5", "zeta": "1", "zz": "2"}
    assert wrong_lowest_versions(lines, declared) == [
        "requirements/min.txt:2: it is 1.0: write 'alpha==1.1'",
        "requirements/min.txt:5: remove old",
        "requirements/min.txt:5: write 'gamma==5'",
        "requirements/min.txt:7: write 'zz==2'",
    ]


@pytest.mark.parametrize("minor", minors())
def test_each_python_gets_one_lowest_version(minor: int) -> None:
    environment = {"python_version": f"3.{minor}"}
    chosen = [pin.name for pin in pins("min.txt") if not pin.marker or pin.marker.evaluate(environment)]
    assert len(set(chosen)) == len(chosen)
    needless = {"tomli"} if minor >= 11 else set()
    assert {pin.name for pin in pins("min.txt")} - set(chosen) == needless


def test_later_pythons_get_later_versions() -> None:
    versions: dict[str, list[Version]] = {}
    for pin in pins("min.txt"):
        versions.setdefault(pin.name, []).extend(Version(one.version) for one in pin.specifier)
    assert [name for name, found in versions.items() if found != sorted(set(found))] == []


@pytest.mark.parametrize(("file", "package"), [("torch25.txt", "torch"), ("transformers50.txt", "transformers")])
def test_files_of_a_lowest_version_name_the_declared_one(file: str, package: str) -> None:
    ((declared,),) = [bounds for name, bounds in lower_bounds().items() if name == package]
    (pin,) = pins(f"versions/{file}")
    assert (pin.name, str(pin.specifier)) == (package, f"=={declared}.*")


def test_constraints_pin_each_package_once() -> None:
    names = [pin.name.lower() for pin in pins("constraints.txt")]
    assert len(set(names)) == len(names)
    assert {"torch", "transformers", "ruff", "mypy"} <= set(names)
    markers = {pin.marker for pin in pins("constraints.txt") if pin.marker}
    assert markers == {Marker('python_version >= "3.11"')}, "Python 3.10 gets the last that there is"


def test_constraints_pin_whatever_is_declared() -> None:
    project, groups = pyproject(ROOT)["project"], pyproject(ROOT)["dependency-groups"]
    declared = requirement_names(
        [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    )
    for folder in PLUGIN_FOLDERS:
        declared |= requirement_names(pyproject(folder)["project"]["dependencies"])
    for group in groups.values():
        declared |= requirement_names([entry for entry in group if isinstance(entry, str)])
    pinned = requirement_names([pin.name for pin in pins("constraints.txt")])
    assert declared - pinned == {"sage-kit", "tomli"}, "tomli is for Python 3.10 alone"
    assert pinned <= declared


def test_the_development_environment_has_the_tools_of_the_group_dev() -> None:
    groups = pyproject(ROOT)["dependency-groups"]
    tools = [entry for entry in groups["dev"] if isinstance(entry, str)]
    for entry in groups["dev"]:
        tools += groups[entry["include-group"]] if isinstance(entry, dict) else []
    lines = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line[0].isalpha()] == sorted(tools)


# ---- environments


def load_toxfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sage_kit_toxfile", ROOT / "toxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOXFILE = load_toxfile()
OWN_SECTIONS = [name.partition(":")[2] for name in tox_ini().sections() if name.startswith("testenv:")]
PYTHONS = [f"py3{minor}" for minor in minors()]
VERSIONS = ["-".join(part) for size in range(3) for part in itertools.combinations(TOXFILE.VERSIONS, size)]


def names(*factors: Iterable[str]) -> list[str]:
    return ["-".join(filter(None, parts)) for parts in itertools.product(*factors)]


GOOD = sorted(
    {name for name in names(["", *PYTHONS], TOXFILE.choices(), VERSIONS) if not {"min", "newest"} <= {*name.split("-")}}
)
"""Environments that are told of: a Python, what is tested, versions."""


def tox(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TOX", "PYTHONPATH"))}
    command = [sys.executable, "-m", "tox", *arguments, "--workdir", str(folder), "-c", str(ROOT / "tox.ini")]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What `tox config` says of every environment that tox lists, and of all combinations of factors."""
    found: dict[str, dict[str, str]] = {}
    for chosen in ("ALL", ",".join(GOOD)):
        done = tox(
            "config",
            "-e",
            chosen,
            "-k",
            "description",
            "commands",
            "set_env",
            "extras",
            folder=tmp_path_factory.mktemp("tox"),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(done.stdout)
        sections = {name.partition(":")[2]: dict(parser[name]) for name in parser.sections() if ":" in name}
        found.update({name: section for name, section in sections.items() if not name.startswith(".")})
    return found


def test_every_environment_of_tox_has_commands_and_a_description(environments: dict[str, dict[str, str]]) -> None:
    assert {"lint", "type", "py311-core", "py311-umap", "py312-min", "all", "core-torch25", "dist"} <= set(environments)
    assert [name for name, settings in environments.items() if not settings["commands"].strip()] == []
    assert [name for name, settings in environments.items() if not settings["description"].strip()] == []


def test_every_combination_runs_the_tests_that_it_names(environments: dict[str, dict[str, str]]) -> None:
    plain = {choice: environments.get(choice) or environments[f"py311-{choice}"] for choice in TOXFILE.choices()}
    commands = {choice: settings["commands"] for choice, settings in plain.items()}
    assert all(command.startswith("pytest ") for command in commands.values())
    # min tests what core does
    assert len(set(commands.values())) == len(commands) - 1
    for name in GOOD:
        (choice,) = set(name.split("-")) & set(commands)
        assert environments[name]["commands"] == commands[choice], name


def test_notebooks_are_installed_where_the_core_is_tested(environments: dict[str, dict[str, str]]) -> None:
    for name, settings in environments.items():
        tests_core = name in ("docs", "fuzz", "py", "type") or bool({*TOXFILE.TESTS} & {*name.split("-")})
        assert settings["extras"] == ("notebooks" if tests_core else ""), name
    assert "-e .[notebooks]" in (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8").splitlines()


def test_versions_reach_pip(environments: dict[str, dict[str, str]]) -> None:
    def files(name: str) -> list[str]:
        (line,) = [text for text in environments[name]["set_env"].splitlines() if text.startswith("PIP_CONSTRAINT=")]
        return [file.removeprefix("requirements/") for file in line.partition("=")[2].replace("\\", "/").split()]

    for name in GOOD:
        assert all((ROOT / "requirements" / file).is_file() for file in files(name)), name
    usual = ["versions/packages.txt", "versions/torch.txt", "versions/transformers.txt"]
    assert files("py311-core") == files("lint") == usual
    assert [f"-c {file}" for file in usual] == (ROOT / "requirements/constraints.txt").read_text().splitlines()[-3:]
    assert files("py312-umap-torch25") == [usual[0], "versions/torch25.txt", usual[2]]
    assert files("all-transformers50") == [*usual[:2], "versions/transformers50.txt"]
    assert files("core-newest") == []
    assert files("core-torch25-newest") == ["versions/torch25.txt"]
    assert files("py310-min-torch25") == ["min.txt", "versions/torch25.txt"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("py311-lint", "factor 'lint' cannot be part of environment 'py311-lint': it stands alone: tox run -e lint"),
        ("core-bench", "it stands alone: tox run -e bench"),
        ("core-umap", "names 2 sets of tests: take one, or run them in turn: tox run -e core,umap"),
        ("py311-all-tsne-torch25", "tox run -e py311-all-torch25,py311-tsne-torch25"),
        ("py311-torch25", "names no tests: add one of core, plugins, all, notebooks, min, "),
        ("newest", "names no tests: "),
        ("py311", "names no tests: "),
        ("py310-py312-core", "names 2 Pythons: take one of py310, py312"),
        ("min-newest", "leave out 'min' or 'newest'"),
        ("core-alpha", "factor 'alpha' cannot be part of environment 'core-alpha': factors are a Python such as py311"),
        ("core-umpa", "factor 'umpa' cannot be part of environment 'core-umpa': did you mean 'umap'? Factors are"),
        ("py311-core-torch24", "did you mean 'torch25'?"),
    ],
)
def test_names_that_would_run_nothing_or_mislead(name: str, said: str) -> None:
    fault = TOXFILE.fault_of(name, OWN_SECTIONS)
    assert said in fault
    assert "\n" not in fault


def test_no_name_of_known_factors_passes_but_those_that_are_told_of() -> None:
    factors = [*OWN_SECTIONS, *TOXFILE.choices(), *TOXFILE.VERSIONS, *PYTHONS]
    for size in (1, 2, 3):
        for parts in itertools.combinations(factors, size):
            name = "-".join(parts)
            told_of = name in OWN_SECTIONS or any(set(parts) == set(good.split("-")) for good in GOOD)
            if "py" in parts and size > 1:  # "this Python", which needs no name
                told_of = any({*parts} - {"py"} == set(good.split("-")) for good in GOOD if not good.startswith("py3"))
            assert (TOXFILE.fault_of(name, OWN_SECTIONS) == "") == told_of, name


@pytest.mark.parametrize("name", ["py311-lint", "py311-foo", "core-umpa", "core-plugins"])
def test_tox_refuses_what_would_run_nothing(name: str, tmp_path: Path) -> None:
    done = tox("run", "-e", name, folder=tmp_path)
    assert done.returncode != 0
    assert TOXFILE.fault_of(name, OWN_SECTIONS) in done.stdout
    assert len((done.stdout + done.stderr).splitlines()) == 1
    assert not list(tmp_path.glob("*/bin"))


def test_tox_refuses_an_environment_that_lost_its_commands(tmp_path: Path) -> None:
    done = tox("config", "-e", "py311-umap", "-x", "testenv.commands=", folder=tmp_path)
    assert "environment 'py311-umap' has no commands in tox.ini" in done.stdout
    assert done.returncode != 0


def test_a_python_that_is_not_installed_is_told_of(tmp_path: Path) -> None:
    done = tox("run", "-e", "jython27-core", folder=tmp_path)
    assert "jython27-core: SKIP" in done.stdout
    assert done.returncode != 0


def test_tox_runs_no_long_environment_unless_it_is_named(environments: dict[str, dict[str, str]]) -> None:
    assert {"all", "min", "scaffold", "dist", "quickstart"} <= set(environments)
    listed = tox_ini()["tox"]["env_list"].split()
    assert listed == ["lint", "type", f"py3{{{','.join(map(str, minors()))}}}-{{core,plugins}}"]


def test_contributing_tells_of_every_environment() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    # single plugins are told of together, and the development environment as `tox devenv`
    named = {*OWN_SECTIONS, *TOXFILE.TESTS, "umap"} - {"py"}
    assert {name for name in named if f"`tox run -e {name}`" not in text} == set()
    assert {name for name in TOXFILE.VERSIONS if f"| `{name}` |" not in text} == set()
    assert "tox devenv" in text


def test_every_choice_of_tests_has_a_description_of_its_own() -> None:
    lines = tox_ini()["testenv"]["description"].strip().splitlines()
    described = [word for line in lines if ": " in line for word in line.partition(": ")[0].strip("{}").split(",")]
    assert sorted(described) == sorted(TOXFILE.choices())
    said = tox_ini()["versions"]["description"].strip().splitlines()
    assert [line.partition(":")[0] for line in said] == list(TOXFILE.VERSIONS)


def test_every_plugin_is_registered_wherever_plugins_are_named() -> None:
    faults = unregistered(ROOT)
    assert not faults, "\n".join(["", *faults])


def test_every_plugin_distribution_is_tested() -> None:
    for folder in PLUGIN_FOLDERS:
        assert list((folder / "tests").glob("test_*.py")), folder.name


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
