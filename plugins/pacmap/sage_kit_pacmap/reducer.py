"""Reducer `pacmap`. The only module here that imports pacmap and faiss."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from sage_kit.errors import CompatibilityError, DataError
from sage_kit_pacmap import min_rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what faiss's bindings say about themselves when they are loaded
    import faiss
    from pacmap import PaCMAP

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Floats
    from sage_kit_pacmap import PaCMAPOptions

PCA_DIMENSIONS = 100
"""Principal components that the library reduces wider vectors to, where `apply_pca` is set."""


class PaCMAPReducer:
    """Pairwise controlled manifold approximation (Wang, Huang, Rudin and Shaposhnik, JMLR 22, 2021).

    A new vector is drawn to its neighbours in the finished map, which does not move, so its coordinates do not depend
    on the other vectors of the call.

    Parameters
    ----------
    options : PaCMAPOptions
        Checked already.
    context : BuildContext
        Gives what the run's settings decide: the number of components and the seed.

    Attributes
    ----------
    pacmap_ : pacmap.PaCMAP
        The library's estimator, after `fit`.
    """

    pacmap_: PaCMAP

    def __init__(self, options: PaCMAPOptions, context: BuildContext) -> None:
        self.options = options
        self.n_components = context.n_components
        self.seed = context.seed % 2**31  # the library's compiled code takes signed integers of 32 bits

    def fit(self, vectors: Floats) -> PaCMAPReducer:
        """Learn the map from vectors of shape (n, dim); return self.

        Raises
        ------
        CompatibilityError
            For too few vectors for the pairs, more components than the start has, and vectors that are all the same.
        DataError
            For vectors that are not finite.
        """
        vectors = _copy(vectors)
        self._check(vectors)
        with _alone():
            self.pacmap_ = self._library()
            # without the pairs, which only serve a second fit and are many times the map's size
            self.pacmap_.fit(vectors, init=self.options.init, save_pairs=False)
        self._require_places(self.pacmap_.embedding_)
        return self

    def transform(self, vectors: Floats) -> Floats:
        """Coordinates of shape (n, n_components), float32, of vectors it was not fitted on, shape (n, dim).

        Raises
        ------
        DataError
            For vectors that are not finite.
        """
        vectors = _copy(vectors)
        with _alone():
            # a random start would give the vectors of a batch other places than each alone
            coordinates = self.pacmap_.transform(vectors, init="pca", save_pairs=False)
        self._require_places(coordinates)
        return np.array(coordinates, dtype=np.float32, order="C")

    def fit_transform(self, vectors: Floats) -> Floats:
        """Fit, and return the coordinates of the same vectors."""
        return np.array(self.fit(vectors).pacmap_.embedding_, dtype=np.float32, order="C")

    def _library(self) -> PaCMAP:
        """The library's estimator, not fitted.

        Every fit makes its own: the library keeps the seed of the estimator that was made last for all of them.
        """
        options = self.options
        return PaCMAP(
            n_components=self.n_components,
            n_neighbors=options.n_neighbors,
            MN_ratio=options.mid_near_ratio,
            FP_ratio=options.further_ratio,
            distance=options.metric,
            lr=options.learning_rate,
            num_iters=(options.n_iter_global, options.n_iter_middle, options.n_iter_local),
            apply_pca=options.apply_pca,
            random_state=self.seed,
            save_tree=True,  # or every transform would build the index anew, from vectors to be kept for it
        )

    def _check(self, vectors: Floats) -> None:
        """Refuse what the library would stumble over, or would change the options for."""
        options = self.options
        rows, dim = vectors.shape
        least = min_rows(options, self.n_components)
        if rows < least:
            raise CompatibilityError(
                f"reducer 'pacmap' needs at least {least} vectors for n_neighbors={options.n_neighbors}, "
                f"mid_near_ratio={options.mid_near_ratio:g} and further_ratio={options.further_ratio:g}, and there are "
                f"{rows}: lower n_neighbors in reducer_options or use more data"
            )
        reduced = options.apply_pca and dim > PCA_DIMENSIONS
        most = min(rows, PCA_DIMENSIONS if reduced else dim)
        if self.n_components > most:
            remedy = f"at most {most} for n_components" + (", or apply_pca=false in reducer_options" if reduced else "")
            raise CompatibilityError(
                f"reducer 'pacmap' cannot start {self.n_components} components from the principal components of {rows} "
                f"vectors with {dim} dimensions: take {remedy}"
            )
        if (vectors == vectors[0]).all():
            raise CompatibilityError(
                f"reducer 'pacmap' cannot make a map of {rows} vectors that are all the same: use other data or pooling"
            )

    def _require_places(self, coordinates: Floats) -> None:
        """Refuse coordinates that the library could not compute."""
        lost = int((~np.isfinite(coordinates)).any(axis=1).sum())
        if lost:
            raise CompatibilityError(
                f"reducer 'pacmap' cannot place {lost} of {len(coordinates)} vectors: lower learning_rate in "
                "reducer_options or scale the vectors"
            )


@contextmanager
def _alone() -> Iterator[None]:
    """Keep the library's warnings and log records from the user, and what it sets for the process from other code."""
    log = logging.getLogger("pacmap")
    level, threads, random = log.level, faiss.omp_get_max_threads(), np.random.get_state()
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(random)
        faiss.omp_set_num_threads(threads)  # a fit with a seed leaves one, for whoever uses faiss after it
        log.setLevel(level)


def _copy(vectors: Floats) -> Floats:
    """A writable copy, refused unless all numbers are finite."""
    copy = np.array(vectors, dtype=np.float32, order="C")
    broken = int((~np.isfinite(copy)).any(axis=1).sum())
    if broken:
        raise DataError(
            f"reducer 'pacmap': {broken} of {len(copy)} vectors hold NaN or infinity: look at the teacher, or leave "
            "these examples out"
        )
    return copy
