"""What the outcome of a cell depends on: its key, and the names that must be there before it starts. Light."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sage_kit
from sage_kit.config import DATA_DIR_VARIABLE
from sage_kit.fingerprint import fingerprint
from sage_kit.studies.parameters import NAMING, cell_source, check_components, listed, load_notebook

if TYPE_CHECKING:
    from sage_kit.plugins import Plugins

FORMAT = 1
"""Version of cell.json, and part of every key."""

NEUTRAL = frozenset({"runs_dir", "results_dir", "cache_dir", "data_dir", "plugin"})
"""Parameters that the key does not hold: where things lie, and what it holds by content."""


def cell_key(notebook: Path, parameters: Mapping[str, Any], working_dir: Path) -> str:
    """The fingerprint of a notebook's cells without outputs, its parameters, the code and the data.

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
    cells = [[cell["cell_type"], cell_source(cell)] for cell in load_notebook(notebook)["cells"]]
    values = {name: value for name, value in parameters.items() if name not in NEUTRAL}
    code, local = _code(_plugin_files(parameters, working_dir), os.environ.get("SAGE_KIT_PLUGINS"))
    data = _data(parameters, local, working_dir)
    return fingerprint(FORMAT, notebook.stem, cells, values, sage_kit.__version__, code, data)[:16]


def _plugin_files(parameters: Mapping[str, Any], working_dir: Path) -> tuple[str, ...]:
    """The one-file plugins that the parameters name."""
    return tuple(str(working_dir / Path(part).expanduser()) for part in listed(str(parameters.get("plugin") or "")))


@functools.cache
def _plugins(files: tuple[str, ...], allowed: str | None) -> Plugins:
    from sage_kit.plugins import Plugins

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
    text = "\n".join(cell_source(cell) for cell in load_notebook(notebook)["cells"] if cell["cell_type"] == "code")
    # plugins that the notebook brings itself (`sage_kit.studies.places.companion`)
    own = [str(notebook.parent / name) for name in re.findall(r"""companion\(["']([^"']+)["']\)""", text)]
    files = (*_plugin_files(parameters, working_dir), *filter(os.path.isfile, own))
    plugins = _plugins(files, os.environ.get("SAGE_KIT_PLUGINS"))
    check_components(plugins, named)


@functools.cache
def _code(files: tuple[str, ...], allowed: str | None) -> tuple[list[Any], dict[str, str]]:
    """What the key holds of the plugins, and the folder below `data_dir` of every task that is read from there."""
    from sage_kit.components import TaskSpec
    from sage_kit.provenance import code_parts

    plugins = _plugins(files, allowed)
    parts: dict[str, Any] = {}
    local = {}
    for item in plugins.components():
        spec = item.spec
        if isinstance(spec, TaskSpec) and spec.local and spec.loader is None:
            local[spec.name] = spec.local
        # A plugin in a source tree counts by the text of its hooks as well: its version stays the same while it is
        # edited.
        code = spec.loader if isinstance(spec, TaskSpec) else spec.factory
        is_ours = item.origin.distribution == "sage-kit"
        hooks = [code] if code and not is_ours else []
        origin, sources, _ = code_parts(str(item.origin), item.origin.distribution, (), *hooks)
        versions = {text: version_of(text) for text in spec.requires}
        parts[f"{spec.kind}:{spec.name}"] = [origin, sources, versions]
    parts["files"] = [Path(file).read_bytes() for file in files]
    return [parts], local


def version_of(requirement: str) -> str:
    """The installed version of what a requirement names; "" where there is none."""
    from packaging.requirements import Requirement

    try:
        return importlib.metadata.version(Requirement(requirement).name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _data(parameters: Mapping[str, Any], local: Mapping[str, str], working_dir: Path) -> dict[str, str]:
    """Fingerprints of the files that the parameters lead to, by where they stand.

    A study that leaves the task to its profile may read any task's files, so all of them count then.
    """
    found: dict[str, str] = {}
    root = str(parameters.get("data_dir") or os.environ.get(DATA_DIR_VARIABLE, ""))
    base = working_dir / Path(root).expanduser() if root else None
    task = parameters.get("task")
    names = listed(task) if isinstance(task, str) and task else sorted(local)
    if base is not None:
        for name in names:
            for path in sorted((base / local[name]).glob("*.parquet")) if name in local else ():
                found[path.relative_to(base).as_posix()] = _content(path)
    for name in ("train_file", "validation_file", "warmup_corpus", "teacher", "tokenizer"):
        value = parameters.get(name)
        if not isinstance(value, str) or not value:
            continue
        places = [working_dir / Path(value).expanduser()]
        if base is not None and name == "warmup_corpus":
            places += [base / value, base / f"{value}.parquet"]
        for place in places:
            for file in [place] if place.is_file() else sorted(item for item in place.rglob("*") if item.is_file()):
                found[f"{name}:{file.relative_to(place).as_posix()}"] = _content(file)
    return found


def _content(path: Path) -> str:
    status = path.stat()
    return _digest(str(path), status.st_size, status.st_mtime_ns)


@functools.cache
def _digest(path: str, size: int, modified: int) -> str:
    """The digest of a file's bytes; size and time of change tell this process when to read it again."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return f"{size}:{digest.hexdigest()}"
