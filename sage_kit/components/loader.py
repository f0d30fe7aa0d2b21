"""Where plugins come from: entry points of installed distributions, the allow list, and one-file plugins."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import CodeType
from typing import Any

from sage_kit.components.guard import Failure, attempt, cause_of, own_error, place_of, plugin_error, remember_home
from sage_kit.errors import PluginError, SageError, did_you_mean

ENTRY_POINT_GROUP = "sage_kit"
ALLOW_VARIABLE = "SAGE_KIT_PLUGINS"
_TARGET = re.compile(r"[\w.]+(:[\w.]+)?\s*(\[.*\])?")


@dataclass(frozen=True)
class Origin:
    """Where a component comes from: a distribution and its version, or a file."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Quarantined:
    """A plugin that cannot be used, or one component of it, and why.

    Attributes
    ----------
    origin : Origin
    cause : str
    component : str
        Kind and name, e.g. ``"reducer 'pca'"``; "" for the whole plugin.
    """

    origin: Origin
    cause: str
    component: str = ""

    def __str__(self) -> str:
        plugin = f"plugin {self.origin.plugin!r} ({self.origin})"
        return f"{self.component} of {plugin}" if self.component else plugin


class _FileLoader(importlib.machinery.SourceFileLoader):
    """Compiles the file itself each time: Python's own cache takes a quick edit of equal length for the old file."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def load_file(path: Path) -> Any:
    """The module of a one-file plugin.

    Raises
    ------
    PluginError
        When there is no such file, or it cannot be imported.
    """
    if not path.is_file():
        raise PluginError(f"plugin file {path} does not exist")
    if path.suffix != ".py":
        raise PluginError(f"plugin file {path} is not a Python file (its name must end in .py)")
    name = f"sage_kit_plugin_{path.stem}"
    loader = _FileLoader(name, str(path))
    module_spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert module_spec is not None
    module = sys.modules[name] = importlib.util.module_from_spec(module_spec)
    remember_home(file=str(path))
    try:
        attempt(loader.exec_module, module)
    except (Failure, SageError) as raised:
        del sys.modules[name]
        error = own_error(raised)
        raise plugin_error(f"plugin file {path} cannot be loaded", error) from error
    return module


def find_installed(allow: str | None) -> tuple[list[tuple[EntryPoint, Origin]], list[Origin], list[Quarantined]]:
    """Installed plugins, by what `allow` says: those that may load, those left out, and those that cannot be read.

    Raises
    ------
    PluginError
        For a name in `allow` that no installed plugin has, or names with and without a minus.
    """
    points, unreadable = _entry_points()
    may_load = _allowed(allow, {point.name for point in points} | {bad.origin.plugin for bad in unreadable})
    # one plugin may be found twice, e.g. as a wheel and through the metadata of its source folder
    found = {(point.name, point.value): point for point in reversed(points)}
    origins = [(found[key], Origin(key[0], *_name_and_version(found[key].dist))) for key in sorted(found)]
    left_out = [origin for point, origin in origins if not may_load(point.name)]
    return [pair for pair in origins if may_load(pair[0].name)], left_out, unreadable


def load(point: EntryPoint) -> Any:
    """What an entry point names; raises PluginError with the cause alone when that cannot be imported."""
    if not _TARGET.fullmatch(point.value):
        raise PluginError(f"its entry point {point.value!r} is neither MODULE nor MODULE:OBJECT")
    module = re.split(r"[:\s\[]", point.value, maxsplit=1)[0]
    plugin, error = None, None
    try:
        plugin = attempt(point.load)
    except (Failure, SageError) as raised:
        error = own_error(raised)
    remember_home(module=module, distribution=_name_and_version(point.dist)[0])
    if error is not None:
        raise PluginError(cause_of(error), place_of(error)) from error
    return plugin


def _entry_points() -> tuple[list[EntryPoint], list[Quarantined]]:
    """The entry points of plugins, by name, and the distributions whose entry points cannot be read."""
    unreadable = []
    try:
        points = list(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
    except Exception:  # one distribution with malformed metadata hides those of all
        points = []
        for distribution in importlib.metadata.distributions():
            try:
                points += [point for point in distribution.entry_points if point.group == ENTRY_POINT_GROUP]
            except Exception as error:
                name, version = _name_and_version(distribution)
                cause = f"its entry points cannot be read: {cause_of(error)}"
                unreadable.append(Quarantined(Origin(name, name, version), cause))
    return sorted(points, key=lambda p: (p.name, p.value)), unreadable


def _name_and_version(distribution: Any) -> tuple[str, str]:
    """Of a distribution; "unknown" where its metadata does not say."""

    def field(name: str) -> str:
        with contextlib.suppress(Exception):  # metadata may be missing or malformed
            return str(distribution.metadata.get(name) or "unknown")
        return "unknown"

    return field("Name"), field("Version")


def _allowed(allow: str | None, installed: Iterable[str]) -> Callable[[str], bool]:
    """Whether a plugin of that name may load, by what `allow` says."""
    if allow is None:
        return lambda name: True
    names = [part.strip() for part in allow.split(",") if part.strip()]
    denied = {name.removeprefix("-").strip() for name in names if name.startswith("-")}
    taken = {name for name in names if not name.startswith("-")}
    if denied and taken:
        raise PluginError(
            f"{ALLOW_VARIABLE} is {allow!r}, which names both plugins to load and plugins to leave out (with a minus): "
            "names alone leave all others out already, so keep one kind"
        )
    for name in sorted(denied | taken):
        if name not in installed:
            raise PluginError(
                f"{ALLOW_VARIABLE} names the plugin {name!r}, which is not installed."
                f"{did_you_mean(name, installed, 'Installed')}"
            )
    return lambda name: name not in denied if denied else name in taken
