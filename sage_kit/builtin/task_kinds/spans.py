"""Kind of task `spans`: the answer to a question, as a piece of a context that is read in windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sage_kit.components import Alignment, Compared
from sage_kit.data.structured_labels import read_answers
from sage_kit.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, EncodedTexts, Floats, LabelColumn, Options

LONGEST = 30
"""Most tokens of an answer that is predicted, as in transformers' example script for question answering."""

NOWHERE = -1e4
"""Logit of places where no answer begins or ends: finite in half precision, and its probability is 0."""


@dataclass(frozen=True)
class Contexts:
    """The tokens of all contexts, one after another, those of overlapping windows several times.

    Attributes
    ----------
    places : array of shape (n,), int64
        Where each stands among all tokens.
    windows : array of shape (n,), int64
        The window of each.
    left : array of shape (n,), int64
        How many tokens of its window follow it.
    starts, ends : array of shape (n,), int64
        Its first character, and the one behind its last.
    """

    places: NDArray[np.int64]
    windows: NDArray[np.int64]
    left: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


class Spans:
    """Two distributions over the tokens of a context: where the answer begins, and where it ends.

    The first token stands for "no answer in this window" (Devlin et al. 2019, sections 4.2 and 4.3), so that is what a
    window without a whole answer teaches. Losses are the mean of both distributions. The prediction is the span of
    highest sum of logits over all windows of a row; where the training split has questions without an answer, it is ""
    if the first token's sum, the least of all windows, is higher. Yes and no are answers only where the context says
    them, as that of task `hotpotqa` does.
    """

    def __init__(self, options: Options, context: BuildContext) -> None:
        pass

    def read(self, column: LabelColumn) -> NDArray[Any]:
        """Return array of shape (rows,) of Answers, each with its place in the context, which is the second text."""
        if column.pairs is None:
            raise DataError(
                f"{column.where}: answers are pieces of a second text, and the task has one: set text_column to the "
                "question's column and text_pair_column to the context's"
            )
        found = np.empty(len(column.values), object)
        found[:] = read_answers(column.values, column.pairs, column.where, column.column, rows=column.rows)
        return found

    def align(self, encoded: EncodedTexts) -> Alignment:
        """Return, for each window, the first and last token of the first answer that lies in it whole.

        Else its first token twice. Outputs count there and at the context's tokens; those of the question are kept.
        """
        tokens = encoded.tokens
        special, second = np.asarray(tokens.special), np.asarray(tokens.second)
        positions = second.copy()
        positions[tokens.offsets[:-1]] = True
        contexts = _find_contexts(encoded)
        targets = _find_answers(encoded, contexts)
        return Alignment(targets, positions=positions, kept=~special & ~second, details=contexts)

    def compared(self, logits: torch.Tensor, positions: torch.Tensor | None) -> Compared:
        """Return logits of shape (batch, 2, tokens), `NOWHERE` where no answer begins or ends."""
        assert positions is not None, "the kind says where outputs count"
        both = logits.transpose(1, 2).masked_fill(~positions[:, None], NOWHERE)
        return Compared(both, torch.ones(both.shape[:2], dtype=torch.bool, device=both.device), positions)

    def answers(self, compared: Compared) -> torch.Tensor:
        """Return the likeliest first and last tokens, each by itself, of shape (batch, 2), int64."""
        return compared.logits.argmax(-1)

    def gold(self, encoded: EncodedTexts) -> list[Any]:
        """Return the labels as metrics take them: a list of Answers."""
        return list(encoded.labels)

    def predictions(self, outputs: Floats, encoded: EncodedTexts, alignment: Alignment) -> list[str]:
        """Return the answer to each question, as the context has it; "" for none."""
        contexts = encoded.pairs
        assert contexts is not None, "a task of this kind has two texts"
        starts, ends = best_spans(outputs, encoded, alignment.details)
        return [text[start:end].strip() for text, start, end in zip(contexts, starts, ends, strict=True)]

    def agreement(self, student: Floats, teacher: Floats, encoded: EncodedTexts, alignment: Alignment) -> NDArray[Any]:
        """Return the F1 of the characters of both answers: 1 where both are the same piece, or none."""
        (start, end), (its_start, its_end) = (
            best_spans(outputs, encoded, alignment.details) for outputs in (student, teacher)
        )
        shared = np.maximum(np.minimum(end, its_end) - np.maximum(start, its_start), 0)
        both = (end - start) + (its_end - its_start)
        return np.where(both > 0, 2 * shared / np.maximum(both, 1), 1.0)


