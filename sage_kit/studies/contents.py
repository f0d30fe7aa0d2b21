"""What a key holds of files: their content, never their time or where they lie."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

from sage_kit.storage.reading import json_loads

NOT_READ = (".md", ".bin", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".ckpt", ".pkl", ".pb", ".tflite")
"""Endings of files in the folder of a checkpoint that nothing here reads: texts, and weights of other libraries."""


def file_content(path: Path) -> str:
    """Size and digest of a file's bytes, which are read once per process unless size or time of change is another."""
    status = path.stat()
    return _digest(str(path.resolve()), status.st_size, status.st_mtime_ns)


def folder_content(folder: Path) -> dict[str, str]:
    """The contents of what a checkpoint is read from, by file name: the folder's own files, hidden ones left out."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {
        path.name: file_content(path)
        for path in files
        if not path.name.startswith(".") and not path.name.lower().endswith(NOT_READ)
    }


def checkpoint_content(name: str, working_dir: Path | None = None) -> str | dict[str, str]:
    """What stands for a teacher or tokenizer in a key.

    The contents of the folder by file name, so that a copy elsewhere is the same checkpoint. Of a hub name, it and the
    commit of the snapshot that is on this machine; of what is not here, the name. `name` is a hub name, a local
    directory, or ``package:MODULE/PATH``; relative paths start in `working_dir`, None for the current directory.
    """
    if not name:
        return ""
    from sage_kit.models.locations import repository_of, resolve_checkpoint

    folder = resolve_checkpoint(name, working_dir)
    if folder is None:
        return name
    if folder.parent.name == "snapshots":  # of the hub's cache, where the folder is called after the commit
        return f"{repository_of(name)}@{folder.name}"
    return folder_content(folder)


@functools.cache
def _digest(path: str, size: int, modified: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return f"{size}:{digest.hexdigest()}"


def teacher_parts(name: str) -> list[Any]:
    """What a key of runs must hold of the family of a teacher; where that is not known here, of all in use."""
    from sage_kit.components.plugins import Plugins
    from sage_kit.components.spec_checks import unmet
    from sage_kit.models.families import family_parts
    from sage_kit.models.locations import resolve_checkpoint

    plugins, folder = Plugins.in_use(), resolve_checkpoint(name)
    try:
        settings = json_loads((folder / "config.json").read_bytes()) if folder else {}
        found = plugins.family_of_type(str(settings["model_type"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        found = None
    families = [found] if found else [family for family in plugins.families() if not unmet(family.requires)]
    return [[family.name, *family_parts(family)] for family in families]
