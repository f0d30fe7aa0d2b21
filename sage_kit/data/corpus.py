"""The warm-up's corpus: unlabelled text from a file or the hub."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sage_kit.components import HubSource
from sage_kit.config import RunConfig
from sage_kit.data.classes import is_blank
from sage_kit.data.formats import Dialect, FileReader, require_columns
from sage_kit.data.sources import hub_place, load_hub_split
from sage_kit.data.streams import TABLE_TYPES, file_type, name_must_end, open_text, reading
from sage_kit.errors import ConfigError, DataError, one_line

LINES = ".txt"
FILE_TYPES = (*TABLE_TYPES, LINES)
HUB_SPLIT = "train"


def load_corpus(config: RunConfig) -> list[str]:
    """Texts for the warm-up, in the corpus's order.

    ``warmup_corpus`` names a file that task ``file`` reads too, or a .txt file (of which each line that is not blank is
    one text), as a path or relative to ``data_dir``, there also without the suffix ``.parquet``; or a hub data set
    ``NAME:CONFIGURATION``, of which the split "train" is read, and no more of it than ``warmup_rows`` needs. Rows that
    are no text or are empty are skipped and not counted.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    list of str

    Raises
    ------
    ConfigError
        When ``warmup_corpus`` is not set.
    DataError
        When the corpus cannot be found or read, lacks the column, or holds no text.
    """
    if not config.warmup_corpus:
        raise ConfigError("warmup_corpus names no text: set it to a file or a hub data set")
    path = find_corpus(config)
    if path is not None:
        where, rows = str(path), _read(path, config)
    else:
        where, rows = _open_hub(config)
    try:
        texts = list(islice(filter(_is_text, rows), config.warmup_rows or None))
    except OSError as error:  # a data set that is streamed
        raise DataError(f"{where} cannot be read: {error.strerror or one_line(error, 200)}") from None
    if not texts:
        if path is not None and file_type(path) == LINES:
            raise DataError(f"{where} holds no text for the warm-up; set warmup_corpus to another file")
        column = config.warmup_column
        raise DataError(f"{where}, column {column!r}, holds no text for the warm-up; set warmup_column to another one")
    return texts


def find_corpus(config: RunConfig) -> Path | None:
    """The file that ``warmup_corpus`` names; None when it can only be a hub data set."""
    name = config.warmup_corpus
    candidates = [Path(name).expanduser()]
    if config.data_dir:
        below = Path(config.data_dir).expanduser() / name
        candidates += [below, below.with_name(f"{below.name}.parquet")]
    for path in candidates:
        if path.is_file():
            if file_type(path) not in FILE_TYPES:
                raise DataError(f"warm-up corpus {path}: {name_must_end(path, FILE_TYPES)}")
            return path
    if file_type(Path(name)) in FILE_TYPES or name.startswith(("/", "~", ".")):
        raise DataError(f"warm-up corpus {name!r} does not exist; looked for {', '.join(map(str, candidates))}")
    return None


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or is_blank(value):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no tokenizer takes
        return False
    return True


# ---- sources --------------------------------------------------------------------------------------------------------


def _read(path: Path, config: RunConfig) -> Iterator[Any]:
    if file_type(path) == LINES:
        with reading(path), open_text(path) as lines:
            yield from map(str.strip, lines)
        return
    for batch in FileReader(path, [config.warmup_column], Dialect.of(config)).batches():
        yield from batch[config.warmup_column]


def _open_hub(config: RunConfig) -> tuple[str, Iterator[Any]]:
    name, _, configuration = config.warmup_corpus.partition(":")
    name, _, revision = name.partition("@")
    source = HubSource(name, configuration, revision or "main")
    where = f"warm-up corpus: {hub_place(source, HUB_SPLIT)}"
    # with a number of rows, a large data set is not downloaded whole
    streaming = config.warmup_rows > 0
    data = load_hub_split(
        source,
        HUB_SPLIT,
        f"check the name and the network, or set warmup_corpus to a {', '.join(FILE_TYPES)} file, as a path or below "
        "data_dir",
        streaming=streaming,
    )
    if data.column_names is not None:  # a streamed set may know its columns only from its rows
        require_columns(where, [config.warmup_column], data.column_names)
        data = data.select_columns([config.warmup_column])
    return where, (row.get(config.warmup_column) for row in data)
