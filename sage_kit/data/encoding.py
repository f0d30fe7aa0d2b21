"""Encoding: the sequences of tokens of a split, and how its labels and a model's outputs align with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import EncodedTexts, TaskSpec, handling_of
from sage_kit.data.text_columns import DerivedTexts
from sage_kit.data.tokens import Tokens, tokenize_placed
from sage_kit.data.unlabelled import count_unlabelled

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sage_kit.components import Alignment, TaskHandling
    from sage_kit.data.splits import Split

OVERLAP_SHARE = 3
"""A window has this part of the longest sequence in common with the one before it: a third, as is usual for SQuAD."""


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """The tokens of a split and what they stand for.

    Attributes
    ----------
    spec : TaskSpec
    texts : EncodedTexts
    alignment : Alignment
    shortened : array of shape (k,), int64
        Rows whose first text was cut, to leave room for windows of the second.
    """

    spec: TaskSpec
    texts: EncodedTexts
    alignment: Alignment
    shortened: NDArray[np.int64]

    @property
    def handling(self) -> TaskHandling:
        """The kind of task."""
        return handling_of(self.spec)

    @property
    def tokens(self) -> Tokens:
        """Of all sequences; those that synthesis leaves as they are count as special."""
        return cast(Tokens, self.texts.tokens)

    @property
    def labels(self) -> NDArray[Any]:
        """Of the rows of the data, as the kind of task reads them."""
        return self.texts.labels

    @cached_property
    def gold(self) -> Any:
        """The labels as metrics take them; None where any is missing."""
        return None if count_unlabelled(self.labels) else self.handling.gold(self.texts)

    def predictions(self, outputs: NDArray[np.float32]) -> Any:
        """What metrics score, for each row of the data."""
        return self.handling.predictions(outputs, self.texts, self.alignment)

    def agreement(self, student: NDArray[np.float32], teacher: NDArray[np.float32]) -> NDArray[np.float64]:
        """How far student and teacher agree on each row of the data, of shape (rows,)."""
        return self.handling.agreement(student, teacher, self.texts, self.alignment)


def label_parts(labels: NDArray[Any]) -> Any:
    """Labels as a fingerprint takes them."""
    return [repr(label) for label in labels] if labels.dtype.hasobject else labels


def encode(
    split: Split,
    spec: TaskSpec,
    tokenizer: Any,
    max_length: int,
    prefix: str = "",
    *,
    places: bool = False,
    folder: Path | None = None,
) -> EncodedSplit:
    """Tokenise a split as its kind of task reads it, and align its labels.

    Parameters
    ----------
    split : Split
    spec : TaskSpec
        Complete, its kind in use.
    tokenizer : PreTrainedTokenizerBase
        It is left as it was.
    max_length : int
        Longest sequence in tokens, special ones included.
    prefix : str
        What stands in front of each text, of a kind that reads the texts of a pair one by one. Synthesis leaves its
        tokens as they are.
    places : bool
        Whether to keep where in its text each token stands, whatever the kind asks for.
    folder : Path or None
        Where the file of many tokens lies; None keeps all in memory.

    Raises
    ------
    CompatibilityError
        When `max_length` leaves no room for text, or the tokenizer does not know what the kind asks for.
    PluginError
        When the kind fails or answers in another shape.
    """
    handling = handling_of(spec)
    kind = handling.spec
    texts, pairs = split.texts, split.pairs
    in_turn = kind.splits_pairs and pairs is not None
    if in_turn:
        texts, pairs = _in_turn(texts, pairs or ()), None
    overlap = max_length // OVERLAP_SHARE if kind.splits_long else None
    if prefix:
        texts = _behind(prefix, texts)
    keeps = kind.needs_places or places
    asks = keeps or bool(prefix)
    found = tokenize_placed(texts, pairs, tokenizer, max_length, places=asks, overlap=overlap, folder=folder)
    fixed = []
    if prefix and found.places is not None:
        fixed.append(found.places[:, 1] <= len(prefix))
        found = replace(found, places=np.maximum(found.places - len(prefix), 0) if keeps else None)
    encoded = EncodedTexts(
        texts=split.texts,
        pairs=split.pairs,
        labels=split.labels,
        names=tuple(spec.labels),
        label_range=spec.label_range,
        unanswered=spec.unanswered,
        tokens=found.tokens,
        row_of=found.row_of // 2 if in_turn else found.row_of,
        places=found.places,
    )
    alignment = handling.align(encoded)
    if alignment.kept is not None:
        fixed.append(alignment.kept)
    if fixed:
        encoded = replace(
            encoded, tokens=replace(found.tokens, special=np.logical_or.reduce([found.tokens.special, *fixed]))
        )
    return EncodedSplit(spec, encoded, alignment, found.shortened)


def _in_turn(texts: Sequence[str], pairs: Sequence[str]) -> Sequence[str]:
    """The texts of pairs one by one: both of the first pair, both of the second."""

    def made(start: int, stop: int) -> list[str]:
        rows = slice(start // 2, -(-stop // 2))
        both = [text for pair in zip(texts[rows], pairs[rows], strict=True) for text in pair]
        return both[start % 2 : start % 2 + stop - start]

    return DerivedTexts(2 * len(texts), made)


def _behind(prefix: str, texts: Sequence[str]) -> Sequence[str]:
    return DerivedTexts(len(texts), lambda start, stop: [prefix + text for text in texts[start:stop]])
