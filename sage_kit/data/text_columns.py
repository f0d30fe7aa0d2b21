"""Columns of text as Arrow holds them: no object per text, and large ones memory-mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from sage_kit.storage.spool import Spool

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

CHUNK = 4096
"""Texts that are made at a time when all are asked for."""


class TextColumn(Sequence[str]):
    """Texts, each made when it is asked for; equal to any sequence of the same texts.

    Parameters
    ----------
    array : pyarrow.LargeStringArray
        Without missing values.
    rows : array of shape (n,), int64, or None
        Which of its texts they are, in that order; None for all.
    """

    def __init__(self, array: pa.Array, rows: NDArray[np.int64] | None = None) -> None:
        self._array = array
        self._rows = rows

    @classmethod
    def of(cls, texts: Iterable[str], folder: Path | None = None) -> TextColumn:
        """A column of texts, all valid Unicode, in a file in `folder` where it is large."""
        written = TextWriter(folder)
        for chunk in _chunks(texts):
            written.append(chunk)
        return written.finish()

    @property
    def array(self) -> pa.Array:
        """The texts as an array of Arrow."""
        return self._array if self._rows is None else self._array.take(_arrow(self._rows))

    def take(self, rows: NDArray[np.int64]) -> TextColumn:
        """The texts at `rows`, in that order; none is copied."""
        rows = np.asarray(rows, np.int64)
        return TextColumn(self._array, rows if self._rows is None else self._rows[rows])

    def __len__(self) -> int:
        return len(self._array) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            rows = np.arange(len(self), dtype=np.int64)[place] if self._rows is None else self._rows[place]
            texts: list[str] = self._array.take(_arrow(rows)).to_pylist()
            return texts
        at = range(len(self))[place]
        return str(self._array[at if self._rows is None else int(self._rows[at])].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            yield from self[start : start + CHUNK]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TextColumn({len(self):,} texts)"


class TextWriter:
    """Takes a column of text some texts at a time.

    Parameters
    ----------
    folder : Path or None
        Where a large column has its files; None keeps all in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._content = Spool(np.uint8, folder)
        self._ends = Spool(np.int64, folder)
        self._ends.append(np.zeros(1, np.int64))

    def append(self, texts: Sequence[str]) -> None:
        """Add texts.

        Raises
        ------
        UnicodeEncodeError
            When one is not valid Unicode; nothing is added.
        DiskFullError
            When the disk is full.
        """
        encoded = [text.encode() for text in texts]
        before = len(self._content)
        self._content.append(np.frombuffer(b"".join(encoded), np.uint8))
        self._ends.append(before + np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded))))

    def finish(self) -> TextColumn:
        """The column."""
        import pyarrow as pa

        content, ends = self._content.finish(), self._ends.finish()
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(content)]
        return TextColumn(pa.LargeStringArray.from_buffers(len(ends) - 1, buffers[1], buffers[2]))


class DerivedTexts(Sequence[str]):
    """Texts that are made of others whenever they are asked for.

    Parameters
    ----------
    length : int
    made : callable
        Gives the texts from one place to another.
    """

    def __init__(self, length: int, made: Callable[[int, int], list[str]]) -> None:
        self._length = length
        self._made = made

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, int):
            at = range(self._length)[place]
            return self._made(at, at + 1)[0]
        start, stop, step = place.indices(self._length)
        if step == 1:
            return self._made(start, max(start, stop))
        return [self[at] for at in range(start, stop, step)]


class ColumnBuilder:
    """Takes the values of a column some rows at a time: texts as a `TextColumn`, as soon as one is none a list.

    Parameters
    ----------
    folder : Path or None
        As of a `TextWriter`.
    is_text : bool
        Whether it is to be a column of text; if not, it is a list.
    """

    def __init__(self, folder: Path | None, *, is_text: bool) -> None:
        self._texts = TextWriter(folder) if is_text else None
        self._values: list[Any] = []

    def append(self, values: Sequence[Any]) -> None:
        """Add the values of some rows."""
        if self._texts is not None:
            try:
                if all(isinstance(value, str) for value in values):
                    self._texts.append(values)
                    return
            except UnicodeEncodeError:  # told by the check of the texts
                pass
            self._values, self._texts = list(self._texts.finish()), None
        self._values += values

    def finish(self) -> Sequence[Any]:
        """The column."""
        return self._values if self._texts is None else self._texts.finish()


def take_rows(column: Sequence[T], rows: NDArray[np.int64]) -> Sequence[T]:
    """The values of a column at `rows`, in that order."""
    if isinstance(column, TextColumn):
        return cast("Sequence[T]", column.take(rows))
    return [column[row] for row in rows.tolist()]


def numbered(columns: Sequence[Sequence[Any]]) -> NDArray[np.int64]:
    """The number of each row's text, or pair of texts, from 0 in the order of their first rows.

    Parameters
    ----------
    columns : sequence of one or two sequences
        Values that can be hashed.
    """
    codes = _codes(columns[0])
    for other in columns[1:]:
        more = _codes(other)
        both = codes * (int(more.max(initial=-1)) + 1) + more
        _, first, of_row = np.unique(both, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        codes = rank[of_row]
    return codes


def joined(columns: Sequence[Sequence[str]]) -> Sequence[str]:
    """The texts of several columns, one after another."""
    if all(isinstance(column, TextColumn) for column in columns):
        import pyarrow as pa

        arrays = [column.array for column in columns if isinstance(column, TextColumn)]
        return TextColumn(pa.concat_arrays(arrays))
    return [text for column in columns for text in column]


def count_different(texts: Sequence[str]) -> int:
    """How many different texts there are."""
    if isinstance(texts, TextColumn):
        import pyarrow.compute

        counted: int = pyarrow.compute.count_distinct(texts.array).as_py()
        return counted
    return len(set(texts))


def _codes(values: Sequence[Any]) -> NDArray[np.int64]:
    if isinstance(values, TextColumn):
        # Arrow numbers values in the order in which it meets them
        found: NDArray[np.int64] = values.array.dictionary_encode().indices.to_numpy().astype(np.int64)
        return found
    numbers: dict[Any, int] = {}
    return np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), np.int64, len(values))


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _arrow(rows: NDArray[np.int64]) -> pa.Array:
    import pyarrow as pa

    return pa.array(rows, pa.int64())
