"""Filter `density`: drops synthetic vectors that lie where hardly any real ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sage_kit.builtin.neighbors import NeighborIndex
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.filters import DensityOptions
    from sage_kit.components import BuildContext, FilterRequest

CHUNK = 4096
"""Synthetic vectors that are looked up at once."""


class DensityFilter:
    """Keeps a synthetic example if its k-th nearest real vector is no further than real ones have theirs.

    Distances are Euclidean and in full space. The limit is a quantile of the distances from real vectors to the k-th
    nearest other one.

    Parameters
    ----------
    options : DensityOptions
    context : BuildContext
        Its seed chooses the real vectors that are measured where there are more than ``sample``.
    """

    def __init__(self, options: DensityOptions, context: BuildContext) -> None:
        self.options = options
        self.seed = context.seed

    def keep(self, request: FilterRequest) -> NDArray[np.bool_]:
        """Return an array of shape (m,): True for the examples to keep.

        Raises
        ------
        CompatibilityError
            For fewer than k + 1 real vectors.
        """
        k, n = self.options.k, len(request.real_vectors)
        if n <= k:
            raise CompatibilityError(
                f"filter 'density' looks for {k} neighbours among {n - 1} other examples: lower its option k or use "
                "more data"
            )
        index = NeighborIndex(request.real_vectors)
        measured = np.arange(n)
        if n > self.options.sample:
            measured = np.sort(np.random.default_rng(self.seed).choice(n, self.options.sample, replace=False))
        limit = np.quantile(index.query_others(measured, k)[0][:, -1], self.options.quantile)
        keep = np.empty(len(request.vectors), dtype=bool)
        for start in range(0, len(keep), CHUNK):
            block = slice(start, start + CHUNK)
            keep[block] = index.query(request.vectors[block], k)[0][:, -1] <= limit
        return keep
