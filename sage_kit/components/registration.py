"""What makes a plugin part of sage-kit's own repository: a line or a word in each of these files.

`sage-kit new-plugin --register` makes the edits, and a test of the repository asks `unregistered` which are missing.
The rest of each file stays as it is, to the byte.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import sage_kit
from sage_kit.components.scaffold import check_name, new_plugin
from sage_kit.config import toml_loads
from sage_kit.errors import ConfigError, RunDirectoryError
from sage_kit.storage.files import disk_errors, write_texts

PLUGINS = "plugins"
"""The repository's folder of plugins."""

VERSION_FILE = "sage_kit/__init__.py"

TOX_WORDS = re.compile(
    r"linux\d*|darwin|win32|cygwin|aix|[a-z]*py(thon)?\d*|i\d86|x86(_64)?|amd64|aarch64|arm\w*|alpha|beta"
)
"""Factors that tox understands by itself: platforms, machines and Pythons."""


@dataclass(frozen=True)
class Lines:
    """A block of lines in a file, one or more for each plugin.

    Attributes
    ----------
    file : str
        Path of the file in the repository.
    pattern : str
        Matches such a line, without its end; the group ``name`` is the plugin.
    form : str
        The line of a plugin, with ``{name}`` and ``{kind}``.
    is_sorted : bool
        Whether the lines are in the order of their names; a new one goes to the end of the block otherwise.
    """

    file: str
    pattern: str
    form: str
    is_sorted: bool = True

    def found(self, lines: list[str]) -> list[tuple[int, str]]:
        """Index of each line of the block, and its plugin; raises ConfigError when there is none."""
        matches = [(index, re.fullmatch(self.pattern, line.rstrip("\r\n"))) for index, line in enumerate(lines)]
        found = [(index, match["name"]) for index, match in matches if match]
        if not found:
            raise ConfigError(
                f"{self.file} has no line like '{self.form.format(name='umap', kind='reducer').strip()}', so nothing "
                "shows where a plugin's line belongs: restore one"
            )
        return found

    def missing(self, lines: list[str], name: str) -> list[tuple[int, str]]:
        """Index at which the plugin's line is missing, and what to do there; empty when it is there."""
        found = self.found(lines)
        if name in {other for _, other in found}:
            return []
        later = [index for index, other in found if other > name] if self.is_sorted else []
        index = later[0] if later else found[-1][0] + 1
        return [(index, f"add the line '{self.form.format(name=name, kind='KIND').strip()}'")]

    def extra(self, lines: list[str], names: set[str]) -> list[tuple[int, str]]:
        """Index of each line whose plugin does not exist, and what to do there."""
        return [(index, f"remove the line of {name!r}") for index, name in self.found(lines) if name not in names]

    def with_plugin(self, lines: list[str], kind: str, name: str) -> list[str]:
        """The lines with the plugin's line among them."""
        changed = list(lines)
        for index, _ in self.missing(lines, name):
            end = _line_end(lines[index - 1])
            if not end:  # the last line of the file
                changed[index - 1] += _line_end(lines[0])
            changed.insert(index, self.form.format(name=name, kind=kind) + end)
        return changed


@dataclass(frozen=True)
class Words:
    """Words between braces, separated by commas, in each line of a file that has a certain form.

    Attributes
    ----------
    file : str
        Path of the file in the repository.
    pattern : str
        Matches such a line, without its end; the group ``names`` holds the words.
    """

    file: str
    pattern: str

    def found(self, lines: list[str]) -> list[tuple[int, list[str], slice]]:
        """Index, words and place of the words of each line; raises ConfigError when there is none."""
        matches = [(index, re.fullmatch(self.pattern, line.rstrip("\r\n"))) for index, line in enumerate(lines)]
        found = [(index, m["names"].split(","), slice(*m.span("names"))) for index, m in matches if m]
        if not found:
            raise ConfigError(f"{self.file} has no line with the plugins between braces: restore it")
        return found

    def missing(self, lines: list[str], name: str) -> list[tuple[int, str]]:
        """Index of each line that lacks the plugin's word, and what to do there."""
        return [
            (index, f"add the word '{name}' between the braces")
            for index, words, _ in self.found(lines)
            if name not in words
        ]

    def extra(self, lines: list[str], names: set[str]) -> list[tuple[int, str]]:
        """Index of each line with a word that is no plugin's, and what to do there."""
        return [
            (index, f"remove the word '{word}' between the braces")
            for index, words, _ in self.found(lines)
            for word in words
            if word not in names
        ]

    def with_plugin(self, lines: list[str], kind: str, name: str) -> list[str]:
        """The lines with the plugin's word in each."""
        changed = list(lines)
        for index, words, place in self.found(lines):
            if name not in words:
                line = lines[index]
                changed[index] = line[: place.start] + ",".join(sorted([*words, name])) + line[place.stop :]
        return changed


PLACES: tuple[Lines | Words, ...] = (
    Lines("requirements/plugins.txt", r"\./plugins/(?P<name>\w+)", "./plugins/{name}"),
    Lines("requirements/dev.txt", r"-e \./plugins/(?P<name>\w+)", "-e ./plugins/{name}"),
    Words("tox.ini", r"    \{(?P<names>[\w,]+)\}: .*\{\[plugin\]name\}.*"),
    Lines("tox.ini", r"    (?P<name>\w+): (?P=name)", "    {name}: {name}"),
    Lines("pyproject.toml", r'    "sage_kit_(?P<name>\w+)",', '    "sage_kit_{name}",'),
    Lines(
        "sage_kit/components/plugins.py",
        r'    \("\w+", "\w+"\): "(?P<name>\w+)",',
        '    ("{kind}", "{name}"): "{name}",',
        is_sorted=False,
    ),
)
"""Whatever names each plugin of the repository."""


