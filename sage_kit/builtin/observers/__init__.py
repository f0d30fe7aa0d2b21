"""Built-in observers: `jsonl` and `progress`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import ObserverSpec, Options, lazy


class ProgressOptions(Options):
    """Options of `progress`."""

    plain: bool = Field(default=False, description="Plain lines also where the error output is a terminal.")
    interval: float = Field(
        default=10.0, gt=0, description="Plain lines within an activity are at least so far apart [s]."
    )


@hookimpl
def sage_observers() -> Iterable[ObserverSpec]:
    yield ObserverSpec(
        name="jsonl",
        summary="Writes one line of JSON per round to metrics.jsonl in the run directory",
        factory=lazy("sage_kit.builtin.observers.jsonl:JSONLObserver"),
    )
    yield ObserverSpec(
        name="progress",
        summary="Shows progress on the error output: bars on a terminal, plain lines elsewhere",
        factory=lazy("sage_kit.builtin.observers.progress:ProgressObserver"),
        options=ProgressOptions,
    )
