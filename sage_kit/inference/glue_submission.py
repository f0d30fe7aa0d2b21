"""A submission to the GLUE server: what students predict for its test sets, in files of its names, in an archive.

The server takes one archive of eleven files without folders, each of two columns, ``index`` and ``prediction``
(https://gluebenchmark.com/faq). Labels of the inference tasks stand as words, those of the others as 0 and 1, and the
similarity of STS-B as a number from 0 to 5.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sage_kit.components import HubSource, TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import DATA_DIR_VARIABLE, load_config
from sage_kit.data.formats import Dialect, FileReader, require_columns
from sage_kit.data.sources import Table, hub_place, load_hub_split
from sage_kit.data.streams import file_type, parquet_file
from sage_kit.errors import CompatibilityError, ConfigError, DataError, did_you_mean
from sage_kit.inference.prediction_files import CHUNK, chunks
from sage_kit.inference.predictor import Predictor, load_student
from sage_kit.models.task_heads import label_order
from sage_kit.rundir import RunDirectory
from sage_kit.storage.files import disk_errors, write_bytes

INFERENCE = ("entailment", "neutral", "contradiction")
TWO_WAY = ("entailment", "not_entailment")
DIGITS = ("0", "1")

INDEX = ("idx", "index", "id")
"""What test sets call the number of a row, counted from 0."""

OTHER_COLUMNS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "mnli": (("sentence1", "sentence2"),),
    "mrpc": (("#1 String", "#2 String"),),
}
"""What the server's own files call the columns of texts, where they are not the task's."""

LOWEST, HIGHEST = 0.0, 5.0

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """A file of a submission.

    Attributes
    ----------
    name : str
        What the user calls it.
    file : str
        What the server calls it.
    task : str
        The task whose student predicts it.
    folder, split : str
        Configuration of GLUE and split that hold its texts.
    rows : int
        How many there are.
    answers : tuple of str
        What the server calls the labels, in the order of the task's; empty for numbers.
    """

    name: str
    file: str
    task: str
    folder: str
    split: str
    rows: int
    answers: tuple[str, ...]

    @property
    def filler(self) -> str:
        """The answer to every row where there is no student."""
        return self.answers[0] if self.answers else "2.500"


def _part(name: str, file: str, rows: int, answers: tuple[str, ...]) -> Part:
    return Part(name, file, name, name, "test", rows, answers)


PARTS: tuple[Part, ...] = (
    _part("cola", "CoLA.tsv", 1063, DIGITS),
    _part("sst2", "SST-2.tsv", 1821, DIGITS),
    _part("mrpc", "MRPC.tsv", 1725, DIGITS),
    _part("stsb", "STS-B.tsv", 1379, ()),
    _part("qqp", "QQP.tsv", 390965, DIGITS),
    Part("mnli-m", "MNLI-m.tsv", "mnli", "mnli", "test_matched", 9796, INFERENCE),
    Part("mnli-mm", "MNLI-mm.tsv", "mnli", "mnli", "test_mismatched", 9847, INFERENCE),
    _part("qnli", "QNLI.tsv", 5463, TWO_WAY),
    _part("rte", "RTE.tsv", 3000, TWO_WAY),
    _part("wnli", "WNLI.tsv", 146, DIGITS),
    Part("ax", "AX.tsv", "mnli", "ax", "test", 1104, INFERENCE),
)
"""The files that the server wants, with the sizes of its test sets."""

TASKS = tuple(dict.fromkeys(part.task for part in PARTS))


@dataclass(frozen=True)
class Written:
    """What a file of the archive holds: rows, and the student that predicted them, "" for one answer to all."""

    part: Part
    rows: int
    student: str


def submit(
    students: Mapping[str, str],
    output: Path,
    *,
    plugins: Plugins,
    data_dir: str = "",
    files: Mapping[str, Path] | None = None,
    fill: bool = False,
    device: str = "auto",
    precision: str = "auto",
    announce: Announce = lambda line: None,
) -> list[Written]:
    """Write the archive of a submission.

    Parameters
    ----------
    students : mapping of str to str
        By task of `TASKS`, a student as `load_student` takes it. That of ``mnli`` predicts ``ax`` as well.
    output : Path
        Ends in ``.zip``; it appears when all is done, and a file of that name is replaced.
    plugins : Plugins
    data_dir : str
        Holds ``glue/<task>/test.parquet``; "" reads the hub.
    files : mapping of str to Path or None
        By name of `PARTS`, files of test rows in the place of these, of any number of rows; also the server's own
        ``test.tsv``.
    fill : bool
        Give every row of a file without a student the same answer, since the server wants all files.
    device, precision : str
        As the settings of a run.
    announce : callable
        Shows one line to the user.

    Returns
    -------
    list of Written

    Raises
    ------
    ConfigError
        For an output of another type, and tasks or files that nobody knows or that no student is for.
    CompatibilityError
        For a student of another kind of task, or with other labels.
    DataError
        When a test set is missing, malformed or not of the server's size.
    """
    files = files or {}
    _check(students, output, files)
    sources: dict[str, _Source] = {}
    for part in PARTS:
        if part.task not in students:
            continue
        spec = plugins.task(part.task, {})
        try:
            sources[part.name] = _source(part, spec, data_dir, files.get(part.name))
        except DataError as error:
            if part.name != "ax" or part.name in files:
                raise
            announce(f"{part.file} is left out: {error}")  # nobody has asked for it by name
    found: dict[str, tuple[str, Written]] = {}
    for task in [task for task in TASKS if task in students]:
        predictor = load_student(students[task], device=device, precision=precision, plugins=plugins)
        for part in [part for part in PARTS if part.task == task and part.name in sources]:
            spec = plugins.task(task, {})
            lines = _predicted(part, spec, predictor, students[task], sources[part.name])
            found[part.name] = (_as_tsv(lines), Written(part, len(lines), students[task]))
            announce(f"{part.file}: {len(lines):,} rows")
    for part in PARTS if fill else ():
        if part.name not in found:
            found[part.name] = (_as_tsv([part.filler] * part.rows), Written(part, part.rows, ""))
    chosen = [found[part.name] for part in PARTS if part.name in found]
    with disk_errors(str(output)):
        write_bytes(output, _archive({written.part.file: text for text, written in chosen}))
    return [written for _, written in chosen]


def students_by_task(named: Sequence[str]) -> dict[str, str]:
    """Students by task, from ``task=STUDENT`` or the directory of a run on a task of GLUE.

    Raises
    ------
    ConfigError
        For a task that is not of GLUE, one that is named twice, and a student without one.
    """
    found: dict[str, str] = {}
    for word in named:
        task, is_pair, student = word.partition("=")
        if not is_pair or (task not in TASKS and Path(word).exists()):
            task, student = _task_of(word), word
        if task not in TASKS:
            raise ConfigError(f"Unknown task of GLUE {task!r}.{did_you_mean(task, TASKS, 'Tasks')}")
        if not student:
            raise ConfigError(f"{word!r} names no student: write {task}=DIR")
        if task in found:
            raise ConfigError(f"task {task!r} has two students, {found[task]} and {student}: name one")
        found[task] = student
    return found


def files_by_part(named: Sequence[str]) -> dict[str, Path]:
    """Files of test rows by name of `PARTS`, from ``name=FILE``; raises ConfigError for other words."""
    found = {}
    for word in named:
        name, _, file = word.partition("=")
        if not file:
            raise ConfigError(f"{word!r} names no file of test rows: write NAME=FILE, such as sst2=test.tsv")
        if name not in {part.name for part in PARTS}:
            raise ConfigError(
                f"Unknown file of a submission {name!r}.{did_you_mean(name, [part.name for part in PARTS], 'Names')}"
            )
        found[name] = Path(file).expanduser()
    return found


def missing_files(written: Sequence[Written]) -> list[str]:
    """The files that the server wants and an archive lacks."""
    there = {one.part.file for one in written}
    return [part.file for part in PARTS if part.file not in there]


# ---- what is asked --------------------------------------------------------------------------------------------------


def _task_of(student: str) -> str:
    path = Path(student).expanduser()
    if not (path / "config.toml").is_file():
        raise ConfigError(f"{student!r} does not say its task: write task=STUDENT, such as sst2={student}")
    task = RunDirectory.open(path).config().task.removesuffix("_embeddings")
    if task not in TASKS:
        raise ConfigError(f"run {student} is on task {task!r}, which is not of GLUE: write task=STUDENT")
    return task


def _check(students: Mapping[str, str], output: Path, files: Mapping[str, Path]) -> None:
    if not students:
        raise ConfigError("name a student at least, such as sst2=RUN")
    if output.suffix.lower() != ".zip":
        raise ConfigError(f"{output}: the name of an archive ends in .zip")
    if output.is_dir():
        raise ConfigError(f"{output} is a folder: name another")
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent} is no folder: make it first")
    for part in PARTS:
        if part.name in files and part.task not in students:
            raise ConfigError(f"{part.name} has a file and no student: write {part.task}=STUDENT as well")


# ---- the test sets --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """The rows of a test set.

    Attributes
    ----------
    where : str
        For messages.
    texts : tuple of str
        Columns of the texts.
    index : str
        Column of the rows' numbers; "" for none.
    batches : callable
        Gives values by column, some rows at a time.
    is_given : bool
        Whether the user named it, so that any rows will do.
    """

    where: str
    texts: tuple[str, ...]
    index: str
    batches: Callable[[], Iterator[Mapping[str, Sequence[Any]]]]
    is_given: bool


def _source(part: Part, spec: TaskSpec, data_dir: str, given: Path | None) -> _Source:
    """Where the rows of a file come from, checked before anything is predicted."""
    local = Path(data_dir).expanduser() / "glue" / part.folder / f"{part.split}.parquet" if data_dir else None
    path = given or local
    if path is None:
        way_out = (
            f"check the network, set --data-dir (${DATA_DIR_VARIABLE}) to a folder that holds "
            f"glue/{part.folder}/{part.split}.parquet, or give the rows with --file {part.name}=FILE"
        )
        hub = HubSource(spec.hub.repository if spec.hub else "nyu-mll/glue", part.folder)
        data = load_hub_split(hub, part.split, way_out)
        _check_rows(part, hub_place(hub, part.split), len(data))
        require_columns(hub_place(hub, part.split), spec.text_columns, data.column_names)
        texts, index = spec.text_columns, _index(data.column_names)
        wanted = data.select_columns([*texts, *filter(None, [index])])
        return _Source(hub_place(hub, part.split), texts, index, lambda: wanted.iter(CHUNK), False)
    if not path.is_file():
        raise DataError(
            f"{path} does not exist: put the test rows there, empty --data-dir to read the hub, or give them with "
            f"--file {part.name}=FILE"
        )
    if given is None:
        with parquet_file(path) as file:
            _check_rows(part, str(path), file.metadata.num_rows)
    # the server's own .tsv files have quotes without meaning
    dialect = Dialect.of(load_config({"quote": ""})) if file_type(path) == ".tsv" else None
    texts, names = _columns_of_file(spec, path, dialect)
    index = _index(names)
    reader = FileReader(path, [*texts, *filter(None, [index])], dialect)
    return _Source(str(path), texts, index, reader.batches, given is not None)


def _check_rows(part: Part, where: str, rows: int) -> None:
    if rows != part.rows:
        raise DataError(
            f"{where} has {rows:,} rows, and the server's test set has {part.rows:,}: take the whole of it, or name a "
            f"file of other rows with --file {part.name}=FILE"
        )


def _columns_of_file(spec: TaskSpec, path: Path, dialect: Dialect | None) -> tuple[tuple[str, ...], list[str]]:
    """The columns of the texts, whoever has named them, and all columns; raises as reading does."""
    refused: DataError | None = None
    for columns in (spec.text_columns, *OTHER_COLUMNS.get(spec.name, ())):
        reader = FileReader(path, columns, dialect)
        try:
            next(reader.batches(), None)
        except DataError as error:
            refused = refused or error
        else:
            return columns, reader.names
    assert refused is not None
    raise refused


def _index(names: Sequence[str]) -> str:
    """The column of the rows' numbers; "" for none."""
    return next((name for name in INDEX if name in names), "")


