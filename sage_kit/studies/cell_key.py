"""What the outcome of a cell depends on: its key, and the names that must be there before it starts."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sage_kit
from sage_kit.config import DATA_DIR_VARIABLE, default_settings
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import (
    LEAVES,
    Source,
    module_targets,
    modules_of,
    read_source,
    source_digest,
    text_source,
)
from sage_kit.studies.contents import checkpoint_content, file_content
from sage_kit.studies.parameters import NAMING, cell_source, check_components, listed, load_notebook
from sage_kit.studies.sizes import SIZES

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sage_kit.components.plugins import Plugins

FORMAT = 1
"""Version of cell.json, and part of every key."""

LOOP = "sage_kit.distill"

SHOWN = frozenset({
    "sage_kit.reports.figures", "sage_kit.studies.cell_key", "sage_kit.studies.contents", "sage_kit.studies.effort",
    "sage_kit.studies.plots", "sage_kit.studies.gallery", "sage_kit.studies.places", "sage_kit.studies.runner",
    "sage_kit.studies.display",
})  # fmt: skip
"""Modules that notebooks import and that change no number: they draw and show, find folders, or make keys."""

FILES = ("train_file", "validation_file", "evaluation_file", "transfer_file", "warmup_corpus")
CHECKPOINTS = ("teacher", "tokenizer")

NEUTRAL = frozenset({"runs_dir", "results_dir", "cache_dir", "data_dir", "plugin", *FILES, *CHECKPOINTS})
"""Parameters that the key does not hold: where things lie, and what it holds by content."""


def cell_key(notebook: Path, parameters: Mapping[str, Any], working_dir: Path) -> str:
    """The fingerprint of a notebook's code, its parameters, the code behind it, and the data.

    The code behind it is the source of the loop, of all components that are installed, and of the modules that the
    notebook imports, those that only draw left out. Texts between the cells, comments and outputs do not count.

    Parameters
    ----------
    notebook : Path
    parameters : mapping
        Complete and checked.
    working_dir : Path
        Where relative paths among the parameters start.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    sources = [text_source(text) for text in _code_cells(notebook)]
    given = {name: value for name, value in parameters.items() if name not in NEUTRAL and value is not None}
    values = {**default_settings(), **given}  # a default may change, and is no code
    files = (*_plugin_files(parameters, working_dir), *_companions(notebook))
    components, local = _components(files, os.environ.get("SAGE_KIT_PLUGINS"))
    code = notebook_digest(sources)
    data = _data(parameters, local, working_dir)
    cells = [source.digest for source in sources]
    return fingerprint(FORMAT, notebook.stem, cells, values, sage_kit.__version__, code, components, data)[:16]


def notebook_digest(sources: Iterable[Source]) -> str:
    """A digest of the code behind a notebook's cells: the loop, and what the cells import."""
    entries = {LOOP, *(name for source in sources for name in module_targets(source))}
    return source_digest(entries - SHOWN, without=SHOWN)


def _code_cells(notebook: Path) -> list[str]:
    """The code of a notebook, without the lines that only IPython understands."""
    cells = [cell_source(cell) for cell in load_notebook(notebook)["cells"] if cell["cell_type"] == "code"]
    return ["\n".join(line for line in cell.splitlines() if not line.startswith(("%", "!"))) for cell in cells]


def _companions(notebook: Path) -> tuple[str, ...]:
    """Plugins that the notebook brings itself (`sage_kit.studies.places.companion`)."""
    names = re.findall(r"""companion\(["']([^"']+)["']\)""", "\n".join(_code_cells(notebook)))
    return tuple(filter(os.path.isfile, (str(notebook.resolve().parent / name) for name in names)))


def _plugin_files(parameters: Mapping[str, Any], working_dir: Path) -> tuple[str, ...]:
    """The one-file plugins that the parameters name."""
    return tuple(str(working_dir / Path(part).expanduser()) for part in listed(str(parameters.get("plugin") or "")))


