"""Where a round goes: a trace of part of it by torch's profiler, and a page that sums it up.

Two windows of one round are traced, the synthesis with its first labelled batches and the first student steps, since a
whole round has millions of events. Tracing slows what it records, so the seconds by activity, which the page shows
first, are a little more than those of an untraced round.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from sage_kit.components.records import Costs
from sage_kit.storage.files import atomic_directory, disk_errors

FOLDER = "profile"
PAGE = "where_it_went.txt"
LABELLED_BATCHES = 10
STUDENT_STEPS = 30
ROWS = 15


class RoundTrace:
    """Traces one round of a run.

    Parameters
    ----------
    directory : Path
        The run directory; the folder ``profile`` in it is made when the round ends.
    number : int
        Which round, from 1: the first that synthesises, or the first of all where none does; 0 for none.
    device : torch.device

    Attributes
    ----------
    number : int
    """

    def __init__(self, directory: Path, number: int, device: torch.device) -> None:
        self.number = number
        self._folder = directory / FOLDER
        self._device = device
        self._profiler: Any = None
        self._window = ""
        self._left = 0
        self._active = False
        self._finished: dict[str, Any] = {}

    @contextlib.contextmanager
    def round(self, number: int, costs: Costs) -> Iterator[None]:
        """Around a round; does nothing for another than the one to trace.

        Raises
        ------
        DiskFullError
            When the disk is full.
        """
        if number != self.number:
            yield
            return
        before = Costs.from_json(costs.to_json())
        self._active = True
        try:
            yield
        finally:
            self._active = False
            self._stop()
        self._write(costs_between(before, costs))

    @contextlib.contextmanager
    def window(self, name: str, steps: int) -> Iterator[None]:
        """Around one activity, of which so many steps are traced."""
        if not self._active:
            yield
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities, record_shapes=True)
        self._window, self._left = name, steps
        self._profiler.start()
        try:
            yield
        finally:
            self._stop()

    def step(self) -> None:
        """Called after each step of an activity."""
        if self._profiler is not None:
            self._left -= 1
            if self._left <= 0:
                self._stop()

    def _stop(self) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            self._finished[self._window] = self._profiler
            self._profiler = None

    def _write(self, costs: Costs) -> None:
        with disk_errors(str(self._folder)), atomic_directory(self._folder) as temporary:
            for name, profiler in self._finished.items():
                profiler.export_chrome_trace(str(temporary / f"{name}.json.gz"))
            page = summary_page(self.number, costs, self._finished, self._device)
            (temporary / PAGE).write_text(page, encoding="utf-8")
        self._finished = {}


def costs_between(before: Costs, after: Costs) -> Costs:
    """What has been spent since."""
    spent = Costs()
    for activity, seconds in after.seconds.items():
        spent.add(
            activity,
            seconds - before.seconds.get(activity, 0.0),
            after.tokens.get(activity, 0) - before.tokens.get(activity, 0),
            after.flops.get(activity, 0) - before.flops.get(activity, 0),
        )
    return spent


def summary_page(number: int, costs: Costs, profilers: Mapping[str, Any], device: torch.device) -> str:
    """The page: seconds by activity, then each window's operations by their own time.

    Parameters
    ----------
    number : int
        The round.
    costs : Costs
        What the round spent.
    profilers : mapping of str to torch.profiler.profile
        Stopped, by window.
    device : torch.device
        By whose time the operations are ordered.
    """
    spent = {name: seconds for name, seconds in costs.seconds.items() if seconds > 0}
    total = sum(spent.values())
    lines = [f"Round {number}: {total:.2f} s in these activities", ""]
    lines.append(f"{'activity':<20}{'seconds':>10}{'share':>8}{'tokens/s':>12}{'GFLOP/s':>10}")
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        tokens, flops = costs.tokens.get(name, 0) / seconds, costs.flops.get(name, 0) / seconds / 1e9
        rates = f"{tokens:>12,.0f}{flops:>10,.1f}" if tokens else ""
        lines.append(f"{name:<20}{seconds:>10.3f}{seconds / total:>8.1%}{rates}")
    on_gpu = device.type == "cuda"
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    for name, profiler in profilers.items():
        events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, order))
        whole = sum(getattr(event, order) for event in events) or 1
        lines += ["", f"{name}: operations by their own time on the {'GPU' if on_gpu else 'CPU'} ({name}.json.gz)", ""]
        lines.append(f"{'operation':<52}{'calls':>8}{'ms':>10}{'share':>8}")
        for event in events[:ROWS]:
            own = getattr(event, order)
            lines.append(f"{event.key[:50]:<52}{event.count:>8}{own / 1000:>10.1f}{own / whole:>8.1%}")
    lines += ["", "Open a trace at https://ui.perfetto.dev or chrome://tracing.", ""]
    return "\n".join(lines)
