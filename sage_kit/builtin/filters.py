"""Built-in filters: `none` and `cosine`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import FilterSpec, Options, lazy


class CosineOptions(Options):
    """Options of `cosine`."""

    minimum: float = Field(
        default=0.5,
        ge=-1,
        le=1,
        description="Least cosine between a synthetic vector and the real vector that points most nearly its way "
        "[cosine].",
    )


@hookimpl
def sage_filters() -> Iterable[FilterSpec]:
    yield FilterSpec(
        name="none",
        summary="Keeps every synthetic example",
        factory=lazy("sage_kit.builtin.keep_all:KeepAll"),
    )
    yield FilterSpec(
        name="cosine",
        summary="Keeps synthetic examples whose vector has a real one at a cosine of at least `minimum`",
        factory=lazy("sage_kit.builtin.cosine_filter:CosineFilter"),
        options=CosineOptions,
    )
