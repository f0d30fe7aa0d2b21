"""Observer `progress`: what a run is doing, on the error output, so that the standard output stays for results."""

from __future__ import annotations

import atexit
import logging
import math
import os
import sys
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sage_kit import hookimpl

if TYPE_CHECKING:
    from sage_kit.builtin.observers import ProgressOptions
    from sage_kit.components import BuildContext
    from sage_kit.components.records import RoundResult, RunInfo

READ_INTERVAL = 0.5
"""Seconds between two looks at the loss: each one waits for the device."""

SHORT = 1.0
"""An activity that takes fewer seconds gets no plain line."""


@dataclass
class Activity:
    """An activity that is going on."""

    name: str
    started: float
    done: int
    total: int
    loss: str = ""
    run_left: float = math.nan  # seconds until the run has ended, at most; NaN where that is not known

    @property
    def left(self) -> float:
        """Seconds until it has ended, by the steps so far; NaN before its second step."""
        steps = self.done - self._first
        return (monotonic() - self.started) / steps * (self.total - self.done) if steps > 0 else math.nan

    def __post_init__(self) -> None:
        self._first = self.done  # the clock was started at its end

    @property
    def finished(self) -> bool:
        """Whether all its steps are done."""
        return self.done >= self.total


class Display(Protocol):
    """Where progress is shown."""

    def line(self, text: str) -> None:
        """Show a line that stays."""

    def wants_loss(self, activity: Activity) -> bool:
        """Whether the activity's loss would be shown if it were read now."""

    def step(self, activity: Activity) -> None:
        """Show how far an activity is; the first call for an activity starts it."""

    def end(self, activity: Activity) -> None:
        """Show that an activity has ended, all its steps done or not."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class ProgressObserver:
    """Shows messages, how far each activity is, and one line per finished round.

    Parameters
    ----------
    options : ProgressOptions
    context : BuildContext
    """

    def __init__(self, options: ProgressOptions, context: BuildContext) -> None:
        self._display: Display
        on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        # as `sage-kit -q` sets it; a program that has set nothing gets progress
        if logging.getLogger("sage_kit").level > logging.INFO:
            self._display = NoDisplay()
        else:
            self._display = BarDisplay() if on_terminal and not options.plain else LineDisplay(options.interval)
        self._activity: Activity | None = None
        self._loss_read = float("-inf")
        self._run: RunInfo | None = None
        self._last: RoundResult | None = None

    @hookimpl
    def sage_message(self, text: str) -> None:
        """Show the message."""
        self._display.line(text)

    @hookimpl
    def sage_run_started(self, run: RunInfo) -> None:
        """Show where the run is and how large."""
        self._run, self._last = run, None
        examples = ", ".join(f"{count} {name}" for name, count in run.examples.items())
        parts = [f"run {run.directory}: examples: {examples}"]
        if "student" in run.parameters:
            parts.append(f"student: {run.parameters['student'] / 1e6:.1f} M parameters")
        if run.history:
            self._last = run.history[-1]
            parts.append(f"resumed after round {run.history[-1].round}")
        self._display.line("; ".join(parts))

    @hookimpl
    def sage_step_finished(self, activity: str, done: int, total: int, loss: Any) -> None:
        """Show the step, reading its loss only if it would be shown and the last look was a while ago."""
        now = monotonic()
        current = self._activity
        if current is None or current.name != activity or current.total != total or done <= current.done:
            self._end_activity()
            current = self._activity = Activity(activity, now, done, total)
        current.done = done
        current.run_left = self._run_left(current)
        if loss is not None and now - self._loss_read >= READ_INTERVAL and self._display.wants_loss(current):
            self._loss_read = now
            current.loss = f"{float(loss):.4f}"
        self._display.step(current)
        if current.finished:
            self._end_activity()

    @hookimpl
    def sage_round_finished(self, run: RunInfo, result: RoundResult) -> None:
        """Show the round's outcome."""
        self._end_activity()
        self._last = result
        self._display.line(describe(result, run.primary_metric))

    @hookimpl
    def sage_run_finished(self, run: RunInfo, summary: dict[str, Any]) -> None:
        """Show why the run ended and give the terminal back."""
        self._end_activity()
        stopped = summary.get("stopped")
        self._display.line(f"finished: {stopped}" if stopped else "finished")
        self._display.close()

    @hookimpl
    def sage_run_failed(self) -> None:
        """Give the terminal back; the error speaks for itself."""
        self._activity = None
        self._display.close()

    def _run_left(self, activity: Activity) -> float:
        """Seconds until the run has ended if no rule ends it earlier; NaN outside a round.

        What is left of the round goes on as it has so far; later steps take as long as those of the last round did,
        with all else of a round, or as the steps of this one.
        """
        run = self._run
        if run is None or not activity.name.startswith("round ") or math.isnan(activity.left):
            return math.nan
        config, number = run.config, int(activity.name.split()[1])
        last = self._last if self._last is not None and self._last.steps > 0 else None
        if config.max_steps:
            before = 0 if last is None else last.total_steps
            later = max(0, config.max_steps - before - activity.total)
        else:
            added = config.synthetic_ratio if config.schedule != "none" and config.mix == "add" else 0.0
            real = math.ceil(run.examples.get("train", 0) / config.batch_size)
            # the first round may be one of real examples alone
            later = max(0, config.rounds - number) * max(activity.total, math.ceil(real * (1 + added)))
        pace = activity.left / max(1, activity.total - activity.done)
        if last is not None:
            pace = max(pace, last.seconds / last.steps)
        return activity.left + later * pace

    def _end_activity(self) -> None:
        if self._activity is not None:
            self._display.end(self._activity)
            self._activity = None