def best_spans(
    outputs: NDArray[np.float32], encoded: EncodedTexts, contexts: Contexts
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The best span of each row over all its windows: of at most `LONGEST` tokens, no shorter than a character.

    The rules are those of transformers' ``examples/pytorch/question-answering/utils_qa.py``, without its limit to the
    twenty likeliest starts and ends: the score is the sum of the two logits, and that of no answer the least of the
    windows', at the first token.

    Parameters
    ----------
    outputs : array of shape (total_tokens, 2), float32
        Logits of the start and the end.
    encoded : EncodedTexts
    contexts : Contexts

    Returns
    -------
    starts, ends : array of shape (rows,), int64
        Places in the context, in characters; equal where there is no answer.
    """
    rows, row_of = len(encoded.labels), np.asarray(encoded.row_of)
    best = np.full(rows, -np.inf)
    starts, ends = np.zeros((2, rows), np.int64)
    if n := len(contexts.places):
        first, last = outputs[contexts.places].T.astype(np.float64)
        scores, widths = np.full(n, -np.inf), np.zeros(n, np.int64)
        for width in range(min(LONGEST, int(contexts.left.max()) + 1)):
            # a span of width + 1 tokens may begin at each of the first ones
            reach = n - width
            allowed = contexts.left[:reach] >= width
            allowed &= contexts.ends[width:] > contexts.starts[:reach]
            found = np.where(allowed, first[:reach] + last[width:], -np.inf)
            better = found > scores[:reach]
            scores[:reach][better] = found[better]
            widths[:reach][better] = width
        own_row = row_of[contexts.windows]
        np.maximum.at(best, own_row, scores)
        reached = np.flatnonzero((scores == best[own_row]) & np.isfinite(scores))
        own, where = np.unique(own_row[reached], return_index=True)
        begin = reached[where]
        starts[own], ends[own] = contexts.starts[begin], contexts.ends[begin + widths[begin]]
    if encoded.unanswered:
        nothing = np.full(rows, np.inf)
        np.minimum.at(nothing, row_of, outputs[encoded.tokens.offsets[:-1]].astype(np.float64).sum(1))
        ends = np.where(nothing > best, starts, ends)
    return starts, ends


def _find_contexts(encoded: EncodedTexts) -> Contexts:
    assert encoded.places is not None, "the kind asks for the places of tokens"
    offsets = np.asarray(encoded.tokens.offsets)
    places = np.flatnonzero(np.asarray(encoded.tokens.second))
    windows = np.searchsorted(offsets, places, side="right") - 1
    counts = np.bincount(windows, minlength=len(encoded.row_of))
    left = np.cumsum(counts)[windows] - 1 - np.arange(len(places))
    starts, ends = encoded.places[places].astype(np.int64).T
    return Contexts(places, windows, left, starts, ends)


def _find_answers(encoded: EncodedTexts, contexts: Contexts) -> NDArray[np.int64]:
    """The first and last token of each window's first answer that lies in it whole, or (0, 0): (sequences, 2), int64.

    Counted from the window's first token.
    """
    offsets, row_of = np.asarray(encoded.tokens.offsets)[:-1], np.asarray(encoded.row_of)
    found = np.zeros((len(row_of), 2), np.int64)
    counts = np.bincount(contexts.windows, minlength=len(row_of))
    ends = np.cumsum(counts)
    begins = ends - counts
    # one search for all windows: a window's characters lie behind those of the windows before it
    width = max((len(text) for text in encoded.pairs or ()), default=0) + 1
    # sorted even where a tokenizer gives a token of nothing a place before the last one
    all_starts, all_ends = (
        np.maximum.accumulate(own + contexts.windows * width) for own in (contexts.starts, contexts.ends)
    )
    answers = [_placed(answers, text) for answers, text in zip(encoded.labels, encoded.pairs or (), strict=True)]
    open_ = counts > 0
    for number in range(max(map(len, answers), default=0)):
        spans = np.array([own[number] if number < len(own) else (-1, -1) for own in answers], np.int64)[row_of]
        asked = np.flatnonzero(open_ & (spans[:, 0] >= 0))
        start, end = spans[asked].T
        inside = (contexts.starts[begins[asked]] <= start) & (end <= contexts.ends[ends[asked] - 1])
        # the first token that reaches beyond the start, and the last that begins before the end
        first = np.searchsorted(all_ends, start + asked * width, side="right")
        last = np.searchsorted(all_starts, end + asked * width, side="left") - 1
        inside &= (begins[asked] <= first) & (first <= last) & (last < ends[asked])
        asked, first, last = asked[inside], first[inside], last[inside]
        found[asked, 0] = contexts.places[first] - offsets[asked]
        found[asked, 1] = contexts.places[last] - offsets[asked]
        open_[asked] = False
    return found


def _placed(answers: Any, context: str) -> list[tuple[int, int]]:
    """The answers that stand in the context, as characters, without blanks around them."""
    found = []
    for text, start in zip(*((answers.texts, answers.starts) if answers is not None else ((), ())), strict=True):
        if start >= 0 and text.strip():
            begin = start + len(text) - len(text.lstrip())
            found.append((begin, begin + len(text.strip())))
    return list(dict.fromkeys(found))
