"""Files that lie beside the notebooks, wherever these are run. Light."""

from __future__ import annotations

from pathlib import Path

import sage_kit
from sage_kit.errors import StudyError


def companion(name: str) -> str:
    """Path of a file beside the notebooks, relative to the current folder where it lies below that.

    Parameters
    ----------
    name : str
        Relative to the folder of the notebooks, such as "plugins/beyond_glue_tasks.py".

    Returns
    -------
    str

    Raises
    ------
    StudyError
        When it is found neither here, nor in ./notebooks, nor beside the installed package.
    """
    package = Path(sage_kit.__file__).resolve().parent
    for folder in (Path(), Path("notebooks"), package / "_notebooks", package.parent / "notebooks"):
        path = folder / name
        if path.is_file():
            here = Path.cwd().resolve()
            return path.resolve().relative_to(here).as_posix() if path.resolve().is_relative_to(here) else str(path)
    raise StudyError(f"there is no file {name!r} here, in ./notebooks or in the package: run from the project's folder")
