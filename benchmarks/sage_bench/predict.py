"""Bench `predict`: a file answered by a student, beside transformers' pipeline on the same checkpoint and texts.

Ours is what `sage-kit predict` does: the file is read, predicted in batches of like length and written. The pipeline
gets its texts as a list and writes nothing; once sorted by length, which its users must do themselves, and once in the
order of the file.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from sage_bench.distill import MINILM_MODEL, write_teacher
from sage_bench.measure import Contender, Session, Work, alternate
from sage_bench.real_texts import task_settings
from sage_bench.records import Line, Result, Target
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.scoring import load_scored, task_of
from sage_kit.inference.prediction_files import predict_file
from sage_kit.inference.predictor import load_student
from sage_kit.models.checkpoints import load_tokenizer, quiet
from sage_kit.models.export import export_student
from sage_kit.models.student import build_student

OURS = "sage-kit predict"
SORTED, UNSORTED = "pipeline, sorted by length", "pipeline, in the file's order"
BATCH_SIZE = 32
QUICK_ROWS, ROWS = 600, 3000
HELD_OUT = 100
"""Rows that a task sets apart, which are not predicted."""

GOAL = 1.0

RATE = "rows/s"


def run(session: Session) -> Result:
    """Answer the same texts in turn."""
    rows = QUICK_ROWS if session.quick else ROWS
    name, settings = task_settings(session, "sentences")
    config = load_config({**settings, "train_rows": rows, "dev_rows": HELD_OUT})
    plugins = Plugins()
    data = load_scored(plugins, config, lambda text: None)
    texts = list(data.train.texts)
    student = write_student(session.scratch / "student", session.scratch / "teacher", config, plugins)
    file = session.scratch / "texts.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in texts)])
    predictor = load_student(str(student), kind="classification")
    by_length = sorted(texts, key=len)
    peer = _pipeline(student)

    def ours() -> Work:
        return Work({"rows": float(predict_file(predictor, file, session.scratch / "out.csv", ["text"]))})

    def theirs(given: list[str]) -> Work:
        return Work({"rows": float(len(peer(given, batch_size=BATCH_SIZE)))})

    measured = alternate(
        [
            Contender(OURS, ours),
            Contender(SORTED, lambda: theirs(by_length)),
            Contender(UNSORTED, lambda: theirs(texts)),
        ],
        repeats=3 if session.quick else 7,
        budget=20.0 if session.quick else 240.0,
        announce=session.announce,
    )
    rates = {who: result.rate("rows") for who, result in measured.items()}
    ratios = {who: rates[OURS].over(rates[who]) for who in (SORTED, UNSORTED)}
    work = f"{len(texts):,} rows of {name}, MiniLM to 3 blocks"
    lines = [
        Line(work, who, {RATE: rate}, {f"{OURS} / this": ratios[who]} if who in ratios else {}, is_ours=who == OURS)
        for who, rate in rates.items()
    ]
    target = Target("rows/s of predict over the pipeline sorted by length", ratios[SORTED], GOAL, unit=" x")
    return Result("predict", lines, [target], ["Ours reads a CSV file and writes one; the pipeline has its texts."])


def write_student(folder: Path, teacher: Path, config: Any, plugins: Plugins) -> Path:
    """A checkpoint of MiniLM with half of its blocks: how fast it answers does not depend on what it has learnt."""
    from transformers import AutoModelForSequenceClassification

    write_teacher(MINILM_MODEL, teacher, config, plugins)
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(teacher)
    model = build_student(model, bypass="embeddings", layers=MINILM_MODEL.layers, init="uniform", seed=0)
    export_student(model, load_tokenizer(str(teacher)), folder, task_of(plugins, config))
    return folder


def _pipeline(student: Path) -> Any:
    from transformers import pipeline

    with quiet():
        return pipeline("text-classification", model=str(student), device="cpu", truncation=True)
