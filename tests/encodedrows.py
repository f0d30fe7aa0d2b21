"""Rows of classes or numbers as a run's scores take them, without a model or a tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import Alignment, EncodedTexts, TaskSpec
from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.scoring import score_encoded
from sage_kit.data.tokens import Tokens


def encoded_rows(spec: TaskSpec, labels: NDArray[Any]) -> EncodedSplit:
    """Rows with these labels, each a sequence of one token."""
    n = len(labels)
    none = np.zeros(n, np.bool_)
    tokens = Tokens(np.zeros(n, np.int32), np.zeros(n, np.uint8), np.arange(n + 1), none, none, 0)
    texts = EncodedTexts([""] * n, None, labels, tuple(spec.labels), spec.label_range, tokens, np.arange(n))
    return EncodedSplit(spec, texts, Alignment(labels), np.zeros(0, np.int64))


def score(spec: TaskSpec, logits: Any, labels: NDArray[Any], teacher: Any = None) -> dict[str, float]:
    """All scores of outputs of shape (n, n_outputs)."""
    return score_encoded(encoded_rows(spec, labels), logits, teacher)
