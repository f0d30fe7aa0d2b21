"""Which code a component's results come from, as far as that can be seen. Light."""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def code_parts(origin: str, distribution: str, requires: Iterable[str], *objects: Any) -> list[Any]:
    """What a key of cached results must hold of the code that computes them.

    Parameters
    ----------
    origin : str
        Distribution and version of the plugin; of a one-file plugin its name counts, not the folder that it lies in.
    distribution : str
        The distribution's name, or the path of a one-file plugin, whose text then counts.
    requires : iterable of str
        Requirement strings of packages whose installed versions count.
    *objects
        Classes or functions whose source files count.

    Returns
    -------
    list
        Text, bytes and mappings, for `sage_kit.fingerprint.fingerprint`.
    """
    from packaging.requirements import Requirement

    files = {distribution, *(_source(item) for item in objects)}
    sources = [Path(file).read_bytes() for file in sorted(files) if file and Path(file).is_file()]
    if Path(distribution).is_file():
        origin = origin.replace(distribution, Path(distribution).name)
    names = [Requirement(text).name for text in requires]
    return [origin, sources, {name: importlib.metadata.version(name) for name in names}]


def _source(item: Any) -> str:
    """The file that defines a class or function; "" for one that has none, like a class of the builtins."""
    try:
        return inspect.getsourcefile(item) or ""
    except TypeError:
        return ""
