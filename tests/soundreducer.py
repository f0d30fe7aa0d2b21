"""A sound reducer, which tests of the checks break in one way each."""

from __future__ import annotations

from typing import Any

import numpy as np


class Axes:
    """A sound reducer: the first columns."""

    def __init__(self, options: Any, context: Any) -> None:
        self.width = context.n_components
        self.seed = context.seed

    def fit_transform(self, vectors: Any) -> Any:
        self.mean_ = vectors.mean(0)
        return self.transform(vectors)

    def transform(self, vectors: Any) -> Any:
        return vectors[:, : self.width].copy()

    def inverse_transform(self, coordinates: Any) -> Any:
        vectors = np.tile(self.mean_, (len(coordinates), 1))
        vectors[:, : self.width] = coordinates
        return vectors

    def get_state(self) -> dict[str, Any]:
        return {"mean": self.mean_}

    def set_state(self, state: Any) -> None:
        self.mean_ = state["mean"]
