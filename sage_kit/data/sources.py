"""Reading: a task's splits as tables of columns, from a folder of parquet, the hub, or the task's own loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sage_kit.components import HubSource, SplitSource, TaskSpec
from sage_kit.components.guard import Failure, attempt, cause_of, place_of
from sage_kit.config import DATA_DIR_VARIABLE, RunConfig
from sage_kit.data.formats import (
    BATCH_ROWS,
    Dialect,
    FileReader,
    class_names,
    item_names,
    names_of_feature,
    names_of_items,
    require_columns,
)
from sage_kit.data.text_columns import ColumnBuilder, take_rows
from sage_kit.errors import DataError, PluginError, one_line


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
    item_names : tuple of str
        The same of the items, where the label column holds lists.
    others : tuple of str
        Columns of the file that were not wanted.
    rows : sequence of int
        Where rows were left out: the number of each row that is left, from 1.
    """

    where: str
    columns: Mapping[str, Sequence[Any]]
    class_names: tuple[str, ...] = ()
    item_names: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    rows: Sequence[int] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def row(self, index: int) -> int:
        """The number of a row in its file or split, from 1."""
        return self.rows[index] if self.rows else index + 1

    def take(self, indices: Sequence[int]) -> Table:
        """The rows at `indices`, which keep their numbers."""
        chosen = np.asarray(indices, np.int64)
        columns = {name: take_rows(values, chosen) for name, values in self.columns.items()}
        return replace(self, columns=columns, rows=[self.row(index) for index in indices])


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
    columns = tuple(dict.fromkeys(filter(None, (*spec.text_columns, spec.label_column, spec.group_column))))
    if spec.loader is not None:
        return _from_loader(spec, _load(spec, config), splits, columns)
    tables = {}
    for split in splits:
        source = spec.source_of(split)
        # what `arrange` makes something else of is no column of texts yet
        texts = spec.text_columns if source.arrange is None else ()
        table = _from_source(spec, source, source.columns or columns, config, texts)
        tables[split] = _arranged(spec, source, table, columns) if source.arrange is not None else table
    return tables


def _arranged(spec: TaskSpec, source: SplitSource, table: Table, columns: Sequence[str]) -> Table:
    """The task's columns, made of those of a source of another shape; classes stand as names."""
    values = dict(table.columns)
    label = spec.label_column
    if table.class_names and label in values:
        values[label] = _named(values[label], table.class_names)
    if table.item_names and label in values:
        values[label] = [_named(v, table.item_names) if isinstance(v, list) else v for v in values[label]]
    assert source.arrange is not None
    arrange = source.arrange
    try:
        made = attempt(lambda: {name: list(column) for name, column in arrange(values).items()})
    except Failure as failure:
        error = failure.error
        message = f"{table.where}: `arrange` of task {spec.name!r} raised {cause_of(error)}"
        raise PluginError(message, place_of(error, arrange)) from error
    require_columns(f"what `arrange` of task {spec.name!r} makes of {table.where}", columns, list(made))
    lengths = {name: len(made[name]) for name in columns}
    if len(set(lengths.values())) > 1:
        raise PluginError(f"{table.where}: `arrange` of task {spec.name!r} makes columns of unequal length: {lengths}")
    return replace(table, columns={name: made[name] for name in columns}, class_names=(), item_names=())


def _named(values: Sequence[Any], names: Sequence[str]) -> list[Any]:
    return [names[value] if isinstance(value, int) and 0 <= value < len(names) else value for value in values]


def _from_source(
    spec: TaskSpec, source: SplitSource, columns: Sequence[str], config: RunConfig, texts: Sequence[str]
) -> Table:
    """A split from ``data_dir`` where that is set and the split has a local form, else from the hub."""
    if config.data_dir and source.local:
        root = Path(config.data_dir).expanduser()
        way_out = "correct data_dir" if source.hub is None else "correct data_dir, or empty it to read the hub"
        if not root.is_dir():
            raise DataError(f"data_dir {root} is not a folder: {way_out}")
        path = root / f"{source.local}.parquet"
        if not path.exists():
            raise DataError(f"{path} does not exist: {way_out}")
        return read_file(path, columns, spec.label_column, texts=texts, folder=scratch_folder(config))
    folder = f"set data_dir (${DATA_DIR_VARIABLE}) to a folder that holds {Path(source.local).parent}/<split>.parquet"
    if source.hub is not None:
        way_out = "check the name and the network"
        if source.local:
            way_out += f", or {folder}"
        hub = replace(source.hub, revision=config.data_revision) if config.data_revision else source.hub
        return _from_hub(hub, source.split, columns, spec.label_column, way_out, texts, scratch_folder(config))
    if source.local:
        raise DataError(f"task {spec.name!r} has no source on the hub: {folder}")
    raise DataError(f"task {spec.name!r} has nothing to read: set data_dir, or give its spec a loader or a hub source")


def scratch_folder(config: RunConfig) -> Path:
    """Where columns and tokens that are too many for memory lie while a run lasts: beside the cache's entries."""
    return Path(config.cache_dir).expanduser()


