"""A masked-language head tied to a model's word embeddings, for checkpoints that have no such head of their own.

It is a log-bilinear model (Mnih & Hinton 2007): one matrix turns the embeddings around a masked place, and the mean of
the text's, into a vector, and a token's logit is that vector's product with its embedding, plus a bias. No block of the
encoder takes part: those of a sentence encoder hardly tell what a mask stands for. With MiniLM and encyclopedic text,
perplexities of masked tokens were 850 for a head on the frozen last block (50,000 masked tokens), 700 when all blocks
were trained with it for five minutes of a core, and are 146 for this one after one minute (1,240 by frequency alone).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad
from torch.nn.utils import skip_init

from sage_kit.data.batches import plan_batches
from sage_kit.data.tokens import Tokens
from sage_kit.errors import DataError
from sage_kit.models.learning_rate import WARMUP_SHARE, learning_rate_factor
from sage_kit.models.token_kinds import NOT_TEXT
from sage_kit.storage import tensorfile
from sage_kit.storage.files import write_json
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.reading import json_loads
from sage_kit.storage.source_digest import artifact_digest

if TYPE_CHECKING:
    from sage_kit.storage.cache import Cache

HEAD, MEASURED_FILE = "head.safetensors", "measured.json"
WINDOW = 3
"""Places on each side whose embeddings are seen one by one."""

MASKED = 0.15
"""Share of the tokens that is masked, as in BERT (Devlin et al. 2019)."""

MASKED_TOKENS = 300_000
"""Masked tokens that the head is trained on, at least while `PASSES` is not reached: about a minute of one core."""

PASSES = 10
"""Most passes over the text, each with other tokens masked."""

FIRST = 40_000
"""Masked tokens that the least-squares start is made from."""

RIDGE = 0.02
START_SCALE = 3.0
SAMPLED = 2048
BATCH_TOKENS, BATCH_SIZE = 1024, 128
LEARNING_RATE, WEIGHT_DECAY = 3e-4, 0.05
HELD_OUT, HELD_OUT_ROWS = 0.05, 100
SEED = 0


class Measured(NamedTuple):
    """How well a head tells masked tokens of held-out text.

    Attributes
    ----------
    accuracy : float
        Share of the masked tokens that it finds.
    perplexity : float
        Exponential of the mean negative log-likelihood of a masked token.
    unigram_accuracy, unigram_perplexity : float
        The same by the frequencies of the training text alone.
    tokens : int
        Masked tokens that were counted.
    texts : int
        Texts that the head was trained on.
    """

    accuracy: float
    perplexity: float
    unigram_accuracy: float
    unigram_perplexity: float
    tokens: int
    texts: int


class TiedHead(nn.Module):
    """Logits of all tokens at masked places, from the word embeddings of the text around them.

    Parameters
    ----------
    table : Tensor of shape (vocabulary, dim)
        Word embeddings; neither trained nor saved.

    Attributes
    ----------
    center, spread : Tensor of shape (dim,)
        Mean and standard deviation of the embeddings of the training text.
    dense : Linear
        From ``(2 * WINDOW + 1) * dim`` to `dim`.
    bias : Parameter of shape (vocabulary,)
        Of the logits; at first the logarithms of the tokens' frequencies.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        rows, dim = table.shape
        self._table = table.detach().float()
        self.register_buffer("center", torch.zeros(dim, device=table.device))
        self.register_buffer("spread", torch.ones(dim, device=table.device))
        # without random weights: they would be drawn from the global generator, and are replaced anyway
        self.dense = skip_init(nn.Linear, (2 * WINDOW + 1) * dim, dim, device=table.device)
        nn.init.zeros_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        self.bias = nn.Parameter(torch.zeros(rows, device=table.device))

    def context(self, ids: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """What is seen of a text at each of the n masked places, of shape (n, (2 * WINDOW + 1) * dim).

        Parameters
        ----------
        ids : LongTensor of shape (batch, tokens)
            With the mask token at the places.
        mask, places : BoolTensor of shape (batch, tokens)
            True at real tokens, and at the masked ones among them.
        """
        states = (self._table[ids] - self.center) / self.spread * mask.unsqueeze(2)
        seen = mask & ~places
        # divided by the root of the number, which keeps the size of a sum of independent embeddings
        text = (states * seen.unsqueeze(2)).sum(1) / seen.sum(1, keepdim=True).clamp(min=1).to(states).sqrt()
        rows, columns = places.nonzero(as_tuple=True)
        padded = pad(states, (0, 0, WINDOW, WINDOW))
        around = [padded[rows, columns + offset] for offset in range(2 * WINDOW + 1) if offset != WINDOW]
        return torch.cat([*around, text[rows]], dim=1)

    def forward(self, context: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Logits of shape (n, vocabulary), or of some tokens only, for contexts of n places."""
        predicted = self.dense(context)
        if tokens is None:
            return linear(predicted, self._table, self.bias)
        return linear(predicted, self._table[tokens], self.bias[tokens])

    def states(self, ids: Tensor, types: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """`context`, whatever the token types."""
        return self.context(ids, mask, places)

    def logits(self, states: Tensor) -> Tensor:
        """Logits of all tokens."""
        scores: Tensor = self(states)
        return scores

    def flops(self, lengths: NDArray[np.int64], places: int) -> int:
        """Products of the matrix and of the table at the places, however long the texts are."""
        return 2 * places * int(self.dense.weight.numel() + self._table.numel())


def tied_head(
    table: Tensor, kinds: NDArray[np.int8], mask_id: int, tokens: Tokens, cache: Cache, started: Callable[[], None]
) -> tuple[TiedHead, Measured]:
    """A head trained on some text, from the cache if that was done before.

    Parameters
    ----------
    table : Tensor of shape (vocabulary, dim)
        Word embeddings, on the device that computes.
    kinds : array of shape (vocabulary,), int8
        As from `sage_kit.models.token_kinds.token_kinds`.
    mask_id : int
        The mask token.
    tokens : Tokens
        The text.
    cache : Cache
    started : callable
        Called before a head is trained.

    Raises
    ------
    DataError
        When the text is too short to be learned from.
    """
    key = fingerprint(
        "tied-language-1", artifact_digest(__name__), table, kinds, mask_id, tokens.fingerprint, str(table.device)
    )

    def build(directory: Path) -> None:
        started()
        head, measured = _train(table, kinds, mask_id, tokens)
        arrays = {name: tensor.cpu().numpy() for name, tensor in head.state_dict().items()}
        tensorfile.write(directory / HEAD, arrays)
        write_json(directory / MEASURED_FILE, measured._asdict())

    def load(path: Path) -> tuple[TiedHead, Measured]:
        head = TiedHead(table)
        arrays = tensorfile.open_mapped(path / HEAD)
        head.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in arrays.items()})
        return head.eval().requires_grad_(False), Measured(**json_loads((path / MEASURED_FILE).read_bytes()))

    return cache.read("language", key, build, load, {"texts": len(tokens)}, holds=(HEAD, MEASURED_FILE))


# ---- training -------------------------------------------------------------------------------------------------------


class _Batch(NamedTuple):
    """Some texts with masked places, and what stood there."""

    ids: Tensor
    mask: Tensor
    places: Tensor
    targets: Tensor


class _Masking:
    """Batches of a text with some of its tokens masked."""

    def __init__(self, tokens: Tokens, kinds: NDArray[np.int8], mask_id: int, device: torch.device) -> None:
        self.tokens, self.mask_id, self.device = tokens, mask_id, device
        self.is_text = torch.from_numpy(kinds != NOT_TEXT)

    def batches(self, rows: NDArray[np.int64], *seed: int) -> list[NDArray[np.int64]]:
        """Batches of some rows."""
        lengths, rng = self.tokens.lengths[rows], np.random.default_rng([SEED, *seed])
        return [rows[part] for part in plan_batches(lengths, batch_size=BATCH_SIZE, batch_tokens=BATCH_TOKENS, rng=rng)]

    def masked(self, rows: NDArray[np.int64], generator: torch.Generator) -> _Batch:
        """One batch; `MASKED` of its tokens of text are masked."""
        shape = len(rows), int(self.tokens.lengths[rows].max(initial=0))
        return self._batch(rows, torch.rand(shape, generator=generator) < MASKED)

    def each_once(self, rows: NDArray[np.int64], generator: torch.Generator) -> list[_Batch]:
        """The same batch several times; each of its tokens of text is masked in one of them, about `MASKED` at once."""
        parts = round(1 / MASKED)
        shape = len(rows), int(self.tokens.lengths[rows].max(initial=0))
        which = torch.randint(parts, shape, generator=generator)
        return [self._batch(rows, which == number) for number in range(parts)]

    def _batch(self, rows: NDArray[np.int64], chosen: Tensor) -> _Batch:
        ids, _, mask = self.tokens.pad(rows)
        places = mask & self.is_text[ids] & chosen
        batch = _Batch(ids.masked_fill(places, self.mask_id), mask, places, ids[places])
        return _Batch(*(tensor.to(self.device) for tensor in batch))


def _train(table: Tensor, kinds: NDArray[np.int8], mask_id: int, tokens: Tokens) -> tuple[TiedHead, Measured]:
    rng = np.random.default_rng(SEED)
    rows = rng.permutation(len(tokens))
    n_held = min(HELD_OUT_ROWS, max(1, round(HELD_OUT * len(rows))))
    held, rows = np.sort(rows[:n_held]), np.sort(rows[n_held:])
    counts = _counts(tokens, rows, kinds)
    masking = _Masking(tokens, kinds, mask_id, table.device)
    generator = torch.Generator().manual_seed(SEED)
    test = [batch for part in masking.batches(held, 0) for batch in masking.each_once(part, generator)]
    total = int(counts.sum())
    if not total or not sum(len(batch.targets) for batch in test):
        raise DataError(
            f"{len(tokens)} texts of {len(tokens.ids)} tokens are too few to train a masked-language head on: give "
            "more text, such as a file named by warmup_corpus"
        )
    head = TiedHead(table)
    frequencies = torch.from_numpy((counts + 0.1) / (counts + 0.1).sum()).float().to(table.device)
    _start(head, frequencies, masking, rows, generator)
    _fit(head, torch.from_numpy(np.flatnonzero(counts)), masking, rows, total, generator)
    return head, _measure(head, frequencies, test, len(rows))


def _counts(tokens: Tokens, rows: NDArray[np.int64], kinds: NDArray[np.int8]) -> NDArray[np.int64]:
    """How often each token of text stands in some rows; 0 for tokens that are no text."""
    of_rows = np.zeros(len(tokens), bool)
    of_rows[rows] = True
    ids = tokens.ids[np.repeat(of_rows, tokens.lengths)]
    return np.where(kinds != NOT_TEXT, np.bincount(ids, minlength=len(kinds)), 0)


@torch.no_grad()
def _start(
    head: TiedHead, frequencies: Tensor, masking: _Masking, rows: NDArray[np.int64], generator: torch.Generator
) -> None:
    """Start from the least-squares map of contexts to embeddings of what stood there, and from the frequencies.

    From random weights a head stays at the frequencies for very long.
    """
    table = head._table
    mean = frequencies @ table
    head.center.copy_(mean)
    head.spread.copy_((frequencies @ (table - mean).square()).sqrt().clamp(min=1e-6))
    head.bias.copy_(frequencies.log())
    width = head.dense.in_features
    products = torch.zeros(width, width, device=table.device)
    towards = torch.zeros(width, table.shape[1], device=table.device)
    done = 0
    for part in masking.batches(rows, 1):
        batch = masking.masked(part, generator)
        context = head.context(batch.ids, batch.mask, batch.places)
        products.addmm_(context.T, context)
        towards.addmm_(context.T, table[batch.targets] - mean)
        done += len(context)
        if done >= FIRST:
            break
    products.diagonal().add_(RIDGE * max(done, 1))
    head.dense.weight.copy_(START_SCALE * torch.linalg.solve(products, towards).T)
    head.dense.bias.zero_()


def _fit(
    head: TiedHead,
    seen: Tensor,
    masking: _Masking,
    rows: NDArray[np.int64],
    total_tokens: int,
    generator: torch.Generator,
) -> None:
    """Maximise the likelihood of masked tokens against those of the batch and a sample of all others that occur."""
    passes = min(float(PASSES), MASKED_TOKENS / (MASKED * total_tokens))
    steps = max(1, round(passes * len(masking.batches(rows, 2, 0))))
    endless = (part for number in count() for part in masking.batches(rows, 2, number))
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for step, part in enumerate(islice(endless, steps)):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * learning_rate_factor("linear", WARMUP_SHARE, step, steps)
        batch = masking.masked(part, generator)
        if not len(batch.targets):
            continue
        tokens, correction = _sample(seen, batch.targets, generator)
        scores = head(head.context(batch.ids, batch.mask, batch.places), tokens) + correction
        loss = cross_entropy(scores, torch.searchsorted(tokens, batch.targets))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _sample(seen: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The batch's targets and a uniform sample of the tokens that occur, ascending, and what to add to their logits.

    Each sampled token stands for as many as it was drawn from, so that the sum of the softmax is that of all tokens in
    expectation (Bengio & Senecal 2008).
    """
    drawn = seen[torch.randperm(len(seen), generator=generator)[:SAMPLED]].to(targets.device)
    tokens = torch.unique(torch.cat([targets, drawn]))
    correction = torch.full((len(tokens),), float(np.log(len(seen) / len(drawn))), device=targets.device)
    correction[torch.searchsorted(tokens, targets)] = 0
    return tokens, correction


@torch.no_grad()
def _measure(head: TiedHead, frequencies: Tensor, batches: list[_Batch], texts: int) -> Measured:
    found, likelihood = 0.0, 0.0
    for batch in batches:
        scores = head(head.context(batch.ids, batch.mask, batch.places))
        likelihood -= float(cross_entropy(scores, batch.targets, reduction="sum"))
        found += int((scores.argmax(1) == batch.targets).sum())
    targets = torch.cat([batch.targets for batch in batches])
    by_frequency = float(frequencies[targets].log().mean())
    return Measured(
        accuracy=found / len(targets),
        perplexity=float(np.exp(-likelihood / len(targets))),
        unigram_accuracy=float((targets == frequencies.argmax()).float().mean()),
        unigram_perplexity=float(np.exp(-by_frequency)),
        tokens=len(targets),
        texts=texts,
    )
