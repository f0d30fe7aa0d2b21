"""Synthetic examples as pieces of text, with a mark on what differs from their anchors."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import TokenIds
from sage_kit.models.token_kinds import NOT_TEXT, WORD, token_kinds

CHANGED, SECOND = 1, 2
"""Flags of a piece: not the anchor's at this place; of the second text of a pair."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """The text of some synthetic examples, token by token.

    Attributes
    ----------
    lengths : array of shape (m,), int64
        Pieces of each example; special tokens are left out.
    ids : array of shape (total,), int64
        Token ids.
    flags : array of shape (total,), uint8
    """

    lengths: NDArray[np.int64]
    ids: NDArray[np.int64]
    flags: NDArray[np.uint8]


def pieces_of(
    made: TokenIds, rows: NDArray[np.int64], anchors: NDArray[np.int64], real: TokenIds | None, special: set[int]
) -> Pieces:
    """The text of some synthetic examples, with what differs from their anchors marked.

    Parameters
    ----------
    made : TokenIds
        Tokens of a round's synthetic examples.
    rows : array of shape (m,), int64
        Which of them.
    anchors : array of shape (m,), int64
        Their anchors, among the training sequences.
    real : TokenIds or None
        Tokens of the training sequences; without these nothing is marked.
    special : set of int
        Ids of special tokens.
    """
    starts, lengths = made.offsets[rows], made.offsets[rows + 1] - made.offsets[rows]
    flat = _flat(starts, lengths)
    ids, second = made.ids[flat].astype(np.int64), made.second[flat]
    flags = np.where(second, SECOND, 0).astype(np.uint8)
    if real is not None:
        flags |= _changed(ids, lengths, anchors, real).astype(np.uint8) * CHANGED
    text = ~np.isin(ids, sorted(special))
    owner = np.repeat(np.arange(len(rows)), lengths)
    return Pieces(np.bincount(owner[text], minlength=len(rows)), ids[text], flags[text])


def _flat(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of all tokens of some examples, one example after another."""
    before = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def _changed(
    ids: NDArray[np.int64], lengths: NDArray[np.int64], anchors: NDArray[np.int64], real: TokenIds
) -> NDArray[np.bool_]:
    """Which tokens are not the anchor's: place by place, or where a lift changes the length, by what they share."""
    of_anchor = real.offsets[anchors + 1] - real.offsets[anchors]
    alike = of_anchor == lengths
    owner = np.repeat(alike, lengths)
    changed = np.ones(len(ids), bool)
    changed[owner] = ids[owner] != real.ids[_flat(real.offsets[anchors[alike]], lengths[alike])]
    ends = np.cumsum(lengths)
    for row in np.flatnonzero(~alike):
        start, end = int(ends[row] - lengths[row]), int(ends[row])
        other = real.ids[real.offsets[anchors[row]] : real.offsets[anchors[row] + 1]].tolist()
        for block in SequenceMatcher(None, other, ids[start:end].tolist(), autojunk=False).get_matching_blocks():
            changed[start + block.b : start + block.b + block.size] = False
    return changed


def written(tokenizer: Any, ids: NDArray[np.int64]) -> list[str]:
    """Tokens as pieces of text, with a space in front of what begins a word.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    ids : array of shape (k,), int64
        Different ones.
    """
    kinds = token_kinds(tokenizer, int(ids.max(initial=-1)) + 1)
    names = tokenizer.convert_ids_to_tokens(ids.tolist())
    texts = tokenizer.batch_decode([[int(index)] for index in ids], clean_up_tokenization_spaces=False)
    found = []
    for index, name, text in zip(ids, names, texts, strict=True):
        piece = text.strip() or str(name)
        found.append(f" {piece}" if kinds[index] in (NOT_TEXT, WORD) else piece.removeprefix("##"))
    return found
