"""Where a checkpoint lies, by its name: hub names, local directories, and folders inside installed packages.

A hub name may end in ``@REVISION``, a commit, tag or branch: that snapshot is fetched as a whole, and read as a folder.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

from sage_kit.errors import ModelError
from sage_kit.models.layouts import instead_of_file, instead_of_folder

PACKAGE_PREFIX = "package:"

_HUB_NAME = re.compile(r"([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?")
_MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_READ = ("*.json", "*.txt", "*.model", "*.jinja", "*.safetensors")
"""Files of a repository that a checkpoint and its tokenizer are read from."""
_SOURCES = "name a hub model, a local directory, or package:MODULE/PATH"


def resolve(name: str, needs: str = "config.json") -> str:
    """Where a checkpoint is: a directory as an absolute path, or a hub name without a revision.

    Parameters
    ----------
    name : str
        A hub name, perhaps with ``@REVISION`` behind it, a local directory, or ``package:MODULE/PATH`` for a folder
        inside an installed package. The package is looked up, not imported. A local directory goes before a hub model
        of the same name.
    needs : str
        A file that a local directory must hold; "" for none.

    Raises
    ------
    ModelError
        When the package is not installed, the path does not exist or holds no checkpoint, the name can be none of the
        three, or the revision cannot be fetched.
    """
    if name.startswith(PACKAGE_PREFIX):
        return str(_checkpoint_directory(_inside_package(name), name, needs))
    path = Path(name).expanduser()
    if path.is_dir():
        return str(_checkpoint_directory(path.absolute(), name, needs))
    if path.exists():
        raise ModelError(f"{name!r} is a file: {instead_of_file(path, name)}")
    if (hub := _HUB_NAME.fullmatch(name)) and not name.startswith("."):
        repository, revision = hub.groups()
        if revision is None:
            return name
        return str(_checkpoint_directory(_fetched(name, repository, revision), name, needs))
    raise ModelError(f"no directory {name!r} exists, and a hub name it cannot be: {_SOURCES}")


def resolve_checkpoint(name: str, working_dir: Path | None = None) -> Path | None:
    """The folder on this machine that a model or tokenizer is read from, without reading it.

    Parameters
    ----------
    name : str
        As for `resolve`.
    working_dir : Path or None
        Where relative paths start; None for the current directory.

    Returns
    -------
    Path or None
        An absolute path. Of a hub name, the snapshot that is in the hub's cache; None where there is none, and where
        the name leads to nothing.
    """
    if name.startswith(PACKAGE_PREFIX):
        try:
            return _inside_package(name).absolute()
        except ModelError:
            return None
    path = (working_dir or Path()) / Path(name).expanduser()
    if path.is_dir():
        return path.absolute()
    hub = _HUB_NAME.fullmatch(name)
    if path.exists() or hub is None or name.startswith("."):
        return None
    return _cached_snapshot(*hub.groups())


def repository_of(name: str) -> str:
    """The repository of a hub name, without a revision."""
    hub = _HUB_NAME.fullmatch(name)
    return name if hub is None else hub[1]


@functools.cache
def _fetched(name: str, repository: str, revision: str) -> Path:
    """The folder of a revision, fetched unless it is here."""
    from huggingface_hub import snapshot_download

    from sage_kit.models.checkpoints import readable  # which asks here where a checkpoint lies

    with readable("files", name, repository):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_READ)))


def _cached_snapshot(name: str, revision: str | None) -> Path | None:
    """The folder of the hub's cache that holds a model, found by any of the files that a checkpoint may begin with."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for file in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        try:
            found = try_to_load_from_cache(name, file, revision=revision)
        except HFValidationError:  # a name that the hub cannot have
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def _inside_package(name: str) -> Path:
    """The folder that ``package:MODULE/PATH`` names."""
    module, _, inner = name.removeprefix(PACKAGE_PREFIX).partition("/")
    if not _MODULE_NAME.fullmatch(module):
        raise ModelError(f"{name!r} names no Python package: write package:MODULE/PATH")
    top, *rest = module.split(".")
    try:
        # of a top-level name, this finds the package without importing it
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module without a spec, such as __main__
        spec = None
    roots = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not roots:
        raise ModelError(f"package {top!r} is not installed: pip install {top.replace('_', '-')}")
    candidates = [Path(root, *rest, inner) for root in roots]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise ModelError(
        f"package {top!r} is installed, but {name!r} does not exist in it: {candidates[0]} is no directory"
    )


def _checkpoint_directory(path: Path, name: str, needs: str) -> Path:
    if not needs or (path / needs).is_file():
        return path
    hint = instead_of_folder(path, name)
    if not hint:
        hint = f"{path} has no {needs}"
        if _HUB_NAME.fullmatch(name):
            hint += "; a local directory goes before a hub model of the same name, so rename it if you mean that"
    raise ModelError(f"{name!r} is no checkpoint: {hint}")
