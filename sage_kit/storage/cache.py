"""The cache: directories named by the fingerprint of what they were computed from.

An entry is complete or absent, and carries the size and checksum of each of its files; one that is truncated or corrupt
is named, removed and computed again. Of several processes that need the same entry one computes it and the others wait.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sage_kit.errors import RunDirectoryError, SageError, one_line
from sage_kit.storage.files import TEMPORARY_PREFIX, atomic_directory, disk_errors, unwritable_cache
from sage_kit.storage.manifest import ManifestFields, fault, write_manifest
from sage_kit.storage.reading import Record, read_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")

MANIFEST = "entry.json"
ARRAYS = "arrays.safetensors"
LOCK_PREFIX = ".lock-"
PARTIAL_PREFIX = ".partial-"

_CACHES: weakref.WeakSet[Cache] = weakref.WeakSet()
"""The caches of this process, whose holds do not keep it from clearing what it uses itself."""

_KEY = re.compile(r"[0-9a-f]{32}")
"""What a fingerprint looks like, by which each entry is named."""

KINDS = frozenset({
    "component", "labels", "language", "layer", "map", "matched", "states", "teacher", "vectors",
})  # fmt: skip
"""Every kind of entry; `clear` looks into no other folder."""

_LEFT_BEHIND = re.compile(
    rf"{re.escape(TEMPORARY_PREFIX)}(?P<temporary>{_KEY.pattern})-[0-9a-f]{{8}}"
    rf"|{re.escape(LOCK_PREFIX)}(?P<lock>{_KEY.pattern})|{re.escape(PARTIAL_PREFIX)}(?P<partial>{_KEY.pattern})"
)
"""Names beside the entries; `clear` may be pointed at any folder and takes away what a cache has written only."""


@dataclass(frozen=True)
class Entry:
    """One entry of the cache: what it is, where it lies, how large it is in bytes, and since when."""

    kind: str
    key: str
    path: Path
    bytes: int
    created: str
    about: Mapping[str, Any]


class Cache:
    """A directory of cached results.

    Parameters
    ----------
    directory : Path
        Where the entries lie; made when first needed.
    announce : callable
        Shows one line to the user: what was found, what is computed.
    damage : callable or None
        Shows one line on an entry that is damaged; None writes it on the error output.
    """

    def __init__(
        self,
        directory: Path,
        announce: Callable[[str], None] = lambda text: None,
        damage: Callable[[str], None] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self._announce = announce
        self._damage = damage or (lambda text: print(f"sage-kit: {text}", file=sys.stderr, flush=True))
        self._held: dict[Path, int] = {}
        _CACHES.add(self)
        weakref.finalize(self, _close, self._held)

    def entry(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], None],
        about: Mapping[str, Any] | None = None,
        *,
        holds: Sequence[str] = (),
    ) -> Path:
        """The directory of an entry, computed if it is absent or corrupt.

        Parameters
        ----------
        kind : str
            What sort of result it is, of `KINDS`.
        key : str
            Fingerprint of everything the result depends on.
        build : callable
            Fills the empty directory that it is given.
        about : mapping
            What a person should read in the list of the cache; JSON.
        holds : sequence of str
            Names of files without which it is no whole entry, whatever its manifest says.

        Returns
        -------
        Path

        Raises
        ------
        DiskFullError
            When the disk is full while the entry is written; nothing of it remains.
        RunDirectoryError
            When the directory of the cache cannot be written.
        """
        if kind not in KINDS:
            raise ValueError(f"cache entries of kind {kind!r} are not known: add it to KINDS")
        path = self.directory / kind / key
        # without the lock first: a whole entry is found in a directory that may not be written
        if self._hold(path) and entry_fault(path, holds) is None:
            self._announce(f"{kind}: found in the cache ({key[:8]})")
            return path
        with self._lock(path), disk_errors(f"the cache entry {path}"):
            if path.exists():
                damage = entry_fault(path, holds)
                if damage is None:
                    self._hold(path)
                    self._announce(f"{kind}: another process has computed it ({key[:8]})")
                    return path
                self._damage(f"{kind}: cache entry {path} is damaged ({damage}); computing it again")
                shutil.rmtree(path, ignore_errors=True)
            for left in path.parent.glob(f"{TEMPORARY_PREFIX}{key}-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            with atomic_directory(path) as temporary:
                build(temporary)
                for name in holds:
                    if not (temporary / name).is_file():
                        raise RuntimeError(f"what makes a cache entry of kind {kind!r} has written no {name}")
                write_manifest(temporary, MANIFEST, {"kind": kind, "key": key, **(about or {})})
            shutil.rmtree(self.partial(kind, key), ignore_errors=True)
            self._hold(path)
        return path

    def read(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], None],
        load: Callable[[Path], T],
        about: Mapping[str, Any] | None = None,
        *,
        holds: Sequence[str] = (),
    ) -> T:
        """What `load` makes of the directory of an entry, as `entry` gives it; one that cannot be loaded is told and
        computed again.
        """
        path = self.entry(kind, key, build, about, holds=holds)
        try:
            return load(path)
        except (SageError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            self._damage(f"{kind}: cache entry {path} cannot be loaded ({one_line(error, 200)}); computing it again")
        with self._lock(path):
            _close(self._held, path)
            shutil.rmtree(path, ignore_errors=True)
        return load(self.entry(kind, key, build, about, holds=holds))

    def has(self, kind: str, key: str) -> bool:
        """Whether there is an entry; it is not looked into."""
        return (self.directory / kind / key / MANIFEST).is_file()

    def mapped(
        self, kind: str, key: str, build: Callable[[Path], None], about: Mapping[str, Any] | None = None
    ) -> dict[str, NDArray[Any]]:
        """The arrays of an entry that is one file of them, `ARRAYS`, as memory maps."""
        from sage_kit.storage.tensorfile import open_mapped

        return self.read(kind, key, build, lambda path: open_mapped(path / ARRAYS), about, holds=(ARRAYS,))

    def partial(self, kind: str, key: str) -> Path:
        """Folder beside an entry in which `build` may keep what it has done so far; removed when the entry is whole."""
        return self.directory / kind / f"{PARTIAL_PREFIX}{key}"

    def _hold(self, path: Path) -> bool:
        """Keep other processes from clearing an entry as long as this cache is in use; returns whether it is there."""
        if (path / MANIFEST).is_file() and path in self._held and os.fstat(self._held[path]).st_nlink:
            return True
        _close(self._held, path)
        try:
            descriptor = os.open(path / MANIFEST, os.O_RDONLY)
        except OSError:
            return path.exists()
        _flock(descriptor, exclusive=False)  # waits for one who is clearing it
        self._held[path] = descriptor
        return os.fstat(descriptor).st_nlink > 0

    def arrays(
        self, name: str, parts: Sequence[Any], compute: Callable[[], Mapping[str, NDArray[Any]]]
    ) -> dict[str, NDArray[Any]]:
        """A dictionary of arrays that a component computes, an entry of kind "component".

        Parameters
        ----------
        name : str
            What it is, for the list of the cache.
        parts : sequence
            Everything the result depends on: text, numbers, arrays, mappings.
        compute : callable
            Gives the arrays.

        Returns
        -------
        dict of str to array
            Copies in memory.
        """
        from sage_kit.storage import tensorfile
        from sage_kit.storage.fingerprint import fingerprint

        def build(directory: Path) -> None:
            tensorfile.write(directory / ARRAYS, compute())

        found = self.mapped("component", fingerprint("component-1", name, *parts), build, {"what": name})
        return {key: values.copy() for key, values in found.items()}

    @contextlib.contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        """Hold an entry while it is computed; waits for a process that holds it."""
        from filelock import FileLock, Timeout

        lock = FileLock(path.with_name(f"{LOCK_PREFIX}{path.name}"))
        try:
            with disk_errors(f"the cache entry {path}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    self._announce(f"{path.parent.name}: waiting for another process that is computing it")
                    lock.acquire()
        except OSError as error:
            raise unwritable_cache(self.directory, error) from None
        try:
            yield
        finally:
            lock.release()

    def entries(self) -> list[Entry]:
        """Every entry, by kind and age."""
        found = []
        for manifest in sorted(self.directory.glob(f"*/[!.]*/{MANIFEST}")):
            path = manifest.parent
            if not _is_named(path):
                continue
            about = _about(path)
            if about is None:
                found.append(Entry(path.parent.name, path.name, path, 0, "", {"fault": f"{MANIFEST} is not readable"}))
            elif _fits(path, about):
                more = {name: value for name, value in about["about"].items() if name not in ("kind", "key")}
                size = sum(item["bytes"] for item in about["files"].values())
                found.append(Entry(path.parent.name, path.name, path, size, about.get("created", ""), more))
        return sorted(found, key=lambda entry: (entry.kind, entry.created))

    def clear(self, kind: str = "") -> int:
        """Remove every entry, or those of one kind, and what killed processes left; return the number of bytes freed.

        What another process uses or is computing is left, and announced.
        """
        for cache in list(_CACHES):
            _close(cache._held)
        return sum(
            self._clear(folder, key)
            for folder in sorted(self.directory.glob(kind or "*"))
            for key in sorted(_keys(folder))
        )

    def _clear(self, folder: Path, key: str) -> int:
        """Remove an entry with its lock and what is left of attempts to compute it, unless it is in use."""
        from filelock import FileLock, Timeout

        lock = folder / f"{LOCK_PREFIX}{key}"
        try:
            with FileLock(lock).acquire(timeout=0), _alone(folder / key / MANIFEST) as is_free:
                if not is_free:
                    raise Timeout(str(lock))
                there = [folder / key, folder / f"{PARTIAL_PREFIX}{key}", *folder.glob(f"{TEMPORARY_PREFIX}{key}-*")]
                freed = sum(_remove(path) for path in there if path.exists())
        except Timeout:
            self._announce(f"{folder.name} {key[:8]} is in use by another process, and is left")
            return 0
        lock.unlink(missing_ok=True)
        return freed


def entry_fault(path: Path, holds: Sequence[str]) -> str | None:
    """What is wrong with an entry, or None."""
    missing = next((name for name in holds if not (path / name).is_file()), None)
    return f"{missing} is missing" if missing and (path / MANIFEST).is_file() else fault(path, MANIFEST)


def _keys(folder: Path) -> set[str]:
    """Keys of the entries in a folder, and of what killed processes left; nothing that a cache has not written."""
    if folder.name not in KINDS or folder.is_symlink() or not folder.is_dir():
        return set()
    left = (_LEFT_BEHIND.fullmatch(path.name) for path in folder.glob(".*"))
    entries = [path.parent for path in folder.glob(f"[!.]*/{MANIFEST}") if _is_ours(path.parent)]
    found = {match["temporary"] or match["lock"] or match["partial"] for match in left if match}
    # a lock or a rest beside something that is not ours is none of ours either
    return {path.name for path in entries} | {key for key in found if _is_ours(folder / key, absent=True)}


def _is_named(path: Path) -> bool:
    """Whether a folder is called as an entry is: ``KIND/KEY``, a key of 32 hexadecimal digits."""
    return _KEY.fullmatch(path.name) is not None and path.parent.name in KINDS


def _is_ours(path: Path, *, absent: bool = False) -> bool:
    """Whether a folder is an entry that a cache has written, by its name and its manifest, which may be damaged.

    A folder that is not there is one where `absent` says so.
    """
    if not _is_named(path) or path.is_symlink():
        return False
    if not path.exists():
        return absent
    about = _about(path)
    return about is None or _fits(path, about)


def _about(path: Path) -> Record | None:
    """What an entry's manifest holds; None where it cannot be read."""
    try:
        return read_json(path / MANIFEST, ManifestFields, RunDirectoryError, "")
    except RunDirectoryError:
        return None


def _fits(path: Path, about: Record) -> bool:
    """Whether a manifest is that of the entry in whose folder it lies."""
    told = about.get("about") or {}
    return (told.get("kind"), told.get("key")) == (path.parent.name, path.name)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether no other process holds an entry by its manifest; it cannot begin to within the block."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield True
        return
    try:
        yield _flock(descriptor, exclusive=True)
    finally:
        os.close(descriptor)


def _flock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock a file as long as it is open: shared, or alone if nobody else has it; returns whether that is so."""
    try:
        import fcntl
    except ImportError:  # Windows, which removes no file that is open
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _close(held: dict[Path, int], path: Path | None = None) -> None:
    """Let go of one entry, or of all."""
    for one in list(held) if path is None else [path] if path in held else []:
        os.close(held.pop(one))


def _remove(path: Path) -> int:
    """Remove a file or a directory and return the number of bytes freed."""
    if not path.is_dir():
        path.unlink()
        return 0
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    shutil.rmtree(path)
    return size
