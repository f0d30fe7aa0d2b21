"""Formats: CSV, TSV, JSON, JSON lines and parquet, compressed or not, read as batches of columns.

What a file is follows from its name (``reviews.csv.gz``); whether and how it is compressed, and its Unicode encoding
where it begins with a byte order mark, follow from its first bytes.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import io
import json
import re
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, cast

from sage_kit.config import RunConfig
from sage_kit.data.classes import difference, loose_form, shown
from sage_kit.errors import DataError, did_you_mean

TABLE_TYPES = (".jsonl", ".csv", ".parquet", ".tsv", ".json", ".ndjson")
"""What the name of a file with columns ends in, before the ending of a compression."""

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

LARGEST_FIELD = 2**31 - 1
"""Longest field of a CSV file, in characters: the most that the csv module takes on every platform."""

BATCH_ROWS = 1024

BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)

DELIMITERS = (",", ";", "\t", "|")
"""Those that are tried on a header without the wanted columns, to name the right one."""

QUOTES = "\"'`"

NO_DELIMITERS = f"{QUOTES}_-."
"""Characters that no delimiter is taken to be."""

_field_limit = threading.Lock()


@dataclass(frozen=True)
class Dialect:
    """How the fields of a CSV or TSV file are separated and quoted.

    Attributes
    ----------
    delimiter : str
        One character; "" takes the comma, and the tab for .tsv.
    quote : str
        The character around a field that holds the delimiter; "" when quotes have no meaning.
    """

    delimiter: str = ""
    quote: str = '"'

    @classmethod
    def of(cls, config: RunConfig) -> Dialect:
        """The one that the settings `delimiter` and `quote` describe."""
        return cls(config.delimiter, config.quote)


class FileReader:
    """Reads columns of one file in batches.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        The columns to read; others are left alone.
    dialect : Dialect
        Of a CSV or TSV file.

    Attributes
    ----------
    names : list of str
        All columns of the file, as far as it has been read.
    """

    def __init__(self, path: Path, columns: Sequence[str], dialect: Dialect | None = None) -> None:
        self.path = path
        self.columns = list(columns)
        self.dialect = dialect or Dialect()
        self.names: list[str] = []

    def batches(self) -> Iterator[dict[str, list[Any]]]:
        """Values by column, some rows at a time.

        Raises
        ------
        DataError
            When the file is missing, unreadable, malformed or of another type, or lacks a column.
        """
        readers = {".parquet": self._parquet, ".jsonl": self._json_lines, ".ndjson": self._json_lines}
        readers |= {".json": self._json, ".csv": self._csv, ".tsv": self._csv}
        kind = file_type(self.path)
        if self.path.is_dir():
            raise DataError(f"{self.path} is not a file")
        if kind not in readers:
            raise DataError(f"{self.path}: {name_must_end(self.path, TABLE_TYPES)}")
        with reading(self.path):
            yield from readers[kind]()

    # ---- parquet

    def _parquet(self) -> Iterator[dict[str, list[Any]]]:
        import pyarrow as pa

        try:
            with parquet_file(self.path) as file:
                self._found(file.schema_arrow.names)
                for batch in file.iter_batches(columns=self.columns):
                    yield {column: batch.column(column).to_pylist() for column in self.columns}
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.strerror:
                raise
            raise DataError(f"{self.path} is not a valid parquet file: {one_line(error)}") from None

    # ---- JSON

    def _json_lines(self) -> Iterator[dict[str, list[Any]]]:
        seen: dict[str, None] = {}
        for records in _in_batches(json_records(self.path, self.columns)):
            seen.update(dict.fromkeys(key for record in records for key in record))
            self.names = list(seen)
            yield {column: [record.get(column) for record in records] for column in self.columns}
        if seen:
            # a column counts as there when any row has it; rows without it are reported by the check of the values
            self._found(list(seen))

    def _json(self) -> Iterator[dict[str, list[Any]]]:
        with open_text(self.path) as stream:
            text = stream.read()
        try:
            content = _parse(text, self.columns)
        except _NotJSONError as error:
            lines = text.lstrip().splitlines()
            if not lines or not _is_object(lines[0]):
                raise DataError(f"{self.path} is not valid JSON: {error}") from None
            yield from self._json_lines()
            return
        values = self._json_columns(content)
        self._found(list(values))
        yield {column: values[column] for column in self.columns}

    def _json_columns(self, content: Any) -> dict[str, list[Any]]:
        """The columns of a JSON document in any of the forms that are common."""
        if isinstance(content, dict) and isinstance(content.get("data"), list | dict) and "data" not in self.columns:
            names, rows = content.get("columns"), content["data"]
            if (
                isinstance(names, list)
                and isinstance(rows, list)
                and all(isinstance(row, list) and len(row) == len(names) for row in rows)
            ):
                return {str(name): [row[place] for row in rows] for place, name in enumerate(names)}
            content = rows
        if isinstance(content, list) and all(isinstance(record, dict) for record in content):
            names = list(dict.fromkeys(key for record in content for key in record)) or self.columns
            return {name: [record.get(name) for record in content] for name in names}
        if isinstance(content, dict) and content:
            values = list(content.values())
            if all(isinstance(column, list) for column in values) and set(self.columns) & set(content):
                lengths = {name: len(column) for name, column in content.items() if name in self.columns}
                if len(set(lengths.values())) > 1:
                    raise DataError(f"{self.path}: its columns are of unequal length: {lengths}")
                return content
            if all(isinstance(column, dict) for column in values):
                if set(self.columns) <= set(content):  # values by row, as pandas writes them
                    rows = list(dict.fromkeys(row for name in self.columns for row in content[name]))
                    return {name: [column.get(row) for row in rows] for name, column in content.items()}
                return self._json_columns(values)
            if not any(isinstance(column, list | dict) for column in values):
                return {name: [value] for name, value in content.items()}  # JSON lines of a single row
        raise DataError(
            f"{self.path} holds no table with {', '.join(map(repr, self.columns))}: expected a list of {{column: "
            'value}, an object of columns, or such a list under the name "data"'
        )

    # ---- CSV

    def _csv(self) -> Iterator[dict[str, list[Any]]]:
        with open_text(self.path, newline="") as stream:
            first = stream.readline()
            declared = re.fullmatch(r"sep=(.)", first.rstrip("\r\n"))  # as spreadsheets write it
            delimiter = self.dialect.delimiter or (declared[1] if declared else self._usual_delimiter())
            lines = stream if declared else chain([first], stream)
            rows = _CsvRows(lines, self._reader_settings(delimiter), skipped=1 if declared else 0)
            header = self._header(rows, delimiter)
            places = {column: header.index(column) for column in self.columns}
            while batch := self._take(rows, BATCH_ROWS):
                for index, row in enumerate(batch):
                    # what is beyond the header may be empty: delimiters at the end of the line
                    if len(row) < len(header) or any(row[len(header) :]):
                        number = rows.done - len(batch) + index  # the header is one of them
                        raise DataError(
                            f"{self.path}, row {number} (line {rows.lines[index]}) has {len(row)} "
                            f"field{'s' if len(row) != 1 else ''}, but the header has {len(header)}: "
                            + self._one_field(delimiter)
                        )
                yield {column: [row[place] for row in batch] for column, place in places.items()}

    def _take(self, rows: _CsvRows, n: int) -> list[list[str]]:
        try:
            return rows.take(n)
        except csv.Error as error:
            raise DataError(
                f"{self.path}, line {rows.line} is not valid CSV: {one_line(error)}; write {self.dialect.quote} twice "
                "inside a quoted field, or set quote to '' if quotes have no meaning in this file"
            ) from None

    def _header(self, rows: _CsvRows, delimiter: str) -> list[str]:
        """The names of the columns, checked."""
        try:
            header = next(iter(self._take(rows, 1)), [])
        except DataError:
            self._complain_of_delimiter(delimiter)
            raise
        if not set(self.columns) <= set(header):
            self._complain_of_delimiter(delimiter)
        self._check_header(header, delimiter)
        self._found(header)
        return header

    def _check_header(self, header: Sequence[str], delimiter: str) -> None:
        """Raise DataError for a first line that does not look like names of columns, or has them in other quotes."""
        for quote in QUOTES:
            if not set(self.columns) <= set(header) and set(self.columns) <= {name.strip(quote) for name in header}:
                raise DataError(f"{self.path} has its fields in {quote}: set quote to {quote!r}")
        if not any(column in header or _alike(column, header) for column in self.columns):
            first_line = f"its first line must name the columns; it is {_cut(delimiter.join(header))}"
            raise DataError(
                f"{_no_column(str(self.path), self.columns[0], header)} For a file of this type, {first_line}"
            )

    def _usual_delimiter(self) -> str:
        return "\t" if file_type(self.path) == ".tsv" else ","

    def _reader_settings(self, delimiter: str) -> dict[str, Any]:
        if not self.dialect.quote:
            return {"delimiter": delimiter, "quoting": csv.QUOTE_NONE}
        return {"delimiter": delimiter, "quotechar": self.dialect.quote, "strict": True}

    def _one_field(self, delimiter: str) -> str:
        held = {",": "commas", "\t": "tabs"}.get(delimiter, repr(delimiter))
        if self.dialect.quote:
            quotes = "double quotes" if self.dialect.quote == '"' else f"quotes ({self.dialect.quote})"
            return f"put fields that hold {held} in {quotes}"
        return f"no field may hold {held} where the setting quote is empty"

    def _complain_of_delimiter(self, delimiter: str) -> None:
        """Raise DataError when another delimiter makes more of the header."""
        with open_text(self.path, newline="") as stream:
            line = next((line.rstrip("\r\n") for line in stream if line.strip()), "")
        headers = {}
        # unusual ones only where they give several wanted columns, so that no part of a name is taken for a column
        marks = [mark for mark in line if not (mark.isalnum() or mark.isspace() or mark in NO_DELIMITERS)]
        marks = marks if len(self.columns) > 1 else []
        for character in dict.fromkeys([*DELIMITERS, *marks]):
            with contextlib.suppress(csv.Error), _fields_of_any_length():
                headers[character] = next(csv.reader([line], **self._reader_settings(character)), [])
        here = headers.pop(delimiter, [line])
        if not headers:
            return
        whole = [other for other in headers if set(self.columns) <= set(headers[other])]
        best = max(whole or headers, key=lambda other: len(headers[other]) if whole or other in DELIMITERS else 0)
        if whole or (len(here) < 2 and best in DELIMITERS and len(headers[best]) > 1):
            raise DataError(
                f"{self.path} has {'one column' if len(here) < 2 else f'{len(here)} columns'} when it is read with "
                f"{_named(delimiter)}, but its header is {_cut(line)}: set delimiter to {_named(best)}"
            )

    # ---- columns

    def _found(self, names: Sequence[str]) -> None:
        self.names = list(names)
        require_columns(str(self.path), self.columns, self.names)
        for column in self.columns:
            if self.names.count(column) > 1:
                raise DataError(
                    f"{self.path} has {self.names.count(column)} columns named {column!r}: rename all but one"
                )


def class_names(path: Path, column: str) -> tuple[str, ...]:
    """Class names of a column, from the metadata that Hugging Face datasets writes into parquet files."""
    import pyarrow as pa

    if file_type(path) != ".parquet":
        return ()
    try:
        with parquet_file(path) as file:
            metadata = file.schema_arrow.metadata or {}
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        return tuple(str(name) for name in feature["names"])
    except (KeyError, TypeError, ValueError, pa.ArrowException):  # made by others, or the column is no class label
        return ()


def require_columns(where: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise DataError for the first of the wanted columns that is not there."""
    for column in wanted:
        if column not in there:
            raise DataError(_no_column(where, column, there))