# ---- predictions ----------------------------------------------------------------------------------------------------


def _predicted(part: Part, spec: TaskSpec, predictor: Predictor, student: str, source: _Source) -> list[str]:
    """What the server is told of each row, in the order of the rows' numbers."""
    read = _reading(part, spec, predictor, student)
    half = replace(predictor.spec, may_be_half_empty=spec.may_be_half_empty)
    asked = replace(predictor, spec=half)
    told: list[str] = []
    numbers: list[Any] = []
    for batch in chunks(source.batches()):
        done = len(told)
        values = {name: list(batch[name]) for name in source.texts}
        rows = len(values[source.texts[0]])
        table = Table(source.where, values, rows=range(done + 1, done + rows + 1))
        told += read(asked.predict_table(table, source.texts))
        numbers += list(batch[source.index]) if source.index else range(done, done + rows)
    if not told:
        raise DataError(f"{source.where} has no rows: give it some")
    return [told[place] for place in _order(numbers, source)]


def _order(numbers: Sequence[Any], source: _Source) -> list[int]:
    """The places of the rows in the order of their numbers, which count from 0."""
    try:
        counted = [int(number) for number in numbers]
    except (TypeError, ValueError):
        raise DataError(f"{source.where}: column {source.index!r} holds something else than numbers of rows") from None
    places = sorted(range(len(counted)), key=counted.__getitem__)
    if [counted[place] for place in places] != list(range(len(counted))):
        raise DataError(
            f"{source.where}: column {source.index!r} does not number the rows from 0 to {len(counted) - 1:,}: correct "
            "it, or leave it out where the rows are in order"
        )
    return places


