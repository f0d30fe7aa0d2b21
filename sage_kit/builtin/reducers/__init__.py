"""Built-in reducers: `pca`, `random_projection` and `identity`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import Options, ReducerSpec, lazy


class PCAOptions(Options):
    """Options of `pca`."""

    whiten: bool = Field(
        default=False, description="Scale each coordinate to unit variance, so that no direction of the map dominates."
    )


@hookimpl
def sage_reducers() -> Iterable[ReducerSpec]:
    yield ReducerSpec(
        name="pca",
        summary="Principal components (scikit-learn); linear, with an exact inverse of the part it keeps",
        factory=lazy("sage_kit.builtin.reducers.pca:PCAReducer"),
        options=PCAOptions,
        has_transform=True,
        has_inverse=True,
        has_state=True,
    )
    yield ReducerSpec(
        name="random_projection",
        summary="Gaussian random directions (scikit-learn): a map that has not looked at the data, a control",
        factory=lazy("sage_kit.builtin.reducers.random_projection:RandomProjectionReducer"),
        has_transform=True,
        has_inverse=True,
        has_state=True,
    )
    yield ReducerSpec(
        name="identity",
        summary="No reduction, a control: the vectors are the map, and n_components must be their width",
        factory=lazy("sage_kit.builtin.reducers.identity:IdentityReducer"),
        has_transform=True,
        has_inverse=True,
        has_state=True,
    )
