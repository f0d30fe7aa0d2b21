"""The exchange of token states that keep the positions of their own texts: the best-scored ones come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from sage_kit.components import LiftRequest, TokenBatch
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Integers

HALF = 0.5 + 1e-4
"""Added before rounding down; the tiny term lets 0.35 * 10 round up in single precision, too."""


def refuse_pooled(lift: str, context: BuildContext) -> None:
    """Refuse a run whose examples have one token each: none of them could give way.

    Raises
    ------
    CompatibilityError
        For ``granularity="pooled"``.
    """
    if context.config.granularity == "pooled":
        raise CompatibilityError(
            f"lift {lift!r} replaces tokens, and with granularity='pooled' an example has only one: take lift 'shift' "
            "or granularity='token'"
        )


def highest_share(share: float | tuple[float, float]) -> float:
    """A share, the higher one where it is drawn between two."""
    return share[1] if isinstance(share, tuple) else share


def inner_tokens(mask: torch.Tensor) -> torch.Tensor:
    """Mask, of shape (batch, tokens), of the real tokens but the first and the last, which are the special ones."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    return mask & (positions > 0) & (positions < mask.sum(dim=1, keepdim=True) - 1)


def replace_tokens(
    request: LiftRequest,
    sources: Integers,
    share: float,
    score: Callable[[torch.Tensor], torch.Tensor],
    only_gains: bool,
) -> TokenBatch:
    """Exchange the lowest-scored inner tokens of each anchor for the highest-scored inner tokens of its sources.

    A row with n inner tokens exchanges ``share * n`` of them, rounded half up and at least one; fewer when its sources
    have fewer. The best newcomer takes the place of the worst token, the second best that of the second worst, and so
    on.

    Parameters
    ----------
    request : LiftRequest
    sources : array of shape (batch, s), int64
        For each row, the real examples whose tokens may come in. They are fetched one column at a time, so that memory
        is that of a few batches whatever s is.
    share : float
        Above 0, up to 1.
    score : callable
        Scores, of shape (batch, tokens), of token states of shape (batch, tokens, dim).
    only_gains : bool
        Leave out exchanges that do not raise the score.

    Returns
    -------
    TokenBatch
        Of the anchors' shape and mask; tokens that are not exchanged are unchanged.
    """
    states, mask = request.anchor.states, request.anchor.mask
    batch, tokens, dim = states.shape
    # a bound from the shape: to ask the counts themselves would wait for the device
    most = _exchanged(tokens - 2, share)
    if most == 0:
        return request.anchor
    inner = inner_tokens(mask)
    counts = torch.floor(inner.sum(dim=1) * share + HALF).clamp(min=1)
    worst, places = score(states).masked_fill(~inner, torch.inf).topk(most, dim=1, largest=False)
    best = worst.new_full((batch, most), -torch.inf)
    newcomers = states.new_zeros(batch, most, dim)
    for column in sources.T:
        source = request.states(column)
        scores = score(source.states).masked_fill(~inner_tokens(source.mask), -torch.inf)
        best, found = torch.cat([best, scores], dim=1).topk(most, dim=1)
        held = _gather(newcomers, found.clamp(max=most - 1))
        fresh = _gather(source.states, (found - most).clamp(min=0)).to(states.dtype)
        newcomers = torch.where((found < most).unsqueeze(-1), held, fresh)
    ranks = torch.arange(most, device=states.device)
    exchanged = (ranks < counts.unsqueeze(1)) & torch.isfinite(worst) & torch.isfinite(best)
    if only_gains:
        exchanged &= best > worst
    incoming = torch.where(exchanged.unsqueeze(-1), newcomers, _gather(states, places))
    return TokenBatch(states.scatter(1, places.unsqueeze(-1).expand(-1, -1, dim), incoming), mask)


def _exchanged(inner: int, share: float) -> int:
    """How many of so many inner tokens are exchanged."""
    return max(1, int(inner * share + HALF)) if inner > 0 else 0


def _gather(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Token states, of shape (batch, places, dim), at places of shape (batch, places)."""
    return states.gather(1, places.unsqueeze(-1).expand(-1, -1, states.shape[2]))