def find_repository(folder: Path) -> Path | None:
    """The root of the clone of sage-kit's repository whose plugins lie in `folder`, or None."""
    root = folder.resolve().parent
    files = {VERSION_FILE, *(place.file for place in PLACES)}
    if folder.resolve().name != PLUGINS or not all((root / file).is_file() for file in files):
        return None
    project = toml_loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    return root if project.get("name") == "sage-kit" else None


def require_repository(folder: Path) -> Path:
    """As `find_repository`, but raises ConfigError where there is none, or one of another version of sage-kit."""
    root = find_repository(folder)
    if root is None:
        raise ConfigError(
            f"--register edits files of sage-kit's repository, and {folder.resolve()} is not the folder 'plugins' of a "
            "clone of it: run it in the clone's root, or give that folder with --dest, or leave --register out"
        )
    version = re.search(r'^__version__ = "(.+)"$', _read(root / VERSION_FILE), flags=re.MULTILINE)
    if version is None or version[1] != sage_kit.__version__:
        raise ConfigError(
            f"this is sage-kit {sage_kit.__version__}, and the clone in {root} is of version "
            f"{version[1] if version else 'unknown'}, with which its plugins must agree: install the clone first, with "
            f"pip install -e {root}"
        )
    return root


def edits(root: Path, kind: str, name: str) -> dict[Path, str]:
    """The new text of each file that does not yet name the plugin, by its path.

    Raises
    ------
    ConfigError
        When the name means something else to `tox.ini`, or a file has lost the lines that a plugin's goes to.
    """
    texts: dict[Path, str] = {}
    originals: dict[Path, str] = {}
    for place in PLACES:
        path = root / place.file
        if path not in texts:
            texts[path] = originals[path] = _read(path)
        texts[path] = "".join(place.with_plugin(texts[path].splitlines(keepends=True), kind, name))
    is_new = not (root / PLUGINS / name).exists()
    if is_new and (name in _tox_words(originals[root / "tox.ini"]) or TOX_WORDS.fullmatch(name)):
        raise ConfigError(f"the name {name!r} has a meaning in tox.ini already: choose another for a registered plugin")
    return {path: text for path, text in texts.items() if text != originals[path]}


def new_registered_plugin(kind: str, name: str, dest: str | Path = PLUGINS) -> tuple[Path, list[str]]:
    """Write a new plugin into a clone of the repository and register it there: all of it, or nothing.

    A plugin of this kind and name that is there already is left as it is, and what its registration lacks is added.

    Parameters
    ----------
    kind, name, dest
        As for `scaffold.new_plugin`; `dest` is the folder of plugins in a clone of sage-kit's repository.

    Returns
    -------
    folder : Path
        The distribution's folder.
    changed : list of str
        The files that were edited, relative to the root of the repository.

    Raises
    ------
    SageError
        As `new_plugin`, `require_repository`, `edits` and `register` do.
    """
    check_name(kind, name)
    root, folder = require_repository(Path(dest)), Path(dest) / name
    changes = edits(root, kind, name)
    is_there = (folder / f"sage_kit_{name}" / f"{kind}.py").is_file()
    if not is_there:
        new_plugin(kind, name, dest)
    try:
        changed = register(root, changes)
    except BaseException:
        if not is_there:
            shutil.rmtree(folder)
        raise
    return folder, changed


def register(root: Path, changes: Mapping[Path, str]) -> list[str]:
    """Write what `edits` gave, all of it or nothing; gives the paths of the files, relative to the root.

    Raises
    ------
    RunDirectoryError
        When a file cannot be written; all are as they were.
    DiskFullError
        When the disk is full; all are as they were.
    """
    try:
        with disk_errors(str(root)):
            write_texts(changes)
    except OSError as error:
        raise RunDirectoryError(
            f"{error.filename or root} cannot be written ({error.strerror or error}), so no file was changed: "
            "make it writable and register again"
        ) from None
    return [path.relative_to(root).as_posix() for path in changes]


def unregistered(root: Path) -> list[str]:
    """What is missing, or too much, for the folders below `plugins`: ``file:line: what to do`` for each edit."""
    names = {path.parent.name for path in root.glob(f"{PLUGINS}/*/pyproject.toml")}
    faults = []
    for place in PLACES:
        lines = _read(root / place.file).splitlines(keepends=True)
        found = [fault for name in sorted(names) for fault in place.missing(lines, name)] + place.extra(lines, names)
        faults += [f"{place.file}:{index + 1}: {what}" for index, what in found]
    return faults


def _tox_words(text: str) -> set[str]:
    """Names of environments and factors in a `tox.ini`."""
    heads = re.findall(r"^\[testenv:(.+)\]$", text, flags=re.MULTILINE)
    conditions = re.findall(r"^\s+([\w{},!-]+):\s", text, flags=re.MULTILINE)
    listed = re.search(r"^env_list =\n((?:\s+\S.*\n)+)", text, flags=re.MULTILINE)
    return set(re.findall(r"\w+", " ".join([*heads, *conditions, listed[1] if listed else ""])))


def _read(path: Path) -> str:
    """The text with its line ends as they are."""
    return path.read_bytes().decode("utf-8")


def _line_end(line: str) -> str:
    return line.removeprefix(line.rstrip("\r\n"))
