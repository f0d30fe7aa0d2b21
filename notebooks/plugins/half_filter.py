"""A filter that keeps a fixed share of the synthetic examples: the most coherent, the least, or any.

To train on as many examples as without it, make twice as many:

    sage-kit run --plugin half_filter.py --filter half --filter-options 'which="top"' --synthetic-ratio 2 ...
"""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import FilterSpec, Options

BLOCK = 2048
"""Synthetic vectors that are compared with the real ones at once."""


class HalfOptions(Options):
    """Options of `half`."""

    which: Literal["top", "bottom", "random"] = Field(
        default="top", description="Keep those of the highest cosine to a real vector, of the lowest, or any."
    )
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the examples that is kept [share].")


class HalfFilter:
    """Keeps a share of the synthetic examples, by rank of their largest cosine with any real vector.

    A filter with a limit keeps as many as happen to pass; by rank, each half has the same size.
    """

    def __init__(self, options, context):
        self.options = options
        self.seed = context.seed

    def keep(self, request):
        """Return an array of shape (m,): True for the examples to keep."""
        total = len(request.vectors)
        count = round(self.options.share * total)
        if self.options.which == "random":
            # from the vectors too: each round draws anew, and the same one draws alike when it is run again
            rng = np.random.default_rng([self.seed, zlib.crc32(np.ascontiguousarray(request.vectors))])
            order = rng.permutation(total)
        else:
            cosine = nearest_cosine(request.vectors, request.real_vectors)
            order = np.argsort(-cosine if self.options.which == "top" else cosine, kind="stable")
        keep = np.zeros(total, bool)
        keep[order[:count]] = True
        return keep


def nearest_cosine(vectors, real):
    """The largest cosine of each vector with any real one: (m, dim) and (n, dim) to (m,)."""
    directions = unit(real).T
    starts = range(0, len(vectors), BLOCK)
    best = [(unit(vectors[start : start + BLOCK]) @ directions).max(axis=1) for start in starts]
    return np.concatenate([np.empty(0, np.float32), *best])


def unit(rows):
    """Rows scaled to length one; rows of zeros stay zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows, np.float32) / np.where(lengths == 0, 1, lengths)


@hookimpl
def sage_filters():
    yield FilterSpec(
        name="half",
        summary="Keeps a share of the synthetic examples: the most coherent, the least, or any",
        factory=HalfFilter,
        options=HalfOptions,
    )
