"""A digest of the source that a result depends on: entry modules, and whatever they import.

The modules behind an entry are found by reading their imports, those inside functions too, so nothing is imported here
and no list has to be kept by hand. The digest is of the code and not of its text: comments, docstrings, layout, the
wording of errors and of help texts, and what is imported for types only leave it alone. So does what reads settings,
texts and labels: whoever makes a key holds all values in it, given or not.

Followed are `sage_kit` itself, the packages of the plugins in question, and modules that lie neither in Python's own
library nor among the installed packages. Of installed packages the versions count instead (`COMPUTING`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sage_kit
from sage_kit import errors

PACKAGE = sage_kit.PROJECT

_SETTINGS = "reads settings, which every key holds by value"
_TABLES = "reads texts and labels, which every key holds by value"
_KEEPS = "names and keeps results, and computes none"

LEAVES: Mapping[str, str] = {
    "sage_kit": "a version and a marker; the version changes without the code, and the code without the version",
    "sage_kit.builtin": "the list of all built-in components: those that are chosen count by themselves",
    "sage_kit.errors": "an error ends a run",
    "sage_kit.components.hookspecs": "declares what plugins implement",
    "sage_kit.components.run_hookspecs": "declares what plugins implement",
    "sage_kit.training.tracing": "measures what the loop does, and leaves it as it is",
    "sage_kit.components.provenance": "makes keys",
    "sage_kit.storage.source_digest": "makes keys",
    "sage_kit.storage.fingerprint": "makes keys",
    "sage_kit.builtin.observers": "options of observers, which count by their values",
    "sage_kit.builtin.observers.progress": "shows what the loop does",
    "sage_kit.builtin.observers.lines": "shows what the loop does",
    "sage_kit.builtin.observers.tracker": "shows what the loop does",
    "sage_kit.config": _SETTINGS,
    "sage_kit.config.data_settings": _SETTINGS,
    "sage_kit.config.joint_checks": _SETTINGS,
    "sage_kit.config.loading": _SETTINGS,
    "sage_kit.config.paths": _SETTINGS,
    "sage_kit.config.presets": _SETTINGS,
    "sage_kit.config.settings": _SETTINGS,
    "sage_kit.config.validation": _SETTINGS,
    "sage_kit.config.values": _SETTINGS,
    "sage_kit.data.carving": _TABLES,
    "sage_kit.data.row_checks": _TABLES,
    "sage_kit.data.sources": _TABLES,
    "sage_kit.data.unlabelled": _TABLES,
    "sage_kit.data.user_files": _TABLES,
    "sage_kit.storage.cache": _KEEPS,
    "sage_kit.storage.files": _KEEPS,
    "sage_kit.storage.manifest": _KEEPS,
}
"""Modules that cannot change a result, and why. They are neither digested nor followed."""

HELD_BY_VALUE = frozenset({
    "sage_kit.components", "sage_kit.components.hooks", "sage_kit.components.label_messages",
    "sage_kit.components.loader", "sage_kit.components.messages", "sage_kit.components.plugins",
    "sage_kit.components.protocols",
    "sage_kit.components.records", "sage_kit.components.spec_checks", "sage_kit.components.specs",
    "sage_kit.components.task_specs", "sage_kit.config.loss_weights", "sage_kit.data.splits", "sage_kit.recipe",
})  # fmt: skip
"""Modules whose effect an entry of the cache holds by value, though a run's key does not: what calls components."""

COMPUTING = ("torch", "transformers", "tokenizers", "accelerate", "numpy", "scipy", "scikit-learn")
"""Distributions that compute results: their versions are part of every digest."""

_COMPUTING_MODULES = frozenset({*COMPUTING, "sklearn"})

PROSE = frozenset({"description", "summary", "help", "install"})
"""Keyword arguments that hold text for a reader."""

