"""Checks of kinds of task: how labels and outputs align with tokens, and how they are compared."""

from __future__ import annotations

import itertools
import math
from typing import Any, cast

import numpy as np
import torch

from sage_kit.components import Alignment, EncodedTexts, LabelColumn, TaskKindSpec, TokenIds
from sage_kit.testing import label_examples, toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import Subject

NAMES = label_examples.TAGS
"""Names of the labels of toy tasks that have some."""

LONGEST = 12
"""Words of the longest toy text."""


def encoded_texts(subject: Subject, kind: Any, rows: int, seed: int = 0) -> EncodedTexts:
    """Toy texts of up to `LONGEST` words, one token each, with labels of the kind."""
    spec = cast(TaskKindSpec, subject.spec)
    rng = np.random.default_rng(seed)

    def words(least: int) -> list[str]:
        chosen = rng.integers(0, len(label_examples.WORDS), rng.integers(least, LONGEST))
        return [label_examples.WORDS[i] for i in chosen]

    texts = [words(2) for _ in range(rows)]
    pairs = [words(3) for _ in range(rows)] if spec.labels in ("spans", "embeddings") else None
    values = label_examples.raw(spec.labels, texts, pairs, rng)
    of_rows = [[one] for one in texts] if pairs is None else [list(both) for both in zip(texts, pairs, strict=True)]
    sequences = [[[one] for one in own] if spec.splits_pairs else [own] for own in of_rows]
    flat = [(row, parts) for row, own in enumerate(sequences) for parts in own]
    tokens, places = _tokens([parts for _, parts in flat])
    first = [" ".join(own) for own in texts]
    second = None if pairs is None else [" ".join(own) for own in pairs]
    names = NAMES if spec.needs_names else ()
    if callable(getattr(kind, "read", None)):
        labels = kind.read(LabelColumn(values, first, second, names, (), "the toy texts", "label"))
    else:
        labels = np.array(values, np.float32 if spec.labels == "numbers" else np.int64)
    return EncodedTexts(
        first, second, labels, names, (0.0, 5.0), tokens, np.array([row for row, _ in flat]),
        places if spec.needs_places else None,
    )  # fmt: skip


def _tokens(sequences: list[list[list[str]]]) -> tuple[TokenIds, Any]:
    """Tokens of sequences of one or two texts, a token a word, special ones around each text; and their places."""
    ids: list[int] = []
    special: list[bool] = []
    second: list[bool] = []
    places: list[tuple[int, int]] = []
    offsets = [0]
    for parts in sequences:
        for number, words in enumerate(parts):
            start = 0
            if number == 0:
                ids, special, second, places = [*ids, 1], [*special, True], [*second, False], [*places, (0, 0)]
            for word in words:
                ids.append(3 + label_examples.WORDS.index(word))
                special.append(False)
                second.append(number == 1)
                places.append((start, start + len(word)))
                start += len(word) + 1
            ids, special, second, places = [*ids, 2], [*special, True], [*second, False], [*places, (0, 0)]
        offsets.append(len(ids))
    flat = TokenIds(
        np.array(ids, np.int32), np.array(second, np.uint8), np.array(offsets, np.int64), np.array(special),
        np.array(second),
    )  # fmt: skip
    return flat, np.array(places, np.int32)


def _n_outputs(spec: TaskKindSpec) -> int:
    by_labels = {"numbers": 1, "spans": 2, "embeddings": toy.DIM}
    return by_labels.get(spec.labels, len(NAMES))


def _outputs(spec: TaskKindSpec, encoded: EncodedTexts, seed: int) -> Any:
    count = int(encoded.tokens.offsets[-1]) if spec.per_token else len(encoded.row_of)
    return np.random.default_rng(seed).standard_normal((count, _n_outputs(spec))).astype(np.float32)


