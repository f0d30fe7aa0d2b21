"""Files as streams of bytes or text, uncompressed on the way; what goes wrong is one line that names the file."""

from __future__ import annotations

import contextlib
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

from sage_kit.errors import DataError, one_line

TABLE_TYPES = (".jsonl", ".csv", ".parquet", ".tsv", ".json", ".ndjson")
"""What the name of a file with columns ends in, before the ending of a compression."""

TAGGED_TYPES = (".conll", ".conllu", ".iob", ".bio")
"""What the name of a file of tagged words ends in."""

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")

WAYS_OUT = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".ods": "save the sheet as CSV",
    ".txt": "if it holds columns, rename it to .csv and set delimiter",
    ".dat": "if it holds columns, rename it to .csv and set delimiter",
    ".psv": "rename it to .csv and set delimiter",
    ".tab": "rename it to .tsv",
    ".jsonlines": "rename it to .jsonl",
    ".pq": "rename it to .parquet",
    ".tar": "unpack it",
    ".tgz": "unpack it",
    ".7z": "unpack it",
    ".rar": "unpack it",
    ".arrow": "save it as parquet",
    ".feather": "save it as parquet",
    ".pkl": "save it as parquet",
}
"""What to do about a file of a type that is not read."""

BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def file_type(path: Path) -> str:
    """What the name of a file ends in, in small letters, leaving out the ending of a compression."""
    name = path.name.lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    return Path(name).suffix


def name_must_end(path: Path, types: Sequence[str]) -> str:
    """Says how the name of a file must end, and what to do about a known type that is not read."""
    way_out = WAYS_OUT.get(file_type(path), "")
    compressed = f", each also with {', '.join(COMPRESSIONS)}"
    return f"its name must end in {', '.join(types)}{compressed}{f'; {way_out}' if way_out else ''}"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what reading a file may raise into one line of DataError."""
    import lzma
    import zipfile

    if not path.is_file():
        raise DataError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
    try:
        yield
    except UnicodeDecodeError as error:
        raise _not_unicode(path, error) from None
    # zipfile raises NotImplementedError for a way of compression that Python cannot undo
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} cannot be uncompressed: {one_line(error, 200)}; make or download it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or one_line(error, 200)}") from None


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, uncompressed where its first bytes say that it is compressed."""
    with path.open("rb") as raw:
        head = raw.read(10)
        raw.seek(0)
        with _uncompressed(path, raw, head) as stream:
            yield stream


def _uncompressed(path: Path, raw: IO[bytes], head: bytes) -> contextlib.AbstractContextManager[IO[bytes]]:
    if head.startswith(b"\x1f\x8b"):
        import gzip

        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if re.match(rb"BZh[1-9]1AY&SY", head):
        import bz2

        return bz2.BZ2File(raw)
    if head.startswith(b"\xfd7zXZ\x00"):
        import lzma

        return lzma.LZMAFile(raw)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow as pa

        return io.BufferedReader(pa.input_stream(raw, compression="zstd"))
    if head.startswith(b"PK\x03\x04"):
        import zipfile

        archive = zipfile.ZipFile(raw)
        members = [item for item in archive.infolist() if not item.is_dir() and "__MACOSX" not in item.filename]
        if len(members) != 1:
            advice = "a spreadsheet is saved as CSV, an archive is unpacked"
            raise DataError(f"{path} is an archive of {len(members)} files, and one is expected: {advice}")
        if members[0].flag_bits & 1:
            raise DataError(f"{path} is encrypted: unpack it")
        return archive.open(members[0])
    return contextlib.nullcontext(raw)


@contextlib.contextmanager
def open_text(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    """The text of a file: UTF-8, unless its byte order mark says UTF-16 or UTF-32.

    Raises
    ------
    DataError
        When it begins with zero bytes, as UTF-16 without a byte order mark and binary files do.
    """
    with open_bytes(path) as raw:
        head = raw.read(64)
        _refuse_content(path, head)
        encoding = next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), "utf-8")
        if encoding == "utf-8" and b"\0" in head:
            raise DataError(f"{path} is not UTF-8 text: it holds zero bytes; if it is UTF-16, save it as UTF-8")
        stream = io.BufferedReader(cast("io.RawIOBase", _Joined(head, raw)))
        with io.TextIOWrapper(stream, encoding=encoding, newline=newline) as text:
            yield text


def _refuse_content(path: Path, head: bytes) -> None:
    """Raise DataError when the first bytes say that a file holds something else than its name says."""
    if head.startswith(b"PAR1"):
        raise DataError(f"{path} is a parquet file: let its name end in .parquet")
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} only points to a file in Git LFS: fetch that by `git lfs pull`")


class _Joined(io.RawIOBase):
    """A stream that begins with bytes that were read from it before: not every one can go back."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


@contextlib.contextmanager
def parquet_file(path: Path) -> Iterator[Any]:
    """A parquet file, opened."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as raw:
        is_plain = raw.read(4) == b"PAR1"
    if is_plain:
        with pq.ParquetFile(path) as file:
            yield file
        return
    with open_bytes(path) as stream:
        content = stream.read()
    if not content.startswith(b"PAR1"):
        _refuse_content(path, content[:64])
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        yield file


def _not_unicode(path: Path, error: UnicodeDecodeError) -> DataError:
    """The error for a text file that is not in the encoding that it claims; names its first line that is not UTF-8."""
    if not error.encoding.startswith("utf-8"):
        return DataError(f"{path} begins as {error.encoding.upper()}, but is not: save the file as UTF-8")
    with open_bytes(path) as lines:
        number = next((number for number, line in enumerate(lines, start=1) if not _decodes(line)), 1)
    is_plain = file_type(path) == path.suffix.lower()
    example = f" (if it is Windows-1252: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > NEW)" if is_plain else ""
    return DataError(f"{path}, line {number} is not UTF-8 text: save the file as UTF-8{example}")


def _decodes(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
