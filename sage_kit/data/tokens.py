"""Tokens: a split's token ids, flat, with offsets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import TokenIds
from sage_kit.data.splits import Split
from sage_kit.errors import CompatibilityError
from sage_kit.fingerprint import fingerprint

CHUNK_ROWS = 4096
"""Rows tokenised at a time: enough for the tokenizer's threads, and few enough to keep its lists small."""


@dataclass(frozen=True, eq=False)
class Tokens(TokenIds):
    """Token ids of some examples, one after another, special tokens included.

    Attributes
    ----------
    ids, types, offsets
        As in :class:`~sage_kit.components.TokenIds`.
    pad_id : int
        Id that fills padding.
    """

    pad_id: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per example, of shape (n,)."""
        return np.diff(self.offsets)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the contents."""
        return fingerprint("tokens-1", self.ids, self.types, self.offsets, self.pad_id)

    def pad(self, indices: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Some examples as tensors, padded on the right to the longest.

        Parameters
        ----------
        indices : array of shape (batch,), int64

        Returns
        -------
        input_ids, token_type_ids : Tensor of shape (batch, tokens), int64
        mask : Tensor of shape (batch, tokens), bool
            True at real tokens.
        """
        starts = self.offsets[indices]
        lengths = self.offsets[indices + 1] - starts
        steps = np.arange(lengths.max(initial=0))
        mask = steps < lengths[:, None]
        # padding reads the example's own last token first, so that every place is inside the arrays
        places = starts[:, None] + np.minimum(steps, lengths[:, None] - 1)
        ids = np.where(mask, self.ids[places], self.pad_id).astype(np.int64)
        types = np.where(mask, self.types[places], 0).astype(np.int64)
        return torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(mask)


def tokenize(split: Split, tokenizer: Any, max_length: int) -> Tokens:
    """Tokenise a split, special tokens included.

    Parameters
    ----------
    split : Split
    tokenizer : PreTrainedTokenizerBase
        It is left as it was.
    max_length : int
        Longest example in tokens, special ones included; longer ones are cut, of a pair the longer text first.

    Returns
    -------
    Tokens

    Raises
    ------
    CompatibilityError
        When `max_length` leaves no room for text beside the special tokens.
    """
    is_pair = split.pairs is not None
    special = tokenizer.num_special_tokens_to_add(pair=is_pair)
    if max_length <= special + is_pair:
        texts = "pair of texts" if is_pair else "text"
        raise CompatibilityError(
            f"max_length is {max_length}, but this tokenizer adds {special} special tokens to a {texts}: set at least "
            f"{special + is_pair + 1}"
        )
    has_types = "token_type_ids" in tokenizer.model_input_names
    ids, types, lengths = [], [], []
    with _left_as_it_was(tokenizer):
        for start in range(0, len(split), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            encoded = tokenizer(
                split.texts[rows],
                split.pairs[rows] if split.pairs is not None else None,
                truncation="longest_first",
                max_length=max_length,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=has_types,
            )
            lengths.append(np.fromiter(map(len, encoded["input_ids"]), np.int64))
            total = int(lengths[-1].sum())
            ids.append(np.fromiter(chain.from_iterable(encoded["input_ids"]), np.int32, total))
            if has_types:
                types.append(np.fromiter(chain.from_iterable(encoded["token_type_ids"]), np.uint8, total))
    offsets = np.zeros(len(split) + 1, np.int64)
    np.cumsum(np.concatenate(lengths or [offsets[:0]]), out=offsets[1:])
    flat = np.concatenate(ids or [np.empty(0, np.int32)])
    flat_types = np.concatenate(types) if types else np.zeros(len(flat), np.uint8)
    return Tokens(flat, flat_types, offsets, tokenizer.pad_token_id or 0)


def unknown_shares(tokens: Tokens, tokenizer: Any) -> tuple[float, float]:
    """How much of a split's text a tokenizer does not know.

    Parameters
    ----------
    tokens : Tokens
        At least one example.
    tokenizer : PreTrainedTokenizerBase

    Returns
    -------
    unknown : float
        Share of the unknown token among all tokens of text, special tokens not counted; 1 where there are none.
    blind : float
        Share of the examples without a single known token of text.
    """
    special = np.array(sorted(set(tokenizer.all_special_ids)), np.int64)
    of_text = ~np.isin(tokens.ids, special)
    unknown = np.zeros(len(tokens.ids), bool)
    if tokenizer.unk_token_id is not None:
        unknown = tokens.ids == tokenizer.unk_token_id
    known_before = np.concatenate([[0], np.cumsum(of_text & ~unknown)])
    known = np.diff(known_before[tokens.offsets])
    total = int((of_text | unknown).sum())
    return (float(unknown.sum()) / total if total else 1.0), float(np.mean(known == 0))


@contextmanager
def _left_as_it_was(tokenizer: Any) -> Iterator[None]:
    """Undo what a call does to a fast tokenizer, which keeps the truncation of its last call and saves it to disk."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    truncation, padding = (backend.truncation, backend.padding) if backend is not None else (None, None)
    try:
        yield
    finally:
        if backend is not None:
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
            backend.no_padding() if padding is None else backend.enable_padding(**padding)