class NoDisplay:
    """Shows nothing, and so waits for no loss."""

    def line(self, text: str) -> None:
        """Show nothing."""

    def wants_loss(self, activity: Activity) -> bool:
        """Whether the activity's loss would be shown: never."""
        return False

    def step(self, activity: Activity) -> None:
        """Show nothing."""

    def end(self, activity: Activity) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Nothing to give back."""


class BarDisplay:
    """A bar for the activity that is going on, below the lines that stay.

    The live display exists only while an activity does, so that between them the terminal is as any program expects it.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: Any = None

    def line(self, text: str) -> None:
        """Show a line that stays, above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def wants_loss(self, activity: Activity) -> bool:
        """Whether the activity's loss would be shown: always."""
        return True

    def step(self, activity: Activity) -> None:
        """Move the bar."""
        loss = f"loss {activity.loss}" if activity.loss else ""
        run_left = "" if math.isnan(activity.run_left) else f"run {clock(activity.run_left)} left"
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[run_left]}", markup=False),
                TextColumn("{task.fields[loss]}", markup=False),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(
                activity.name, total=activity.total, completed=activity.done, loss=loss, run_left=run_left
            )
            atexit.register(self.close)  # an error before the run has begun reaches no hook
            self._bar.start()
        self._bar.update(self._task, completed=activity.done, loss=loss, run_left=run_left)

    def end(self, activity: Activity) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away, if there is one, and show the cursor again."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            atexit.unregister(self.close)


class LineDisplay:
    """Plain lines, few enough for a log file.

    Parameters
    ----------
    interval : float
        Least seconds between two lines of an activity, its first and last not counted.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._shown = float("-inf")
        self._current: Activity | None = None

    def line(self, text: str) -> None:
        """Show a line."""
        print(text, file=sys.stderr, flush=True)

    def wants_loss(self, activity: Activity) -> bool:
        """Whether a line is due that would show the loss."""
        return self._due(activity) or (activity.finished and monotonic() - activity.started >= SHORT)

    def step(self, activity: Activity) -> None:
        """Show a line if one is due."""
        if not self._due(activity):
            return
        self._current = activity
        self._shown = monotonic()
        loss = f", loss {activity.loss}" if activity.loss else ""
        left = "" if math.isnan(activity.left) else f", {clock(activity.left)} left"
        of_run = "" if math.isnan(activity.run_left) else f", of the run {clock(activity.run_left)}"
        self.line(f"{activity.name}: {activity.done}/{activity.total}{loss}{left}{of_run}")

    def end(self, activity: Activity) -> None:
        """Show how long the activity took, unless it was short."""
        seconds = monotonic() - activity.started
        if seconds >= SHORT:
            loss = f", loss {activity.loss}" if activity.loss else ""
            self.line(f"{activity.name}: {activity.done}/{activity.total} done in {seconds:.1f} s{loss}")
        self._current = None

    def close(self) -> None:
        """Nothing to give back."""

    def _due(self, activity: Activity) -> bool:
        if activity.finished:
            return False  # its last line follows at once
        now = monotonic()
        if self._current is activity:
            return now - self._shown >= self._interval
        return now - activity.started >= SHORT


def clock(seconds: float) -> str:
    """A time as hours, minutes and seconds: ``0:04:10``."""
    return str(timedelta(seconds=round(seconds)))


def describe(result: RoundResult, primary_metric: str) -> str:
    """A round's outcome as one line."""
    parts = [f"round {result.round}: {result.steps} steps"]
    # a round of synthetic examples alone has no loss on real ones, and a round without any has none on synthetic ones
    for name, loss in (("loss", result.train_loss), ("synthetic loss", result.synthetic_loss)):
        if not math.isnan(loss):
            parts.append(f"{name} {loss:.4f}")
    for name in ("agreement", primary_metric):
        if name in result.dev:
            parts.append(f"{name} {result.dev[name]:.4f} (dev)")
    dropped = f" ({result.dropped} dropped)" if result.dropped else ""
    parts.append(f"{result.synthetic} synthetic{dropped}")
    parts.append(f"{result.seconds:.1f} s")
    return ", ".join(parts)
