"""Exporting a student to a folder: written, held against the student on real rows, measured, and only then there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.splits import Split
from sage_kit.errors import CompatibilityError, ConfigError
from sage_kit.inference.export_rows import Compared
from sage_kit.inference.export_table import (
    INT8 as INT8_LINE,
)
from sage_kit.inference.export_table import (
    ONNX,
    STUDENT,
    TEACHER,
    Contender,
    Line,
    losses_of_int8,
    measure_latencies,
    score_line,
)
from sage_kit.inference.exported_folder import ABOUT, INT8, MODEL, About
from sage_kit.inference.onnx_export import (
    Graph,
    PlainModel,
    about_student,
    check_sizes,
    difference,
    input_names,
    require_parity,
    write_graph,
    write_int8,
)
from sage_kit.inference.onnx_session import OnnxBackend, open_session
from sage_kit.inference.predictor import Predictor
from sage_kit.inference.torch_backend import TorchBackend
from sage_kit.models.checkpoints import quiet
from sage_kit.storage.environment import environment
from sage_kit.storage.files import atomic_directory, disk_errors, write_json

Outputs = dict[str, NDArray[np.float32]]
"""Of a model, by split."""

PACKAGES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Report:
    """What an export found.

    Attributes
    ----------
    folder : Path
    about : About
    metric : str
        The primary one.
    rows : int
        On which outputs were compared.
    scored : dict of str to int
        Rows that models are scored on, by split.
    difference : float
        The largest between an output of the student and the exported model's.
    reference : str
        Whom agreement is with: "teacher" or "student".
    lines : dict of str to Line
        The table.
    warnings : list of str
        What the user should know.
    """

    folder: Path
    about: About
    metric: str
    rows: int
    scored: dict[str, int]
    difference: float
    reference: str
    lines: dict[str, Line]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """What ``export.json`` holds."""
        return {
            **self.about.to_json(),
            "metric": self.metric,
            "rows": self.rows,
            "scored": self.scored,
            "largest_difference": self.difference,
            "agreement_with": self.reference,
            "table": [line.to_json() for line in self.lines.values()],
            "warnings": self.warnings,
            "environment": environment(*PACKAGES),
        }


def check_target(folder: Path) -> None:
    """Raise ConfigError for a folder that cannot be written, or that holds anything but an earlier export."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ABOUT).is_file():
        raise ConfigError(f"{folder} holds something else than an exported student: name another folder")
    if not folder.absolute().parent.is_dir():
        raise ConfigError(f"{folder.parent} is no folder: make it first")


def export_student_to(
    folder: Path, predictor: Predictor, compared: Compared, *, teacher: Predictor | None = None, int8: bool = False,
    pairs: int = 50, of_run: bool = False, announce: Callable[[str], None] = lambda line: None,
) -> Report:  # fmt: skip
    """Export a student to ONNX; the folder appears when all is done and right, and replaces an earlier export.

    Parameters
    ----------
    folder : Path
        As `check_target` lets through.
    predictor : Predictor
        The student, computed by torch, on the CPU in float32.
    compared : Compared
        The rows.
    teacher : Predictor or None
        Computed by torch, too.
    int8 : bool
        Whether to write a model in eight bits, too.
    pairs : int
        Of measurements of latency; 0 for none.
    of_run : bool
        Whether the student is a run's, which tells the columns of its texts.
    announce : callable
        Shows one line to the user.

    Returns
    -------
    Report

    Raises
    ------
    ModelError
        When the exported model differs from the student by more than `onnx_export.TOLERANCE`.
    CompatibilityError
        When the student cannot be exported.
    SageError
        As `check_target` and `onnx_export.require_exporter` do; after any error the folder is as it was.
    """
    check_target(folder)
    student = torch_student(predictor)
    graph = Graph(student)
    about = about_student(predictor, graph, told_columns=of_run)
    with disk_errors(str(folder)), atomic_directory(folder) as temporary:
        announce(f"exporting a student of {student.weight_bytes / 1e6:,.1f} MB")
        write_graph(graph, about.inputs, temporary / MODEL)
        with quiet():
            graph.plain.model.config.save_pretrained(temporary)
            predictor.tokenizer.save_pretrained(temporary)
        exported = {ONNX: OnnxBackend(open_session(temporary / MODEL), about)}
        announce(f"comparing it with the student on {compared.rows:,} rows")
        largest = check_sizes(graph.plain, exported[ONNX], _tokens_of(predictor, compared))
        for name, split in compared.further.items():
            largest = max(largest, _compared(predictor, exported[ONNX], split, compared, name)[0])
        encoded, own, theirs = dict[str, EncodedSplit](), Outputs(), Outputs()
        for name, split in compared.splits.items():
            found, encoded[name], own[name], theirs[name] = _compared(predictor, exported[ONNX], split, compared, name)
            largest = max(largest, found)
        outputs = {STUDENT: own, ONNX: theirs}
        lines = {STUDENT: Line(STUDENT, student.weight_bytes / 1e6), ONNX: Line(ONNX, _megabytes(temporary / MODEL))}
        if int8:
            announce("quantising it to eight bits")
            exported[INT8_LINE], outputs[INT8_LINE], bits = _quantised(temporary, about, compared, encoded, own)
            announce(f"its weights make use of {bits} bits, which is nearer to the student on this processor")
            lines[INT8_LINE] = Line(INT8_LINE, _megabytes(temporary / INT8))
        read = dict[str, Mapping[str, EncodedSplit]](dict.fromkeys(lines, encoded))
        reference = _add_teacher(teacher, compared, lines, outputs, read)
        for name, line in lines.items():
            score_line(
                line, read[name], outputs[name], {} if name == reference else _against(outputs, read, name, reference)
            )
        warnings = losses_of_int8(lines, encoded) if int8 else []
        if pairs:
            announce(f"measuring latencies, {pairs} pairs with one thread")
            measure_latencies(lines, _contenders(temporary, graph.plain, about, exported, teacher, read), pairs)
        report = Report(
            folder, about, compared.spec.metrics[0], compared.rows,
            {name: len(split) for name, split in compared.splits.items()}, largest, reference, lines, warnings,
        )  # fmt: skip
        write_json(temporary / ABOUT, report.to_json())
    return report


