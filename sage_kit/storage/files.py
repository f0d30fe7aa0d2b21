"""Writing files so that a reader never meets half of one: temporary name, flush to disk, rename."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sage_kit.errors import DiskFullError, RunDirectoryError

TEMPORARY_PREFIX = ".tmp-"


@contextlib.contextmanager
def disk_errors(what: str, advice: str = "free some space and try again") -> Iterator[None]:
    """Turn a full disk into one clear error.

    Parameters
    ----------
    what : str
        What is being written.
    advice : str
        What to do about it.

    Raises
    ------
    DiskFullError
        When the block raises an error that says that no space, no quota or no larger file is to be had.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # safetensors and tokenizers raise classes of their own, with the system's number at the end of the text
        wrapped = re.search(r"\(os error (\d+)\)", str(error))
        if number is None and wrapped:
            number = int(wrapped[1])
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(f"disk full while writing {what}: {advice}") from error
        raise


def unwritable_cache(directory: Path, error: OSError) -> RunDirectoryError:
    """The error for a cache directory that cannot be written."""
    return RunDirectoryError(
        f"cache directory {directory} cannot be written ({error.strerror}): set cache_dir or SAGE_KIT_CACHE_DIR to one "
        "that can"
    )


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """A new directory that appears under its name complete or not at all.

    Yields a temporary directory beside `path`; when the block ends well its files are flushed to disk and it is renamed
    to `path`, replacing a directory of that name; when the block raises it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for item in (*temporary.rglob("*"), temporary):
            _flush(item)
        if path.exists():
            old = _temporary(path)
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(path)
        _flush(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; what has no place there, as in the name of a file, as escapes."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        temporary.write_bytes(data)
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_texts(texts: Mapping[Path, str]) -> None:
    """Rewrite files that belong together, in UTF-8: all of them, or none when one cannot be written.

    Every text is on the disk before the first file is replaced. A process that is killed while they are replaced leaves
    each file whole, but some of them old.
    """
    originals = {path: (path.read_bytes(), path.stat().st_mode) for path in texts}
    temporaries = {path: _temporary(path) for path in texts}
    try:
        for path, text in texts.items():
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            temporaries[path].write_bytes(text.encode())
            temporaries[path].chmod(originals[path][1])
            _flush(temporaries[path])
        for path, temporary in temporaries.items():
            temporary.replace(path)
            _flush(path.parent)
    except BaseException:
        for path, (data, mode) in originals.items():
            if path.read_bytes() != data:
                write_bytes(path, data)
                path.chmod(mode)
        raise
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, indented; NaN and infinity become null, since JSON has neither."""
    write_bytes(path, json_bytes(data))


def json_bytes(data: Any) -> bytes:
    """What `write_json` writes."""
    return (json.dumps(only_finite(data), indent=2, allow_nan=False) + "\n").encode()


def only_finite(value: Any) -> Any:
    """A JSON-ready value with None for NaN and infinity, since JSON has neither."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: only_finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [only_finite(item) for item in value]
    return value


def remove_temporaries(directory: Path) -> None:
    """Remove what a killed process left half-written in a directory."""
    for path in directory.glob(f"{TEMPORARY_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A new name beside `path` that `remove_temporaries` knows."""
    return path.parent / f"{TEMPORARY_PREFIX}{path.name}-{uuid.uuid4().hex[:8]}"


def _flush(path: Path) -> None:
    """Force a file or a directory's list of names to disk."""
    if os.name == "nt":  # which opens no directory and flushes no file that is open for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
