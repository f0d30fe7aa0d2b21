"""Built-in observers: `costs`, `jsonl`, `limits`, `loss_profile`, `progress` and `tracker`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field, field_validator

from sage_kit import hookimpl
from sage_kit.components import ObserverSpec, Options, lazy


class ProgressOptions(Options):
    """Options of `progress`."""

    plain: bool = Field(default=False, description="Plain lines also where the error output is a terminal.")
    interval: float = Field(
        default=10.0, gt=0, description="Plain lines within an activity are at least so far apart [s]."
    )


class LimitsOptions(Options):
    """Options of `limits`."""

    max_seconds: float = Field(
        default=0.0, ge=0, description="End the run after so long, from the start of its warm-up; 0 for no limit [s]."
    )
    finite_loss: bool = Field(default=False, description="End the run once a loss is not finite.")
    every_steps: int = Field(
        default=50,
        ge=2,
        description="Look at the loss every so many steps, for which the device is waited for [steps].",
    )


class TrackerOptions(Options):
    """Options of `tracker`."""

    to: list[str] = Field(
        default=["tensorboard"],
        min_length=1,
        description="Trackers, as Accelerate names them: tensorboard, mlflow, wandb, trackio and others [names].",
    )
    project: str = Field(
        default="sage-kit", min_length=1, description="Project that the run belongs to; MLflow's experiment [name]."
    )
    run_name: str = Field(default="", description="Name of the run; empty for the run directory's [name].")
    every_steps: int = Field(
        default=0,
        ge=0,
        description="Also send the loss of every so many training steps, for which the device is waited for; 0 for "
        "none [steps].",
    )
    init: dict[str, dict[str, Any]] = Field(
        default={}, description="By tracker, what its own class or package is started with [table of tables]."
    )

    @field_validator("to", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [name.strip() for name in value.split(",") if name.strip()]
        names = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
        return list(dict.fromkeys(value)) if names else value


@hookimpl
def sage_observers() -> Iterable[ObserverSpec]:
    yield ObserverSpec(
        name="costs",
        summary="Writes what each round has cost, by activity, to costs.jsonl in the run directory",
        factory=lazy("sage_kit.builtin.observers.costs:CostsObserver"),
    )
    yield ObserverSpec(
        name="jsonl",
        summary="Writes one line of JSON per round to metrics.jsonl in the run directory",
        factory=lazy("sage_kit.builtin.observers.jsonl:JSONLObserver"),
    )
    yield ObserverSpec(
        name="limits",
        summary="Ends a run by time, or when its loss is no longer finite; both are off unless its options say so",
        factory=lazy("sage_kit.builtin.observers.limits:LimitsObserver"),
        options=LimitsOptions,
    )
    yield ObserverSpec(
        name="loss_profile",
        summary="Writes each round's per-instance losses, compressed, to rounds/NNN/losses.parquet",
        factory=lazy("sage_kit.builtin.observers.loss_profile:LossProfileObserver"),
    )
    yield ObserverSpec(
        name="progress",
        summary="Shows progress on the error output: bars on a terminal, plain lines elsewhere",
        factory=lazy("sage_kit.builtin.observers.progress:ProgressObserver"),
        options=ProgressOptions,
    )
    yield ObserverSpec(
        name="tracker",
        summary="Sends settings and metrics to TensorBoard, MLflow, W&B, Trackio and others (Accelerate)",
        factory=lazy("sage_kit.builtin.observers.tracker:TrackerObserver"),
        options=TrackerOptions,
    )