def _no_column(where: str, column: str, there: Sequence[str]) -> str:
    alike = _alike(column, there)
    if alike and loose_form(alike) == loose_form(column):
        kind = difference(alike, column)
        return (
            f"{where} has no column {column!r}, but {shown(alike)}, which differs in {kind}: write one like the other."
        )
    return f"{where} has no column {column!r}.{did_you_mean(column, map(_shortened, there), 'Columns')}"


def _alike(column: str, there: Sequence[str]) -> str:
    """The name that is most like a column's, of those that are there; "" when none is."""
    loose = next((name for name in there if loose_form(name) == loose_form(column)), "")
    return loose or next(iter(difflib.get_close_matches(column, there, n=1, cutoff=0.5)), "")


# ---- files as streams ----------------------------------------------------------------------------------------------


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
        raise DataError(f"{path} cannot be uncompressed: {one_line(error)}; make or download it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or one_line(error)}") from None


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


def one_line(error: BaseException, longest: int = 200) -> str:
    """An error's text on one line, cut where it grows long."""
    text = " ".join(str(error).split())
    return text if len(text) <= longest else text[: longest - 3] + "..."


# ---- JSON ----------------------------------------------------------------------------------------------------------


class _NotJSONError(Exception):
    pass


class _NameTwiceError(ValueError):
    pass