def read_file(
    path: Path,
    columns: Sequence[str],
    label_column: str = "",
    dialect: Dialect | None = None,
    *,
    texts: Sequence[str] = (),
    folder: Path | None = None,
) -> Table:
    """Columns of a file of one of the types that `FileReader` reads, compressed or not.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        The columns to read; others are left alone.
    label_column : str
        The one whose class names, where the file embeds them, are wanted.
    dialect : Dialect or None
        Of a CSV or TSV file; None takes the usual one.
    texts : sequence of str
        The columns of text, which become a `TextColumn` where every value is one.
    folder : Path or None
        Where large columns of text have their files; None keeps all in memory.

    Returns
    -------
    Table

    Raises
    ------
    DataError
        When the file is missing, unreadable, malformed or of another type, or lacks a column.
    """
    reader = FileReader(path, columns, dialect)
    built = _builders(columns, texts, folder)
    for batch in reader.batches():
        for column, part in batch.items():
            built[column].append(part)
    values = {column: one.finish() for column, one in built.items()}
    others = tuple(name for name in reader.names if name not in columns)
    return Table(str(path), values, class_names(path, label_column), item_names(path, label_column), others)


def _builders(columns: Sequence[str], texts: Sequence[str], folder: Path | None) -> dict[str, ColumnBuilder]:
    return {column: ColumnBuilder(folder, is_text=column in texts) for column in columns}


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
        raise DataError(
            f"{where} cannot be loaded ({type(error).__name__}: {one_line(error, 200)}): {way_out}"
        ) from None


def hub_place(source: HubSource, split: str) -> str:
    """A hub split's name for messages."""
    name = ":".join(filter(None, (source.repository, source.configuration)))
    return f"hub data set {name}, split {split!r}"


def _from_hub(
    source: HubSource,
    split: str,
    columns: Sequence[str],
    label_column: str,
    way_out: str,
    texts: Sequence[str],
    folder: Path,
) -> Table:
    data = load_hub_split(source, split, way_out)
    where = hub_place(source, split)
    require_columns(where, columns, data.column_names)
    built = _builders(columns, texts, folder)
    for batch in data.select_columns(list(columns)).with_format("arrow").iter(batch_size=BATCH_ROWS):
        for column, one in built.items():
            one.append(batch.column(column).to_pylist())
    values = {column: one.finish() for column, one in built.items()}
    feature = _feature(data, label_column)
    return Table(where, values, names_of_feature(feature), names_of_items(feature))


def _load(spec: TaskSpec, config: RunConfig) -> Any:
    loader = spec.loader
    assert loader is not None
    return _guarded(spec, loader, config)


def _guarded(spec: TaskSpec, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a task's loader, or look into what it returned: either may raise anything."""
    try:
        return attempt(function, *arguments)
    except Failure as failure:
        error = failure.error
        message = f"task {spec.name!r}: its loader raised {cause_of(error)}"
        raise PluginError(message, place_of(error, spec.loader)) from error


def _from_loader(spec: TaskSpec, loaded: Any, splits: Sequence[str], columns: Sequence[str]) -> dict[str, Table]:
    if not isinstance(loaded, Mapping):
        raise PluginError(
            f"task {spec.name!r}: its loader returned {type(loaded).__name__}; expected {{split: {{column: values}}}}"
        )
    tables = {}
    for split in splits:
        where = f"task {spec.name!r}, split {split!r}"
        if split not in loaded:
            raise DataError(
                f"task {spec.name!r}: its loader gives no split {split!r}; it gives {', '.join(map(str, loaded))}"
            )
        values: dict[str, list[Any]] = _guarded(spec, _columns, where, loaded[split], columns)
        lengths = {column: len(column_values) for column, column_values in values.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{where}: its loader gives columns of unequal length: {lengths}")
        feature = _guarded(spec, _feature, loaded[split], spec.label_column)
        tables[split] = Table(where, values, names_of_feature(feature), names_of_items(feature))
    return tables


def _columns(where: str, part: Any, columns: Sequence[str]) -> dict[str, list[Any]]:
    """The columns of what a loader gave for a split."""
    # besides a mapping, tables of Hugging Face datasets and of pandas have columns
    names = part if isinstance(part, Mapping) else getattr(part, "column_names", getattr(part, "columns", None))
    if names is None:
        raise PluginError(f"{where}: its loader gives {type(part).__name__}; expected {{column: values}}")
    require_columns(where, columns, list(names))
    return {column: _plain(where, column, part[column]) for column in columns}


def _feature(data: Any, column: str) -> Any:
    """What a Hugging Face data set says about a column; None for other data."""
    features = getattr(data, "features", None) or {}
    return features.get(column)


def _plain(where: str, column: str, values: Any) -> list[Any]:
    """Plain Python values, whatever kind of sequence a loader returned."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise PluginError(
            f"{where}, column {column!r}: its loader gives {type(values).__name__}; expected a value for each row"
        )
    return [value.item() if hasattr(value, "item") and not isinstance(value, str) else value for value in values]
