"""Where the tokens come from that a lift puts into a text: other examples, tokens that are alike, a language model.

Each source answers for every place of a batch with some candidates; all are real tokens, none of them special.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import Integers, LiftRequest, TextBatch, TokenIds, Vocabulary

NEIGHBORS, ANY, SAME_CLASS, FREQUENCY = "neighbors", "any", "same_class", "frequency"
NEAREST, BETWEEN, LIKELY = "nearest", "between", "masked_lm"

LEVELS = 10
"""Groups, by quantiles of the teacher's output, whose examples count as of the same class in a regression."""


@dataclass(frozen=True)
class Candidates:
    """Tokens that may come in.

    Attributes
    ----------
    ids : Tensor of shape (batch, places, candidates), int64
    valid : Tensor of the same shape, bool
        False where a source had none to give.
    log_weights : Tensor of the same shape, or None
        How likely each is by the source itself; None for all alike.
    """

    ids: torch.Tensor
    valid: torch.Tensor
    log_weights: torch.Tensor | None = None


class Examples:
    """The tokens of text of the real examples, flat, without special ones.

    Parameters
    ----------
    tokens : TokenIds
    """

    def __init__(self, tokens: TokenIds) -> None:
        self.of = tokens
        places = np.flatnonzero(~np.asarray(tokens.special))
        self.ids = np.asarray(tokens.ids)[places].astype(np.int64)
        self.offsets = np.searchsorted(places, tokens.offsets)
        # a span ends with its text: where the second begins or the example ends
        second = np.asarray(tokens.second)[places]
        example = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        last = np.ones(len(places), bool)
        last[:-1] = (second[1:] != second[:-1]) | (example[1:] != example[:-1])
        ends = np.flatnonzero(last) + 1
        self.end = ends[np.searchsorted(ends, np.arange(len(places)), side="right")] if len(ends) else ends

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of text of each example, of shape (n,)."""
        return np.diff(self.offsets)

    def draw(self, examples: Integers, u: NDArray[np.float64]) -> tuple[Integers, NDArray[np.bool_]]:
        """Places among the flat tokens, each drawn from an example, and whether it has any; of the shape of both."""
        lengths = self.lengths[examples]
        place = self.offsets[:-1][examples] + np.minimum((u * lengths).astype(np.int64), np.maximum(lengths - 1, 0))
        return np.minimum(place, max(len(self.ids) - 1, 0)), lengths > 0


def draw_examples(request: LiftRequest, source: str, count: int) -> Integers:
    """Real examples, of shape (batch, count), that tokens may come from.

    Raises
    ------
    CompatibilityError
        For neighbours where the sampler names none.
    """
    rows, generator = len(request.anchors), request.generator
    if source == NEIGHBORS:
        if request.neighbors is None:
            raise CompatibilityError(
                "lift 'replace' takes tokens of the neighbours in the map, and this sampler names none: set "
                "source='any' in lift_options or take another sampler"
            )
        return np.asarray(request.neighbors[:, :count], dtype=np.int64)
    if source == SAME_CLASS:
        return _of_the_same_class(request, torch.rand((rows, count), generator=generator).numpy())
    drawn: Integers = torch.randint(request.n_real, (rows, count), generator=generator).numpy()
    return drawn


def _of_the_same_class(request: LiftRequest, u: NDArray[np.float32]) -> Integers:
    """Examples of the class that the teacher puts the anchor into; of a number, of the same tenth of its outputs."""
    if request.teacher_logits is None:
        raise CompatibilityError("source 'same_class' goes by the teacher's outputs, and there are none here")
    logits = np.asarray(request.teacher_logits)
    if logits.shape[1] > 1:
        group = logits.argmax(axis=1)
    else:
        rank = np.argsort(np.argsort(logits[:, 0], kind="stable"), kind="stable")
        group = rank * LEVELS // len(rank)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 2))
    own = group[request.anchors]
    sizes = (starts[own + 1] - starts[own])[:, None]
    place = starts[own][:, None] + np.minimum((u * sizes).astype(np.int64), sizes - 1)
    return np.asarray(order[place], dtype=np.int64)


def candidates_of(
    source: str, request: LiftRequest, text: TextBatch, examples: Examples, places: torch.Tensor,
    leaving: torch.Tensor, examples_each: int, count: int,
) -> Candidates:  # fmt: skip
    """Tokens that may take some places of a batch.

    Parameters
    ----------
    source : str
        "neighbors", "any", "same_class", "frequency", "nearest", "between" or "masked_lm".
    request : LiftRequest
    text : TextBatch
        The anchors'.
    examples : Examples
        Of the real examples.
    places : Tensor of shape (batch, p), int64
    leaving : Tensor of shape (batch, tokens), bool
        All tokens that give way; a language model does not see them.
    examples_each : int
        Real examples, per row, that tokens come from.
    count : int
        Candidates per place.

    Raises
    ------
    CompatibilityError
        For what the request does not hold.
    """
    device, shape = text.ids.device, (*places.shape, count)
    current = text.ids.gather(1, places)
    if source == NEAREST:
        return _found(_vocabulary(request).nearest(current, count))
    if source == LIKELY:
        ids, log_probabilities = _vocabulary(request).likely(text, leaving, count)
        at_places = ids.new_full((*leaving.shape, count), -1)
        weights = log_probabilities.new_full(at_places.shape, -torch.inf)
        at_places[leaving], weights[leaving] = ids, log_probabilities
        index = places.unsqueeze(2).expand(shape)
        return _found(at_places.gather(1, index), weights.gather(1, index))
    if source == FREQUENCY:
        found = torch.randint(max(len(examples.ids), 1), shape, generator=request.generator).numpy()
        valid = np.full(shape, len(examples.ids) > 0)
    else:
        chosen = draw_examples(request, ANY if source == BETWEEN else source, examples_each)
        which = torch.randint(chosen.shape[1], shape, generator=request.generator).numpy()
        u = torch.rand(shape, generator=request.generator, dtype=torch.float64).numpy()
        found, valid = examples.draw(np.take_along_axis(chosen[:, None], which, axis=2), u)
    flat = examples.ids if len(examples.ids) else np.zeros(1, np.int64)
    ids = torch.from_numpy(flat[found]).to(device)
    if source == BETWEEN:
        shares = torch.rand(shape, generator=request.generator).to(device)
        ids = _vocabulary(request).between(current.unsqueeze(2).expand(shape), ids, shares)
        return _found(torch.where(torch.from_numpy(valid).to(device), ids, -1))
    return Candidates(ids, torch.from_numpy(valid).to(device))


def _found(ids: torch.Tensor, log_weights: torch.Tensor | None = None) -> Candidates:
    """Answers of the vocabulary, which are -1 where there are none."""
    return Candidates(ids.clamp(min=0), ids >= 0, log_weights)


def _vocabulary(request: LiftRequest) -> Vocabulary:
    if request.vocabulary is None:
        raise CompatibilityError("this source of tokens asks the teacher's vocabulary, and there is none here")
    return request.vocabulary
