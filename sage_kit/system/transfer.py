"""Copies from the host to a device, for which nothing waits, and batches that are gathered ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

Placing = Callable[[], T]
"""Puts on the device what has been gathered on the host."""


def pinned(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host as a copy to the device wants it: for a card in pinned memory.

    Without it, a copy to a card waits until the card has done all before it. Torch uses pinned memory again once the
    copies from it are done.
    """
    return tensor.pin_memory() if device.type == "cuda" and not tensor.is_pinned() else tensor


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on a device, without waiting for the copy."""
    return pinned(tensor, device).to(device, non_blocking=True)


def gathers_ahead(device: torch.device) -> bool:
    """Whether batches for a device are gathered while it computes: a CPU would gather instead of computing."""
    return device.type == "cuda"


def prefetched(gathers: Iterable[Callable[[], Placing[T]]], ahead: bool) -> Generator[T, None, None]:
    """Batches in order; with `ahead` the next one is gathered in a thread while the present one is in use.

    Close the iterator when it is not used up, so that the thread ends.

    Parameters
    ----------
    gathers : iterable of callable
        Each gathers a batch on the host, without touching the device or drawing random numbers, and returns what puts
        it on the device, which is called in the thread of the caller.
    ahead : bool
    """
    if not ahead:
        for gather in gathers:
            yield gather()()
        return
    card = torch.cuda.current_device() if torch.cuda.is_initialized() else -1

    def begin() -> None:
        # a thread begins with the first card, on which pinning would open a context
        if card >= 0:
            torch.cuda.set_device(card)

    with ThreadPoolExecutor(1, thread_name_prefix="gather", initializer=begin) as thread:
        waiting = None
        for gather in gathers:
            following = thread.submit(gather)
            if waiting is not None:
                yield waiting.result()()
            waiting = following
        if waiting is not None:
            yield waiting.result()()
