"""Built-in lifts: `shift`."""

from __future__ import annotations

from collections.abc import Iterable

from sage_kit import hookimpl
from sage_kit.components import LiftSpec, lazy


@hookimpl
def sage_lifts() -> Iterable[LiftSpec]:
    yield LiftSpec(
        name="shift",
        summary="Adds the displacement to every real token of the anchor, so that their mean moves by exactly that",
        factory=lazy("sage_kit.builtin.shift:ShiftLift"),
    )
