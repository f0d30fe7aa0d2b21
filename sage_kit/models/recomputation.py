"""Blocks whose inner values are computed again for the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.checkpoint import checkpoint

Call = Callable[..., Any]
"""Calls a function with arguments."""


def kept(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What the function returns."""
    return function(*arguments, **named)


def recomputed(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What the function returns, of which only the arguments are kept for the backward pass.

    The random state is that of the first time, so dropout drops the same and the gradients are the same (Chen et al.
    2016, Training deep nets with sublinear memory cost, arXiv 1604.06174).
    """
    return checkpoint(function, *arguments, use_reentrant=False, **named)
