"""Arrays that are written piece by piece: small ones lie in memory, larger ones in a file that has no name."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sage_kit.storage.files import disk_errors, unwritable_cache

IN_MEMORY = 16 * 2**20
"""Bytes up to which an array stays in memory."""


class Spool:
    """Takes an array piece by piece.

    The file that a large one is written to has no name, so that nothing of it is left when the process ends, however
    that ends. The system keeps of a mapped file in memory what it has room for.

    Parameters
    ----------
    dtype : dtype
    folder : Path or None
        Where the file lies, made if absent; None keeps all in memory.
    row : tuple of int
        Shape of each item.
    """

    def __init__(self, dtype: DTypeLike, folder: Path | None, row: tuple[int, ...] = ()) -> None:
        self._dtype = np.dtype(dtype)
        self._folder = folder
        self._row = row
        self._pieces: list[NDArray[Any]] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None

    def __len__(self) -> int:
        return self._bytes // (self._dtype.itemsize * math.prod(self._row))

    def append(self, values: NDArray[Any]) -> None:
        """Add items, of shape (k, *row); they are copied or, as long as the array is small, kept as they are.

        Raises
        ------
        DiskFullError
            When the disk is full.
        """
        piece = np.ascontiguousarray(values, self._dtype)
        self._bytes += piece.nbytes
        self._pieces.append(piece)
        if self._folder is not None and self._bytes > IN_MEMORY:
            with disk_errors(f"a file in {self._folder}"):
                if self._file is None:
                    self._file = _nameless(self._folder)
                for waiting in self._pieces:
                    self._file.write(waiting.data)
            self._pieces.clear()

    def finish(self) -> NDArray[Any]:
        """The whole array, of shape (n, *row), which cannot be written to where it is mapped."""
        shape = (len(self), *self._row)
        if self._file is None:
            whole = np.concatenate(self._pieces) if self._pieces else np.empty(shape, self._dtype)
            self._pieces.clear()
            return whole.reshape(shape)
        with disk_errors(f"a file in {self._folder}"):
            self._file.flush()
        with self._file as file:  # the map keeps what it holds
            return np.memmap(file, dtype=self._dtype, mode="r", shape=shape)


def _nameless(folder: Path) -> IO[bytes]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return cast("IO[bytes]", tempfile.TemporaryFile(dir=folder))
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        raise unwritable_cache(folder, error) from None
