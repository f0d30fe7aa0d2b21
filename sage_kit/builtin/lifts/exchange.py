"""The exchange of tokens in a text, which the lifts `replace` and `replace_random` share."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from sage_kit.builtin.lifts.token_replacement import HALF, highest_share, refuse_pooled
from sage_kit.builtin.lifts.token_sources import Candidates, Examples, candidates_of, draw_examples
from sage_kit.components import LiftRequest, TextBatch, TokenBatch
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from sage_kit.builtin.lifts import ReplaceRandomOptions
    from sage_kit.components import BuildContext


class Exchange:
    """Exchanges a share of the words of a text for others, and runs the input layers on the new text.

    Parameters
    ----------
    name : str
        Of the lift, for messages.
    options : ReplaceRandomOptions
    context : BuildContext
    source : str
        Where the tokens come from (`candidates_of`).
    temperature : float
        0 for the choice that moves the text furthest toward the synthetic vector, infinity for a random one.
    candidates : int
        Tokens that each place may choose from.

    Raises
    ------
    CompatibilityError
        For ``granularity="pooled"``.
    """

    def __init__(
        self,
        name: str,
        options: ReplaceRandomOptions,
        context: BuildContext,
        *,
        source: str,
        temperature: float = math.inf,
        candidates: int = 1,
    ) -> None:
        refuse_pooled(name, context)
        self._name = name
        self._options = options
        self._source = source
        self._temperature = temperature
        self._candidates = candidates
        self._examples: Examples | None = None

    def lift(self, request: LiftRequest) -> TokenBatch:
        """Return the token states of the new text; as long as the anchors', special tokens unchanged."""
        text, embed = request.text, request.embed
        if text is None or embed is None or request.tokens is None:
            raise CompatibilityError(f"lift {self._name!r} exchanges tokens of text, and there is no text here")
        examples = self._examples
        if examples is None or examples.of is not request.tokens:
            examples = self._examples = Examples(request.tokens)
        exchange = self._spans if self._options.span > 1 else self._tokens
        ids = exchange(request, text, examples)
        return embed(replace(text, ids=ids))

    # ---- single tokens

    def _tokens(self, request: LiftRequest, text: TextBatch, examples: Examples) -> torch.Tensor:
        """New ids of the batch."""
        first, leaders = self._units(text)
        counts = self._counts(leaders.sum(1), request.generator)
        most = self._most(leaders.shape[1])
        if math.isinf(self._temperature):
            along = None
        else:
            everywhere = torch.arange(text.ids.shape[1], device=text.ids.device).expand_as(text.ids)
            along = self._along(request, text.ids, text.types, everywhere)
        scores = torch.zeros(leaders.shape, device=leaders.device) if along is None else -along
        keys = self._drawn(scores, leaders, request.generator)
        keys, places = keys.topk(most, dim=1)
        chosen = (torch.arange(most, device=keys.device) < counts[:, None]) & torch.isfinite(keys)

        at_chosen = torch.zeros_like(text.mask).scatter(1, places, chosen)
        leaving = at_chosen.gather(1, first) & text.words
        found = candidates_of(
            self._source, request, text, examples, places, leaving, self._options.examples, self._candidates
        )
        newcomers, is_good = self._pick(request, text, places, found, along)
        current = text.ids.gather(1, places)
        at_leaders = text.ids.scatter(1, places, torch.where(chosen & is_good, newcomers, current))
        return torch.where(text.words, at_leaders.gather(1, first), text.ids)

    def _units(self, text: TextBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """What gives way together, both of shape (batch, tokens).

        Returns
        -------
        first : Tensor, int64
            For each place, the first one of its unit: its own, or with `consistent` the first place of the same token.
        leaders : Tensor, bool
            The places of text that are the first of their unit.
        """
        places = torch.arange(text.ids.shape[1], device=text.ids.device)
        if not self._options.consistent:
            return places.expand_as(text.ids), text.words
        same = (text.ids[:, :, None] == text.ids[:, None, :]) & text.words[:, None, :]
        first = same.to(torch.uint8).argmax(dim=2)  # the first of equal ones
        return first, text.words & (first == places)

    def _counts(self, units: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """How many units of each row give way: the share, rounded half up, at least one."""
        share = self._options.share
        if isinstance(share, tuple):
            low, high = share
            shares = (low + (high - low) * torch.rand(len(units), generator=generator)).to(units.device)
        else:
            shares = torch.full((len(units),), float(share), device=units.device)
        return torch.minimum(torch.floor(units * shares + HALF).clamp(min=1).long(), units)

    def _most(self, tokens: int) -> int:
        """The most units that give way in a text of so many tokens: to ask the counts would wait for the device."""
        return min(tokens, max(1, int(tokens * highest_share(self._options.share) + HALF)))

    def _along(
        self, request: LiftRequest, ids: torch.Tensor, types: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """How far tokens at some places lie along the displacements of their texts; all of shape (batch, m)."""
        if request.embed_alone is None:
            raise CompatibilityError(f"lift {self._name!r} compares tokens by embeddings, and there are none here")
        states = request.embed_alone(ids, types, places)
        return torch.einsum("btd,bd->bt", states, request.displacement.to(states.dtype))

    def _drawn(self, scores: torch.Tensor, valid: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Keys whose largest ones are a draw by the softmax of scores over the temperature, in units of their spread.

        The draw of several without replacement is that of the largest of scores with Gumbel noise (Kool et al. 2019,
        arXiv 1903.06059). Minus infinity where not valid.
        """
        if self._temperature == 0:
            keys = scores
        else:
            uniform = torch.rand(scores.shape, generator=generator, dtype=torch.float64).clamp(min=1e-300)
            noise = (-torch.log(-torch.log(uniform))).to(scores.device, scores.dtype)
            if math.isinf(self._temperature):
                keys = noise
            else:
                keys = scores / (self._temperature * _spread(scores, valid)) + noise
        return keys.masked_fill(~valid, -torch.inf)

    def _pick(
        self, request: LiftRequest, text: TextBatch, places: torch.Tensor, found: Candidates, along: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One newcomer for each place, of shape (batch, p), and whether it shall come in."""
        weights = torch.zeros(found.ids.shape, device=text.ids.device)
        if found.log_weights is not None and self._temperature > 0:
            weights = found.log_weights.to(weights.dtype)
        if along is None:
            gains = torch.zeros_like(weights)
        else:
            types = text.types.gather(1, places)
            columns = [self._along(request, column, types, places) for column in found.ids.unbind(2)]
            gains = torch.stack(columns, dim=2).to(weights.dtype)
            gains = gains - along.gather(1, places).unsqueeze(2).to(weights.dtype)
        if found.ids.shape[2] == 1:
            best = torch.zeros(places.shape, dtype=torch.int64, device=places.device)
        elif self._temperature == 0:
            best = gains.masked_fill(~found.valid, -torch.inf).argmax(2)
        else:
            keys = self._drawn(gains, found.valid, request.generator)
            best = (keys + weights.masked_fill(~found.valid, 0)).argmax(2)
        best = best.unsqueeze(2)
        is_good = found.valid.gather(2, best).squeeze(2)
        if self._temperature == 0:
            is_good &= gains.gather(2, best).squeeze(2) > 0
        return found.ids.gather(2, best).squeeze(2), is_good

    # ---- spans

    def _spans(self, request: LiftRequest, text: TextBatch, real: Examples) -> torch.Tensor:
        """New ids of the batch, in which spans of text gave way to spans of other examples."""
        width, device = self._options.span, text.ids.device
        words = text.words
        if words.shape[1] < width:
            return text.ids
        # places where a whole span fits: a special token ends a text
        fits = words.unfold(1, width, 1).all(2)
        counts = self._counts(words.sum(1), request.generator)
        spans = torch.div(counts + width - 1, width, rounding_mode="floor")
        most = min(-(-self._most(words.shape[1]) // width), fits.shape[1])
        keys, starts = self._drawn(torch.zeros(fits.shape, device=device), fits, request.generator).topk(most, dim=1)
        chosen = (torch.arange(most, device=device) < spans[:, None]) & torch.isfinite(keys)
        examples = draw_examples(request, self._source, self._options.examples)
        which = torch.randint(examples.shape[1], starts.shape, generator=request.generator).numpy()
        u = torch.rand(starts.shape, generator=request.generator, dtype=torch.float64).numpy()
        begin, valid = real.draw(np.take_along_axis(examples, which, axis=1), u)
        ids = text.ids.clone()
        flat = real.ids if len(real.ids) else np.zeros(1, np.int64)
        end = real.end if len(real.ids) else np.zeros(1, np.int64)
        for step in range(width):
            inside = valid & (begin + step < end[begin])
            newcomers = torch.from_numpy(flat[np.minimum(begin + step, len(flat) - 1)]).to(device)
            come_in = chosen & torch.from_numpy(inside).to(device)
            places = starts + step
            ids.scatter_(1, places, torch.where(come_in, newcomers, ids.gather(1, places)))
        return ids


def _spread(scores: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each row's valid scores, broadcast to their shape; 1 where they do not differ."""
    rows = scores.flatten(1).masked_fill(~valid.flatten(1), torch.nan)
    mean = rows.nanmean(1, keepdim=True)
    spread = (rows - mean).square().nanmean(1).sqrt()
    spread = torch.where(torch.isfinite(spread) & (spread > 0), spread, torch.ones_like(spread))
    return spread.view(-1, *[1] * (scores.ndim - 1))
