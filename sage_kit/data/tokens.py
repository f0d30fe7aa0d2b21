"""Tokens: a split's token ids, flat, with offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.components import TextBatch, TokenIds
from sage_kit.data.splits import Split
from sage_kit.errors import CompatibilityError, ModelError, one_line
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.spool import Spool
from sage_kit.system.transfer import Placing, pinned, to_device

CHUNK_ROWS = 4096
"""Rows tokenised at a time: enough for the tokenizer's threads, and few enough to keep its lists small."""


@dataclass(frozen=True, eq=False)
class Tokens(TokenIds):
    """Token ids of some examples, one after another, special tokens included.

    Attributes
    ----------
    ids, types, offsets, special, second
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
        places, mask = self._places(indices)
        ids = np.where(mask, self.ids[places], self.pad_id).astype(np.int64)
        types = np.where(mask, self.types[places], 0).astype(np.int64)
        return torch.from_numpy(ids), torch.from_numpy(types), torch.from_numpy(mask)

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> TextBatch:
        """Some examples as text, padded on the right to the longest, on a device."""
        return self.gather(indices, device)()

    def gather(self, indices: NDArray[np.int64], device: torch.device) -> Placing[TextBatch]:
        """The same in two steps: gathers them on the host, and returns what puts them on the device."""
        places, mask = self._places(indices)
        ids, types, real = self.pad(indices)
        special, second = (torch.from_numpy(flags[places] & mask) for flags in (self.special, self.second))
        tensors = [pinned(tensor, device) for tensor in (ids, types, real, special, second)]
        return lambda: TextBatch(*(to_device(tensor, device) for tensor in tensors))

    def take(self, indices: NDArray[np.int64], folder: Path | None = None) -> Tokens:
        """Some examples, in that order; in a file in `folder` where they are many."""
        writer = TokenWriter(folder)
        for start in range(0, len(indices), CHUNK_ROWS):
            places, mask = self._places(indices[start : start + CHUNK_ROWS])
            flat = places[mask]
            writer.append(mask.sum(axis=1), *(getattr(self, name)[flat] for name in TokenWriter.FLAT))
        return writer.finish(self.pad_id)

    def _places(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Places of a padded batch among the flat arrays, and which of them are real; both (batch, tokens)."""
        return padded_rows(self.offsets, indices)


