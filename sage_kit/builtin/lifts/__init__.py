"""Built-in lifts: `shift`, `scale_shift`, `replace`, `replace_random`, `mixup` and `pooled`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import LiftSpec, Options, lazy


class ReplaceRandomOptions(Options):
    """Options of `replace_random`."""

    share: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="Tokens of an anchor that give way, its first and last not counted; at least one [share].",
    )
    examples: int = Field(
        default=5, ge=1, description="Real examples whose tokens may come in, per synthetic example [examples]."
    )


class ReplaceOptions(ReplaceRandomOptions):
    """Options of `replace`."""

    source: Literal["auto", "neighbors", "any"] = Field(
        default="auto",
        description="Whose tokens come in: those of the anchor's neighbours as the sampler names them, the nearest "
        "first (neighbors), or of random real examples (any); auto takes any where the sampler names no neighbours.",
    )


@hookimpl
def sage_lifts() -> Iterable[LiftSpec]:
    yield LiftSpec(
        name="shift",
        summary="Adds the displacement to every real token of the anchor, so that their mean moves by exactly that",
        factory=lazy("sage_kit.builtin.lifts.shift:ShiftLift"),
    )
    yield LiftSpec(
        name="scale_shift",
        summary="Like shift, and then scales every token back to the norm it had",
        factory=lazy("sage_kit.builtin.lifts.scale_shift:ScaleShiftLift"),
    )
    yield LiftSpec(
        name="replace",
        summary="Exchanges tokens of the anchor for those of its neighbours that move the mean furthest toward the new "
        "vector",
        factory=lazy("sage_kit.builtin.lifts.replace:ReplaceLift"),
        options=ReplaceOptions,
    )
    yield LiftSpec(
        name="replace_random",
        summary="Exchanges tokens at random places for random tokens of random examples: the control of replace",
        factory=lazy("sage_kit.builtin.lifts.replace_random:ReplaceRandomLift"),
        options=ReplaceRandomOptions,
    )
    yield LiftSpec(
        name="mixup",
        summary="Mixes the anchor's token states, place by place, with those of the partner that sampler mixup chose",
        factory=lazy("sage_kit.builtin.lifts.mixup:MixupLift"),
        needs_shares=True,
    )
    yield LiftSpec(
        name="pooled",
        summary="The synthetic vector alone, as a sequence of one token",
        factory=lazy("sage_kit.builtin.lifts.pooled:PooledLift"),
    )