def _batch(spec: TaskKindSpec, encoded: EncodedTexts, alignment: Alignment, outputs: Any, padding: int) -> Any:
    """Outputs and positions of all sequences as one batch, with some padding that holds other numbers."""
    if not spec.per_token:
        return torch.from_numpy(outputs), None
    offsets = np.asarray(encoded.tokens.offsets)
    longest = int(np.diff(offsets).max()) + padding
    logits = torch.randn(len(offsets) - 1, longest, outputs.shape[1], generator=torch.Generator().manual_seed(padding))
    positions = torch.zeros(len(offsets) - 1, longest, dtype=torch.bool)
    for row, (start, end) in enumerate(itertools.pairwise(offsets)):
        logits[row, : end - start] = torch.from_numpy(outputs[start:end])
        if alignment.positions is not None:
            positions[row, : end - start] = torch.from_numpy(alignment.positions[start:end])
    return logits, positions


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    encoded = encoded_texts(subject, subject.build_unwatched(), rows, round)
    spec = cast(TaskKindSpec, subject.spec)
    return {"encoded": encoded, **{name: _outputs(spec, encoded, seed) for seed, name in enumerate(("one", "two"))}}


def _use(subject: Subject, kind: Any, inputs: Inputs) -> Outputs:
    spec, encoded = cast(TaskKindSpec, subject.spec), inputs["encoded"]
    alignment = kind.align(encoded)
    _require_alignment(spec, encoded, alignment)
    compared = kind.compared(*_batch(spec, encoded, alignment, inputs["one"], 2))
    found = {"targets": np.array(alignment.targets), "logits": compared.logits.numpy().copy()}
    if compared.counts is not None:
        found["counts"] = compared.counts.numpy().copy()
    found["agreement"] = np.array(kind.agreement(inputs["one"], inputs["two"], encoded, alignment))
    predictions = kind.predictions(inputs["one"], encoded, alignment)
    require(len(predictions) == len(encoded.labels), f"predictions() gives {len(predictions)} of {len(encoded.labels)}")
    return found


EXERCISES["task_kind"] = Exercise(_make, _use, few=5, many=400)


def _require_alignment(spec: TaskKindSpec, encoded: EncodedTexts, alignment: Any) -> None:
    require(isinstance(alignment, Alignment), f"align() returns {type(alignment).__name__}, not an Alignment")
    targets, offsets = np.asarray(alignment.targets), np.asarray(encoded.tokens.offsets)
    expected = int(offsets[-1]) if alignment.flat else len(encoded.row_of)
    require(len(targets) == expected, f"its targets have {len(targets)} rows, not {expected}")
    dtypes = ("int64", "float32")
    require(str(targets.dtype) in dtypes, f"its targets are {targets.dtype}, not {' or '.join(dtypes)}")
    has_positions = alignment.positions is not None
    require(has_positions == spec.per_token, "it has positions if and only if there is an output per token")
    if alignment.positions is not None:
        counted = np.add.reduceat(alignment.positions.astype(np.int64), offsets[:-1])
        require((counted > 0).all(), "in a sequence no output counts")


@check("task_kind")
def task_kind_compares(subject: Subject) -> None:
    """Outputs are compared as distributions or vectors of which at least one of each example counts, all finite, and
    hard labels have the shape of the targets.

    To fix: return ``Compared(logits)`` of shape (batch, n), or with `counts` of shape (batch, k) for logits (batch, k,
    n); put a large finite number, and not infinity, where nothing may be.
    """
    spec, kind = cast(TaskKindSpec, subject.spec), subject.build()
    encoded = encoded_texts(subject, kind, 7)
    alignment = kind.align(encoded)
    batch = _batch(spec, encoded, alignment, _outputs(spec, encoded, 0), 2)
    compared = kind.compared(*batch)
    rows, logits, counts = len(encoded.row_of), compared.logits, compared.counts
    require(logits.ndim in (2, 3) and len(logits) == rows, f"compared() gives logits of shape {tuple(logits.shape)}")
    require((counts is None) == (logits.ndim == 2), "several distributions of an example, and only these, need counts")
    require(bool(torch.isfinite(logits).all()), "compared() gives a number that is not finite")
    if counts is not None:
        is_right = counts.dtype == torch.bool and counts.shape == logits.shape[:2]
        require(is_right, "counts are no bool of shape (batch, k)")
        require(bool(counts.any(1).all()), "of an example no distribution counts")
    answers = kind.answers(compared)
    shape = (rows, batch[0].shape[1]) if alignment.flat else np.asarray(alignment.targets).shape
    require(tuple(answers.shape) == tuple(shape), f"answers() has shape {tuple(answers.shape)}, targets {tuple(shape)}")
    is_whole = not answers.dtype.is_floating_point
    require(is_whole == (np.asarray(alignment.targets).dtype == np.int64), f"answers are {answers.dtype}")