def _reading(
    part: Part, spec: TaskSpec, predictor: Predictor, student: str
) -> Callable[[Mapping[str, Sequence[Any]]], list[str]]:
    """Makes the server's answers of a student's predictions."""
    kind, names = predictor.spec.label_kind, list(predictor.spec.labels)
    if not part.answers:
        if kind == "numbers":
            return lambda found: [_number(value) for value in found["prediction"]]
        if kind == "embeddings":  # a cosine; its correlation with the labels does not change with the scale
            return lambda found: [_number(HIGHEST * (1 + value) / 2) for value in found["cosine"]]
        raise CompatibilityError(
            f"student {student} predicts {kind.replace('_', ' ')}, and task {part.task!r} asks for numbers"
        )
    if kind != "classes":
        raise CompatibilityError(
            f"student {student} predicts {kind.replace('_', ' ')}, and task {part.task!r} asks for classes"
        )
    for labels in (spec.labels, part.answers):
        order = label_order(names, tuple(labels))
        if order is not None:
            answers = {names[output]: answer for output, answer in zip(order, part.answers, strict=True)}
            return lambda found: [answers[name] for name in found["label"]]
    raise CompatibilityError(
        f"student {student} knows {', '.join(names[:8])}, and task {part.task!r} has {', '.join(spec.labels)}: name a "
        "student of that task, or correct id2label in its config.json"
    )


def _number(value: float) -> str:
    return f"{min(max(float(value), LOWEST), HIGHEST):.3f}"


def _as_tsv(answers: Sequence[str]) -> str:
    rows = "".join(f"{number}\t{answer}\n" for number, answer in enumerate(answers))
    return f"index\tprediction\n{rows}"


def _archive(files: Mapping[str, str]) -> bytes:
    """A zip archive without folders, whose bytes follow from what it holds."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)  # of 1980, so that the same files make the same archive
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, text)
    return stream.getvalue()
