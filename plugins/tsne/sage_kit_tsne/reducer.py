"""Reducer `tsne`. The only module here that imports openTSNE."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from openTSNE.sklearn import TSNE
from scipy.sparse.linalg import ArpackError

from sage_kit.errors import CompatibilityError, DataError
from sage_kit_tsne import min_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sage_kit.components import BuildContext, Floats
    from sage_kit_tsne import TSNEOptions

FFT_ROWS = 10_000
"""From this size on the library takes interpolation for faster than Barnes-Hut."""


class TSNEReducer:
    """t-distributed stochastic neighbour embedding (van der Maaten and Hinton, JMLR 9, 2008; Poličar et al., openTSNE).

    A new vector is placed by itself in the finished map, which does not move, so its coordinates do not depend on the
    other vectors of the call.

    Parameters
    ----------
    options : TSNEOptions
        Checked already.
    context : BuildContext
        Gives what the run's settings decide: the number of components and the seed.

    Attributes
    ----------
    tsne_ : openTSNE.sklearn.TSNE
        The library's estimator, after `fit`; its `embedding_` is centred as the library centres it for `transform`.

    Raises
    ------
    CompatibilityError
        For interpolation with more than two components.
    """

    tsne_: TSNE
    vectors_: Floats

    def __init__(self, options: TSNEOptions, context: BuildContext) -> None:
        self.options = options
        self.n_components = context.n_components
        self.seed = context.seed % 2**32
        if options.negative_gradient_method == "fft" and self.n_components > 2:
            raise CompatibilityError(
                f"reducer 'tsne' cannot interpolate (negative_gradient_method=fft) in {self.n_components} dimensions: "
                "take negative_gradient_method=bh or at most 2 for n_components"
            )

    def fit(self, vectors: Floats) -> TSNEReducer:
        """Learn the map from vectors of shape (n, dim); return self.

        Raises
        ------
        CompatibilityError
            For too few vectors for the perplexity, vectors that are all the same, vectors of fewer dimensions than the
            start needs, a spectral start that is not found, and zeros where the metric is cosine.
        DataError
            For vectors that are not finite.
        """
        vectors = self._copy(vectors)
        self._check(vectors)
        self.tsne_ = self._library(self.seed, len(vectors))
        self.vectors_ = vectors
        with _quiet():
            try:
                self.tsne_.fit(vectors)
            except ArpackError as error:
                raise CompatibilityError(
                    "reducer 'tsne' finds no spectral start, since the solver does not converge: "
                    "take initialization=pca or random in reducer_options"
                ) from error
        embedding = self.tsne_.embedding_
        self._require_places(embedding)
        # transform centres the map in place; were that left to the first call, the coordinates given out here would no
        # longer be in its frame
        embedding -= (embedding.max(axis=0) + embedding.min(axis=0)) / 2
        self._settle()
        return self

    def transform(self, vectors: Floats) -> Floats:
        """Coordinates of shape (n, n_components), float32, of vectors it was not fitted on, shape (n, dim).

        Raises
        ------
        CompatibilityError
            For zeros where the metric is cosine.
        DataError
            For vectors that are not finite.
        """
        vectors = self._copy(vectors)
        # the most that the library takes for the vectors it was fitted on
        perplexity = min(self.options.transform_perplexity, (len(self.vectors_) - 1) / 3)
        with _quiet():
            coordinates = self.tsne_.transform(vectors, perplexity=perplexity, n_iter=self.options.transform_iter)
        self._require_places(coordinates)
        return np.array(coordinates, dtype=np.float32, order="C")

    def fit_transform(self, vectors: Floats) -> Floats:
        """Fit, and return the coordinates of the same vectors."""
        return np.array(self.fit(vectors).tsne_.embedding_, dtype=np.float32, order="C")

    def get_state(self) -> dict[str, NDArray[Any]]:
        """The map, float64, the vectors it was fitted on, float32, and the seed of the search for neighbours."""
        return {
            "map": np.array(self.tsne_.embedding_),
            "vectors": self.vectors_.copy(),
            "seed": np.array([self.tsne_.random_state], dtype=np.int64),
        }

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `get_state` returned; the neighbours are searched anew, the map is not optimised anew."""
        self.vectors_ = self._copy(state["vectors"])
        self.tsne_ = self._library(int(state["seed"][0]), len(self.vectors_))
        with _quiet():
            self.tsne_.embedding_ = self.tsne_.prepare_initial(self.vectors_, initialization=np.array(state["map"]))
        self._settle()

    def _library(self, seed: int, rows: int) -> TSNE:
        """The library's estimator for so many vectors, not fitted."""
        options = self.options
        method = options.negative_gradient_method
        if method == "auto":  # the library's own choice looks at the size of a batch and forgets about 3 dimensions
            method = "fft" if rows >= FFT_ROWS and self.n_components <= 2 else "bh"
        return TSNE(
            n_components=self.n_components,
            perplexity=options.perplexity,
            learning_rate=options.learning_rate or "auto",
            early_exaggeration=options.early_exaggeration,
            early_exaggeration_iter=options.early_exaggeration_iter,
            n_iter=options.n_iter,
            exaggeration=options.exaggeration,
            dof=options.dof,
            theta=options.theta,
            initialization=options.initialization,
            metric=options.metric,
            neighbors=options.neighbors,
            negative_gradient_method=method,
            n_jobs=1,  # annoy's trees come out the same only when one thread builds them
            random_state=seed,
        )

    def _settle(self) -> None:
        """Let `transform` compute repulsion by Barnes-Hut, whatever `fit` did.

        The library would choose by the size of the batch. Its interpolation, fit for thousands of new points at once,
        draws those that lie apart away from their neighbours, and keeps all of them in a disc that a map's corners may
        reach beyond.
        """
        self.tsne_.embedding_.gradient_descent_params["negative_gradient_method"] = "bh"

    def _require_places(self, coordinates: NDArray[Any]) -> None:
        """Refuse coordinates that the library could not compute."""
        lost = int((~np.isfinite(coordinates)).any(axis=1).sum())
        if lost:
            raise CompatibilityError(
                f"reducer 'tsne' cannot place {lost} of {len(coordinates)} vectors: take another metric than "
                f"{self.options.metric!r} or initialization=random in reducer_options, or scale the vectors"
            )

    def _check(self, vectors: Floats) -> None:
        """Refuse what the library would stumble over, or would change the options for."""
        options = self.options
        rows, dim = vectors.shape
        least = min_rows(options, self.n_components)
        if rows < least:
            raise CompatibilityError(
                f"reducer 'tsne' needs at least {least} vectors for perplexity={options.perplexity:g}, and there are "
                f"{rows}: lower perplexity in reducer_options or use more data"
            )
        if options.initialization == "pca" and dim < self.n_components:
            raise CompatibilityError(
                f"reducer 'tsne' cannot start {self.n_components} components from the principal components of vectors "
                f"with {dim} dimensions: take initialization=random in reducer_options or fewer n_components"
            )
        if (vectors == vectors[0]).all():
            raise CompatibilityError(
                f"reducer 'tsne' cannot make a map of {rows} vectors that are all the same: use other data or pooling"
            )

    def _copy(self, array: NDArray[Any]) -> Floats:
        """A copy that the library may keep, of vectors that have a distance from each other."""
        copy = np.array(array, dtype=np.float32, order="C")
        broken = int((~np.isfinite(copy)).any(axis=1).sum())
        if broken:
            raise DataError(
                f"reducer 'tsne': {broken} of {len(copy)} vectors hold NaN or infinity: look at the teacher, or leave "
                "these examples out"
            )
        zeros = int((~copy.any(axis=1)).sum()) if self.options.metric == "cosine" else 0
        if zeros:
            raise CompatibilityError(
                f"reducer 'tsne' cannot place {zeros} of {len(copy)} vectors, which are zero and have no direction for "
                "metric 'cosine': take another metric in reducer_options"
            )
        return copy


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's warnings and log records, which the checks here make superfluous, from the user."""
    log = logging.getLogger("openTSNE")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
