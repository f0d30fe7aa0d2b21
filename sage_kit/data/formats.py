"""Formats: CSV, TSV, JSON, JSON lines, parquet and CoNLL, compressed or not, read as batches of columns.

What a file is follows from its name (``reviews.csv.gz``); whether and how it is compressed, and its Unicode encoding
where it begins with a byte order mark, follow from its first bytes.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sage_kit.config import RunConfig
from sage_kit.data.classes import difference, loose_form, shown
from sage_kit.data.conll_files import read_conll
from sage_kit.data.json_records import NotJSONError, is_json_object, json_records, parse_json
from sage_kit.data.squad_files import is_squad, squad_columns
from sage_kit.data.streams import (
    TABLE_TYPES,
    TAGGED_TYPES,
    file_type,
    name_must_end,
    open_text,
    parquet_file,
    reading,
)
from sage_kit.errors import DataError, did_you_mean, one_line, shortened

LARGEST_FIELD = 2**31 - 1
"""Longest field of a CSV file, in characters: the most that the csv module takes on every platform."""

BATCH_ROWS = 1024


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
        readers |= dict.fromkeys(TAGGED_TYPES, self._conll)
        kind = file_type(self.path)
        if self.path.is_dir():
            raise DataError(f"{self.path} is not a file")
        if kind not in readers:
            raise DataError(f"{self.path}: {name_must_end(self.path, (*TABLE_TYPES, *TAGGED_TYPES))}")
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
            raise DataError(f"{self.path} is not a valid parquet file: {one_line(error, 200)}") from None

    # ---- JSON

    def _json_lines(self) -> Iterator[dict[str, list[Any]]]:
        seen: dict[str, None] = {}
        found = json_records(self.path, self.columns)
        while records := list(islice(found, BATCH_ROWS)):
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
            content = parse_json(text, self.columns)
        except NotJSONError as error:
            lines = text.lstrip().splitlines()
            if not lines or not is_json_object(lines[0]):
                raise DataError(f"{self.path} is not valid JSON: {error}") from None
            yield from self._json_lines()
            return
        values = self._json_columns(content)
        self._found(list(values))
        yield {column: values[column] for column in self.columns}

    def _json_columns(self, content: Any) -> dict[str, list[Any]]:
        """The columns of a JSON document in any of the forms that are common."""
        if is_squad(content) and "paragraphs" not in self.columns:
            return squad_columns(self.path, content)
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

    # ---- CoNLL

    def _conll(self) -> Iterator[dict[str, list[Any]]]:
        places, sentences = read_conll(self.path, self.dialect.delimiter)
        self._found(list(places))
        for start in range(0, len(sentences), BATCH_ROWS):
            batch = sentences[start : start + BATCH_ROWS]
            yield {
                column: [[fields[places[column]] for fields in sentence] for sentence in batch]
                for column in self.columns
            }

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
                f"{self.path}, line {rows.line} is not valid CSV: {one_line(error, 200)}; write {self.dialect.quote} "
                "twice inside a quoted field, or set quote to '' if quotes have no meaning in this file"
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
    return names_of_feature(_feature(path, column))


def item_names(path: Path, column: str) -> tuple[str, ...]:
    """Class names of the items in a column of lists, from the same metadata."""
    return names_of_items(_feature(path, column))


def names_of_feature(feature: Any) -> tuple[str, ...]:
    """Class names that a column's feature gives, as metadata or as an object of Hugging Face datasets."""
    names = _part(feature, "names")
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def names_of_items(feature: Any) -> tuple[str, ...]:
    """Class names that the feature of a column of lists gives to their items."""
    inner = feature[0] if isinstance(feature, list) and feature else _part(feature, "feature")
    return names_of_feature(inner)


def _part(feature: Any, name: str) -> Any:
    return feature.get(name) if isinstance(feature, Mapping) else getattr(feature, name, None)


def _feature(path: Path, column: str) -> Any:
    """What Hugging Face datasets wrote about a column of a parquet file; None where there is nothing."""
    import pyarrow as pa

    if file_type(path) != ".parquet":
        return None
    try:
        with parquet_file(path) as file:
            metadata = file.schema_arrow.metadata or {}
        return json.loads(metadata[b"huggingface"])["info"]["features"][column]
    except (KeyError, TypeError, ValueError, pa.ArrowException):  # made by others
        return None


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
    names = [shortened(name, 40) for name in there]
    return f"{where} has no column {column!r}.{did_you_mean(column, names, 'Columns')}"


def _alike(column: str, there: Sequence[str]) -> str:
    """The name that is most like a column's, of those that are there; "" when none is."""
    loose = next((name for name in there if loose_form(name) == loose_form(column)), "")
    return loose or next(iter(difflib.get_close_matches(column, there, n=1, cutoff=0.5)), "")


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


def _cut(line: str) -> str:
    return repr(shortened(line, 80))
