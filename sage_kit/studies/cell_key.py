"""What the outcome of a cell depends on: its key, and the names that must be there before it starts.

The key errs on the safe side: whatever file of the code or the data has changed, the notebook is executed again, and
finds the runs that have not (`sage_kit.studies.runs`, whose keys follow imports and contents).
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sage_kit
from sage_kit.config import DATA_DIR_VARIABLE
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import module_targets, source_digest, text_source
from sage_kit.studies.contents import checkpoint_content
from sage_kit.studies.parameters import NAMING, cell_source, check_components, listed, load_notebook
from sage_kit.studies.sizes import SIZES

if TYPE_CHECKING:
    from sage_kit.components.plugins import Plugins

FORMAT = 2  # version of cell.json, and part of every key
CHECKPOINTS = ("teacher", "tokenizer", "student")

NEUTRAL = frozenset({
    "runs_dir", "results_dir", "cache_dir", "data_dir", "plugin", "train_file", "validation_file", "evaluation_file",
    "transfer_file", "warmup_corpus", *CHECKPOINTS,
})  # fmt: skip
"""Parameters that say where things lie, whatever is found there."""


def cell_key(notebook: Path, parameters: Mapping[str, Any], working_dir: Path) -> str:
    """The fingerprint of a notebook's code, its parameters, all code of `sage_kit` and its plugins, and the data. Texts
    between the cells, comments and outputs of the notebook do not count. Files of data count by size and time.
    """
    cells = [text_source(text) for text in _code_cells(notebook)]
    imported = {name for cell in cells for name in module_targets(cell) if name.partition(".")[0] != sage_kit.PROJECT}
    plugin_files = _plugin_files(notebook, parameters, working_dir)
    code = [[cell.digest for cell in cells], source_digest(imported, plugin_files), _installed()]
    size = SIZES.get(str(parameters.get("profile")))
    usual = {"teacher": size.settings.get("teacher")} if size is not None else {}
    checkpoints = [
        checkpoint_content(str(parameters.get(name) or usual.get(name) or ""), working_dir) for name in CHECKPOINTS
    ]
    named = [working_dir / Path(value).expanduser() for value in parameters.values() if isinstance(value, str)]
    folder = parameters.get("data_dir") or os.environ.get(DATA_DIR_VARIABLE)
    data = sorted((working_dir / Path(folder).expanduser()).rglob("*.parquet")) if folder else []
    stamps = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in (*named, *data) if path.is_file()]
    allowed = os.environ.get("SAGE_KIT_PLUGINS")
    return fingerprint(FORMAT, notebook.stem, dict(parameters), code, allowed, checkpoints, stamps)[:16]


@functools.cache
def _installed() -> list[Any]:
    """All code of `sage_kit` and of the plugins that are installed, and the versions of all packages."""
    points = importlib.metadata.entry_points(group=sage_kit.PROJECT)
    folders = {Path(sage_kit.__file__).parent}
    for top in {point.module.partition(".")[0] for point in points}:
        spec = importlib.util.find_spec(top)
        folders |= {Path(folder) for folder in (spec.submodule_search_locations or ())} if spec is not None else set()
    files = {path for folder in folders for path in folder.rglob("*.py")}
    code = [[path.name, path.read_bytes()] for path in sorted(files)]
    return [fingerprint(code), sorted({f"{item.name} {item.version}" for item in importlib.metadata.distributions()})]


def check_names(notebook: Path, parameters: Mapping[str, Any], given: Set[str], working_dir: Path) -> None:
    """Look up the components that parameters name, before a kernel starts that would fail on them. `given` are the
    parameters whose values are not the notebook's own; its own it may look up itself.
    """
    named = {name: parameters[name] for name in NAMING if name in given and isinstance(parameters[name], str)}
    files = _plugin_files(notebook, parameters, working_dir)
    if named or files:
        check_components(_plugins(files, os.environ.get("SAGE_KIT_PLUGINS")), named)


@functools.cache
def _plugins(files: tuple[str, ...], allowed: str | None) -> Plugins:
    from sage_kit.components.plugins import Plugins

    return Plugins(files, allow=allowed)


def _code_cells(notebook: Path) -> list[str]:
    """The code of a notebook, without the lines that only IPython understands."""
    cells = [cell_source(cell) for cell in load_notebook(notebook)["cells"] if cell["cell_type"] == "code"]
    return ["\n".join(line for line in cell.splitlines() if not line.startswith(("%", "!"))) for cell in cells]


def _plugin_files(notebook: Path, parameters: Mapping[str, Any], working_dir: Path) -> tuple[str, ...]:
    """The one-file plugins that the parameters name or the notebook brings itself (`places.companion`)."""
    named = [str(working_dir / Path(part).expanduser()) for part in listed(str(parameters.get("plugin") or ""))]
    names = re.findall(r"""companion\(["']([^"']+)["']\)""", "\n".join(_code_cells(notebook)))
    return (*named, *filter(os.path.isfile, (str(notebook.resolve().parent / name) for name in names)))
