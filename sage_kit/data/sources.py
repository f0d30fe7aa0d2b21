"""Reading: a task's splits as tables of columns, from a folder of parquet, the hub, or the task's own loader."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_kit.components import HubSource, TaskSpec
from sage_kit.config import DATA_DIR_VARIABLE, RunConfig
from sage_kit.errors import DataError, PluginError, SageError, did_you_mean

FILE_TYPES = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True, eq=False)
class Table:
    """The wanted columns of one split, as read and not yet checked.

    Attributes
    ----------
    where : str
        File or split, to begin an error message with.
    columns : mapping of str to sequence
        Values by column, all of one length; the first value is row 1.
    class_names : tuple of str
        Class names of the label column in the order of their indices, when the file or data set embeds them.
    """

    where: str
    columns: Mapping[str, Sequence[Any]]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read_tables(spec: TaskSpec, config: RunConfig) -> dict[str, Table]:
    """The training split and every official validation split of a task.

    The task's own loader comes first, then ``data_dir`` when it is set and the task has a local form, then the hub.

    Parameters
    ----------
    spec : TaskSpec
    config : RunConfig

    Returns
    -------
    dict of str to Table

    Raises
    ------
    DataError
        When a file, split or column is missing, a file is malformed, the hub cannot be reached, or the task has no
        source at all.
    PluginError
        When the task's loader raises something of its own.
    """
    splits = (spec.train_split, *spec.validation_splits)
    columns = (*spec.text_columns, spec.label_column)
    if spec.loader is not None:
        return _from_loader(spec, _load(spec, config), splits, columns)
    if config.data_dir and spec.local:
        root = Path(config.data_dir).expanduser()
        if not root.is_dir():
            raise DataError(f"data_dir {root} is not a folder: correct it, or empty it to read the hub")
        paths = {split: root / spec.local / f"{split}.parquet" for split in splits}
        for path in paths.values():
            if not path.exists():
                raise DataError(f"{path} does not exist: correct data_dir, or empty it to read the hub")
        return {split: read_file(path, columns, spec.label_column) for split, path in paths.items()}
    if spec.hub is not None:
        way_out = "check the name and the network"
        if spec.local:
            way_out += f", or set data_dir (${DATA_DIR_VARIABLE}) to a folder that holds {spec.local}/<split>.parquet"
        return {split: _from_hub(spec.hub, split, columns, spec.label_column, way_out) for split in splits}
    raise DataError(f"task {spec.name!r} has nothing to read: set data_dir, or give its spec a loader or a hub source")


def read_file(path: Path, columns: Sequence[str], label_column: str = "") -> Table:
    """Columns of a .parquet, .jsonl or .csv file.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        The columns to read; others are left alone.
    label_column : str
        The one whose class names, where the file embeds them, are wanted.

    Returns
    -------
    Table

    Raises
    ------
    DataError
        When the file is missing, unreadable, malformed or of another type, or lacks a column.
    """
    readers = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".csv": _read_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: its name must end in {', '.join(FILE_TYPES)}")
    if not path.is_file():
        raise DataError(f"{path} {'is not a file' if path.exists() else 'does not exist'}")
    try:
        return reader(path, columns, label_column)
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or one_line(error)}") from None


def require_columns(where: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Raise DataError for the first of the wanted columns that is not there."""
    for column in wanted:
        if column not in there:
            raise DataError(f"{where} has no column {column!r}.{did_you_mean(column, there, 'Columns')}")


def not_utf8(path: Path) -> DataError:
    """The error for a text file that is not UTF-8; names its first line that is not."""
    with path.open("rb") as lines:
        number = next((number for number, line in enumerate(lines, start=1) if not _decodes(line)), 1)
    return DataError(f"{path}, line {number} is not UTF-8 text: save the file as UTF-8")


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


# ---- files ----------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, columns: Sequence[str], label_column: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            require_columns(str(path), columns, schema.names)
            table = file.read(columns=list(columns))
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a valid parquet file: {one_line(error)}") from None
    values = {column: table.column(column).to_pylist() for column in columns}
    return Table(str(path), values, _embedded_names(schema.metadata or {}, label_column))


