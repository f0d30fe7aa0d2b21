"""PaCMAP as a reducer of sage-kit.

sage-kit imports this module whenever it looks for plugins, so it is light: the library is imported in
`sage_kit_pacmap.reducer`, which `lazy` imports when a run builds the reducer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from sage_kit import hookimpl
from sage_kit.components import Options, ReducerSpec, lazy

__version__ = "0.1.0"


class PaCMAPOptions(Options):
    """Options of `pacmap`."""

    n_neighbors: int = Field(
        default=10, ge=1, description="Near pairs of each vector; they keep local structure [pairs]."
    )
    mid_near_ratio: float = Field(
        default=0.5, ge=0, description="Mid-near pairs per near pair; they keep global structure [pairs / pair]."
    )
    further_ratio: float = Field(
        default=2.0, gt=0, description="Further pairs per near pair; they keep points apart [pairs / pair]."
    )
    # of the library's metrics those that its search for neighbours takes
    metric: Literal["euclidean", "manhattan", "angular"] = Field(
        default="euclidean", description="Distance between vectors."
    )
    apply_pca: bool = Field(
        default=True, description="Reduce vectors of more than 100 dimensions to 100 principal components first."
    )
    init: Literal["pca", "random"] = Field(default="pca", description="Where points start.")
    learning_rate: float = Field(default=1.0, gt=0, description="Step length of the optimiser, Adam [map units].")
    n_iter_global: int = Field(default=100, ge=0, description="Length of the phase of global structure [iterations].")
    n_iter_middle: int = Field(default=100, ge=0, description="Length of the phase between the two [iterations].")
    n_iter_local: int = Field(default=250, ge=0, description="Length of the phase of local structure [iterations].")

    @property
    def pairs(self) -> tuple[int, int, int]:
        """Near, mid-near and further pairs of each vector, as the library counts them."""
        near = self.n_neighbors
        return near, round(near * self.mid_near_ratio), round(near * self.further_ratio)

    @model_validator(mode="after")
    def _has_further_pairs(self) -> PaCMAPOptions:
        if self.pairs[2] < 1:
            raise ValueError(
                f"further_ratio: {self.further_ratio:g} times n_neighbors={self.n_neighbors} is less than one further "
                "pair: raise either"
            )
        return self


def min_rows(options: PaCMAPOptions, n_components: int) -> int:
    """Fewest vectors that the reducer can be fitted on.

    A vector's pairs are with different others, or the library makes fewer of them; it draws each mid-near pair from
    six vectors that the earlier ones do not hold, or it never ends; and it scales distances by the fourth to sixth
    neighbour. The start has at most as many components as there are vectors.
    """
    near, mid_near, further = options.pairs
    return max(near + mid_near + further + 1, mid_near + 6, 7, n_components + 1)


@hookimpl
def sage_reducers() -> Iterable[ReducerSpec]:
    yield ReducerSpec(
        name="pacmap",
        summary="Pairwise controlled manifold approximation (pacmap); keeps global structure, places new vectors",
        factory=lazy("sage_kit_pacmap.reducer:PaCMAPReducer"),
        options=PaCMAPOptions,
        requires=("pacmap>=0.9",),
        install="pip install ./plugins/pacmap",
        has_transform=True,
        min_rows=min_rows,
        repeatable=True,
    )