def json_records(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The objects of a file of JSON lines; empty lines are passed over.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Names that must not stand twice in one object.

    Raises
    ------
    DataError
        For a line that is no JSON object; names it.
    """
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = _parse(line, columns)
            except _NotJSONError as error:
                whole = "; a file that is one JSON document is named .json" if number == 1 else ""
                raise DataError(f"{path}, line {number} is not valid JSON: {error}{whole}") from None
            if not isinstance(record, dict):
                raise DataError(
                    f"{path}, line {number} is not a JSON object: each line must be {{column: value, ...}}; a file "
                    "that is one JSON document is named .json"
                )
            yield record


def _parse(text: str, columns: Sequence[str]) -> Any:
    # the hooks double the time, so they are for the texts that may need them
    careful = any(text.count(f'"{name}"') > 1 for name in columns)
    try:
        try:
            return json.loads(text, object_pairs_hook=_unambiguous if careful else None)
        except (json.JSONDecodeError, _NameTwiceError):
            raise
        except ValueError:
            return json.loads(text, parse_int=_integer)  # Python refuses integers of many thousand digits
    except (ValueError, RecursionError) as error:
        is_deep = isinstance(error, RecursionError)
        raise _NotJSONError("it is nested too deeply" if is_deep else one_line(error)) from None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 1000 else float(digits)


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NameTwiceError(f"the name {twice!r} stands twice in one object")
    return record


def _is_object(line: str) -> bool:
    try:
        return isinstance(_parse(line, ()), dict)
    except _NotJSONError:
        return False


def _in_batches(records: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(records, BATCH_ROWS)):
        yield batch


# ---- CSV -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _fields_of_any_length() -> Iterator[None]:
    """Lift the csv module's limit of a field, which holds for the whole process, and set it back."""
    with _field_limit:
        before = csv.field_size_limit(LARGEST_FIELD)
        try:
            yield
        finally:
            csv.field_size_limit(before)


class _CsvRows:
    """Rows that are not empty, with the line on which each ends.

    Parameters
    ----------
    lines : iterable of str
    settings : mapping
        Of `csv.reader`.
    skipped : int
        Lines of the file that were read before.

    Attributes
    ----------
    line : int
        On which the row begins that is read, counted from 1.
    lines : list of int
        Last lines of the rows that `take` gave.
    done : int
        Rows that were read.
    """

    def __init__(self, lines: Iterable[str], settings: Mapping[str, Any], skipped: int) -> None:
        self._reader = csv.reader(lines, **settings)
        self._skipped = skipped
        self.line = skipped + 1
        self.lines: list[int] = []
        self.done = 0

    def take(self, n: int) -> list[list[str]]:
        rows: list[list[str]] = []
        self.lines = []
        with _fields_of_any_length():
            while len(rows) < n:
                self.line = self._skipped + self._reader.line_num + 1
                row = next(self._reader, None)
                if row is None:
                    break
                if row:
                    rows.append(row)
                    self.done += 1
                    self.lines.append(self._skipped + self._reader.line_num)
        return rows


def _named(character: str) -> str:
    return "'tab'" if character == "\t" else repr(character)


def _shortened(text: str, longest: int = 40) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _cut(line: str) -> str:
    return repr(_shortened(line, 80))
