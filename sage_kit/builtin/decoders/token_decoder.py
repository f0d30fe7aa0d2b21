"""What the built-in decoders share: text from the likeliest id at each position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.components import Guesses
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    import torch

    from sage_kit.components import TokenBatch


class TokenDecoder(ABC):
    """A decoder that guesses each token by itself; `fit` of those that derive from it sets `tokenizer_`."""

    tokenizer_: Any

    @abstractmethod
    def guess(self, batch: TokenBatch, k: int) -> Guesses:
        """The k likeliest tokens at each position."""

    def decode(self, batch: TokenBatch) -> list[str]:
        """One text per row: the likeliest token at each real position, special tokens left out."""
        ids = self.guess(batch, 1).ids[..., 0]
        rows = [row[real].tolist() for row, real in zip(ids, batch.mask.cpu().numpy(), strict=True)]
        return [text.strip() for text in self.tokenizer_.batch_decode(rows, skip_special_tokens=True)] if rows else []


def require_candidates(name: str, k: int, candidates: int) -> None:
    """Refuse to name more tokens than there are to choose from.

    Raises
    ------
    CompatibilityError
        For k below 1 or above `candidates`.
    """
    if not 1 <= k <= candidates:
        raise CompatibilityError(f"decoder {name!r} was asked for {k} tokens per position; it knows {candidates}")


def to_guesses(ids: torch.Tensor, scores: torch.Tensor) -> Guesses:
    """Guesses from tensors of shape (batch, tokens, k) on any device."""
    return Guesses(ids.cpu().numpy().astype(np.int64, copy=False), scores.float().cpu().numpy())
