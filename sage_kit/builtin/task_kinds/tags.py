"""Kind of task `tags`: a tag a word, such as names of people and places, or parts of speech."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.components import Alignment, Compared
from sage_kit.data.structured_labels import find_tags, read_tags

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, EncodedTexts, Floats, LabelColumn, Options

NO_TAG = -100
"""What stands for a place without a tag among the targets; torch's losses ignore it."""

WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Words:
    """The words of all texts that have a token.

    Attributes
    ----------
    places : array of shape (n,), int64
        Where the first token of each stands among all tokens.
    rows : array of shape (n,), int64
        The row of each.
    numbers : array of shape (n,), int64
        Its number among the words of all rows.
    ends : array of shape (rows,), int64
        How many words the rows have as far as each, words without a token included.
    """

    places: NDArray[np.int64]
    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]
    ends: NDArray[np.int64]


class Tags:
    """A distribution over the tags for each word, at the first token of the word (Devlin et al. 2019, section 5.3).

    Words are what white space parts. One without a token, since the text was cut in front of it or the tokenizer drops
    its characters, is left out of losses and agreement, and counts as ``O`` or else the first tag in metrics.
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def read(self, column: LabelColumn) -> NDArray[Any]:
        """Return array of shape (rows,) of tuples: the name of each word's tag."""
        words = [text.split() for text in column.texts]
        found = np.empty(len(column.values), object)
        found[:] = read_tags(
            column.values, words, column.names, column.where, column.column, names=column.embedded, rows=column.rows
        )
        return found

    def find_names(self, column: LabelColumn) -> tuple[str, ...]:
        """Return the different tags of a column, sorted, "O" first."""
        return find_tags(self.read(column))

    def align(self, encoded: EncodedTexts) -> Alignment:
        """Return the tag of each word at its first token; of a text without words, its first token counts, untagged."""
        words = _find_words(encoded)
        counts, number_of = np.diff(words.ends, prepend=0), {name: i for i, name in enumerate(encoded.names)}
        tags = np.full(int(words.ends[-1]) if len(words.ends) else 0, NO_TAG, np.int64)
        for end, count, own in zip(words.ends, counts, encoded.labels, strict=True):
            if own is not None:
                tags[end - count : end] = [number_of[tag] for tag in own]
        targets = np.full(len(encoded.tokens.ids), NO_TAG, np.int64)
        targets[words.places] = tags[words.numbers]
        positions = np.zeros(len(targets), bool)
        positions[words.places] = True
        without = np.setdiff1d(np.arange(len(encoded.row_of)), words.rows)
        positions[encoded.tokens.offsets[without]] = True
        return Alignment(targets, flat=True, positions=positions, details=words)

    def compared(self, logits: torch.Tensor, positions: torch.Tensor | None) -> Compared:
        """Return the logits as they are, of which those at first tokens count."""
        return Compared(logits, positions)

    def answers(self, compared: Compared) -> torch.Tensor:
        """Return the likeliest tags, of shape (batch, tokens), int64."""
        return compared.logits.argmax(-1)

    def predictions(self, outputs: Floats, encoded: EncodedTexts, alignment: Alignment) -> list[tuple[str, ...]]:
        """Return the tags of each text, a name for each word."""
        words: Words = alignment.details
        names = encoded.names
        found = np.full(int(words.ends[-1]) if len(words.ends) else 0, names.index("O") if "O" in names else 0)
        found[words.numbers] = outputs[words.places].argmax(-1)
        by_row = np.split(np.array(names)[found], words.ends[:-1])
        return [tuple(row.tolist()) for row in by_row]

    def gold(self, encoded: EncodedTexts) -> list[tuple[str, ...]]:
        """Return the labels as metrics take them: the names of the tags."""
        return list(encoded.labels)

    def agreement(self, student: Floats, teacher: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[Any]:
        """Return the share of the words of each text that get the same tag; 1 for a text without words."""
        words: Words = alignment.details
        alike = student[words.places].argmax(-1) == teacher[words.places].argmax(-1)
        rows = len(encoded.labels)
        counts = np.bincount(words.rows, minlength=rows)
        sums = np.bincount(words.rows, alike, rows)
        return np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)


def _find_words(encoded: EncodedTexts) -> Words:
    """The words of the texts and their first tokens: a token is of the word that its last character is of.

    Its first character may be the space in front of the word.
    """
    assert encoded.places is not None, "the kind asks for the places of tokens"
    tokens, offsets = encoded.tokens, np.asarray(encoded.tokens.offsets)
    starts = [np.array([match.start() for match in WORD.finditer(text)], np.int64) for text in encoded.texts]
    ends = np.cumsum([len(own) for own in starts])
    of_text = np.flatnonzero(~np.asarray(tokens.special) & (encoded.places[:, 1] > encoded.places[:, 0]))
    rows = np.asarray(encoded.row_of)[np.searchsorted(offsets, of_text, side="right") - 1]
    last = encoded.places[of_text, 1].astype(np.int64) - 1
    # one search for all rows: a row's characters lie behind those of the rows before it
    width = max((len(text) for text in encoded.texts), default=0) + 1
    all_starts = np.concatenate([own + row * width for row, own in enumerate(starts)] or [np.zeros(0, np.int64)])
    numbers = np.searchsorted(all_starts, last + rows * width, side="right") - 1
    inside = numbers >= (ends - np.array([len(own) for own in starts]))[rows]
    of_text, rows, numbers = of_text[inside], rows[inside], numbers[inside]
    first = np.ones(len(numbers), bool)
    first[1:] = numbers[1:] != numbers[:-1]
    return Words(of_text[first], rows[first], numbers[first], ends)
