"""Observer `limits`: ends a run that has taken long enough, or whose loss is no longer finite."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sage_kit import hookimpl
from sage_kit.components import Control

if TYPE_CHECKING:
    from sage_kit.builtin.observers import LimitsOptions
    from sage_kit.components import BuildContext
    from sage_kit.components.records import RoundResult, RunInfo


class LimitsObserver:
    """Asks for an end once ``max_seconds`` are over or, with ``finite_loss``, once a loss was not finite.

    The time is that of the warm-up and the rounds, those before a resume included. The losses are summed on their
    device, and the sum is read every ``every_steps`` steps and at the end of a round, for which the run waits for the
    device.

    Parameters
    ----------
    options : LimitsOptions
    context : BuildContext
    """

    def __init__(self, options: LimitsOptions, context: BuildContext) -> None:
        self.options = options
        self._started = 0.0
        self._sum: Any = None
        self._steps = 0
        self._bad = ""

    @hookimpl
    def sage_run_started(self, run: RunInfo) -> None:
        """Start the clock, from where the rounds so far have left it."""
        self._started = time.monotonic() - sum(result.seconds for result in run.history)

    @hookimpl
    def sage_step_finished(self, run: RunInfo | None, activity: str, loss: Any) -> None:
        """Add the loss of a training step to the sum."""
        if self.options.finite_loss and loss is not None and activity.startswith("round "):
            self._sum = loss if self._sum is None else self._sum + loss
            self._steps += 1

    @hookimpl
    def sage_round_finished(self, result: RoundResult) -> None:
        """Look at the losses of the round."""
        self._look(f"round {result.round}")

    @hookimpl
    def sage_control(self, run: RunInfo, done: int) -> Control | None:
        """Say why to stop, if there is a reason."""
        if self._steps >= self.options.every_steps:
            self._look(f"{done} steps")
        if self._bad:
            return Control(stop=self._bad)
        seconds = time.monotonic() - self._started
        if self.options.max_seconds and seconds >= self.options.max_seconds:
            return Control(stop=f"{seconds:.0f} s are over, of {self.options.max_seconds:g} (max_seconds)")
        return None

    def _look(self, when: str) -> None:
        if self._sum is not None and not self._bad and not bool(self._sum.isfinite()):
            self._bad = f"the loss is not finite after {when} (finite_loss): lower learning_rate, or check the data"
        self._sum, self._steps = None, 0
