"""A few examples of a task that batch as well as all of them do.

Batches of like lengths have little padding where there are many examples to choose from: 2 % on all of MRPC, but 7 %
on 384 random rows of it and 22 % on 64. A bench that times a few rows would measure the padding of few rows. So all
examples are sorted by length and cut into batches, and whole batches are drawn, spread evenly over the lengths. Every
side of a bench trains on the same rows; batches drawn at random have as much padding as on any others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import Answers
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.encoding import encode
from sage_kit.data.scoring import task_of
from sage_kit.data.splits import Split, load_task
from sage_kit.models.checkpoints import load_tokenizer

MOST_ROWS = 8000
"""Rows of a task that are looked at."""

DEV_FRACTION = 1e-6
"""Carves a single row, so that the batches stay whole."""

HELD_OUT = 32
TRAIN, VALIDATION = "drawn-train.jsonl", "drawn-validation.jsonl"


def choose(lengths: NDArray[np.int64], examples: int, batch_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of about as many examples, in whole batches of like lengths.

    Parameters
    ----------
    lengths : array of shape (n,), int64
        Tokens of each example.
    examples : int
        How many; a multiple of the batch size is met exactly where there are enough.
    batch_size : int
    rng : numpy Generator

    Returns
    -------
    array of shape (k,), int64
        Row numbers, by length.
    """
    # equal lengths in random order
    order = np.lexsort((rng.random(len(lengths)), lengths))
    whole = len(order) // batch_size
    wanted = min(max(1, examples // batch_size), whole)
    if not wanted:
        return order
    # one batch from each of as many stretches of equal size
    picked = ((np.arange(wanted) + rng.random(wanted)) / wanted * whole).astype(np.int64)
    return np.concatenate([order[number * batch_size : (number + 1) * batch_size] for number in picked])


def write_examples(
    settings: Mapping[str, Any], examples: int, batch_size: int, tokenizer: str, folder: Path
) -> dict[str, Any]:
    """Draw examples of a task and write them as one's own files; the settings that read these.

    Parameters
    ----------
    settings : mapping
        Those that read the task.
    examples, batch_size : int
        As in `choose`.
    tokenizer : str
        As the setting `tokenizer` takes it.
    folder : Path
        For the files.
    """
    config = load_config({**settings, "train_rows": MOST_ROWS, "tokenizer": tokenizer})
    data = load_task(task_of(Plugins(), config), config, lambda text: None)
    encoded = encode(data.train, data.spec, load_tokenizer(tokenizer), config.max_length)
    # of a text in several windows, the first
    _, first = np.unique(encoded.texts.row_of, return_index=True)
    rows = choose(encoded.tokens.lengths[first], examples, batch_size, np.random.default_rng(0))
    _write(data.train.take(rows), folder / TRAIN)
    _write(data.dev.take(np.arange(min(HELD_OUT, len(data.dev)))), folder / VALIDATION)
    chosen: dict[str, Any] = {
        **settings,
        "task": "file",
        "train_file": str(folder / TRAIN),
        "validation_file": str(folder / VALIDATION),
        "task_kind": data.spec.kind_name,
        "dev_fraction": DEV_FRACTION,
    }
    if data.spec.is_structured:
        # the columns are named anew, and a few rows may lack a tag
        chosen |= {"text_column": "text", "label_column": "label", "label_names": data.spec.labels}
    return chosen if data.train.pairs is None else {**chosen, "text_pair_column": "pair"}


def _write(split: Split, path: Path) -> None:
    records = [{"text": text, "label": _plain(label)} for text, label in zip(split.texts, split.labels, strict=True)]
    for record, pair in zip(records, split.pairs or (), strict=split.pairs is not None):
        record["pair"] = pair
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def _plain(label: Any) -> Any:
    """A label as files have it."""
    if isinstance(label, Answers):
        return {"text": label.texts, "answer_start": label.starts}
    return list(label) if isinstance(label, tuple) else int(label)
