"""Batches of near-equal lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BUCKET_WIDTH = 0.05
"""Lengths of a bucket differ by at most this share; examples of one bucket count as equally long."""


def plan_batches(
    lengths: ArrayLike,
    *,
    batch_size: int,
    batch_tokens: int,
    rng: np.random.Generator | None = None,
) -> list[NDArray[np.int64]]:
    """Batches of near-equal lengths, so that little of them is padding.

    Examples are sorted by bucket of length, the longest first, and cut into batches that stay within both limits when
    every example is padded to the longest of its bucket. The limits thus hold whatever the order within a bucket, and
    the number and the sizes of the batches depend on `lengths` alone: each pass over the same examples takes as many
    steps.

    Parameters
    ----------
    lengths : array of shape (n,)
        Tokens per example.
    batch_size : int
        Most examples in a batch.
    batch_tokens : int
        Most tokens in a batch, padding included; a single longer example is a batch of its own.
    rng : numpy Generator, optional
        Draws which examples of a bucket share a batch, and the order of the batches. Without it, examples go by
        length and position, and the longest batch comes first.

    Returns
    -------
    list of array of shape (batch,), int64
        Indices into `lengths`; each example is in exactly one batch.
    """
    size = np.maximum(np.asarray(lengths, dtype=np.int64).reshape(-1), 1)
    n = len(size)
    if n == 0:
        return []
    bucket = np.floor(np.log(size) / np.log1p(BUCKET_WIDTH)).astype(np.int64)
    within = -size if rng is None else rng.permutation(n)
    order = np.lexsort((within, -bucket))  # by bucket, longest first; then by `within`
    longest = np.zeros(int(bucket.max()) + 1, np.int64)
    np.maximum.at(longest, bucket, size)
    bounds = _cut(longest[bucket[order]], batch_size, batch_tokens)
    batches = np.split(order, bounds)
    if rng is None:
        return batches
    return [batches[index] for index in rng.permutation(len(batches))]


def _cut(padded: NDArray[np.int64], batch_size: int, batch_tokens: int) -> list[int]:
    """Where to cut examples of falling length into batches: the start of each batch but the first."""
    starts = [0]
    while True:
        step = min(batch_size, max(1, batch_tokens // int(padded[starts[-1]])))
        if starts[-1] + step >= len(padded):
            break
        starts.append(starts[-1] + step)
    if len(starts) > 1:
        # the last batch may be one example, always among the shortest; share evenly with the one before
        starts[-1] = min(starts[-1], starts[-2] + (len(padded) - starts[-2] + 1) // 2)
    return starts[1:]
