"""Nearest tokens in a teacher's word-embedding table, for synthesis that exchanges tokens for similar ones.

TinyBERT (Jiao et al. 2020, arXiv 1909.10351, algorithm 1) takes the nearest words by GloVe; here the teacher's own
table says what is near, so nothing else has to be loaded. AugPro (Zhang et al. 2022, arXiv 2210.11768) projects
interpolated embeddings back to real tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from sage_kit.errors import CompatibilityError
from sage_kit.models.token_kinds import NO_TOKEN, NOT_TEXT, token_kinds
from sage_kit.storage.source_digest import artifact_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sage_kit.storage.cache import Cache

CANDIDATES = 1 << 24
"""Cosines that are held at once: 64 MB of float32."""


class TokenNeighbors(NamedTuple):
    """The nearest tokens of some tokens.

    Attributes
    ----------
    ids : array of shape (m,), int64
        The tokens that were looked up, each once, ascending.
    neighbors : array of shape (m, k), int64
        The nearest first; `NO_TOKEN` where a token has none or fewer than k.
    cosines : array of shape (m, k), float32
        Minus infinity at `NO_TOKEN`.
    """

    ids: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    cosines: NDArray[np.float32]

    def of(self, tokens: ArrayLike) -> NDArray[np.int64]:
        """Neighbours of each of some tokens, of shape (..., k); all `NO_TOKEN` for one that was not looked up."""
        wanted = np.asarray(tokens, np.int64)
        if not len(self.ids):
            return np.full((*wanted.shape, self.neighbors.shape[1]), NO_TOKEN, np.int64)
        places = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        found = self.neighbors[places]
        return np.where((self.ids[places] == wanted)[..., None], found, NO_TOKEN)


class TokenTable:
    """A word-embedding table with the kinds of its tokens.

    A token is only compared with tokens of its own kind: a word with words, a piece of a word with pieces. Special and
    unused tokens have no neighbours and are nobody's.

    Parameters
    ----------
    table : Tensor of shape (vocabulary, dim)
        Word embeddings, on the device that computes; not changed.
    kinds : array of shape (vocabulary,), int8
        As from `sage_kit.models.token_kinds.token_kinds`.
    """

    def __init__(self, table: Tensor, kinds: NDArray[np.int8]) -> None:
        self.kinds = kinds
        self.device = table.device
        wide = table.detach()
        self._directions = normalize(wide if wide.dtype == torch.float64 else wide.float(), dim=1)
        self._members = {
            int(kind): torch.from_numpy(np.flatnonzero(kinds == kind)).to(self.device)
            for kind in np.unique(kinds)
            if kind != NOT_TEXT
        }

    @classmethod
    def of_model(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> TokenTable:
        """The table of a model, on the model's device."""
        table = cast(nn.Embedding, model.get_input_embeddings()).weight
        return cls(table, token_kinds(tokenizer, len(table)))

    def neighbors(self, tokens: ArrayLike, k: int, cache: Cache | None = None) -> TokenNeighbors:
        """The k nearest tokens, by cosine, of each token that occurs.

        Parameters
        ----------
        tokens : integer array of any shape
            Token ids, e.g. those of the training text.
        k : int
            At least 1. A token is not its own neighbour.
        cache : Cache, optional
            Where the result is kept.

        Returns
        -------
        TokenNeighbors

        Raises
        ------
        CompatibilityError
            When k is below 1.
        """
        if k < 1:
            raise CompatibilityError(f"{k} nearest tokens were asked for: ask for at least 1")
        ids = np.unique(np.asarray(tokens, np.int64))
        ids = ids[self.kinds[ids] != NOT_TEXT]
        if cache is None:
            return TokenNeighbors(ids, **self._find(ids, k))
        parts = ["token-neighbors-1", artifact_digest(__name__), self._directions, self.kinds, ids, k]
        return TokenNeighbors(ids, **cache.arrays("nearest tokens", parts, lambda: self._find(ids, k)))

    def project(self, vectors: Tensor, like: Tensor, exclude: Tensor | None = None) -> Tensor:
        """The nearest real token, by cosine, of each of some vectors in the space of the table.

        Parameters
        ----------
        vectors : Tensor of shape (n, dim)
            Such as word embeddings interpolated between two tokens.
        like : LongTensor of shape (n,)
            A token of the kind that is wanted for each vector, e.g. the one that stood in its place.
        exclude : LongTensor of shape (n,), optional
            A token for each vector that it shall not become; `NO_TOKEN` for none.

        Returns
        -------
        LongTensor of shape (n,)
            On the table's device. `NO_TOKEN` where `like` is special or unused, or nothing is left.
        """
        vectors, like = vectors.detach().to(self.device), like.to(self.device)
        exclude = torch.full_like(like, NO_TOKEN) if exclude is None else exclude.to(self.device)
        found = torch.full_like(like, NO_TOKEN)
        kinds = torch.from_numpy(self.kinds).to(self.device)[like]
        for kind in self._members:
            rows = (kinds == kind).nonzero()[:, 0]
            for part, nearest, _ in self._nearest(kind, vectors[rows].to(self._directions), exclude[rows], 1):
                found[rows[part]] = nearest[:, 0]
        return found

    def _find(self, ids: NDArray[np.int64], k: int) -> dict[str, NDArray[Any]]:
        """Neighbours and cosines of real tokens, each of shape (len(ids), k)."""
        neighbors = np.full((len(ids), k), NO_TOKEN, np.int64)
        cosines = np.full((len(ids), k), -np.inf, np.float32)
        for kind in self._members:
            rows = np.flatnonzero(self.kinds[ids] == kind)
            own = torch.from_numpy(ids[rows]).to(self.device)
            for part, nearest, near in self._nearest(kind, self._directions[own], own, k):
                neighbors[rows[part], : nearest.shape[1]] = nearest.cpu().numpy()
                cosines[rows[part], : near.shape[1]] = near.cpu().numpy()
        return {"neighbors": neighbors, "cosines": cosines}

    def _nearest(self, kind: int, queries: Tensor, exclude: Tensor, k: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Block by block: the rows, their up to k nearest tokens of a kind, and the cosines."""
        members = self._members[kind]
        candidates = self._directions[members]
        size = max(1, CANDIDATES // len(members))
        for start in range(0, len(queries), size):
            part = slice(start, min(start + size, len(queries)))
            cosines = normalize(queries[part], dim=1) @ candidates.T
            # the members ascend: where the excluded token stands, if it is one
            places = torch.searchsorted(members, exclude[part]).clamp_(max=len(members) - 1)
            is_member = members[places] == exclude[part]
            rows = is_member.nonzero()[:, 0]
            cosines[rows, places[rows]] = -torch.inf
            near, order = cosines.topk(min(k, len(members)), dim=1)
            yield part, members[order].masked_fill(near == -torch.inf, NO_TOKEN), near
