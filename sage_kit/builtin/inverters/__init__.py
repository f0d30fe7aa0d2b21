"""Built-in inverters: `native`, `knn`, `local_affine`, `rbf`, `decoder` and `anchored`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from sage_kit import hookimpl
from sage_kit.builtin.network_options import NetworkOptions
from sage_kit.components import InverterSpec, Options, lazy


class NativeOptions(Options):
    """Options of `native`."""

    budget_seconds: float = Field(
        default=600.0,
        gt=0,
        description="Longest time that one round's inversion may take; the run stops with advice when the estimate or "
        "the time spent passes it [s].",
    )
    chunk: int = Field(
        default=512,
        ge=1,
        description="Points given to the reducer at once; the time is looked at in between [points].",
    )


class KNNOptions(Options):
    """Options of `knn`."""

    k: int = Field(
        default=50, ge=1, description="Real examples nearest in the map that are averaged; at most all [examples]."
    )
    softening: float = Field(
        default=1.0,
        ge=0,
        description="Weights are 1 / (distance + softening * mean distance of the k). 0 is plain inverse distance, "
        "which returns a real example's own vector at its place in the map; large values average evenly "
        "[mean distances].",
    )


class LocalAffineOptions(Options):
    """Options of `local_affine`."""

    k: int = Field(
        default=150, ge=1, description="Real examples nearest in the map that are fitted; at most all [examples]."
    )
    ridge: float = Field(
        default=0.01,
        gt=0,
        description="Strength of the ridge penalty; large values give the mean of the k vectors [mean variance of the "
        "neighbours' coordinates, times k].",
    )


class RBFOptions(Options):
    """Options of `rbf`."""

    k: int = Field(
        default=30, ge=1, description="Real examples nearest in the map that take part; at most all [examples]."
    )
    kernel: Literal["linear", "thin_plate_spline", "cubic"] = Field(
        default="linear", description="Radial function of the distance r: -r, r^2 log r or r^3."
    )
    smoothing: float = Field(
        default=0.0,
        ge=0,
        description="0 passes through the real vectors; larger values pass by them more smoothly [the kernel's unit].",
    )


class NetworkDecoderOptions(NetworkOptions):
    """Options of `decoder`."""

    learning_rate: float = Field(default=3e-3, gt=0, description="Step size of AdamW [1].")


DIFFERENCE_OPTIONS = {"k": 15, "softening": 0.1}
"""Options of `knn` under `anchored`."""


class AnchoredOptions(Options):
    """Options of `anchored`."""

    base: str = Field(default="knn", description="Inverter whose difference between the two places is taken.")
    base_options: dict[str, Any] = Field(
        default_factory=lambda: dict(DIFFERENCE_OPTIONS),
        description="Options of that inverter. For knn the default averages few neighbours, k=15 and softening=0.1: a "
        "wide average hardly differs between two places that are close.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_options_of_knn_for_others(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("base", "knn") != "knn":
            return {"base_options": {}, **values}
        return values

    @field_validator("base")
    @classmethod
    def _not_itself(cls, base: str) -> str:
        if base == "anchored":
            raise ValueError("an inverter cannot be its own base; take 'knn' or 'native'")
        return base


@hookimpl
def sage_inverters() -> Iterable[InverterSpec]:
    yield InverterSpec(
        name="native",
        summary="The reducer's own inverse, timed first and held to a time budget",
        factory=lazy("sage_kit.builtin.inverters.native:NativeInverter"),
        options=NativeOptions,
        needs_inverse=True,
    )
    yield InverterSpec(
        name="knn",
        summary="Distance-weighted average of the real vectors nearest in the map",
        factory=lazy("sage_kit.builtin.inverters.knn:KNNInverter"),
        options=KNNOptions,
    )
    yield InverterSpec(
        name="local_affine",
        summary="Affine map fitted at each point to the real vectors nearest in the map, by ridge regression",
        factory=lazy("sage_kit.builtin.inverters.local_affine:LocalAffineInverter"),
        options=LocalAffineOptions,
    )
    yield InverterSpec(
        name="rbf",
        summary="Radial basis functions through the real vectors nearest in the map (scipy)",
        factory=lazy("sage_kit.builtin.inverters.rbf:RBFInverter"),
        options=RBFOptions,
    )
    yield InverterSpec(
        name="decoder",
        summary="Network trained from coordinates to vectors, kept in the cache (torch)",
        factory=lazy("sage_kit.builtin.inverters.decoder:DecoderInverter"),
        options=NetworkDecoderOptions,
    )
    yield InverterSpec(
        name="anchored",
        summary="The anchor's own vector plus what another inverter says changes on the way; keeps what the map lost",
        factory=lazy("sage_kit.builtin.inverters.anchored:AnchoredInverter"),
        options=AnchoredOptions,
        base_option="base",
    )
