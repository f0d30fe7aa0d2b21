"""Which module may import which: read from the source, and once from a real process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import sage_kit

PACKAGE = Path(sage_kit.__file__).parent

HEAVY = {
    "accelerate", "dask", "datasets", "distributed", "faiss", "huggingface_hub", "jinja2", "joblib", "jupyter_client",
    "matplotlib", "nbclient", "nbformat", "numba", "numpy", "openTSNE", "optuna", "pacmap", "pandas", "papermill",
    "pyarrow", "pynndescent", "safetensors", "scipy", "sklearn", "tokenizers", "torch", "torchdr", "transformers",
    "umap", "yaml",
}  # fmt: skip

LIGHT_ROOMS = {
    "", "__main__", "adapters", "cli", "components", "config", "errors", "recipe", "rundir", "unused_settings",
}  # fmt: skip
"""Rooms whose modules may be imported where torch may not; so may whatever they import."""

LIGHT = {
    "sage_kit.builtin", "sage_kit.reports.reference", "sage_kit.studies", "sage_kit.studies.backends",
    "sage_kit.studies.cell_key", "sage_kit.studies.grid", "sage_kit.studies.page", "sage_kit.studies.parameters",
    "sage_kit.studies.result", "sage_kit.studies.runner",
}  # fmt: skip
"""Other modules of that kind."""

ROOMS = (
    "", "errors", "storage", "config", "components", "adapters", "recipe", "unused_settings", "rundir", "system",
    "data", "models", "synthesis", "training", "distill", "quickstart", "reports", "scorecard",
    "studies", "inference", "explorer", "worth", "searching", "testing", "cli", "__main__",
)  # fmt: skip
"""The house from the ground up: a module imports from its own room and from those before it."""

PUBLIC = {
    "sage_kit", "sage_kit.adapters", "sage_kit.components", "sage_kit.components.records", "sage_kit.config",
    "sage_kit.data.answer_scores", "sage_kit.data.entities", "sage_kit.data.metrics",
    "sage_kit.data.structured_labels", "sage_kit.errors", "sage_kit.rundir.loss_profiles", "sage_kit.storage.files",
    "sage_kit.testing", "sage_kit.training.losses",
}  # fmt: skip
"""What a plugin may import: built-ins are ordinary plugins, and tests of a plugin may use `sage_kit.testing`."""


@dataclass(frozen=True)
class Import:
    """One import: the module, the name taken from it ("" for the module itself), and when it takes place."""

    module: str
    name: str
    line: int
    at_import_time: bool
    for_types_only: bool


def imports(path: Path) -> Iterator[Import]:
    """Every import in a file, wherever it stands."""

    def walk(node: ast.AST, at_import_time: bool, for_types_only: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, "", child.lineno, at_import_time, for_types_only)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative import"
                for alias in child.names:
                    yield Import(child.module or "", alias.name, child.lineno, at_import_time, for_types_only)
            elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                for statement in child.body:
                    yield from walk(ast.Module([statement], []), at_import_time, True)
                for statement in child.orelse:
                    yield from walk(ast.Module([statement], []), at_import_time, for_types_only)
            else:
                inside_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_import_time and not inside_function, for_types_only)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True, False)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not {"templates", "_notebooks"} & set(path.relative_to(PACKAGE).parts)
}
IMPORTS = {name: list(imports(path)) for name, path in MODULES.items()}


def target(item: Import) -> str:
    """The module that an import loads: ``from sage_kit.storage import files`` loads ``sage_kit.storage.files``."""
    inner = f"{item.module}.{item.name}"
    return inner if inner in MODULES else item.module


def room(name: str) -> str:
    """The folder of the package that a module lies in, or its own name: "" for the package itself."""
    return name.partition("sage_kit.")[2].partition(".")[0]


def test_the_walk_sees_the_package() -> None:
    assert not LIGHT - set(MODULES)
    assert any(item.module == "torch" and item.at_import_time for item in IMPORTS["sage_kit.distill"])
    assert any(item.module == "torch" and item.for_types_only for item in IMPORTS["sage_kit.components.messages"])
    assert any(not item.at_import_time for item in IMPORTS["sage_kit.cli.run_commands"])


@pytest.mark.parametrize("name", sorted(LIGHT | {name for name in MODULES if room(name) in LIGHT_ROOMS}))
def test_light_modules_import_nothing_heavy(name: str) -> None:
    reached, waiting = {name: name}, [name]
    while waiting:
        current = waiting.pop()
        for item in IMPORTS[current]:
            if item.for_types_only or not item.at_import_time:
                continue
            assert item.module.partition(".")[0] not in HEAVY, f"{reached[current]} imports {item.module}"
            # Importing a.b.c imports a and a.b too.
            parts = target(item).split(".")
            for depth in range(1, len(parts) + 1):
                ancestor = ".".join(parts[:depth])
                if ancestor in MODULES and ancestor not in reached:
                    reached[ancestor] = f"{reached[current]} -> {ancestor}"
                    waiting.append(ancestor)


def test_hook_modules_of_the_built_ins_are_light() -> None:
    from sage_kit.builtin import BUILT_INS

    # `sage_kit.builtin` imports them all, so the test above walks through each of them.
    for module in BUILT_INS:
        assert module.__name__ in {target(item) for item in IMPORTS["sage_kit.builtin"]}


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("sage_kit.builtin")])
def test_imports_point_to_the_ground(name: str) -> None:
    assert room(name) in ROOMS, f"give {name} its place in ROOMS"
    for item in IMPORTS[name]:
        other = room(target(item))
        if not item.module.startswith("sage_kit") or item.for_types_only or other == "builtin":
            continue
        above = ROOMS.index(other) > ROOMS.index(room(name))
        assert not above, f"{name}:{item.line} imports {target(item)}, whose room stands above"


def test_a_module_name_occurs_once() -> None:
    # a built-in is called as its component, and a sampler may share its name with a lift
    names = [name.rpartition(".")[2] for name, path in MODULES.items() if room(name) not in ("", "builtin")]
    assert {name for name, count in Counter(names).items() if count > 1} == set()


def test_nothing_imports_the_command_line() -> None:
    importing = {name for name in MODULES for item in IMPORTS[name] if room(target(item)) == "cli"}
    assert {name for name in importing if room(name) != "cli"} == {"sage_kit.__main__"}


def test_only_the_plugin_manager_knows_the_built_ins() -> None:
    importing = {
        name
        for name in MODULES
        for item in IMPORTS[name]
        if room(target(item)) == "builtin" and room(name) != "builtin"
    }
    # an analysis of what certain components do knows these
    analyses = {name for name in importing if name.startswith("sage_kit.studies.analyses.")}
    assert importing - analyses == {"sage_kit.components.plugins"}


def plugin_sources() -> list[Path]:
    """The source files of the built-ins and, where the repository is at hand, of the plugin distributions."""
    root = Path(__file__).parents[1]
    return [path for name, path in MODULES.items() if room(name) == "builtin"] + sorted(root.glob("plugins/*/*/*.py"))


@pytest.mark.parametrize("path", plugin_sources(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_plugins_import_public_names_only(path: Path) -> None:
    for item in imports(path):
        if item.module.partition(".")[0] != "sage_kit" or item.for_types_only:
            continue
        module = target(item)
        if room(module) == "builtin":
            assert path.is_relative_to(PACKAGE), f"{path}:{item.line} imports {module}"
            continue
        assert module in PUBLIC, f"{path}:{item.line} imports {module}"
        assert not item.name.startswith("_"), f"{path}:{item.line} imports {item.name}"


@pytest.mark.parametrize(
    "code",
    [
        "import sage_kit.components.plugins; sage_kit.components.plugins.Plugins(allow='')",
        "import sage_kit.cli",
        "import sage_kit.reports.reference; sage_kit.reports.reference.configuration_page()",
        "from sage_kit.config import *; to_toml(load_config(preset='paper'))",
    ],
)
def test_a_real_process_loads_nothing_heavy(code: str) -> None:
    program = f"import sys; {code}; print(*sorted(set({sorted(HEAVY)!r}) & sys.modules.keys()))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout.strip(), process.stderr) == (0, "", "")


def test_no_module_has_more_than_500_lines() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > 500} == {}
