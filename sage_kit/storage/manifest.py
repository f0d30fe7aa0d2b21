"""The manifest of a directory: size and checksum of each of its files, so that damage is found before it is used."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sage_kit.errors import RunDirectoryError
from sage_kit.storage.files import write_json
from sage_kit.storage.reading import ABSENT, Fields, read_json

_CHUNK = 1 << 22
_SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file shows in its time of change, however coarse the file system's clock."""

_known: dict[tuple[int, int, int, int], int] = {}
"""Checksums by device, inode, size and time of change."""


class _FileFields(Fields):
    bytes: int
    crc32: int


class ManifestFields(Fields):
    """What of a manifest is read."""

    created: str = ""
    about: dict[str, Any] = ABSENT
    files: dict[str, _FileFields]


def write_manifest(
    directory: Path,
    name: str,
    about: Mapping[str, Any],
    *,
    files: Iterable[Path] | None = None,
    coming: Mapping[str, bytes] | None = None,
) -> None:
    """Write `directory`/`name`: files with their size in bytes and CRC-32, the time, and `about`.

    Parameters
    ----------
    directory : Path
    name : str
    about : mapping
    files : iterable of Path
        The files, in the directory or below; None takes all that are there now.
    coming : mapping of str to bytes
        What files will hold that are written behind the manifest.
    """
    there = directory.rglob("*") if files is None else files
    told = {
        file.relative_to(directory).as_posix(): {"bytes": file.stat().st_size, "crc32": _checksum(file)}
        for file in sorted(there)
        if file.is_file() and file != directory / name
    }
    told |= {one: {"bytes": len(data), "crc32": zlib.crc32(data)} for one, data in (coming or {}).items()}
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(directory / name, {"created": created, "about": dict(about), "files": told})


def fault(directory: Path, name: str) -> str | None:
    """What is wrong with a directory's files according to its manifest, or None."""
    return next(faults(directory, name), None)


def faults(directory: Path, name: str) -> Iterator[str]:
    """Everything that is wrong with a directory's files according to its manifest."""
    try:
        files = read_json(directory / name, ManifestFields, RunDirectoryError, "")["files"]
    except RunDirectoryError:
        yield f"{name} is missing or not readable"
        return
    for file_name, item in files.items():
        problem = _fault_of(directory, file_name, item["bytes"], item["crc32"])
        if problem:
            yield problem


def _fault_of(directory: Path, name: str, size: int, checksum: int) -> str:
    file = directory / name
    if ".." in PurePosixPath(name).parts or not file.is_relative_to(directory):
        return f"{name!r} does not lie in the directory"
    try:
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        return "" if _checksum(file) == checksum else f"{name} does not have its checksum"
    except (OSError, ValueError) as error:
        return f"{name} cannot be read: {getattr(error, 'strerror', None) or error}"


def _checksum(file: Path) -> int:
    """CRC-32 of a file, read once per process unless the file has changed since."""
    status = file.stat()
    key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    if key in _known:
        return _known[key]
    value = 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    if time.time_ns() - status.st_mtime_ns > _SETTLED:
        _known[key] = value
    return value
