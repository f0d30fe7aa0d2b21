"""Built-in lifts: `shift`, `scale_shift`, `replace`, `replace_random`, `mixup` and `pooled`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from sage_kit import hookimpl
from sage_kit.components import LiftSpec, Options, lazy

Share = Annotated[float, Field(gt=0, le=1)]


class ReplaceRandomOptions(Options):
    """Options of `replace_random`."""

    share: Share | tuple[Share, Share] = Field(
        default=0.3,
        description="Tokens of an anchor's text that give way, at least one; two numbers draw it between them for each "
        "synthetic example [share].",
    )
    examples: int = Field(
        default=5, ge=1, description="Real examples whose tokens may come in, per synthetic example [examples]."
    )
    consistent: bool = Field(
        default=False,
        description="Every occurrence of a token, in both texts of a pair, gives way to the same newcomer; `share` is "
        "then of the different tokens.",
    )
    span: int = Field(default=1, ge=1, description="Tokens that stand together and give way together [tokens].")
    positions: Literal["new", "carried"] = Field(
        default="new",
        description="Newcomers are read at their new places (new), or keep the token states, and with them the "
        "positions, that they had in their own text (carried), as this lift once did.",
    )

    @field_validator("share")
    @classmethod
    def _in_order(cls, share: float | tuple[float, float]) -> float | tuple[float, float]:
        if isinstance(share, tuple) and share[0] > share[1]:
            raise ValueError("give the lower share first")
        return share

    @model_validator(mode="after")
    def _together(self) -> ReplaceRandomOptions:
        if self.span > 1 and self.consistent:
            raise ValueError("consistent exchanges tokens and span exchanges what stands together: choose one of them")
        if self.positions == "carried" and (self.span > 1 or self.consistent or isinstance(self.share, tuple)):
            raise ValueError("positions='carried' takes one share, and neither span nor consistent")
        return self


class ReplaceOptions(ReplaceRandomOptions):
    """Options of `replace`."""

    source: Literal["auto", "neighbors", "any", "same_class", "frequency", "nearest", "between", "masked_lm"] = Field(
        default="auto",
        description="Where tokens come from: the anchor's neighbours as the sampler names them, the nearest first "
        "(neighbors); random real examples (any), those that the teacher puts into the anchor's class (same_class), or "
        "all of them as one bag (frequency); the nearest tokens in the teacher's embedding table (nearest), or the one "
        "nearest to a point between the leaving token and one of any example (between); a masked language model at "
        "that place (masked_lm). auto takes neighbors, or any where the sampler names none.",
    )
    consistent: bool = Field(
        default=True,
        description="Every occurrence of a token, in both texts of a pair, gives way to the same newcomer; `share` is "
        "then of the different tokens. Where `span` or positions='carried' is given, off unless it is asked for.",
    )
    temperature: float = Field(
        default=0.0,
        ge=0,
        description="Places and newcomers are drawn by how far an exchange moves the text toward the synthetic vector, "
        "over this: 0 takes the best and leaves out what would move it back, inf draws at random "
        "[standard deviations].",
    )
    candidates: int = Field(default=8, ge=1, description="Tokens that each place may choose from [tokens].")

    @model_validator(mode="before")
    @classmethod
    def _consistent_where_it_can_be(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and (given.get("span", 1) != 1 or given.get("positions", "new") != "new"):
            return {"consistent": False, **given}
        return given

    @field_serializer("temperature", when_used="json")
    def _as_json(self, temperature: float) -> float | str:
        return "inf" if math.isinf(temperature) else temperature  # JSON has no number for it

    @model_validator(mode="after")
    def _of_source(self) -> ReplaceOptions:
        if self.positions == "carried" and (self.source not in ("auto", "neighbors", "any") or self.temperature):
            raise ValueError("positions='carried' takes source 'auto', 'neighbors' or 'any', and temperature 0")
        is_free = math.isinf(self.temperature)
        if self.span > 1 and not (is_free and self.source in ("neighbors", "any", "same_class")):
            raise ValueError(
                "span takes whole spans of examples at random: set source to 'neighbors', 'any' or 'same_class', and "
                "temperature to inf"
            )
        return self


def _of_replace(options: ReplaceOptions) -> dict[str, bool]:
    """Capabilities of `replace` under some options."""
    by_map = options.source in ("auto", "neighbors") or not math.isinf(options.temperature)
    return {"uses_vectors": by_map, "makes_text": options.positions == "new"}


def _of_replace_random(options: ReplaceRandomOptions) -> dict[str, bool]:
    """Capabilities of `replace_random` under some options."""
    return {"uses_vectors": False, "makes_text": options.positions == "new"}


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
        summary="Exchanges tokens of the anchor's text for others that move it toward the new vector",
        factory=lazy("sage_kit.builtin.lifts.replace:ReplaceLift"),
        options=ReplaceOptions,
        refine=_of_replace,
    )
    yield LiftSpec(
        name="replace_random",
        summary="Exchanges tokens at random places for random tokens of random examples: the control of replace",
        factory=lazy("sage_kit.builtin.lifts.replace_random:ReplaceRandomLift"),
        options=ReplaceRandomOptions,
        refine=_of_replace_random,
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
