"""Decoder `nearest_token`: the token whose own input-layer state is nearest, by cosine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import normalize

from sage_kit.builtin.decoders.token_decoder import TokenDecoder, require_candidates, to_guesses
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from sage_kit.builtin.decoders import NearestTokenOptions
    from sage_kit.components import BuildContext, Guesses, TeacherView, TokenBatch

CANDIDATES = 8192
"""Candidate states that are computed at once: positions times tokens of the vocabulary."""
ROWS = 256
"""Rows that are decoded at once."""
UNUSED = re.compile(r"\[unused\d+\]|<unused\d+>|madeupword\d+")


class NearestTokenDecoder(TokenDecoder):
    """Compares each token state with what the input layers make of every token of the vocabulary at that position.

    With ``bypass="embeddings"`` the input layers look at no other token, so its rows for position p are its output for
    each id at p: word, position and type embedding, normalised together. Where it knows several token types, those that
    the training text has are tried, and of an id's cosines the best counts. A state that came from another position, as
    lifts bring them that replace tokens, still differs from its token's row by the position embedding only.

    The vocabulary is gone through in chunks with a running best k: memory beyond the batch is about
    ``5 * 8192 * dim * 4`` bytes for candidates (63 MB at 384 dimensions) and ``8 * 8192 * rows`` for cosines (17 MB at
    256 rows, the most that are compared at once), whatever vocabulary and length. Time is proportional to
    vocabulary times tokens per row times token types, and hardly depends on the number of rows up to there.

    Parameters
    ----------
    options : NearestTokenOptions
    context : BuildContext
    """

    def __init__(self, options: NearestTokenOptions, context: BuildContext) -> None:
        self.options = options

    def fit(self, teacher: TeacherView) -> NearestTokenDecoder:
        """Take the input layers and the vocabulary; return self.

        Raises
        ------
        CompatibilityError
            When blocks belong to the input layers: a token's state then depends on all others.
        """
        if teacher.bypass not in ("embeddings", 0):
            raise CompatibilityError(
                f"decoder 'nearest_token' compares with states of single tokens; with bypass={teacher.bypass} a state "
                "depends on the whole text: take decoder 'probe' or bypass='embeddings'"
            )
        tokenizer = self.tokenizer_ = teacher.tokenizer
        self._input_layers = teacher.input_layers
        self._types = np.unique(np.asarray(teacher.train.types)).tolist() if teacher.n_types > 1 else [0]
        self._device = torch.device(teacher.device)
        special = set(tokenizer.all_special_ids) - {tokenizer.pad_token_id}
        ids = {
            index
            for token, index in tokenizer.get_vocab().items()
            if index != tokenizer.pad_token_id and (self.options.unused or not UNUSED.fullmatch(token))
        }
        self._plain = torch.tensor(sorted(ids - special), dtype=torch.int64, device=self._device)
        self._special = torch.tensor(sorted(special), dtype=torch.int64, device=self._device)
        return self

    def guess(self, batch: TokenBatch, k: int) -> Guesses:
        """The k nearest tokens at each position, with their cosines.

        Raises
        ------
        CompatibilityError
            When k is larger than the vocabulary without special tokens.
        """
        require_candidates("nearest_token", k, len(self._plain))
        rows, tokens, _ = batch.states.shape
        ids = torch.zeros(rows, tokens, k, dtype=torch.int64)
        scores = torch.zeros(rows, tokens, k)
        if tokens:
            with torch.no_grad():
                for start in range(0, rows, ROWS):
                    part = slice(start, start + ROWS)
                    ids[part], scores[part] = self._nearest(batch.states[part], batch.mask[part], k)
        return to_guesses(ids, scores)

    def _nearest(self, states: torch.Tensor, mask: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and cosines of shape (rows, tokens, k)."""
        tokens = states.shape[1]
        # by position, so that the states at one place meet that place's candidates in one product
        queries = normalize(states.to(self._device, torch.float32), dim=2).transpose(0, 1)
        best = torch.full((*queries.shape[:2], k), -torch.inf, device=self._device)
        ids = torch.zeros_like(best, dtype=torch.int64)
        size = max(1, CANDIDATES // tokens)
        for chunk in self._plain.split(size):
            best, ids = _merge(best, ids, self._cosines(queries, chunk), chunk)
        for chunk in self._special.split(size):
            cosines = self._cosines(queries, chunk)
            if self.options.special_tokens == "ends":
                cosines = cosines.masked_fill(_inner(mask.to(self._device)).T.unsqueeze(2), -torch.inf)
            best, ids = _merge(best, ids, cosines, chunk)
        return ids.transpose(0, 1), best.transpose(0, 1)

    def _cosines(self, queries: torch.Tensor, chunk: torch.Tensor) -> torch.Tensor:
        """Cosines of shape (tokens, rows, chunk): to each id of the chunk under its best token type."""
        # one row for each id, which stands at every position of it: the input layers find the positions itself
        ids = chunk.unsqueeze(1).expand(-1, len(queries))
        mask = torch.ones_like(ids, dtype=torch.bool)
        best = None
        for token_type in self._types:
            states = self._input_layers(ids, torch.full_like(ids, token_type), mask).float()
            cosines = torch.bmm(queries, normalize(states, dim=2).permute(1, 2, 0))
            best = cosines if best is None else torch.maximum(best, cosines)
        assert best is not None
        return best


def _merge(
    best: torch.Tensor, ids: torch.Tensor, cosines: torch.Tensor, chunk: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best of those so far and a chunk's."""
    k = best.shape[2]
    found, places = cosines.topk(min(k, len(chunk)), dim=2)
    best, order = torch.cat([best, found], dim=2).topk(k, dim=2)
    return best, torch.cat([ids, chunk[places]], dim=2).gather(2, order)


def _inner(mask: torch.Tensor) -> torch.Tensor:
    """Mask of the positions that are neither the first nor the last real one of their row."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return (places > 0) & (places != mask.sum(1, keepdim=True) - 1)
