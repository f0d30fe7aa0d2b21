"""What a student predicts for a file: read, predicted and written some rows at a time, so that any length will do."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sage_kit.data.formats import Dialect, FileReader
from sage_kit.data.sources import Table
from sage_kit.errors import ConfigError, DataError
from sage_kit.inference.predictor import Columns, Predictor
from sage_kit.storage.files import disk_errors

CHUNK = 4096
"""Rows that are predicted at a time: enough for batches of like length."""

OUTPUTS = (".jsonl", ".csv", ".tsv", ".parquet")
"""What the name of a file of predictions may end in."""

Write = Callable[[Columns], None]


def predict_file(
    predictor: Predictor,
    file: Path,
    output: Path,
    columns: Sequence[str],
    *,
    keep: Sequence[str] = (),
    probabilities: bool = False,
    dialect: Dialect | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> int:
    """Write what a student predicts for each row of a file, in the order of the rows.

    Parameters
    ----------
    predictor : Predictor
    file : Path
        As for the setting `train_file`.
    output : Path
        Ends in one of `OUTPUTS`. It appears when all is done; a file of that name is replaced.
    columns : sequence of str
        Of the text, or of both texts.
    keep : sequence of str
        Columns of the file that are written as well.
    probabilities : bool
        As in `Predictor.predict`.
    dialect : Dialect or None
        Of a CSV or TSV file.
    on_rows : callable
        Told how many rows are done.

    Returns
    -------
    int
        The rows.

    Raises
    ------
    ConfigError
        For an output of another type, or one that is the file itself.
    DataError
        When the file is missing, malformed or empty, lacks a column, or a text is missing.
    """
    check_output(output, file)
    done = 0
    reader = FileReader(file, list(dict.fromkeys([*columns, *keep])), dialect)
    with _writing(output, output.suffix.lower()) as write:
        for batch in chunks(reader.batches()):
            rows = len(next(iter(batch.values())))
            table = Table(str(file), {name: batch[name] for name in columns}, rows=range(done + 1, done + rows + 1))
            found = predictor.predict_table(table, columns, probabilities=probabilities)
            clash = sorted(set(keep) & set(found))
            if clash:
                raise ConfigError(
                    f"a column {clash[0]!r} of predictions has the name of one that is kept: leave it out"
                )
            write({**{name: list(batch[name]) for name in keep}, **found})
            done += rows
            on_rows(done)
        if not done:
            raise DataError(f"{file} has no rows: give it some")
    return done


def check_output(output: Path, file: Path) -> None:
    """Raise ConfigError for an output that cannot be written as predictions, or that would overwrite its input."""
    if output.suffix.lower() not in OUTPUTS:
        raise ConfigError(f"{output}: the name of a file of predictions ends in {', '.join(OUTPUTS)}")
    if output.exists() and file.exists() and os.path.samefile(output, file):
        raise ConfigError(f"{output} is the file that is read: name another")
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent} is no folder: make it first")


def chunks(batches: Iterator[Mapping[str, Sequence[Any]]]) -> Iterator[dict[str, list[Any]]]:
    """Columns of `CHUNK` rows, the last of fewer, whatever batches a file is read in."""
    waiting: dict[str, list[Any]] = {}
    for batch in batches:
        for name, values in batch.items():
            waiting.setdefault(name, []).extend(values)
        while len(next(iter(waiting.values()), ())) >= CHUNK:
            yield {name: values[:CHUNK] for name, values in waiting.items()}
            waiting = {name: values[CHUNK:] for name, values in waiting.items()}
    if len(next(iter(waiting.values()), ())):
        yield waiting


@contextlib.contextmanager
def _writing(output: Path, kind: str) -> Iterator[Write]:
    """Takes columns, and puts the file in its place when all is done; after an error nothing is left."""
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    writers = {".jsonl": _json_lines, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
    try:
        with disk_errors(str(output)):
            with writers[kind](partial, "\t" if kind == ".tsv" else ",") as write:
                yield write
            partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _json_lines(path: Path, _: str) -> Iterator[Write]:
    with path.open("w", encoding="utf-8") as stream:

        def write(columns: Columns) -> None:
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")

        yield write


@contextlib.contextmanager
def _csv(path: Path, delimiter: str) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        begun = False

        def write(columns: Columns) -> None:
            nonlocal begun
            if "embedding" in columns:
                raise ConfigError("an embedding is no field of a CSV file: let the output end in .jsonl or .parquet")
            if not begun:
                rows.writerow(columns)
                begun = True
            rows.writerows(zip(*([_field(value) for value in values] for values in columns.values()), strict=True))

        yield write


def _field(value: Any) -> Any:
    """A value as a field: names of a list with a space between, or as JSON where one holds a space."""
    if not isinstance(value, list | tuple | dict):
        return value
    is_plain = isinstance(value, list | tuple) and all(isinstance(one, str) and one.split() == [one] for one in value)
    return " ".join(value) if is_plain else json.dumps(value, ensure_ascii=False)


@contextlib.contextmanager
def _parquet(path: Path, _: str) -> Iterator[Write]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: Any = None

    def write(columns: Columns) -> None:
        nonlocal writer
        table = pa.table(columns, schema=None if writer is None else writer.schema)
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
