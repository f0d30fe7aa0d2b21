"""What lifts may ask about a teacher's tokens: which are alike, which lies between two, which a sentence would take."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sage_kit.models.token_neighbors import TokenTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from sage_kit.components import TextBatch
    from sage_kit.data.tokens import Tokens
    from sage_kit.models.language import MaskedLanguage
    from sage_kit.models.teacher import Teacher
    from sage_kit.storage.cache import Cache


class TeacherVocabulary:
    """Answers as `sage_kit.components.Vocabulary` says.

    Parameters
    ----------
    teacher : Teacher
        Whose embedding table says what is near.
    tokens : Tokens
        The real examples: neighbours are looked up for what occurs in them, once.
    cache : Cache
    language : callable
        Makes or finds the masked language model, when it is first asked.

    Attributes
    ----------
    flops : int
        What the answers have cost so far; those of `nearest` are looked up.
    """

    def __init__(self, teacher: Teacher, tokens: Tokens, cache: Cache, language: Callable[[], MaskedLanguage]) -> None:
        self._teacher = teacher
        self._tokens = tokens
        self._cache = cache
        self._make_language = language
        self.flops = 0

    @cached_property
    def _table(self) -> TokenTable:
        return TokenTable.of_model(self._teacher.model, self._teacher.tokenizer)

    @cached_property
    def _vectors(self) -> Tensor:
        return cast(nn.Embedding, self._teacher.model.get_input_embeddings()).weight.detach()

    @cached_property
    def _language(self) -> MaskedLanguage:
        with torch.enable_grad():  # lifts are asked without, and one that is found nowhere is trained here
            return self._make_language()

    def nearest(self, ids: Tensor, k: int) -> Tensor:
        """The k nearest tokens of each, of shape (*ids.shape, k); -1 where there are fewer."""
        found = self._table.neighbors(self._tokens.ids, k, self._cache).of(ids.cpu().numpy())
        return torch.from_numpy(found).to(ids.device)

    def between(self, first: Tensor, second: Tensor, shares: Tensor) -> Tensor:
        """The token nearest to a point between two; -1 where there is none."""
        start, end = (self._vectors[ids.flatten().to(self._vectors.device)] for ids in (first, second))
        points = torch.lerp(start, end, shares.flatten().to(start)[:, None])
        flat = first.flatten()
        self.flops += 2 * len(flat) * self._vectors.numel()
        return self._table.project(points, flat, exclude=flat).view(first.shape).to(first.device)

    def likely(self, text: TextBatch, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """What the masked language model would put at places."""
        self.flops += self._language.flops(text.mask.sum(1).cpu().numpy(), int(places.sum()))
        ids, log_probabilities = self._language.proposals(text.ids, text.types, text.mask, places, k)
        return ids.to(places.device), log_probabilities.to(places.device)
