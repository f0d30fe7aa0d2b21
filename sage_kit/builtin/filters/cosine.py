"""Filter `cosine`: drops synthetic vectors that point away from every real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.filters import CosineOptions
    from sage_kit.components import BuildContext, FilterRequest, Floats

SYNTHETIC_BLOCK, REAL_BLOCK = 2048, 8192
"""Rows that are compared at once, so that memory stays flat."""


class CosineFilter:
    """Keeps a synthetic example if its largest cosine with any real vector is at least ``minimum``.

    Parameters
    ----------
    options : CosineOptions
    context : BuildContext
    """

    def __init__(self, options: CosineOptions, context: BuildContext) -> None:
        self.options = options

    def keep(self, request: FilterRequest) -> NDArray[np.bool_]:
        """Return an array of shape (m,): True for the examples to keep."""
        minimum = self.options.minimum
        keep = np.zeros(len(request.vectors), dtype=bool)
        for start in range(0, len(keep), SYNTHETIC_BLOCK):
            block = slice(start, start + SYNTHETIC_BLOCK)
            synthetic = unit_rows(request.vectors[block])
            # the anchor is one of the real vectors and most often near enough: only the others need the search
            kept = (synthetic * unit_rows(request.real_vectors[request.anchors[block]])).sum(axis=1) >= minimum
            for first in range(0, len(request.real_vectors), REAL_BLOCK):
                open_rows = np.flatnonzero(~kept)
                if not len(open_rows):
                    break
                real = unit_rows(request.real_vectors[first : first + REAL_BLOCK])
                kept[open_rows] = (synthetic[open_rows] @ real.T).max(axis=1) >= minimum
            keep[block] = kept
        return keep


def unit_rows(vectors: Floats) -> Floats:
    """Rows scaled to length one, float32; rows of zeros stay zero."""
    exact = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact / np.where(lengths == 0, np.float32(1), lengths), dtype=np.float32)
