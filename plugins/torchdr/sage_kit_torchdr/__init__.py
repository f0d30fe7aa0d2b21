"""UMAP and t-SNE of TorchDR, which compute in torch on the run's device, as reducers of sage-kit.

sage-kit imports this module whenever it looks for plugins, so it is light: the library is imported in
`sage_kit_torchdr.reducer`, which `lazy` imports when a run builds a reducer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import Options, ReducerSpec, lazy

__version__ = "0.1.0"

INSTALL = "pip install ./plugins/torchdr"


class TorchDROptions(Options):
    """Options that both reducers have."""

    metric: Literal["sqeuclidean", "euclidean", "cosine"] = Field(
        default="sqeuclidean", description="Distance between vectors."
    )
    init: Literal["pca", "random"] = Field(default="pca", description="Where points start.")
    backend: Literal["torch", "faiss"] = Field(
        default="torch",
        description="What searches neighbours: torch (all distances at once) or faiss (exact, in parts; must be "
        "installed).",
    )


class TorchUMAPOptions(TorchDROptions):
    """Options of `torchdr_umap`."""

    n_neighbors: int = Field(
        default=15,
        ge=2,
        description="Neighbours in the graph; small values keep local, large ones global structure [examples].",
    )
    min_dist: float = Field(default=0.1, ge=0, le=1, description="Least distance of points in the map [map units].")
    n_epochs: int = Field(default=1000, ge=1, description="Optimisation epochs [epochs].")
    negative_sample_rate: int = Field(
        default=5, ge=1, description="Repelling points drawn for each edge that attracts [draws]."
    )
    learning_rate: float = Field(default=1.0, gt=0, description="Step length at the start; it falls to zero [factor].")


class TorchTSNEOptions(TorchDROptions):
    """Options of `torchdr_tsne`."""

    perplexity: int = Field(
        default=30,
        ge=2,
        description="Effective number of neighbours; small values keep local, large ones global structure [examples].",
    )
    early_exaggeration: float = Field(
        default=12.0, ge=1, description="Factor on the attraction in the first phase [factor]."
    )
    early_exaggeration_iter: int = Field(default=250, ge=0, description="Length of the first phase [iterations].")
    n_iter: int = Field(default=750, ge=1, description="Length of the second phase [iterations].")
    learning_rate: float = Field(
        default=0.0,
        ge=0,
        description="Step length; 0 takes a quarter of the number of rows over the exaggeration, 50 at least [factor].",
    )


def umap_min_rows(options: TorchUMAPOptions, n_components: int) -> int:
    """Fewest vectors, all different, that `torchdr_umap` can be fitted on: neighbours, the vector itself and one."""
    return max(options.n_neighbors + 2, n_components + 1)


def tsne_min_rows(options: TorchTSNEOptions, n_components: int) -> int:
    """Fewest vectors, all different, that `torchdr_tsne` can be fitted on: with fewer the library takes fewer
    neighbours than three times the perplexity, in silence.
    """
    return max(3 * options.perplexity + 2, n_components + 1)


@hookimpl
def sage_reducers() -> Iterable[ReducerSpec]:
    yield ReducerSpec(
        name="torchdr_umap",
        summary="UMAP in torch on the run's device (TorchDR); places new vectors",
        factory=lazy("sage_kit_torchdr.reducer:TorchUMAPReducer"),
        options=TorchUMAPOptions,
        requires=("torchdr>=0.5",),
        install=INSTALL,
        has_transform=True,
        min_rows=umap_min_rows,
        uses_gpu=True,
        repeatable=True,
    )
    yield ReducerSpec(
        name="torchdr_tsne",
        summary="Exact t-SNE in torch on the run's device (TorchDR); memory grows with the square of the rows",
        factory=lazy("sage_kit_torchdr.reducer:TorchTSNEReducer"),
        options=TorchTSNEOptions,
        requires=("torchdr>=0.5",),
        install=INSTALL,
        min_rows=tsne_min_rows,
        uses_gpu=True,
        repeatable=True,
    )
