"""Labels and predictions of each kind of label, as metrics get them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import Answers

WORDS = ("red", "green", "blue", "grey", "black", "white")
TAGS = ("O", "B-A", "I-A", "B-B", "I-B")
DIM = 16
RIGHT = 0.7
"""Share of predictions that are right by intent; others are right by chance."""


def make(kind: str, rows: int, seed: int = 0, classes: int = 4) -> tuple[Any, Any]:
    """Labels of a kind, one for each of so many rows, and predictions that are right more often than not."""
    rng = np.random.default_rng(seed)
    return _MAKERS[kind](rng, rows, classes)


def right(kind: str, labels: Any) -> Any:
    """The predictions that equal the labels."""
    if kind == "label_sets":
        return labels.astype(np.float32)
    if kind == "spans":
        return [answers.texts[0] if answers.texts else "" for answers in labels]
    if kind == "embeddings":
        # the cosine of two unit vectors in a plane of their own grows with the label
        angle = (1 - (labels - labels.min()) / max(float(np.ptp(labels)), 1e-6)) * np.pi / 6
        first = np.random.default_rng(0).standard_normal((len(labels), 2, DIM))
        one = first[:, 0] / np.linalg.norm(first[:, 0], axis=1, keepdims=True)
        across = first[:, 1] - (first[:, 1] * one).sum(axis=1, keepdims=True) * one
        across /= np.linalg.norm(across, axis=1, keepdims=True)
        other = np.cos(angle)[:, None] * one + np.sin(angle)[:, None] * across
        return np.stack([one, other], axis=1).astype(np.float32)
    return labels


def shuffled(kind: str, labels: Any, seed: int) -> Any:
    """The same predictions, each for another row; of embeddings the second of each pair; of tags within a text."""
    rng = np.random.default_rng(seed)
    predictions = right(kind, labels)
    if kind == "embeddings":
        predictions[:, 1] = rng.permutation(predictions[:, 1])
        return predictions
    if kind == "tags":
        return [tuple(tags[place] for place in rng.permutation(len(tags))) for tags in predictions]
    order = rng.permutation(len(predictions))
    return [predictions[row] for row in order] if isinstance(predictions, list) else predictions[order]


def hard(kind: str, labels: Any, predictions: Any) -> Mapping[str, tuple[Any, Any]]:
    """Data on which many metrics are undefined, by what they are."""
    like, alike = _alike(kind, labels), _alike(kind, predictions)
    cases = {
        "one row": (labels[:1], predictions[:1]),
        "labels that are all alike": (like, predictions),
        "predictions that are all alike": (labels, alike),
        "labels and predictions that are all alike": (like, alike),
    }
    if kind in ("numbers", "label_sets", "embeddings"):
        cases["predictions that are NaN"] = labels, np.full_like(predictions, np.nan)
    if kind == "embeddings":
        cases["no labels"] = None, predictions
        cases["embeddings without length"] = labels, np.zeros_like(predictions)
    if kind == "label_sets":
        cases["no label in any row"] = np.zeros_like(labels), np.zeros_like(predictions)
    if kind == "spans":
        cases["no answer in any row"] = [Answers()] * len(labels), [""] * len(labels)
    return cases


def same(one: Any, other: Any) -> bool:
    """Whether labels or predictions are equal."""
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


def _alike(kind: str, values: Any) -> Any:
    if kind == "tags":
        return [(values[0][0],) * len(tags) for tags in values]
    return [values[0]] * len(values) if isinstance(values, list) else np.full_like(values, values[0])


def raw(
    kind: str, texts: Sequence[Sequence[str]], pairs: Sequence[Sequence[str]] | None, rng: np.random.Generator
) -> list[Any]:
    """Labels of a kind for texts of these words, as a file holds them."""
    rows = len(texts)
    if kind == "classes":
        return [row % len(TAGS) for row in range(rows)]
    if kind in ("numbers", "embeddings"):
        return rng.uniform(0, 5, rows).round(2).tolist()  # type: ignore[no-any-return]
    if kind == "label_sets":
        return [[name for name in TAGS if rng.random() < 0.4] for _ in range(rows)]
    if kind == "tags":
        return [[TAGS[i] for i in rng.integers(0, len(TAGS), len(own))] for own in texts]
    found = []
    for own in pairs or texts:  # spans: a word of the second text
        word = int(rng.integers(0, len(own)))
        start = len(" ".join(own[:word])) + (word > 0)
        found.append({"text": [own[word]], "answer_start": [start]})
    return found


# ---- one kind each --------------------------------------------------------------------------------------------------


def _numbers(rng: np.random.Generator, rows: int, classes: int) -> tuple[Any, Any]:
    numbers = rng.normal(2.5, 1.0, rows).astype(np.float32)
    return numbers, (numbers + 0.5 * rng.standard_normal(rows)).astype(np.float32)


def _classes(rng: np.random.Generator, rows: int, classes: int) -> tuple[Any, Any]:
    labels = np.arange(rows, dtype=np.int64) % classes
    return labels, np.where(rng.random(rows) < RIGHT, labels, rng.integers(0, classes, rows))


def _label_sets(rng: np.random.Generator, rows: int, classes: int) -> tuple[Any, Any]:
    labels: NDArray[np.int8] = (rng.random((rows, classes)) < 0.4).astype(np.int8)
    sure = 0.5 + 0.4 * (labels - 0.5)
    return labels, np.clip(sure + 0.3 * rng.standard_normal(labels.shape), 0, 1).astype(np.float32)


def _tags(rng: np.random.Generator, rows: int, classes: int) -> tuple[Any, Any]:
    labels = [tuple(TAGS[i] for i in rng.integers(0, len(TAGS), rng.integers(2, 9))) for _ in range(rows)]
    found = [
        tuple(tag if rng.random() < RIGHT else TAGS[rng.integers(0, len(TAGS))] for tag in tags) for tags in labels
    ]
    return labels, found


def _spans(rng: np.random.Generator, rows: int, classes: int) -> tuple[Any, Any]:
    def phrase() -> str:
        return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(1, 4)))

    labels = []
    for _ in range(rows):
        texts = tuple(phrase() for _ in range(rng.integers(0, 3)))
        labels.append(Answers(texts, (-1,) * len(texts)))
    return labels, [one if rng.random() < RIGHT else phrase() for one in right("spans", labels)]


def _embeddings(rng: np.random.Generator, rows: int, classes: int) -> tuple[Any, Any]:
    labels = rng.uniform(0, 5, rows).astype(np.float32)
    noise = 0.06 * rng.standard_normal((rows, 2, DIM))
    return labels, (right("embeddings", labels) + noise).astype(np.float32)


_MAKERS: Mapping[str, Callable[[np.random.Generator, int, int], tuple[Any, Any]]] = {
    "numbers": _numbers,
    "classes": _classes,
    "label_sets": _label_sets,
    "tags": _tags,
    "spans": _spans,
    "embeddings": _embeddings,
}
