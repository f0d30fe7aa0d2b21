"""Reducer `random_projection`: coordinates along random directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, Floats, Options


class RandomProjectionReducer:
    """Gaussian random projection of the vectors less their mean.

    Parameters
    ----------
    options : Options
    context : BuildContext
        Gives the number of components and the seed of the directions.

    Attributes
    ----------
    components_ : array of shape (n_components, dim), float32
        Random directions, not orthogonal, of independent normal entries of variance 1 / n_components.
    inverse_components_ : array of shape (dim, n_components), float32
        Their pseudo-inverse.
    mean_ : array of shape (dim,), float32
        Mean of the vectors it was fitted on.
    """

    STATE = ("components_", "inverse_components_", "mean_")

    components_: Floats
    inverse_components_: Floats
    mean_: Floats

    def __init__(self, options: Options, context: BuildContext) -> None:
        self.n_components = context.n_components
        self.seed = context.seed

    def fit(self, vectors: Floats) -> RandomProjectionReducer:
        """Draw the directions and take the mean of vectors of shape (n, dim); return self.

        Raises
        ------
        CompatibilityError
            When there are more components than dimensions.
        """
        from sklearn.random_projection import GaussianRandomProjection

        dim = vectors.shape[1]
        if self.n_components > dim:
            raise CompatibilityError(
                f"n_components is {self.n_components}, but reducer 'random_projection' takes at most {dim} of vectors "
                f"with {dim} dimensions"
            )
        # scikit-learn's seeds have 32 bits
        projection = GaussianRandomProjection(
            n_components=self.n_components, random_state=self.seed % 2**32, compute_inverse_components=True
        ).fit(vectors)
        self.components_ = np.ascontiguousarray(projection.components_, dtype=np.float32)
        self.inverse_components_ = np.ascontiguousarray(projection.inverse_components_, dtype=np.float32)
        self.mean_ = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        return self

    def transform(self, vectors: Floats) -> Floats:
        """Coordinates of shape (n, n_components), float32, of any vectors of shape (n, dim)."""
        return np.asarray((vectors - self.mean_) @ self.components_.T, dtype=np.float32)

    def fit_transform(self, vectors: Floats) -> Floats:
        """Fit, then transform the same vectors."""
        return self.fit(vectors).transform(vectors)

    def inverse_transform(self, coordinates: Floats) -> Floats:
        """Vectors of shape (n, dim), float32, whose coordinates these are and which lie closest to the mean."""
        return np.asarray(coordinates @ self.inverse_components_.T + self.mean_, dtype=np.float32)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The learned attributes by name."""
        return {name: getattr(self, name) for name in self.STATE}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `get_state` returned."""
        for name in self.STATE:
            setattr(self, name, np.asarray(state[name], dtype=np.float32))
