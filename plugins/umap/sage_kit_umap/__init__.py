"""UMAP as a reducer of sage-kit.

sage-kit imports this module whenever it looks for plugins, so it is light: the library is imported in
`sage_kit_umap.reducer`, which `lazy` imports when a run builds the reducer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import Options, ReducerSpec, lazy

__version__ = "0.1.0"


# Every option has a default, constraints and a description with its unit. sage-kit checks what the user gives against
# them, so the reducer can rely on them.
class UMAPOptions(Options):
    """Options of `umap`."""

    n_neighbors: int = Field(
        default=15,
        ge=2,
        description="Neighbours in the graph; small values keep local, large ones global structure [examples].",
    )
    min_dist: float = Field(default=0.1, ge=0, le=1, description="Least distance of points in the map [map units].")
    # of the library's metrics those that suit dense vectors and have the gradient that the inverse needs
    metric: Literal["euclidean", "cosine", "correlation", "manhattan", "chebyshev", "canberra", "braycurtis"] = Field(
        default="euclidean", description="Distance between vectors."
    )
    init: Literal["spectral", "tswspectral", "pca", "random"] = Field(
        default="spectral", description="Where points start."
    )
    n_epochs: int = Field(
        default=0, ge=0, description="Optimisation epochs; 0 lets the library choose by size [epochs]."
    )


def min_rows(options: UMAPOptions, n_components: int) -> int:
    """Fewest vectors that the reducer can be fitted on; sage-kit asks before anything is computed."""
    return options.n_neighbors + 1


@hookimpl
def sage_reducers() -> Iterable[ReducerSpec]:
    # The capabilities are promises: sage-kit asks them and never tries a method to see whether it works.
    yield ReducerSpec(
        name="umap",
        summary="Uniform manifold approximation and projection (umap-learn); slow inverse",
        factory=lazy("sage_kit_umap.reducer:UMAPReducer"),
        options=UMAPOptions,
        requires=("umap-learn>=0.5.6",),
        install="pip install ./plugins/umap",
        has_transform=True,
        has_inverse=True,
        inverse_min_components=2,  # it triangulates the map
        min_rows=min_rows,
        repeatable=True,
    )
