"""Which code a component's results come from."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sage_kit
from sage_kit.storage.source_digest import modules_of, source_digest, walk

if TYPE_CHECKING:
    from sage_kit.components import Options
    from sage_kit.components.plugins import Plugins, Registered

DISTRIBUTION = "sage-kit"


def code_parts(origin: str, distribution: str, requires: Iterable[str], *objects: Any) -> list[Any]:
    """What a key of cached results must hold of the code that computes them.

    Parameters
    ----------
    origin : str
        Distribution and version of the plugin; of a one-file plugin its name counts, not the folder that it lies in.
        The version of sage-kit itself does not count: its source does.
    distribution : str
        The distribution's name, or the path of a one-file plugin.
    requires : iterable of str
        Requirement strings of packages whose installed versions count.
    *objects
        Classes or functions whose modules count, with all that these import (`sage_kit.storage.source_digest`). Of an
        installed plugin, the module of its entry point counts as well.

    Returns
    -------
    list
        Text, bytes and mappings, for `sage_kit.storage.fingerprint.fingerprint`.
    """
    from packaging.requirements import Requirement

    entries, files, own = _sources(distribution, objects)
    if files:
        origin = origin.replace(distribution, Path(distribution).name)
    if distribution == DISTRIBUTION:
        origin = distribution
    needed = [Requirement(text) for text in requires]
    # one whose marker excludes it here, e.g. an older Python's backport, need not be installed
    names = [one.name for one in needed if one.marker is None or one.marker.evaluate()]
    versions = {name: importlib.metadata.version(name) for name in names}
    return [origin, source_digest(entries, files, own=own), versions]


def component_parts(plugins: Plugins, kind: str, name: str, options: Mapping[str, Any] | Options) -> list[Any]:
    """What a key must hold of a component: options with their defaults, capabilities, and its code.

    So it does of the components that it builds itself: those that its options name, and those that its code names.

    Parameters
    ----------
    plugins : Plugins
    kind, name : str
    options : mapping or Options
        Checked already or not.

    Returns
    -------
    list
        For `sage_kit.storage.fingerprint.fingerprint`.

    Raises
    ------
    UnknownComponentError, MissingPackageError, ConfigError
        For a component or option that is not there or a bad value.
    """
    found: dict[tuple[str, str], list[Any]] = {}
    _collect(plugins, kind, name, options, found)
    return [[*key, *found[key]] for key in sorted(found)]


def _collect(
    plugins: Plugins,
    kind: str,
    name: str,
    options: Mapping[str, Any] | Options,
    found: dict[tuple[str, str], list[Any]],
) -> None:
    item = plugins.registered(kind, name)
    values = plugins.options(kind, name, options).model_dump(mode="json")
    spec = plugins.reducer(name, options) if kind == "reducer" else item.spec
    found[kind, name] = [values, plain_fields(spec), registered_parts(item)]
    entries, files, own = _sources(item.origin.distribution, [getattr(item.spec, "factory", None)])
    inner = [pair for source in walk(entries, files, own=own).values() for pair in source.components]
    for other in [*inner, *_named(values, kind)]:
        # of a component that an option names, its own options are among the values
        if other not in found and other[1] in plugins.names(other[0]):
            _collect(plugins, *other, {}, found)


def _named(values: Any, kind: str, key: str = "") -> Iterator[tuple[str, str]]:
    """Kind and name of what options may name: a component of the same kind, or of the kind that the option is called.

    A text that names none by chance only makes a key hold more than it must.
    """
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _named(value, kind, name)
    elif isinstance(values, list):
        for value in values:
            yield from _named(value, kind, key)
    elif isinstance(values, str):
        yield from ((one, values) for one in dict.fromkeys((kind, key)))


def registered_parts(item: Registered) -> list[Any]:
    """`code_parts` of a component's factory and of what says which layers a loss compares, or of a task's loader."""
    code = [one for one in (item.code, getattr(item.spec, "layers", None)) if one]
    return code_parts(str(item.origin), item.origin.distribution, item.spec.requires, *code)


def plain_fields(spec: Any) -> dict[str, Any]:
    """The fields of a spec that are numbers, text and the like, its name and the texts for readers left out."""
    values = {name: getattr(spec, name) for name in spec.__dataclass_fields__}
    return {
        name: value
        for name, value in values.items()
        if name not in ("name", "summary", "install", "requires") and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _sources(distribution: str, objects: Iterable[Any]) -> tuple[set[str], list[str], set[str]]:
    """Entry modules, files and packages to follow, of objects that a distribution or a one-file plugin brings."""
    entries = set().union(*(modules_of(item) for item in objects if item is not None))
    if distribution != DISTRIBUTION and Path(distribution).is_file():
        return entries, [distribution], set()
    points = () if distribution == DISTRIBUTION else _entry_modules(distribution)
    return entries | set(points), [], {module.partition(".")[0] for module in points}


@functools.cache
def _entry_modules(distribution: str) -> tuple[str, ...]:
    """The modules through which an installed distribution contributes its plugins."""
    try:
        points = importlib.metadata.distribution(distribution).entry_points
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(sorted({point.module for point in points if point.group == sage_kit.PROJECT}))


# ---- the commit -----------------------------------------------------------------------------------------------------


@functools.cache
def commit() -> str:
    """The commit of the source tree that `sage_kit` was imported from, followed by "+" where tracked files differ.

    "" for an installed package, and where git is not there.
    """
    root = Path(sage_kit.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    head = _git(root, "rev-parse", "HEAD")
    if not re.fullmatch(r"[0-9a-f]{40,64}", head):
        return ""
    return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
