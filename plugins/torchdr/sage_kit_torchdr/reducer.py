"""Reducers `torchdr_umap` and `torchdr_tsne`. The only module here that imports torch and torchdr."""

from __future__ import annotations

import importlib.util
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sage_kit.errors import CompatibilityError, DataError, MissingPackageError
from sage_kit_torchdr import tsne_min_rows, umap_min_rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns, at length, where faiss is not installed
    import torchdr

if TYPE_CHECKING:
    from sage_kit.components import BuildContext, Floats
    from sage_kit_torchdr import TorchDROptions, TorchTSNEOptions, TorchUMAPOptions


class TorchDRReducer(ABC):
    """What both reducers share.

    The library fits on the different ones among the vectors; equal vectors have one place.

    Parameters
    ----------
    options : TorchDROptions
        Checked already.
    context : BuildContext
        Gives what the run's settings decide: the number of components, the seed and the device.

    Attributes
    ----------
    estimator_ : torchdr.UMAP or torchdr.TSNE
        The library's estimator, after `fit`.
    embedding_ : Tensor of shape (n_distinct, n_components), float32, on the CPU
        The map of the different vectors.
    places_ : Tensor of shape (n,), int64, on the CPU
        Each vector's row in `embedding_`.
    vectors_ : Tensor of shape (n_distinct, dim), float32, on the CPU
        The different vectors, where `transform` needs them.

    Raises
    ------
    MissingPackageError
        When option `backend` is faiss and that is not installed.
    """

    name: str
    size_option: str
    keeps_vectors = False
    estimator_: Any
    embedding_: torch.Tensor
    places_: torch.Tensor
    vectors_: torch.Tensor

    def __init__(self, options: TorchDROptions, context: BuildContext) -> None:
        self.options = options
        self.n_components = context.n_components
        self.seed = context.seed % 2**63  # torch takes signed integers of 64 bits
        self.device = context.device
        if options.backend == "faiss" and importlib.util.find_spec("faiss") is None:
            raise MissingPackageError(
                f"reducer {self.name!r} with backend=faiss needs faiss: pip install faiss-cpu, or take backend=torch"
            )

    def fit(self, vectors: Floats) -> TorchDRReducer:
        """Learn the map from vectors of shape (n, dim); return self.

        Raises
        ------
        CompatibilityError
            For too few different vectors, more components than the start has, and zeros where the metric is cosine.
        DataError
            For vectors that are not finite.
        """
        given = self._tensor(vectors)
        distinct, places = torch.unique(given, dim=0, return_inverse=True)
        if len(distinct) == len(given):
            distinct, places = given, torch.arange(len(given))  # in their order, which decides about random draws
        self._check(len(given), *distinct.shape)
        with _alone(self.seed, self.device):
            init: Any = "normal"
            if self.options.init == "pca":
                # as the library starts, but always in this process alone: its own choice would, in a run of several
                # processes, wait for the others to take part
                pca = torchdr.PCA(n_components=self.n_components, device=self.device, distributed=False)
                init = pca.fit_transform(distinct)
            self.estimator_ = self._library(init)
            embedding = self.estimator_.fit_transform(distinct)
        self.embedding_ = embedding.detach().cpu()
        self.places_ = places.cpu()
        if self.keeps_vectors:
            self.vectors_ = distinct.cpu()  # in the device's memory only while `transform` runs
        self._require_places(self.embedding_)
        return self

    def fit_transform(self, vectors: Floats) -> Floats:
        """Fit, and return the coordinates of the same vectors, shape (n, n_components), float32."""
        self.fit(vectors)
        return _array(self.embedding_[self.places_])

    @abstractmethod
    def least(self) -> int:
        """Fewest different vectors it can be fitted on."""

    @abstractmethod
    def _library(self, init: Any) -> Any:
        """The library's estimator, not fitted."""

    def _shared(self, init: Any) -> dict[str, Any]:
        """Parameters of the library that both reducers set alike."""
        options = self.options
        return {
            "n_components": self.n_components,
            # of unit vectors the squared distance is twice the cosine distance, and affinities do not depend on scale;
            # the library's own angular distance ends in NaN
            "metric": "sqeuclidean" if options.metric == "cosine" else options.metric,
            "init": init,
            "backend": None if options.backend == "torch" else options.backend,
            "device": self.device,
            "distributed": False,  # or it would, in a run of several processes, wait for the others to take part
            "process_duplicates": False,  # done in `fit`, where the start is made
            "random_state": None,  # a seed given here is set for the whole process, and before something else may draw
        }

    def _check(self, rows: int, distinct: int, dim: int) -> None:
        """Refuse what the library would stumble over, or would change the options for."""
        least = self.least()
        if distinct < least:
            size = getattr(self.options, self.size_option)
            found = f"there are {rows}" if rows == distinct else f"of {rows} only {distinct} differ"
            raise CompatibilityError(
                f"reducer {self.name!r} needs at least {least} different vectors for {self.size_option}={size}, and "
                f"{found}: lower {self.size_option} in reducer_options or use more data"
            )
        most = min(distinct, dim)
        if self.options.init == "pca" and self.n_components > most:
            raise CompatibilityError(
                f"reducer {self.name!r} cannot start {self.n_components} components from the principal components of "
                f"{distinct} vectors with {dim} dimensions: take init=random in reducer_options or at most {most} for "
                "n_components"
            )

    def _tensor(self, vectors: Floats) -> torch.Tensor:
        """A copy on the device, of vectors that have a distance from each other."""
        copy = np.array(vectors, dtype=np.float32, order="C")
        broken = int((~np.isfinite(copy)).any(axis=1).sum())
        if broken:
            raise DataError(
                f"reducer {self.name!r}: {broken} of {len(copy)} vectors hold NaN or infinity: look at the teacher, or "
                "leave these examples out"
            )
        if self.options.metric == "cosine":
            lengths = np.linalg.norm(copy, axis=1, keepdims=True)
            zeros = int((lengths == 0).sum())
            if zeros:
                raise CompatibilityError(
                    f"reducer {self.name!r} cannot place {zeros} of {len(copy)} vectors, which are zero and have no "
                    "direction for metric 'cosine': take another metric in reducer_options"
                )
            copy /= lengths
        return torch.from_numpy(copy).to(self.device)

    def _require_places(self, coordinates: torch.Tensor) -> None:
        """Refuse coordinates that the library could not compute."""
        lost = int((~coordinates.isfinite()).any(dim=1).sum())
        if lost:
            raise CompatibilityError(
                f"reducer {self.name!r} cannot place {lost} of {len(coordinates)} vectors: lower learning_rate in "
                "reducer_options or scale the vectors"
            )


