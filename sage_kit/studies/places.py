"""Where studies find what they made, and files that lie beside the notebooks, from any folder of a project."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import sage_kit
from sage_kit.errors import StudyError

RUNS, CELLS = "runs/studies", "runs/cells"
"""Of a project: where runs of arms and executed notebooks lie unless a folder is named. Git ignores ``runs/``."""

RESULTS = "runs/results"  # of a project: where a study saves its result unless a folder is named. Git ignores it
SHARED_RESULTS = "results"
"""Of a project: the results that its repository holds. A study writes there only when `results_dir` names it."""


def project_root() -> Path:
    """The root of the project that the current folder belongs to.

    The nearest folder, from the current one upward, that holds ``.git``; without one, the outermost that holds a
    pyproject.toml, since plugins within a project have their own; without one, the nearest in which studies have left
    their runs; else the current folder. The home folder and those above it count only when they are the current one.
    """
    folders = list(_upward())
    versioned = [folder for folder in folders if (folder / ".git").exists()]
    built = [folder for folder in folders if (folder / "pyproject.toml").is_file()]
    used = [folder for folder in folders if any((folder / name).is_dir() for name in (RUNS, RESULTS, CELLS))]
    return next(iter([*versioned, *reversed(built), *used]), folders[0])


def _upward() -> Iterator[Path]:
    """The current folder and those above it that may be a project."""
    here = Path.cwd().resolve()
    home = Path(os.path.expanduser("~")).resolve()
    yield here
    for folder in here.parents:
        if folder == home or folder in home.parents:
            return
        yield folder


def in_project(given: str | Path | None, default: str) -> Path:
    """A folder that a user names, as it is; else the project's own."""
    return Path(given).expanduser() if given else project_root() / default


def result_folders(given: str | Path | None = None) -> list[Path]:
    """The folders that results are read from: the one that is named, else the repository's and the local one. Of the
    project's own, those that are there.
    """
    if given:
        return [Path(given).expanduser()]
    root = project_root()
    return [folder for folder in (root / SHARED_RESULTS, root / RESULTS) if folder.is_dir()]


def shown(path: Path) -> str:
    """A path as a person reads it: relative where it lies below the current folder."""
    here = Path.cwd().resolve()
    path = path.resolve()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.as_posix()


def companion(name: str) -> str:
    """Path of a file beside the notebooks, relative to the current folder where it lies below that.

    `name` is relative to the folder of the notebooks; StudyError where it is neither here, nor in the project's
    notebooks, nor beside the installed package.
    """
    package = Path(sage_kit.__file__).resolve().parent
    near = (Path(), Path("notebooks"), project_root() / "notebooks")
    for folder in (*near, package / "_notebooks", package.parent / "notebooks"):
        path = folder / name
        if path.is_file():
            return shown(path)
    raise StudyError(
        f"there is no file {name!r} here, in the project's notebooks or in the package: run from the project's folder"
    )