def _embedded_names(metadata: Mapping[bytes, bytes], column: str) -> tuple[str, ...]:
    """Class names from the metadata that Hugging Face datasets writes into parquet files."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        return tuple(str(name) for name in feature["names"])
    except (KeyError, TypeError, ValueError):  # written by something else, or the column is no class label
        return ()


def json_records(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSONL file, one per line; empty lines are passed over.

    Raises
    ------
    DataError
        For a line that is no JSON object; names it.
    """
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number} is not valid JSON: {one_line(error)}") from None
            if not isinstance(record, dict):
                raise DataError(f"{path}, line {number} is not a JSON object: each line must be {{column: value, ...}}")
            yield record


def _read_jsonl(path: Path, columns: Sequence[str], label_column: str) -> Table:
    records = list(json_records(path))
    if records:
        # a column counts as there when any row has it; rows without it are reported by the check of the values
        require_columns(str(path), columns, list(dict.fromkeys(key for record in records for key in record)))
    return Table(str(path), {column: [record.get(column) for record in records] for column in columns})


def _read_csv(path: Path, columns: Sequence[str], label_column: str) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        rows: list[list[str]] = []
        try:
            header = next(reader, [])
            for row in reader:
                if not row:
                    continue
                rows.append(row)
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, row {len(rows)} (line {reader.line_num}) has {len(row)} fields, but the header has "
                        f"{len(header)}: put fields that hold commas in double quotes"
                    )
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num} is not valid CSV: {one_line(error)}") from None
    require_columns(str(path), columns, header)
    for column in columns:
        if header.count(column) > 1:
            raise DataError(f"{path} has {header.count(column)} columns named {column!r}: rename all but one")
    places = {column: header.index(column) for column in columns}
    return Table(str(path), {column: [row[place] for row in rows] for column, place in places.items()})


# ---- hub and loaders ------------------------------------------------------------------------------------------------


def load_hub_split(source: HubSource, split: str, way_out: str, *, streaming: bool = False) -> Any:
    """A split of a hub data set, as Hugging Face datasets gives it.

    Parameters
    ----------
    source : HubSource
    split : str
    way_out : str
        What to do when it cannot be loaded; ends the message.
    streaming : bool
        Read rows as they are asked for, instead of downloading all of them first.

    Returns
    -------
    datasets.Dataset or datasets.IterableDataset

    Raises
    ------
    DataError
        When the hub cannot be reached or has no such data set, configuration or split.
    """
    import datasets

    try:
        return datasets.load_dataset(
            source.repository, source.configuration or None, split=split, revision=source.revision, streaming=streaming
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        where = hub_place(source, split)
        raise DataError(f"{where} cannot be loaded ({type(error).__name__}: {one_line(error)}): {way_out}") from None


def hub_place(source: HubSource, split: str) -> str:
    """A hub split's name for messages."""
    name = ":".join(filter(None, (source.repository, source.configuration)))
    return f"hub data set {name}, split {split!r}"


def _from_hub(source: HubSource, split: str, columns: Sequence[str], label_column: str, way_out: str) -> Table:
    data = load_hub_split(source, split, way_out)
    where = hub_place(source, split)
    require_columns(where, columns, data.column_names)
    table = data.select_columns(list(columns)).with_format("arrow")[:]
    names = getattr(data.features[label_column], "names", None) or ()
    return Table(where, {column: table.column(column).to_pylist() for column in columns}, tuple(names))


def _load(spec: TaskSpec, config: RunConfig) -> Mapping[str, Mapping[str, Sequence[Any]]]:
    assert spec.loader is not None
    try:
        return spec.loader(config)
    except SageError:
        raise
    except Exception as error:  # a plugin's loader may raise anything
        raise PluginError(f"task {spec.name!r}: its loader raised {type(error).__name__}: {one_line(error)}") from error


def _from_loader(
    spec: TaskSpec, loaded: Mapping[str, Mapping[str, Sequence[Any]]], splits: Sequence[str], columns: Sequence[str]
) -> dict[str, Table]:
    tables = {}
    for split in splits:
        where = f"task {spec.name!r}, split {split!r}"
        if split not in loaded:
            raise DataError(f"task {spec.name!r}: its loader gives no split {split!r}; it gives {', '.join(loaded)}")
        require_columns(where, columns, list(loaded[split]))
        values = {column: _plain(loaded[split][column]) for column in columns}
        lengths = {column: len(column_values) for column, column_values in values.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{where}: its loader gives columns of unequal length: {lengths}")
        tables[split] = Table(where, values)
    return tables


def _plain(values: Any) -> list[Any]:
    """Plain Python values, whatever kind of sequence a loader returned."""
    return values.tolist() if hasattr(values, "tolist") else list(values)
