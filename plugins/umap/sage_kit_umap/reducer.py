"""Reducer `umap`. The only module here that imports umap-learn."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from sage_kit.errors import CompatibilityError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns that TensorFlow, which is not used here, is not installed
    from umap import UMAP

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Floats
    from sage_kit_umap import UMAPOptions


class UMAPReducer:
    """Uniform manifold approximation and projection (McInnes et al., arXiv 1802.03426).

    Parameters
    ----------
    options : UMAPOptions
        Checked already.
    context : BuildContext
        Gives what the run's settings decide: the number of components and the seed.

    Attributes
    ----------
    umap_ : umap.UMAP
        The library's estimator, after `fit`.
    """

    umap_: UMAP

    def __init__(self, options: UMAPOptions, context: BuildContext) -> None:
        self.options = options
        self.n_components = context.n_components
        self.seed = context.seed

    def fit(self, vectors: Floats) -> UMAPReducer:
        """Learn the map from vectors of shape (n, dim); return self.

        Raises
        ------
        CompatibilityError
            For fewer vectors than `n_neighbors` + 1.
        """
        options, rows = self.options, len(vectors)
        least = options.n_neighbors + 1
        if rows < least:
            raise CompatibilityError(
                f"reducer 'umap' needs at least {least} vectors for n_neighbors={options.n_neighbors}, and there are "
                f"{rows}: lower n_neighbors in reducer_options or use more data"
            )
        # with fewer vectors the spectral start's eigenvectors cannot be found, and the library ends with a TypeError
        init = options.init if rows > self.n_components + 1 else "random"
        self.umap_ = UMAP(
            n_components=self.n_components,
            n_neighbors=options.n_neighbors,
            min_dist=options.min_dist,
            metric=options.metric,
            init=init,
            n_epochs=options.n_epochs or None,
            random_state=self.seed % 2**32,
            n_jobs=1,  # what a set seed implies; the library warns unless it is said
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about falling back to another start, and disconnected vertices: see below
            self.umap_.fit(_copy(vectors))
        lost = int((~np.isfinite(self.umap_.embedding_)).any(axis=1).sum())
        if lost:
            raise CompatibilityError(
                f"reducer 'umap' cannot place {lost} of {rows} vectors, which are as far as metric {options.metric!r} "
                "goes from all others: take another metric"
            )
        return self

    def transform(self, vectors: Floats) -> Floats:
        """Coordinates of shape (n, n_components), float32, of vectors it was not fitted on, shape (n, dim)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            coordinates = self.umap_.transform(_copy(vectors))
        return np.asarray(coordinates, dtype=np.float32)

    def fit_transform(self, vectors: Floats) -> Floats:
        """Fit, and return the coordinates of the same vectors."""
        return np.array(self.fit(vectors).umap_.embedding_, dtype=np.float32)

    def inverse_transform(self, coordinates: Floats) -> Floats:
        """Vectors of shape (n, dim), float32, that the library finds for coordinates of shape (n, n_components).

        The whole map is triangulated at every call, so few large calls are faster than many small ones. Points outside
        the map's convex hull are taken as if they lay in one of its triangles.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it works best in few dimensions
            vectors = self.umap_.inverse_transform(_copy(coordinates))
        return np.asarray(vectors, dtype=np.float32)


def _copy(array: Floats) -> Floats:
    """A writable copy: the library keeps a reference to its input, and some of its compiled code insists on one."""
    return np.array(array, dtype=np.float32, order="C")
