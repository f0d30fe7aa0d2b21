"""Built-in samplers: `high_loss` and `random`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import Options, SamplerSpec, lazy


class NeighborOptions(Options):
    """How a new point is placed between an anchor and one of its neighbours in the map."""

    k: int = Field(default=15, ge=1, description="Nearest neighbours of an anchor that may be chosen [examples].")
    interpolation: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Upper end of the share, drawn uniformly from 0, of the way from the anchor to the chosen "
        "neighbour [share].",
    )
    jitter: float = Field(
        default=0.1,
        ge=0,
        description="Standard deviation of Gaussian noise on the new point [anchor's mean distance to its neighbours].",
    )


class HighLossOptions(NeighborOptions):
    """Options of `high_loss`."""

    fraction: float = Field(
        default=0.3, gt=0, le=1, description="Examples with the highest loss that count as hard [share of all]."
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="A hard example's weight is loss ** (1 / temperature): 1 draws in proportion to the loss, large "
        "values weigh all alike.",
    )


def _min_rows(options: NeighborOptions) -> int:
    return options.k + 1


@hookimpl
def sage_samplers() -> Iterable[SamplerSpec]:
    yield SamplerSpec(
        name="high_loss",
        summary="Anchors among the examples of highest loss, new points towards their neighbours in the map",
        factory=lazy("sage_kit.builtin.high_loss:HighLossSampler"),
        options=HighLossOptions,
        min_rows=_min_rows,
    )
    yield SamplerSpec(
        name="random",
        summary="Any example is an anchor, new points as in high_loss: its control",
        factory=lazy("sage_kit.builtin.any_anchor:AnyAnchorSampler"),
        options=NeighborOptions,
        min_rows=_min_rows,
    )
