"""t-SNE as a reducer of sage-kit.

sage-kit imports this module whenever it looks for plugins, so it is light: the library is imported in
`sage_kit_tsne.reducer`, which `lazy` imports when a run builds the reducer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import Options, ReducerSpec, lazy

__version__ = "0.1.0"


class TSNEOptions(Options):
    """Options of `tsne`."""

    perplexity: float = Field(
        default=30.0,
        ge=2,
        description="Effective number of neighbours; small values keep local, large ones global structure [examples].",
    )
    early_exaggeration: float = Field(
        default=12.0, ge=1, description="Factor on the attraction in the first phase [factor]."
    )
    early_exaggeration_iter: int = Field(default=250, ge=0, description="Length of the first phase [iterations].")
    n_iter: int = Field(default=500, ge=1, description="Length of the second phase [iterations].")
    exaggeration: float = Field(
        default=1.0, gt=0, description="Factor on the attraction in the second phase; above 1 packs clusters [factor]."
    )
    learning_rate: float = Field(
        default=0.0, ge=0, description="Step length; 0 takes the number of rows over the exaggeration [factor]."
    )
    dof: float = Field(
        default=1.0, gt=0, description="Degrees of freedom of the map's kernel; below 1 splits clusters [degrees]."
    )
    # of the library's metrics those that it takes both for exact and for approximate neighbours
    metric: Literal["euclidean", "cosine", "manhattan"] = Field(
        default="euclidean", description="Distance between vectors."
    )
    neighbors: Literal["auto", "exact", "annoy"] = Field(
        default="auto", description="How neighbours are found; auto is exact below 1000 rows and annoy above."
    )
    initialization: Literal["pca", "spectral", "random"] = Field(default="pca", description="Where points start.")
    negative_gradient_method: Literal["auto", "bh", "fft"] = Field(
        default="auto",
        description="How repulsion is computed: bh (Barnes-Hut), fft (interpolation, two components at most), or auto: "
        "fft from 10000 rows on where it can.",
    )
    theta: float = Field(
        default=0.5, ge=0, le=1, description="Coarseness of Barnes-Hut; 0 is exact and slow [node width / distance]."
    )
    transform_perplexity: float = Field(
        default=5.0, gt=1, description="Effective number of neighbours that place a new vector [examples]."
    )
    transform_iter: int = Field(
        default=250, ge=0, description="Steps that move a new vector from the median of its neighbours [iterations]."
    )


def min_rows(options: TSNEOptions, n_components: int) -> int:
    """Fewest vectors that the reducer can be fitted on: with fewer the library lowers the perplexity in silence."""
    return math.ceil(3 * options.perplexity) + 1


@hookimpl
def sage_reducers() -> Iterable[ReducerSpec]:
    yield ReducerSpec(
        name="tsne",
        summary="t-distributed stochastic neighbour embedding (openTSNE); places new vectors one by one",
        factory=lazy("sage_kit_tsne.reducer:TSNEReducer"),
        options=TSNEOptions,
        requires=("openTSNE>=1.0.2",),
        install="pip install ./plugins/tsne",
        has_transform=True,
        # the library warns beyond that: the tree of Barnes-Hut has 2 ** n_components branches at each node
        max_components=3,
        min_rows=min_rows,
        repeatable=True,
        has_state=True,
    )