_ERRORS = frozenset(name for name, value in vars(errors).items() if isinstance(value, type))
_TARGET = re.compile(r"[A-Za-z_][\w.]*:\w+")
_FIELDS_WITHOUT_MEANING = frozenset({"ctx", "type_comment", "type_ignores", "kind"})


@dataclass(frozen=True)
class Source:
    """What one source file says.

    Attributes
    ----------
    digest : str
        Of its code.
    imports : tuple of (int, str, str)
        Level (0 for an absolute import), module, and name taken from it ("" for the module itself).
    components : tuple of (str, str)
        Kind and name of the components that it builds by name.
    """

    digest: str
    imports: tuple[tuple[int, str, str], ...]
    components: tuple[tuple[str, str], ...]


def source_digest(
    entries: Iterable[str],
    files: Iterable[str | os.PathLike[str]] = (),
    *,
    own: Iterable[str] = (),
    without: Iterable[str] = (),
) -> str:
    """A digest of the code of modules and of all that they import.

    Parameters
    ----------
    entries : iterable of str
        Names of modules.
    files : iterable of path
        Python files that are no modules, such as one-file plugins.
    own : iterable of str
        Top-level packages to follow besides `sage_kit`, though they are installed.
    without : iterable of str
        Modules to leave out beyond `LEAVES`: those whose effect the caller holds by value.

    Returns
    -------
    str
        32 hexadecimal digits; the same wherever the files lie.
    """
    sources = walk(entries, files, own=own, without=without)
    digest = hashlib.blake2b(digest_size=16)
    for name, source in sorted((name, source.digest) for name, source in sources.items()):
        digest.update(f"{name}:{source};".encode())
    for name, version in computing_versions().items():
        digest.update(f"{name}={version};".encode())
    return digest.hexdigest()


def artifact_digest(*entries: str) -> str:
    """A digest of the code that computes an entry of the cache, whose settings and data are in its key by value."""
    return source_digest(entries, without=HELD_BY_VALUE)


def walk(
    entries: Iterable[str],
    files: Iterable[str | os.PathLike[str]] = (),
    *,
    own: Iterable[str] = (),
    without: Iterable[str] = (),
) -> dict[str, Source]:
    """The modules behind the entries by name, as `source_digest` takes them; of `files`, by the file's name."""
    followed = frozenset({PACKAGE, *own})
    skipped = frozenset({*LEAVES, *without})
    found: dict[str, Source] = {}
    waiting = [name for name in entries if name not in skipped]
    for file in files:
        path = Path(file)
        source = read_source(path)
        found[path.name] = source
        waiting += (name for name in module_targets(source) if name not in skipped)
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        place = find_module(name, followed)
        if place is None:
            continue
        try:
            source = found[name] = read_source(place)
        except FileNotFoundError:  # removed since it was found
            continue
        for target in module_targets(source, name, is_package=place.name == "__init__.py"):
            if target not in seen and target not in skipped:
                seen.add(target)
                waiting.append(target)
    return found


def module_targets(source: Source, module: str = "", *, is_package: bool = False) -> Iterator[str]:
    """The modules that the imports of a file load, by name, whether they can be found or not.

    The package that holds a module is imported with it and may set things up; in `sage_kit` itself none does.
    """
    for level, base, name in source.imports:
        if level:
            parts = module.split(".") if is_package else module.split(".")[:-1]
            base = ".".join([*parts[: len(parts) - level + 1], *([base] if base else [])])
        elif (top := base.partition(".")[0]) != PACKAGE and _is_foreign(top):
            continue
        # `from package import module` and `from module import name` look alike
        target = f"{base}.{name}" if name and _is_module(name, base) else base
        if base == PACKAGE and name in sage_kit.PUBLIC:
            target = sage_kit.PUBLIC[name]
        yield target
        if not target.startswith(f"{PACKAGE}."):
            parts = target.split(".")
            yield from (".".join(parts[:depth]) for depth in range(1, len(parts)))


