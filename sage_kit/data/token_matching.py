"""Which tokens of one tokenizer stand for the same characters as those of another, text by text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sage_kit.data.encoding import EncodedSplit

BLOCK = 65_536
"""Tokens whose states are averaged at a time."""


@dataclass(frozen=True, eq=False)
class TokenMatch:
    """For each token of a split, the tokens of another tokenizer that share characters with it.

    Special tokens go by where they stand: in front of the text, between two texts, or behind. A token without any
    counterpart, as where the other tokenizer cut the text earlier, takes the nearest one of its sequence.

    Attributes
    ----------
    first, last : array of shape (total_tokens,), int64
        The others are those from `first` up to, and without, `last`.
    alone : array of shape (total_tokens,), bool
        Which tokens had no counterpart.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    alone: NDArray[np.bool_]

    def mean(self, states: NDArray[np.floating], out: NDArray[np.floating]) -> None:
        """Write for each token the mean of what stands at its counterparts, summed in float32.

        Parameters
        ----------
        states : array of shape (their_tokens, ...)
        out : array of shape (total_tokens, ...)
        """
        for start in range(0, len(self.first), BLOCK):
            rows = slice(start, start + BLOCK)
            first, last = self.first[rows], self.last[rows]
            total = states[first].astype(np.float32)
            for step in range(1, int((last - first).max(initial=1))):
                more = np.flatnonzero(first + step < last)
                total[more] += states[first[more] + step]
            counts = (last - first).astype(np.float32)
            out[rows] = total / counts.reshape(-1, *[1] * (total.ndim - 1))


def match_tokens(own: EncodedSplit, theirs: EncodedSplit) -> TokenMatch:
    """Match the tokens of a split in two tokenizations of it, both with the places of tokens.

    Parameters
    ----------
    own, theirs : EncodedSplit
        Of the same rows in the same order, one sequence for each sequence of the other.
    """
    (starts, ends), (their_starts, their_ends) = _on_one_line(own, theirs)
    first = np.searchsorted(their_ends, starts, side="right")
    last = np.searchsorted(their_starts, ends, side="left")
    alone = last <= first
    lone = np.flatnonzero(alone)
    if len(lone):  # the nearest token of the sequence
        sequence = np.searchsorted(own.tokens.offsets, lone, side="right") - 1
        low, high = theirs.tokens.offsets[sequence], theirs.tokens.offsets[sequence + 1] - 1
        behind = np.clip(first[lone], low, high)
        before = np.clip(behind - 1, low, high)
        is_nearer = starts[lone] - their_ends[before] < their_starts[behind] - ends[lone]
        first[lone] = np.where(is_nearer, before, behind)
        last[lone] = first[lone] + 1
    return TokenMatch(first, last, alone)


def match_positions(own: EncodedSplit, theirs: EncodedSplit) -> NDArray[np.int64]:
    """For each token at which outputs count, the one of the other tokenizer that stands for the same word.

    Parameters
    ----------
    own, theirs : EncodedSplit
        As in `match_tokens`, with positions.

    Returns
    -------
    array of shape (total_tokens,), int64
        A place among their tokens; -1 where outputs do not count, and where the other tokenizer has none, as where it
        cut the text earlier.
    """
    assert own.alignment.positions is not None
    assert theirs.alignment.positions is not None
    counted, their_counted = np.flatnonzero(own.alignment.positions), np.flatnonzero(theirs.alignment.positions)
    (starts, ends), (their_starts, their_ends) = _on_one_line(own, theirs)
    candidate = np.searchsorted(their_ends[their_counted], starts[counted], side="right")
    inside = np.minimum(candidate, len(their_counted) - 1)
    is_same = (candidate < len(their_counted)) & (their_starts[their_counted][inside] < ends[counted])
    found = np.full(len(starts), -1, np.int64)
    found[counted[is_same]] = their_counted[inside[is_same]]
    return found


Extents = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Starts and ends of all tokens, both rising."""


def _on_one_line(own: EncodedSplit, theirs: EncodedSplit) -> tuple[Extents, Extents]:
    """Where the tokens of both stand, the characters of all sequences one after another, so that one search does."""
    mine, other = _Line.of(own), _Line.of(theirs)
    widths = np.maximum(mine.widths, other.widths)
    return mine.extents(widths), other.extents(widths)


@dataclass(frozen=True, eq=False)
class _Line:
    """Where each token stands in its sequence.

    Attributes
    ----------
    sequences : array of shape (total_tokens,), int64
        The sequence of each token.
    parts : array of shape (total_tokens,), int64
        0 in front of the text, 1 in the first text, 2 between, 3 in the second, 4 behind.
    places : array of shape (total_tokens, 2), int64
        Start and end within the part.
    """

    sequences: NDArray[np.int64]
    parts: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, encoded: EncodedSplit) -> _Line:
        tokens, places = encoded.tokens, encoded.texts.places
        if places is None:
            raise ValueError("the tokens were made without their places")
        lengths = tokens.lengths
        sequences = np.repeat(np.arange(len(tokens)), lengths)
        empty = places[:, 1] <= places[:, 0]
        # what a task or a prefix keeps from being exchanged counts as special, too
        is_text = ~(tokens.special & empty)
        seen = np.cumsum(is_text)
        before = seen - is_text - np.concatenate([[0], seen])[tokens.offsets[:-1]].repeat(lengths)
        in_all = np.add.reduceat(np.append(is_text.astype(np.int64), 0), tokens.offsets[:-1]).repeat(lengths)
        parts = np.where(before == 0, 0, np.where(before == in_all, 4, 2))
        parts[is_text] = np.where(tokens.second[is_text], 3, 1)
        found = places.astype(np.int64)
        found[empty, 1] = found[empty, 0] + 1
        # the first token of a sequence apart from a prefix behind it
        is_first = np.arange(len(sequences)) == tokens.offsets[:-1].repeat(lengths)
        found[(parts == 0) & ~is_first] += 1
        return cls(sequences, parts, found)

    @cached_property
    def widths(self) -> NDArray[np.int64]:
        """Characters of the first and the second text of each sequence, as far as there are tokens: (sequences, 2)."""
        count = int(self.sequences[-1]) + 1 if len(self.sequences) else 0
        widths = np.zeros((count, 2), np.int64)
        for column, part in enumerate((1, 3)):
            of_part = self.parts == part
            np.maximum.at(widths[:, column], self.sequences[of_part], self.places[of_part, 1])
        return widths

    def extents(self, widths: NDArray[np.int64]) -> Extents:
        """Start and end of each token on the line, where the texts of each sequence are as wide as `widths` says."""
        first, second = widths.T
        begin = np.cumsum(first + second + 4) - (first + second + 4)
        starts = np.stack([begin, begin + 2, begin + 2 + first, begin + 3 + first, begin + 3 + first + second])
        base = starts[self.parts, self.sequences]
        # a tokenizer may say of two pieces of a character that the second begins earlier
        return tuple(np.maximum.accumulate(base + column) for column in self.places.T)  # type: ignore[return-value]