def torch_student(predictor: Predictor) -> TorchBackend:
    """What computes a student that can be exported.

    Raises
    ------
    CompatibilityError
        For one that is exported already, or whose tokenizer is none that other programs read.
    """
    if not isinstance(predictor.backend, TorchBackend):
        raise CompatibilityError(
            f"{predictor.name} is an exported student already: name the run or the checkpoint that it was exported from"
        )
    if not predictor.tokenizer.is_fast:
        raise CompatibilityError(
            f"the tokenizer of {predictor.name}, written in Python, makes no tokenizer.json, which other programs "
            "read: save the student with a fast one"
        )
    return predictor.backend


def _quantised(
    folder: Path, about: About, compared: Compared, encoded: Mapping[str, EncodedSplit], own: Outputs
) -> tuple[OnnxBackend, Outputs, int]:
    """The model in eight bits, its outputs, and how many bits its weights make use of: as many as bring it nearer to
    the student, whose outputs are given, on this processor.
    """
    found = []
    for bits in (8, 7):
        path = folder / f"{bits}.onnx"
        write_int8(folder / MODEL, path, bits)
        backend = OnnxBackend(open_session(path), about)
        outputs = {name: compared.in_order(backend.outputs(one.tokens)) for name, one in encoded.items()}
        apart = float(np.mean([np.abs(outputs[name] - own[name]).mean() for name in outputs]))
        found.append((apart, bits, outputs, path))
    best, other = sorted(found, key=lambda one: one[0])
    other[3].unlink()
    best[3].rename(folder / INT8)
    return OnnxBackend(open_session(folder / INT8), about), best[2], best[1]


def _tokens_of(predictor: Predictor, compared: Compared) -> Any:
    """Tokens of a few real rows, to fill batches of any size with."""
    split = next(iter({**compared.splits, **compared.further}.values()))
    few: Split = split.take(np.arange(min(len(split), 32)))
    return predictor.encode(few, compared.spec).tokens


def _compared(
    predictor: Predictor, exported: OnnxBackend, split: Split, compared: Compared, name: str
) -> tuple[float, EncodedSplit, NDArray[np.float32], NDArray[np.float32]]:
    """The largest difference on a split, the split as the student reads it, and the outputs of student and exported
    model in the order of the task's classes.
    """
    encoded = predictor.encode(split, compared.spec)
    own, theirs = predictor.outputs(encoded), exported.outputs(encoded.tokens)
    found = difference(own, theirs) / exported.scale
    require_parity(found, f"{len(split):,} rows of {name}")
    return found, encoded, compared.in_order(own), compared.in_order(theirs)


def _add_teacher(
    teacher: Predictor | None, compared: Compared, lines: dict[str, Line], outputs: dict[str, Outputs],
    read: dict[str, Mapping[str, EncodedSplit]],
) -> str:  # fmt: skip
    """Put the teacher first among the models; the name of whom the others agree with."""
    if teacher is None:
        return STUDENT
    own = {name: teacher.encode(split, compared.spec) for name, split in compared.splits.items()}
    others = dict(lines)
    lines.clear()
    lines.update({TEACHER: Line(TEACHER, cast(TorchBackend, teacher.backend).weight_bytes / 1e6), **others})
    outputs[TEACHER] = {name: teacher.backend.outputs(one.tokens) for name, one in own.items()}
    read[TEACHER] = own
    return TEACHER


def _against(
    outputs: Mapping[str, Outputs], read: Mapping[str, Mapping[str, EncodedSplit]], name: str, reference: str
) -> Outputs:
    """Outputs of the reference that another's can be compared with: those of splits that both read alike, if they are
    outputs of tokens.
    """
    found = {}
    for split, theirs in outputs[reference].items():
        mine, other = read[name][split].tokens, read[reference][split].tokens
        if len(theirs) == len(mine) or np.array_equal(mine.offsets, other.offsets):
            found[split] = theirs
    return found


def _contenders(
    folder: Path, plain: PlainModel, about: About, exported: Mapping[str, OnnxBackend], teacher: Predictor | None,
    read: Mapping[str, Mapping[str, EncodedSplit]],
) -> dict[str, Contender]:  # fmt: skip
    """The models with one thread each, on the first split."""
    (split, *_) = read[STUDENT]
    tokens = read[STUDENT][split].tokens
    found = {}
    if teacher is not None:
        inputs = input_names(teacher.tokenizer)
        found[TEACHER] = Contender(
            read[TEACHER][split].tokens, inputs, PlainModel(cast(TorchBackend, teacher.backend).model).run
        )
    found[STUDENT] = Contender(tokens, about.inputs, plain.run)
    for name, file in ((ONNX, MODEL), (INT8_LINE, INT8)):
        if name in exported:
            found[name] = Contender(tokens, about.inputs, partial(open_session(folder / file, threads=1).run, None))
    return found


def _megabytes(model: Path) -> float:
    """What a model takes on the disk, with a file of its weights where it has one."""
    return sum(path.stat().st_size for path in model.parent.glob(f"{model.name}*")) / 1e6