@check("task_kind")
def task_kind_ignores_padding(subject: Subject) -> None:
    """What stands at padding makes no difference to the distributions that count, nor does its length.

    To fix: mask with `positions`, which are False at padding.
    """
    spec, kind = cast(TaskKindSpec, subject.spec), subject.build()
    encoded = encoded_texts(subject, kind, 7)
    alignment = kind.align(encoded)
    outputs = _outputs(spec, encoded, 0)
    found = []
    for padding in (0, 3):
        compared = kind.compared(*_batch(spec, encoded, alignment, outputs, padding))
        probabilities = compared.logits.double().softmax(-1)
        counted = probabilities if compared.counts is None else probabilities[compared.counts]
        found.append(counted.sort(-1, descending=True).values[..., :2])
    require(torch.allclose(found[0], found[1], atol=1e-9), "its distributions depend on what stands at padding")


@check("task_kind")
def task_kind_agrees(subject: Subject) -> None:
    """Of equal outputs the agreement is 1, and of others between 0 and 1, for each row of the data.

    To fix: return a share for each row, array of shape (rows,), float64; a row where nothing is to compare has 1.
    """
    spec, kind = cast(TaskKindSpec, subject.spec), subject.build()
    encoded = encoded_texts(subject, kind, 60)
    alignment = kind.align(encoded)
    one, two = (_outputs(spec, encoded, seed) for seed in (0, 1))
    same, other = (np.asarray(kind.agreement(one, its, encoded, alignment)) for its in (one, two))
    for found in (same, other):
        require(found.shape == (60,) and found.dtype == np.float64, f"agreement() gives {found.dtype} of {found.shape}")
    require(np.allclose(same, 1), "outputs do not agree with themselves")
    require(bool(((other >= 0) & (other <= 1)).all()), "an agreement lies outside 0 to 1")
    require(other.mean() < 0.95, f"unrelated outputs agree by {other.mean():.2f}")


@check("task_kind")
def task_kind_is_scored(subject: Subject) -> None:
    """Predictions are what metrics of its labels take, and its own metrics are there.

    To fix: see `sage_kit.components.specs.LABEL_KINDS`; name metrics of that kind in the spec's `metrics`.
    """
    spec, kind = cast(TaskKindSpec, subject.spec), subject.build()
    encoded = encoded_texts(subject, kind, 60)
    alignment = kind.align(encoded)
    gold, predicted = kind.gold(encoded), kind.predictions(_outputs(spec, encoded, 0), encoded, alignment)
    able = [
        item.spec.name
        for item in subject.plugins.components("metric")
        if spec.labels in getattr(item.spec, "takes", ())
    ]
    require(able, f"no metric takes {spec.labels}")
    for name in spec.metrics or able[:1]:
        require(name in able, f"metric {name!r} is not for {spec.labels}")
        metric = subject.plugins.build("metric", name, {}, subject.context())
        if subject.plugins.metric(name).max_classes is not None:
            continue
        require(math.isfinite(float(metric.score(gold, predicted))), f"metric {name!r} gives no finite number")
