"""What lies in a run directory under which name, and which folders a run may take."""

from __future__ import annotations

import re
from pathlib import Path

from sage_kit.errors import RunDirectoryError
from sage_kit.rundir.run_record import CONFIG, ENVIRONMENT
from sage_kit.storage.files import TEMPORARY_PREFIX

DISABLED = "disabled_observers.json"
LOCK = ".lock"
OWNER = ".owner.json"
"""Which process holds the directory; it says so only while the lock is held."""


def numbered(directory: Path) -> list[Path]:
    """What lies in a directory under a round's number, by that number: round-1000 stands before round-999 by name."""
    found = [(re.fullmatch(r"(?:round-)?(\d+)", path.name), path) for path in directory.glob("*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def require_empty(path: Path) -> None:
    """Refuse a directory with something in it but what a process left that was killed before it began a run there."""
    if (path / CONFIG).exists():
        raise RunDirectoryError(
            f"run directory {path} holds a run already: choose another, or go on with `sage-kit resume {path}`"
        )
    known = (LOCK, OWNER, ENVIRONMENT)
    if path.is_dir() and any(
        item.name not in known and not item.name.startswith(TEMPORARY_PREFIX) for item in path.iterdir()
    ):
        raise RunDirectoryError(f"run directory {path} is not empty: choose another")


def new_folder(parent: Path, name: str) -> Path:
    """Make a directory of that name, or of the first one with a number behind it that does not exist."""
    parent.mkdir(parents=True, exist_ok=True)
    path, number = parent / name, 1
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            path = parent / f"{name}-{number}"
        else:
            return path