def padded_rows(offsets: NDArray[np.int64], indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of the flat storage for a padded batch.

    Returns
    -------
    rows : array of shape (batch, tokens), int64
        At padding positions, the example's last row.
    mask : array of shape (batch, tokens), bool
        True at real tokens.
    """
    starts, lengths = offsets[indices], offsets[indices + 1] - offsets[indices]
    positions = np.arange(int(lengths.max(initial=0)))
    mask = positions[None, :] < lengths[:, None]
    return starts[:, None] + np.minimum(positions[None, :], lengths[:, None] - 1), mask


class TokenWriter:
    """Takes the tokens of some examples at a time.

    Parameters
    ----------
    folder : Path or None
        Where the file of many tokens lies; None keeps all in memory.
    """

    FLAT = ("ids", "types", "special", "second")
    """Arrays with an item per token."""

    def __init__(self, folder: Path | None) -> None:
        dtypes = (np.int32, np.uint8, np.bool_, np.bool_)
        self._flat = {name: Spool(dtype, folder) for name, dtype in zip(self.FLAT, dtypes, strict=True)}
        self._offsets = Spool(np.int64, folder)
        self._offsets.append(np.zeros(1, np.int64))

    def append(self, lengths: NDArray[Any], *flat: NDArray[Any]) -> None:
        """Add examples of these lengths; `flat` holds their ids, types, and flags for special and second."""
        before = len(self._flat["ids"])
        self._offsets.append(before + np.cumsum(lengths, dtype=np.int64))
        for spool, values in zip(self._flat.values(), flat, strict=True):
            spool.append(values)

    def append_batch(self, batch: TextBatch) -> None:
        """Add the examples of a batch of text, which is copied from its device at once."""
        fields = [*(getattr(batch, name) for name in self.FLAT), batch.mask]
        *flat, real = torch.stack([field.to(torch.int32) for field in fields]).cpu().numpy()
        real = real != 0
        self.append(real.sum(axis=1), *(values[real] for values in flat))

    def finish(self, pad_id: int) -> Tokens:
        """All of them."""
        flat = {name: spool.finish() for name, spool in self._flat.items()}
        return Tokens(offsets=self._offsets.finish(), pad_id=pad_id, **flat)


def concatenated(parts: Sequence[Tokens]) -> Tokens:
    """The examples of several, all of one tokenizer, one after another."""
    writer = TokenWriter(None)
    for part in parts:
        writer.append(part.lengths, *(getattr(part, name) for name in TokenWriter.FLAT))
    return writer.finish(parts[0].pad_id)


def tokenize(split: Split, tokenizer: Any, max_length: int) -> Tokens:
    """Tokenise a split, special tokens included: one sequence a row.

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
    return tokenize_placed(split.texts, split.pairs, tokenizer, max_length).tokens


@dataclass(frozen=True, eq=False)
class Placed:
    """Tokens, and where they come from.

    Attributes
    ----------
    tokens : Tokens
    row_of : array of shape (sequences,), int64
        The text or pair that each sequence is of, in rising order.
    places : array of shape (total_tokens, 2), int32, or None
        Start and end of each token in its own text, in characters; (0, 0) for special tokens.
    shortened : array of shape (k,), int64
        The pairs whose first text was cut, to leave room for windows of the second.
    """

    tokens: Tokens
    row_of: NDArray[np.int64]
    places: NDArray[np.int32] | None
    shortened: NDArray[np.int64]


def tokenize_placed(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    tokenizer: Any,
    max_length: int,
    *,
    places: bool = False,
    overlap: int | None = None,
    folder: Path | None = None,
) -> Placed:
    """Tokenise texts or pairs of them, special tokens included.

    Parameters
    ----------
    texts : sequence of str
    pairs : sequence of str or None
    tokenizer : PreTrainedTokenizerBase
        It is left as it was.
    max_length : int
        Longest sequence in tokens, special ones included.
    places : bool
        Whether to find where in its text each token stands.
    overlap : int or None
        Tokens that a window has of the one before it, where a text, of a pair the second, is too long; fewer where
        `max_length` leaves no room for as many. The first text of a pair then gets half of the sequence at most, and is
        cut. None for one sequence, which is cut, of a pair the longer text first.
    folder : Path or None
        Where the file of many tokens lies; None keeps all in memory.

    Returns
    -------
    Placed

    Raises
    ------
    CompatibilityError
        When `max_length` leaves no room for text beside the special tokens or the first text of a pair, and for a
        tokenizer that knows no places or no windows.
    """
    is_pair = pairs is not None
    special = tokenizer.num_special_tokens_to_add(pair=is_pair)
    if max_length <= special + is_pair:
        kind = "pair of texts" if is_pair else "text"
        raise CompatibilityError(
            f"max_length is {max_length}, but this tokenizer adds {special} special tokens to a {kind}: set at least "
            f"{special + is_pair + 1}"
        )
    if (places or overlap is not None) and not tokenizer.is_fast:
        raise CompatibilityError(
            "this task asks where in the text each token stands, and the tokenizer, written in Python, does not know: "
            "set tokenizer to a fast one (with a tokenizer.json)"
        )
    has_types = "token_type_ids" in tokenizer.model_input_names
    asked: dict[str, Any] = {
        "truncation": "longest_first",
        "max_length": max_length,
        "padding": False,
        "return_attention_mask": False,
        "return_token_type_ids": has_types,
        "return_special_tokens_mask": True,
    }
    if places:
        asked["return_offsets_mapping"] = True
    shortened = np.empty(0, np.int64)
    if overlap is not None:
        most = max(1, max_length // 2 - special) if is_pair else 0
        asked |= {
            "truncation": "only_second" if is_pair else True,
            "return_overflowing_tokens": True,
            "stride": min(overlap, max_length - special - most - 1),
        }
    found, spans, rows_of = TokenWriter(folder), Spool(np.int32, folder, (2,)), Spool(np.int64, folder)
    with _left_as_it_was(tokenizer):
        if overlap is not None and is_pair:
            texts, shortened = _shorten(texts, tokenizer, most)
        leading = _leading(tokenizer) if is_pair else 0
        for start in range(0, len(texts), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            encoded = tokenizer(texts[rows], pairs[rows] if pairs is not None else None, **asked)
            lengths = np.fromiter(map(len, encoded["input_ids"]), np.int64)
            total = int(lengths.sum())
            ids = np.fromiter(chain.from_iterable(encoded["input_ids"]), np.int32, total)
            is_special = np.fromiter(chain.from_iterable(encoded["special_tokens_mask"]), np.bool_, total)
            types, second = np.zeros(total, np.uint8), np.zeros(total, np.bool_)
            if has_types:
                types = np.fromiter(chain.from_iterable(encoded["token_type_ids"]), np.uint8, total)
            if is_pair:
                second = _second_texts(is_special, np.concatenate([[0], np.cumsum(lengths)]), leading)
            found.append(lengths, ids, types, is_special, second)
            if places:
                flat_spans = chain.from_iterable(chain.from_iterable(encoded["offset_mapping"]))
                spans.append(np.fromiter(flat_spans, np.int32, 2 * total).reshape(-1, 2))
            row_of = encoded["overflow_to_sample_mapping"] if overlap is not None else range(len(lengths))
            rows_of.append(start + np.asarray(row_of, np.int64))
    return Placed(
        found.finish(tokenizer.pad_token_id or 0), rows_of.finish(), spans.finish() if places else None, shortened
    )


def _shorten(texts: Sequence[str], tokenizer: Any, most: int) -> tuple[Sequence[str], NDArray[np.int64]]:
    """The texts, each cut behind so many tokens, and which of them were."""
    found, shortened = list(texts), []
    # nothing is cut here, of which transformers would warn
    asked = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    for start in range(0, len(texts), CHUNK_ROWS):
        encoded = tokenizer(found[start : start + CHUNK_ROWS], **asked)
        for row, places in enumerate(encoded["offset_mapping"], start=start):
            if len(places) > most:
                shortened.append(row)
            # a part of a word may have more tokens than it had in the word
            for count in range(most, -1, -1):
                if len(places) <= most:
                    break
                found[row] = found[row][: places[count - 1][1]] if count else ""
                places = tokenizer(found[row], **asked)["offset_mapping"]
    return found, np.array(shortened, np.int64)


def _leading(tokenizer: Any) -> int:
    """How many special tokens stand in front of the first text of a pair."""
    flags = tokenizer("a", "b", return_special_tokens_mask=True)["special_tokens_mask"]
    return flags.index(0) if 0 in flags else 0


def _second_texts(special: NDArray[np.bool_], offsets: NDArray[np.int64], leading: int) -> NDArray[np.bool_]:
    """Which tokens belong to the second text: those of text behind the special ones that end the first.

    The first text may be empty, so what stands in front of it is known by its number of tokens.
    """
    lengths = np.diff(offsets)
    place = np.arange(len(special)) - np.repeat(offsets[:-1], lengths)
    separators = special & (place >= leading)
    before = np.concatenate([[0], np.cumsum(separators)])
    seen = before[1:] - np.repeat(before[offsets[:-1]], lengths)
    second: NDArray[np.bool_] = ~special & (seen > 0)
    return second


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
    unknowns = total = blind = 0
    for start in range(0, len(tokens), CHUNK_ROWS):
        offsets = tokens.offsets[start : start + CHUNK_ROWS + 1]
        ids = tokens.ids[offsets[0] : offsets[-1]]
        of_text = ~np.isin(ids, special)
        unknown = np.zeros(len(ids), bool)
        if tokenizer.unk_token_id is not None:
            unknown = ids == tokenizer.unk_token_id
        known_before = np.concatenate([[0], np.cumsum(of_text & ~unknown)])
        blind += int(np.sum(np.diff(known_before[offsets - offsets[0]]) == 0))
        unknowns += int(unknown.sum())
        total += int((of_text | unknown).sum())
    return (unknowns / total if total else 1.0), blind / len(tokens)


@contextmanager
def panics_told() -> Iterator[None]:
    """Turn a panic of the library of tokenizers, as a regular expression without end gives, into an error of the model.

    Raises
    ------
    ModelError
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of no class that can be imported, and no Exception
            raise
        text = one_line(error, 200)
        raise ModelError(f"the tokenizer breaks down on a text ({text}): set tokenizer to another that fits") from None


@contextmanager
def _left_as_it_was(tokenizer: Any) -> Iterator[None]:
    """Undo what a call does to a fast tokenizer, which keeps the truncation of its last call and saves it to disk."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    truncation, padding = (backend.truncation, backend.padding) if backend is not None else (None, None)
    try:
        with panics_told():
            yield
    finally:
        if backend is not None:
            backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
            backend.no_padding() if padding is None else backend.enable_padding(**padding)
