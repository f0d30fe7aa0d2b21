"""Bench `rows`: whole runs on files of ten thousand, a hundred thousand and a million rows: time per row, and memory.

Each is a `sage-kit run` in a process of its own: the file is read and checked, tokenised, embedded and labelled; PCA
maps it by landmarks; one round trains on real and as many synthetic examples; dev and validation are scored. The models
are small, so that what grows with the rows is seen and not hidden behind the models' products.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sage_bench.distill import MINILM
from sage_bench.generated_texts import write_model
from sage_bench.measure import Session
from sage_bench.memory import resident
from sage_bench.real_texts import real_texts
from sage_bench.records import Line, Result, Spread, Target
from sage_bench.start import processor_seconds
from sage_kit.errors import SageError
from sage_kit.models.checkpoints import load_tokenizer

SIZES = (10_000, 100_000, 1_000_000)
QUICK_SIZES = (2_000, 10_000)
BASE = 1_000
"""Rows of the run whose time is that of starting, and is subtracted."""

WORDS = 12
DIM, BLOCKS = 64, 2
SHAPE = {
    "hidden_size": DIM, "num_hidden_layers": BLOCKS, "num_attention_heads": 2, "intermediate_size": 4 * DIM
}  # fmt: skip
"""Of the teacher."""

LOOK = 0.05
"""Time between two looks at a process's memory [s]."""

GROWTH_GOAL, MEMORY_GOAL = 1.3, 3.0
PER_ROW, MEMORY, MAPPED, SECONDS = "processor µs/row", "GB of its own", "GB of mapped files", "s"

SETTINGS = {
    "task": "file", "validation-fraction": "0.005", "teacher-rows": "500", "dev-rows": "200", "rounds": "1",
    "reducer": "pca", "landmarks": "20000", "sampler": "random", "student-layers": "1", "max-length": "32",
    "batch-size": "64", "device": "cpu", "precision": "fp32",
}  # fmt: skip


def run(session: Session) -> Result:
    """A run of each size."""
    teacher = session.scratch / "teacher"
    load_tokenizer(MINILM).save_pretrained(teacher)
    write_model(teacher, SHAPE, outputs=0)
    words = vocabulary(session)
    work = f"sage-kit run on rows of {WORDS} words, {BLOCKS} blocks of {DIM} to 1"
    measured: dict[int, Watched] = {}
    for rows in (BASE, *(QUICK_SIZES if session.quick else SIZES)):
        session.announce(f"{rows:,} rows")
        file = session.scratch / f"{rows}.parquet"
        write_rows(file, rows, words)
        measured[rows] = watched(_command(session.scratch, file, teacher))
    start = measured.pop(BASE).processor
    per_row = {rows: (one.processor - start) / (rows - BASE) * 1e6 for rows, one in measured.items()}
    lines = [
        Line(
            work,
            f"{rows:,} rows",
            {
                PER_ROW: Spread.of([per_row[rows]]),
                MEMORY: Spread.of([one.own / 1e9]),
                MAPPED: Spread.of([one.mapped / 1e9]),
                SECONDS: Spread.of([one.seconds]),
            },
            is_ours=True,
        )
        for rows, one in measured.items()
    ]
    smallest, largest = min(measured), max(measured)
    growth = Spread.of([per_row[largest] / per_row[smallest]])
    targets = [
        Target(f"time per row at {largest:,} over {smallest:,}", growth, GROWTH_GOAL, at_least=False, unit=" x"),
        Target(
            f"own memory at {largest:,} rows", Spread.of([measured[largest].own / 1e9]), MEMORY_GOAL, at_least=False,
            unit=" GB",
        ),
    ]  # fmt: skip
    notes = [
        f"Processor time per row, of all threads, is beyond that of a run on {BASE:,} rows, {start:.1f} s. "
        "Own memory is the most RssAnon, Python and torch included; mapped files are what the system takes back when "
        "it needs room. One run of each."
    ]
    return Result("rows", lines, targets, notes)


def vocabulary(session: Session) -> list[str]:
    """The words of real texts."""
    _, texts = real_texts(session, train_rows=4000)
    return sorted({word for text in texts for word in text.split() if word.isalpha()})


def write_rows(file: Path, rows: int, words: list[str]) -> None:
    """A parquet file of random texts and labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, known = np.random.default_rng(0), np.array(words)
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())])
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, rows, 100_000):
            count = min(100_000, rows - start)
            texts = [" ".join(row) for row in known[rng.integers(0, len(known), (count, WORDS))]]
            writer.write_table(pa.table({"text": texts, "label": rng.integers(0, 2, count)}, schema))


def _command(scratch: Path, file: Path, teacher: Path) -> list[str]:
    folders = {"cache-dir": scratch / f"cache-{file.stem}", "runs-dir": scratch / "runs"}
    flags = {**SETTINGS, **folders, "train-file": file, "teacher": teacher}
    return [sys.executable, "-m", "sage_kit", "run", *(f"--{name}={value}" for name, value in flags.items())]


@dataclass(frozen=True)
class Watched:
    """What a process took: seconds, those of the processor, and the most bytes of its own and of mapped files."""

    seconds: float
    processor: float
    own: int
    mapped: int


def watched(command: list[str]) -> Watched:
    """Watch a process until it ends.

    Raises
    ------
    SageError
        When it fails.
    """
    started, used, own, mapped = time.perf_counter(), processor_seconds(), 0, 0
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        while process.poll() is None:
            now = resident(process.pid)
            own, mapped = max(own, now.get("RssAnon", 0)), max(mapped, now.get("RssFile", 0))
            time.sleep(LOOK)
        seconds = time.perf_counter() - started
        errors.seek(0)
        told = errors.read().strip().splitlines()
    if process.returncode:
        raise SageError(f"{' '.join(command)}: exit code {process.returncode}: {told[-1] if told else 'no message'}")
    return Watched(seconds, processor_seconds() - used, own, mapped)