class TorchUMAPReducer(TorchDRReducer):
    """Uniform manifold approximation and projection (McInnes et al., arXiv 1802.03426) with all updates of an epoch at
    once, as TorchDR computes it.
    """

    name = "torchdr_umap"
    size_option = "n_neighbors"
    keeps_vectors = True
    options: TorchUMAPOptions

    def least(self) -> int:
        """Fewest different vectors it can be fitted on."""
        return umap_min_rows(self.options, self.n_components)

    def transform(self, vectors: Floats) -> Floats:
        """Coordinates of shape (n, n_components), float32, of vectors it was not fitted on, shape (n, dim).

        Raises
        ------
        CompatibilityError
            For zeros where the metric is cosine.
        DataError
            For vectors that are not finite.
        """
        given = self._tensor(vectors)
        with _alone(self.seed, self.device):
            coordinates = self.estimator_.transform(given, X_train=self.vectors_)
        self._require_places(coordinates)
        return _array(coordinates)

    def _library(self, init: Any) -> torchdr.UMAP:
        options = self.options
        return torchdr.UMAP(
            n_neighbors=options.n_neighbors,
            min_dist=options.min_dist,
            max_iter=options.n_epochs,
            negative_sample_rate=options.negative_sample_rate,
            lr=options.learning_rate,
            **self._shared(init),
        )


class TorchTSNEReducer(TorchDRReducer):
    """t-distributed stochastic neighbour embedding (van der Maaten and Hinton, JMLR 9, 2008) with repulsion between all
    pairs, as TorchDR computes it.
    """

    name = "torchdr_tsne"
    size_option = "perplexity"
    options: TorchTSNEOptions

    def least(self) -> int:
        """Fewest different vectors it can be fitted on."""
        return tsne_min_rows(self.options, self.n_components)

    def _library(self, init: Any) -> torchdr.TSNE:
        options = self.options
        early = options.early_exaggeration_iter
        return torchdr.TSNE(
            perplexity=options.perplexity,
            # the library exaggerates one iteration more than it is told, even where it is told none
            early_exaggeration_coeff=options.early_exaggeration if early else 1.0,
            early_exaggeration_iter=early,
            max_iter=early + options.n_iter,
            lr=options.learning_rate or "auto",
            **self._shared(init),
        )


@contextmanager
def _alone(seed: int, device: str) -> Iterator[None]:
    """Draw from torch's generators as after `seed`, and leave them, and what else is set for the process, as they were.

    On a GPU, sums are computed in a fixed order where torch has such a way, so that a seed gives one map.
    """
    place = torch.device(device)
    on_gpu = place.type == "cuda"
    was, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with torch.random.fork_rng(devices=[place] if on_gpu else []), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        if on_gpu:
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was, warn_only=only_warned)


def _array(coordinates: torch.Tensor) -> Floats:
    """A new array of rows one after another; the library's are by columns."""
    return np.array(coordinates.detach().cpu().numpy(), dtype=np.float32, order="C")
