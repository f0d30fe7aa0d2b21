"""Vectors drawn to a covariance, as many as wanted, and a vector store made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.models.vectors import VectorStore
from sage_kit.storage import tensorfile

Floats = NDArray[np.float32]

BLOCK_ROWS = 8192
"""Vectors that are drawn at once, so that files larger than memory can be written."""

LONGEST = 64
"""Most tokens of a generated example."""


@dataclass(frozen=True, eq=False)
class Covariance:
    """Mean and covariance of vectors, to draw others like them.

    Attributes
    ----------
    mean : array of shape (dim,), float32
    factor : array of shape (dim, dim), float32
        ``factor.T @ factor`` is the covariance.
    """

    mean: Floats
    factor: Floats

    @classmethod
    def of(cls, vectors: Floats) -> Covariance:
        """Of vectors of shape (n, dim); n above 1."""
        exact = np.asarray(vectors, dtype=np.float64)
        values, directions = np.linalg.eigh(np.cov(exact, rowvar=False))
        factor = np.sqrt(np.maximum(values, 0))[:, None] * directions.T
        return cls(exact.mean(axis=0).astype(np.float32), factor.astype(np.float32))

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return len(self.mean)

    def draw(self, count: int, rng: np.random.Generator) -> Floats:
        """Vectors of shape (count, dim), normally distributed."""
        drawn = rng.standard_normal((count, self.dim), dtype=np.float32) @ self.factor
        drawn += self.mean
        return drawn


def write_vectors(path: Path, covariance: Covariance, count: int, tokens: int, seed: int) -> None:
    """Write a file from which `open_store` makes a vector store, block by block.

    Parameters
    ----------
    path : Path
    covariance : Covariance
        Of the pooled vectors.
    count : int
        Examples.
    tokens : int
        Mean number of tokens of an example, Poisson distributed; 0 for the pooled vectors alone.
    seed : int
    """
    rng = np.random.default_rng(seed)
    layout: dict[str, Any] = {"pooled": ("float32", (count, covariance.dim)), "offsets": ("int64", (count + 1,))}
    offsets = np.arange(count + 1, dtype=np.int64)
    if tokens:
        offsets[1:] = np.cumsum(np.clip(rng.poisson(tokens, count), 2, LONGEST))
        layout["states"] = ("float32", (int(offsets[-1]), covariance.dim))
    arrays = tensorfile.create(path, layout)
    arrays["offsets"][:] = offsets
    for start in range(0, count, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, count)
        pooled = covariance.draw(stop - start, rng)
        if tokens:
            first, last = offsets[start], offsets[stop]
            lengths = np.diff(offsets[start : stop + 1])
            scatter = rng.standard_normal((last - first, covariance.dim), dtype=np.float32)
            states = np.repeat(pooled, lengths, axis=0) + np.float32(covariance.factor.std()) * scatter
            arrays["states"][first:last] = states
            sums = np.add.reduceat(states, offsets[start:stop] - first)
            pooled = (sums / lengths[:, None]).astype(np.float32)
        arrays["pooled"][start:stop] = pooled
    for values in arrays.values():
        if isinstance(values, np.memmap):
            values.flush()


def open_store(path: Path) -> VectorStore:
    """The store that `write_vectors` wrote, memory-mapped; without tokens, each example is its pooled vector."""
    arrays = tensorfile.open_mapped(path)
    states = arrays.get("states", arrays["pooled"])
    return VectorStore(states, np.asarray(arrays["offsets"]), arrays["pooled"], key=path.stem)
