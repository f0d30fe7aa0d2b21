"""A masked language model of a teacher's tokens: what may stand at a place, and how likely a text is.

A checkpoint that holds such a head gives it; for all others one is trained on text, which is no pretrained head and
says so (`sage_kit.models.tied_language`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sage_kit.data.corpus import load_corpus
from sage_kit.data.splits import Split
from sage_kit.data.tokens import Tokens, concatenated, tokenize
from sage_kit.errors import CompatibilityError
from sage_kit.models.checkpoints import load_classifier
from sage_kit.models.encoder_parts import language_head
from sage_kit.models.split import InputLayers
from sage_kit.models.tied_language import Measured, tied_head
from sage_kit.models.token_kinds import NO_TOKEN, NOT_TEXT, token_kinds
from sage_kit.models.view import find_masked_lm

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sage_kit.config import RunConfig
    from sage_kit.storage.cache import Cache

TOKENS_AT_ONCE = 1 << 13
"""Tokens of a batch, padding included, that the encoder sees at once."""

LOGITS_AT_ONCE = 1 << 25
"""Logits that are held at once: 128 MB of float32."""

MOST_TEXTS = 50_000
"""Texts of a corpus that are read; no head is trained long enough to see more."""


class Head(Protocol):
    """What tells tokens at masked places."""

    def states(self, ids: Tensor, types: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """What it sees at each of n places, which hold the mask token: (n, anything)."""
        ...

    def logits(self, states: Tensor) -> Tensor:
        """Logits of shape (n, vocabulary)."""
        ...

    def flops(self, lengths: NDArray[np.int64], places: int) -> int:
        """FLOPs of both for texts of these lengths, with so many places in all."""
        ...


class PretrainedHead:
    """The head of a checkpoint, on its encoder.

    Parameters
    ----------
    model : PreTrainedModel
        A masked language model of a supported family. It is frozen.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._encoder = InputLayers(model, int(model.config.num_hidden_layers))
        self._head = language_head(model)

    def states(self, ids: Tensor, types: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """Final states of shape (n, dim)."""
        states: Tensor = self._encoder(ids, types, mask)
        return states[places]

    def logits(self, states: Tensor) -> Tensor:
        """What the head makes of them."""
        for module in self._head:
            states = module(states)
        return states

    def flops(self, lengths: NDArray[np.int64], places: int) -> int:
        """Products of the blocks over all tokens, and of the head at the places."""
        weights = (parameter for module in self._head for parameter in module.parameters() if parameter.ndim == 2)
        return self._encoder.flops(lengths) + 2 * places * sum(weight.numel() for weight in weights)


class MaskedLanguage:
    """A masked language model.

    Parameters
    ----------
    head : Head
    tokenizer : PreTrainedTokenizerBase
    rows : int
        Rows of the word-embedding table.
    device : torch.device
        Where the head computes.
    measured : Measured or None
        How good a head is that was trained here; None for one that came with the checkpoint.

    Attributes
    ----------
    kinds : array of shape (rows,), int8
        As from `sage_kit.models.token_kinds.token_kinds`.
    """

    def __init__(
        self,
        head: Head,
        tokenizer: PreTrainedTokenizerBase,
        rows: int,
        device: torch.device,
        measured: Measured | None = None,
    ) -> None:
        self.measured, self.device = measured, device
        self.mask_id = mask_token(tokenizer)
        self.kinds: NDArray[np.int8] = token_kinds(tokenizer, rows)
        self._head = head
        self._kinds = torch.from_numpy(self.kinds).to(device)

    def flops(self, lengths: NDArray[np.int64], places: int) -> int:
        """FLOPs of proposals at so many places of texts of these lengths."""
        return self._head.flops(lengths, places)

    @torch.no_grad()
    def proposals(self, ids: Tensor, types: Tensor, mask: Tensor, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The likeliest tokens at some places of a batch of texts, all of which are masked at once.

        What stood there counts only by its kind: a word gives way to words, a piece of a word to pieces. At a mask
        token, any token of text is proposed. Special and unused tokens never are.

        Parameters
        ----------
        ids, types : LongTensor of shape (batch, tokens)
        mask : BoolTensor of shape (batch, tokens)
            True at real tokens.
        places : BoolTensor of shape (batch, tokens)
            True where tokens are wanted.
        k : int
            At least 1.

        Returns
        -------
        tokens : LongTensor of shape (n, k)
            For the n places in the order of ``places.nonzero()``, the likeliest first; `NO_TOKEN` where the kind has
            fewer than k tokens.
        log_probabilities : Tensor of shape (n, k), float32
            Among all tokens; minus infinity at `NO_TOKEN`.

        Both are on the model's device.
        """
        if k < 1:
            raise CompatibilityError(f"{k} proposals were asked for at each place: ask for at least 1")
        ids, types, mask, places = (tensor.to(self.device) for tensor in (ids, types, mask, places))
        wanted = self._kinds[ids[places]]
        wanted[ids[places] == self.mask_id] = NOT_TEXT
        tokens = torch.full((len(wanted), k), NO_TOKEN, device=self.device)
        found = torch.full((len(wanted), k), -torch.inf, device=self.device)
        for part, scores in self._log_probabilities(ids, types, mask, places):
            kind = wanted[part, None]
            allowed = torch.where(kind == NOT_TEXT, self._kinds != NOT_TEXT, self._kinds == kind)
            best, order = scores.masked_fill(~allowed, -torch.inf).topk(min(k, scores.shape[1]), dim=1)
            found[part, : best.shape[1]] = best
            tokens[part, : best.shape[1]] = order.masked_fill(best == -torch.inf, NO_TOKEN)
        return tokens, found

    @torch.no_grad()
    def perplexity(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """Pseudo-perplexity of each text (Salazar et al. 2020, arXiv 1910.14659).

        The exponential of the mean negative log-probability of its tokens, each masked alone; special tokens do not
        count. The time is that of as many texts as there are tokens.

        Parameters
        ----------
        ids, types : LongTensor of shape (batch, tokens)
        mask : BoolTensor of shape (batch, tokens)
            True at real tokens.

        Returns
        -------
        Tensor of shape (batch,), float64
            On the model's device; NaN for a text without tokens of text.
        """
        ids, types, mask = (tensor.to(self.device) for tensor in (ids, types, mask))
        of_text = mask & (self._kinds[ids] != NOT_TEXT)
        total = torch.zeros(len(ids), dtype=torch.float64, device=self.device)
        rows, columns = of_text.nonzero(as_tuple=True)
        longest = mask.sum(1)[rows]
        # long texts with long ones: a chunk is padded to its longest
        order = longest.argsort(descending=True, stable=True)
        start = 0
        while start < len(order):
            width = int(longest[order[start]])
            chosen = order[start : start + max(1, TOKENS_AT_ONCE // width)]
            start += len(chosen)
            row, column = rows[chosen], columns[chosen]
            place = torch.zeros(len(chosen), width, dtype=torch.bool, device=self.device)
            place[torch.arange(len(chosen), device=self.device), column] = True
            text = [tensor[row, :width] for tensor in (ids, types, mask)]
            for part, scores in self._log_probabilities(text[0], text[1], text[2], place):
                own = scores.gather(1, ids[row[part], column[part]][:, None])[:, 0]
                total.index_add_(0, row[part], own.double())
        return torch.exp(-total / of_text.sum(1))

    def _log_probabilities(
        self, ids: Tensor, types: Tensor, mask: Tensor, places: Tensor
    ) -> Iterator[tuple[slice, Tensor]]:
        """Block by block: which of the places, and the log-probabilities of all tokens there, of shape (part, rows)."""
        size = max(1, LOGITS_AT_ONCE // len(self.kinds))
        hidden = ids.masked_fill(places, self.mask_id)
        rows = max(1, TOKENS_AT_ONCE // max(1, ids.shape[1]))
        done = 0
        for text in zip(*(tensor.split(rows) for tensor in (hidden, types, mask, places)), strict=True):
            for states in self._head.states(*text).split(size):
                yield slice(done, done + len(states)), self._head.logits(states).float().log_softmax(1)
                done += len(states)


def mask_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of a tokenizer's mask token.

    Raises
    ------
    CompatibilityError
        When it has none.
    """
    found = tokenizer.mask_token_id
    if found is None:
        raise CompatibilityError(
            "the tokenizer has no mask token, so no language model can be asked what stands at a place: take tokens "
            "from another source"
        )
    return int(found)


def load_language(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Tokens,
    cache: Cache,
    device: torch.device,
    announce: Callable[[str], None],
) -> MaskedLanguage:
    """The masked language model of the teacher that the settings name.

    A checkpoint with such a head gives it as it was pretrained; the teacher itself, once it is fine-tuned, has lost it.
    For all others a head tied to the checkpoint's word embeddings is trained, once, on the warm-up's corpus where one
    is set, and on the transfer set too.

    Parameters
    ----------
    config : RunConfig
    tokenizer : PreTrainedTokenizerBase
        The teacher's.
    tokens : Tokens
        The transfer set.
    cache : Cache
        Where a trained head is kept.
    device : torch.device
    announce : callable
        Shows one line to the user.

    Returns
    -------
    MaskedLanguage

    Raises
    ------
    CompatibilityError
        When the tokenizer has no mask token.
    DataError
        When the corpus cannot be read, or there is too little text to train on.
    ModelError
        When the checkpoint cannot be read.
    """
    mask_id = mask_token(tokenizer)
    model = find_masked_lm(config.teacher)
    if model is not None:
        cast(nn.Module, model).to(device)
        rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
        return MaskedLanguage(PretrainedHead(model), tokenizer, rows, device)
    encoder = load_classifier(config.teacher).model
    table = cast(nn.Embedding, encoder.get_input_embeddings()).weight.detach().clone().to(device)
    kinds = token_kinds(tokenizer, len(table))
    text = _with_corpus(config, tokenizer, tokens)

    def started() -> None:
        announce(
            f"teacher {config.teacher!r} has no masked-language head: training one tied to its word embeddings on "
            f"{len(text)} texts"
        )

    head, measured = tied_head(table, kinds, mask_id, text, cache, started)
    announce(
        f"masked-language head, not a pretrained one: it finds {measured.accuracy:.0%} of the masked tokens of other "
        f"texts, perplexity {measured.perplexity:,.0f} (by frequency alone {measured.unigram_accuracy:.0%}, "
        f"{measured.unigram_perplexity:,.0f})"
    )
    return MaskedLanguage(head, tokenizer, len(table), device, measured)


def _with_corpus(config: RunConfig, tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> Tokens:
    """The transfer set, with the corpus of the warm-up before it where there is one."""
    if not config.warmup_corpus:
        return tokens
    texts = load_corpus(config)[:MOST_TEXTS]
    corpus = tokenize(Split("corpus", texts, None, np.zeros(len(texts), np.int64)), tokenizer, config.max_length)
    return concatenated([corpus, tokens])
