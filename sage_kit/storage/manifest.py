"""The manifest of a directory: size and checksum of each of its files, so that damage is found before it is used."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sage_kit.storage.files import write_json

_CHUNK = 1 << 22
_SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file shows in its time of change, however coarse the file system's clock."""

_known: dict[tuple[int, int, int, int], int] = {}
"""Checksums by device, inode, size and time of change."""


def write_manifest(directory: Path, name: str, about: Mapping[str, Any]) -> None:
    """Write `directory`/`name`: the files there now with their size in bytes and CRC-32, the time, and `about`."""
    files = {
        file.relative_to(directory).as_posix(): {"bytes": file.stat().st_size, "crc32": _checksum(file)}
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file != directory / name
    }
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_json(directory / name, {"created": created, "about": dict(about), "files": files})


def fault(directory: Path, name: str) -> str | None:
    """What is wrong with a directory's files according to its manifest, or None."""
    try:
        files = json.loads((directory / name).read_text(encoding="utf-8"))["files"]
        expected = {file_name: (int(item["bytes"]), int(item["crc32"])) for file_name, item in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{name} is missing or not readable"
    for file_name, (size, checksum) in expected.items():
        file = directory / file_name
        if not file.is_file():
            return f"{file_name} is missing"
        if file.stat().st_size != size:
            return f"{file_name} has {file.stat().st_size} bytes instead of {size}"
        try:
            if _checksum(file) != checksum:
                return f"{file_name} does not have its checksum"
        except OSError as error:
            return f"{file_name} cannot be read: {error.strerror}"
    return None


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