# ---- one file --------------------------------------------------------------------------------------------------------


def read_source(path: Path) -> Source:
    """What a file says; read again only when its size or its time of change is another."""
    status = path.stat()
    return _read(str(path), status.st_size, status.st_mtime_ns)


@functools.cache
def _read(path: str, size: int, modified: int) -> Source:
    return _source(Path(path).read_bytes())


def _source(data: bytes) -> Source:
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):  # a compiled module, or no Python at all
        return Source(hashlib.blake2b(data, digest_size=16).hexdigest(), (), ())
    reader = _Reader()
    reader.visit(tree)
    digest = hashlib.blake2b("\x00".join(reader.parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return Source(digest, tuple(dict.fromkeys(reader.imports)), tuple(dict.fromkeys(reader.components)))


def text_source(text: str) -> Source:
    """What a piece of code says that lies in no file, such as a cell of a notebook."""
    return _source(text.encode("utf-8", "surrogatepass"))


class _Reader:
    """Writes a syntax tree down, the parts without meaning left out, and notes its imports.

    `ast.dump` would do, but what it writes changes with the version of Python.
    """

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.imports: list[tuple[int, str, str]] = []
        self.components: list[tuple[str, str]] = []

    def visit(self, node: Any) -> None:
        """Write down a node."""
        kind = type(node).__name__
        write = self.parts.append
        if kind == "If" and _is_for_types(node.test):
            for statement in node.orelse:
                self.visit(statement)
            return
        if kind == "Expr" and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return  # a docstring, of whatever it stands under
        if kind == "Import":
            self.imports += [(0, alias.name, "") for alias in node.names]
        elif kind == "ImportFrom":
            self.imports += [(node.level, node.module or "", alias.name) for alias in node.names]
        elif kind == "Raise":
            node = _without_message(node)
        elif kind == "Call":
            self._note_component(node)
            node = _without_prose(node)
        write(f"({kind}")
        for name in node._fields:
            value = getattr(node, name, None)
            # what has come into the tree with a later Python is absent or empty in all that an earlier one reads
            is_none = value is None and kind == "Constant" and name == "value"
            if not is_none and (value is None or value == [] or name in _FIELDS_WITHOUT_MEANING):
                continue
            write(name)
            if isinstance(value, ast.AST):
                self.visit(value)
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, ast.AST):
                        self.visit(item)
                    else:
                        write(repr(item))
            else:
                write(f"{type(value).__name__} {value!r}")
        write(")")

    def _note_component(self, call: ast.Call) -> None:
        """``context.component("reducer", "pca", ...)`` builds a component that no setting names."""
        if isinstance(call.func, ast.Attribute) and call.func.attr == "component" and len(call.args) > 1:
            kind, name = (item.value if isinstance(item, ast.Constant) else None for item in call.args[:2])
            if isinstance(kind, str) and isinstance(name, str):
                self.components.append((kind, name))


def _is_for_types(test: ast.expr) -> bool:
    return (test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")) == "TYPE_CHECKING"


def _without_message(node: ast.Raise) -> ast.Raise:
    """The statement without the words of an error of `sage_kit.errors`."""
    call = node.exc
    if not isinstance(call, ast.Call):
        return node
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return ast.Raise(exc=call.func, cause=None) if name in _ERRORS else node


def _without_prose(node: ast.Call) -> ast.Call:
    """The call without arguments that hold text for a reader."""
    keywords = [item for item in node.keywords if not (item.arg in PROSE and _is_text(item.value))]
    return ast.Call(func=node.func, args=node.args, keywords=keywords)


def _is_text(node: ast.expr) -> bool:
    """Whether an expression is text as it stands: a string, one with values filled in, or several in a row."""
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) and _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


# ---- where modules lie -----------------------------------------------------------------------------------------------


def find_module(name: str, followed: Iterable[str] = (PACKAGE,)) -> Path | None:
    """The source file of a module that is to be followed, found without importing it; None for all others."""
    top, _, rest = name.partition(".")
    if top not in followed and not _is_local(top):
        return None
    return _file(_roots(top), rest)


@functools.cache
def _file(roots: tuple[str, ...], rest: str) -> Path | None:
    """The file of the module `rest` below a top-level name."""
    for root in roots:
        path = os.path.join(root, *rest.split(".")) if rest else root
        for candidate in (os.path.join(path, "__init__.py"), f"{path}.py"):
            if os.path.isfile(candidate):
                return Path(candidate)
    return None


def _is_module(name: str, base: str) -> bool:
    """Whether `name`, taken from the module or package `base`, is a module itself."""
    top, _, rest = base.partition(".")
    roots = _roots(top)
    place = _file(roots, rest)
    if place is not None and place.name != "__init__.py":
        return False
    return _file(roots, f"{rest}.{name}" if rest else name) is not None


def _roots(top: str) -> tuple[str, ...]:
    """Where the modules of a top-level name lie: its folders, or the path of its file without the ending."""
    if top == PACKAGE:
        return (os.path.dirname(sage_kit.__file__),)
    # a one-file plugin is found among what is loaded only, and its name may go over to another file
    module = sys.modules.get(top)
    folders, file = getattr(module, "__path__", None), getattr(module, "__file__", None)
    if module is None:
        folders, file = _found(top)
    if folders:
        return tuple(folders)
    return (file.removesuffix(".py"),) if file and file.endswith(".py") else ()


@functools.cache
def _found(top: str) -> tuple[tuple[str, ...], str | None]:
    """Folders and file of a top-level module."""
    try:
        spec = importlib.util.find_spec(top)  # of a top-level name this imports nothing
    except (ImportError, ValueError, AttributeError):
        spec = None
    return (tuple(spec.submodule_search_locations or ()), spec.origin) if spec is not None else ((), None)


def _is_foreign(top: str) -> bool:
    return not top or top in sys.stdlib_module_names or top in sys.builtin_module_names or top in _COMPUTING_MODULES


def _is_local(top: str) -> bool:
    """Whether a top-level module is someone's work here: neither Python's own nor among the installed packages."""
    return not _is_foreign(top) and any(not _is_installed(root) for root in _roots(top))


@functools.cache
def _is_installed(place: str) -> bool:
    return os.path.realpath(place).startswith(_installed_folders())


@functools.cache
def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"]}
    folders |= set(site.getsitepackages()) | {site.getusersitepackages()}
    return tuple(os.path.realpath(folder) + os.sep for folder in sorted(folders))


# ---- what an object comes from ---------------------------------------------------------------------------------------


def modules_of(item: Any) -> set[str]:
    """The modules that a class or function comes from: its own, its bases', and those of what it closes over.

    A factory that imports ``"package.module:Class"`` later closes over that text.
    """
    found: set[str] = set()
    waiting, seen = [item], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, str):
            if _TARGET.fullmatch(one):
                found.add(one.partition(":")[0])
            continue
        if isinstance(one, functools.partial):
            waiting += [one.func, *one.args, *one.keywords.values()]
            continue
        if isinstance(one, type):
            found |= {base.__module__ for base in one.__mro__}
            continue
        if not callable(one):
            continue
        module = getattr(one, "__module__", None)
        found.add(module if isinstance(module, str) else type(one).__module__)
        waiting += [getattr(one, "__func__", None), getattr(one, "__wrapped__", None)]
        for cell in getattr(one, "__closure__", None) or ():
            try:
                waiting.append(cell.cell_contents)
            except ValueError:  # empty yet
                continue
    return found - {"builtins"}


# ---- versions --------------------------------------------------------------------------------------------------------


@functools.cache
def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def computing_versions() -> dict[str, str]:
    """The installed versions of `COMPUTING`; "" for one that is not there."""
    return {name: _version(name) for name in COMPUTING}