@functools.cache
def _plugins(files: tuple[str, ...], allowed: str | None) -> Plugins:
    from sage_kit.components.plugins import Plugins

    return Plugins(files, allow=allowed)


def check_names(notebook: Path, parameters: Mapping[str, Any], given: Set[str], working_dir: Path) -> None:
    """Look up the components that parameters name, before a kernel starts that would fail on them.

    Parameters
    ----------
    notebook : Path
        It may bring plugins of its own.
    parameters : mapping
        Complete and checked.
    given : set of str
        Those whose values are not the notebook's own; its own it may look up itself.
    working_dir : Path
        Where relative paths among the parameters start.

    Raises
    ------
    UnknownComponentError, MissingPackageError
        For a component or a task that is not there.
    PluginError
        For a one-file plugin that cannot be loaded.
    """
    named = {name: parameters[name] for name in NAMING if name in given and isinstance(parameters[name], str)}
    if not named:
        return
    files = (*_plugin_files(parameters, working_dir), *_companions(notebook))
    plugins = _plugins(files, os.environ.get("SAGE_KIT_PLUGINS"))
    check_components(plugins, named)


def _components(files: tuple[str, ...], allowed: str | None) -> tuple[list[Any], dict[str, str]]:
    """What the key holds of the components, and the folder below `data_dir` of every task that is read from there."""
    from sage_kit.components import TaskSpec
    from sage_kit.components.provenance import code_parts, plain_fields

    parts: dict[str, Any] = {}
    local = {}
    for item in _plugins(files, allowed).components():
        spec = item.spec
        if isinstance(spec, TaskSpec) and spec.local and spec.loader is None:
            local[spec.name] = spec.local
        code = spec.loader if isinstance(spec, TaskSpec) else spec.factory
        if modules_of(code) & set(LEAVES):
            continue  # an observer that only shows what happens
        options = {} if isinstance(spec, TaskSpec) else _defaults(spec.options)
        origin, sources, _ = code_parts(str(item.origin), item.origin.distribution, (), code)
        # a package may be missing, which is told when the component is built
        versions = {text: version_of(text) for text in spec.requires}
        parts[f"{spec.kind}:{spec.name}"] = [plain_fields(spec), options, origin, sources, versions]
    return [parts, *(read_source(Path(file)).digest for file in files)], local


def _defaults(options: type[BaseModel]) -> dict[str, str]:
    """The defaults of a component's options, by name."""
    return {name: repr(field.get_default(call_default_factory=True)) for name, field in options.model_fields.items()}


def version_of(requirement: str) -> str:
    """The installed version of what a requirement names; "" where there is none."""
    from packaging.requirements import Requirement

    try:
        return importlib.metadata.version(Requirement(requirement).name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _data(parameters: Mapping[str, Any], local: Mapping[str, str], working_dir: Path) -> dict[str, Any]:
    """The contents of the files that the parameters lead to; the name of what is not on this machine.

    A study that leaves the task to its profile may read any task's files, so all of them count then.
    """
    found: dict[str, Any] = {}
    root = str(parameters.get("data_dir") or os.environ.get(DATA_DIR_VARIABLE, ""))
    base = working_dir / Path(root).expanduser() if root else None
    task = parameters.get("task")
    names = listed(task) if isinstance(task, str) and task else sorted(local)
    if base is not None:
        for name in names:
            for path in sorted((base / local[name]).glob("*.parquet")) if name in local else ():
                found[path.relative_to(base).as_posix()] = file_content(path)
    for name in FILES:
        value = parameters.get(name)
        if not isinstance(value, str) or not value:
            continue
        places = [working_dir / Path(value).expanduser()]
        if base is not None and name == "warmup_corpus":
            places += [base / value, base / f"{value}.parquet"]
        found[name] = next((file_content(place) for place in places if place.is_file()), value)
    for name in CHECKPOINTS:
        value = parameters.get(name)
        if value is None and name == "teacher" and parameters.get("profile") in SIZES:
            value = SIZES[str(parameters["profile"])].settings.get("teacher")
        if isinstance(value, str):
            found[name] = checkpoint_content(value, working_dir)
    return found
