"""What each token of a vocabulary is: one that text is made of, at a word's start or within a word, or neither."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOT_TEXT, WORD, PIECE = 0, 1, 2
"""Kinds of tokens. `NOT_TEXT` are special and unused tokens, white space, bytes of a character, and unnamed rows."""

NO_TOKEN = -1
"""Stands for a token where there is none to name."""

_UNUSED = re.compile(r"[\[<]unused_?\d+[\]>]|madeupword\d+")
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def token_kinds(tokenizer: Any, rows: int) -> NDArray[np.int8]:
    """The kind of each row of a word-embedding table.

    Where the tokenizer marks pieces within a word (``##x`` of WordPiece), these are `PIECE` and all others `WORD`.
    Where it marks a word's start (``Ġx`` of byte-level BPE, ``▁x`` of SentencePiece) or its end (``x</w>``), those with
    the mark are `WORD` and all others, so also punctuation, `PIECE`. Without any marks all are `WORD`.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    rows : int
        Rows of the table; those beyond the vocabulary are `NOT_TEXT`.

    Returns
    -------
    array of shape (rows,), int8
    """
    kinds = np.zeros(rows, np.int8)
    vocabulary = {token: index for token, index in tokenizer.get_vocab().items() if index < rows}
    special = set(tokenizer.all_special_ids) | _special_of_rules(tokenizer)
    mark, at_end, of_pieces = _mark(tokenizer, vocabulary)
    for token, index in vocabulary.items():
        if index in special or _UNUSED.fullmatch(token) or _BYTE.fullmatch(token) or token == mark:
            continue
        has_mark = bool(mark) and (token.endswith(mark) if at_end else token.startswith(mark))
        kinds[index] = PIECE if mark and has_mark == of_pieces else WORD
    if mark == _BYTE_LEVEL[0]:
        _leave_out_unreadable(kinds, tokenizer)
    return kinds


_WORDPIECE = ("##", False, True)
_BYTE_LEVEL = ("Ġ", False, False)
_METASPACE = ("▁", False, False)
_WORD_END = ("</w>", True, False)
_SHARE = 0.02
"""A mark that fewer tokens bear is none: the characters stand in some vocabulary without that meaning."""


def _mark(tokenizer: Any, vocabulary: Mapping[str, int]) -> tuple[str, bool, bool]:
    """The mark, whether it stands at a token's end, and whether it marks pieces rather than words; "" without one."""
    rules = _rules(tokenizer)
    model = rules.get("model", {})
    prefix, suffix = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    steps = json.dumps([rules.get("pre_tokenizer"), rules.get("decoder")])
    likely = [(prefix, False, True)] if prefix else []
    likely += [(suffix, True, False)] if suffix else []
    likely += [_BYTE_LEVEL] if '"ByteLevel"' in steps else []
    likely += [_METASPACE] if '"Metaspace"' in steps else []
    for mark in likely or [_WORDPIECE, _BYTE_LEVEL, _METASPACE, _WORD_END]:
        text, at_end, _ = mark
        bearing = sum(token.endswith(text) if at_end else token.startswith(text) for token in vocabulary)
        if bearing > (0 if likely else _SHARE * len(vocabulary)):
            return mark
    return "", False, False


def _rules(tokenizer: Any) -> dict[str, Any]:
    """The rules of a fast tokenizer; none for one written in Python, whose vocabulary has to tell."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return {} if backend is None else dict(json.loads(backend.to_str()))


def _special_of_rules(tokenizer: Any) -> set[int]:
    """Tokens that were added as special ones, whether an attribute of the tokenizer names them or not."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {int(index) for index, token in added.items() if getattr(token, "special", False)}


def _leave_out_unreadable(kinds: NDArray[np.int8], tokenizer: Any) -> None:
    """Byte-level tokens that hold only a part of a character's bytes, or white space alone, cannot be read."""
    ids = np.flatnonzero(kinds)
    texts = tokenizer.batch_decode([[int(index)] for index in ids], clean_up_tokenization_spaces=False)
    kinds[ids[[_REPLACEMENT in text or not text.strip() for text in texts]]] = NOT_TEXT
