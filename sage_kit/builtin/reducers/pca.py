"""Reducer `pca`: principal components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.builtin.reducers import PCAOptions
    from sage_kit.components import BuildContext, Floats


class PCAReducer:
    """Principal component analysis with the solver that scikit-learn finds fit for the size.

    Parameters
    ----------
    options : PCAOptions
    context : BuildContext
        Gives the number of components and the seed of the randomised solver.

    Attributes
    ----------
    components_ : array of shape (n_components, dim), float32
        Orthonormal directions, the one of the largest variance first.
    mean_ : array of shape (dim,), float32
        Mean of the vectors it was fitted on.
    explained_variance_ : array of shape (n_components,), float32
        Variance along each direction.
    explained_variance_ratio_ : array of shape (n_components,), float32
        The same as a share of the whole variance.
    """

    STATE = ("components_", "mean_", "explained_variance_", "explained_variance_ratio_")

    components_: Floats
    mean_: Floats
    explained_variance_: Floats
    explained_variance_ratio_: Floats

    def __init__(self, options: PCAOptions, context: BuildContext) -> None:
        self.options = options
        self.n_components = context.n_components
        self.seed = context.seed

    def fit(self, vectors: Floats) -> PCAReducer:
        """Learn the directions from vectors of shape (n, dim); return self.

        Raises
        ------
        CompatibilityError
            For more components than there are vectors or dimensions.
        """
        from sklearn.decomposition import PCA

        rows, dim = vectors.shape
        if self.n_components > min(rows, dim):
            raise CompatibilityError(
                f"reducer 'pca' cannot make {self.n_components} components of {rows} vectors with {dim} dimensions: "
                f"n_components may be at most {min(rows, dim)}"
            )
        pca = PCA(n_components=self.n_components, svd_solver="auto", random_state=self.seed % 2**32)
        pca.fit(np.asarray(vectors, dtype=np.float32))
        for name in self.STATE:
            setattr(self, name, np.ascontiguousarray(getattr(pca, name), dtype=np.float32))
        return self

    def transform(self, vectors: Floats) -> Floats:
        """Coordinates of shape (n, n_components), float32, of any vectors of shape (n, dim)."""
        coordinates = (vectors - self.mean_) @ self.components_.T
        return np.asarray(coordinates / self._scale(), dtype=np.float32)

    def fit_transform(self, vectors: Floats) -> Floats:
        """Fit, then transform the same vectors."""
        return self.fit(vectors).transform(vectors)

    def inverse_transform(self, coordinates: Floats) -> Floats:
        """Vectors of shape (n, dim), float32, whose coordinates these are and which lie closest to the mean."""
        return np.asarray((coordinates * self._scale()) @ self.components_ + self.mean_, dtype=np.float32)

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The learned attributes by name."""
        return {name: getattr(self, name) for name in self.STATE}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `get_state` returned."""
        for name in self.STATE:
            setattr(self, name, np.asarray(state[name], dtype=np.float32))

    def _scale(self) -> Floats | float:
        """What a coordinate is divided by: its standard deviation where `whiten` is set."""
        if not self.options.whiten:
            return 1.0
        # a direction without variance is left as it is instead of being divided by zero
        scale: Floats = np.sqrt(self.explained_variance_)
        return np.where(scale > np.finfo(np.float32).eps, scale, np.float32(1))
