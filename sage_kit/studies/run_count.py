"""How many of a study's runs are there, of how many, and how long the others take: told behind the line on each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from sage_kit.studies.effort import Planned, counted, minutes_text


class RunCount:
    """The runs of a study, from its plan and from those that it has asked for."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self._missing = 0  # runs of the plan that were not there
        self._seconds: list[float] = []  # of those made

    def plan(self, runs: Sequence[Planned]) -> None:
        """Take runs into the count before the first of them is asked for."""
        self.total = max(self.total, self.done + len(runs))
        self._missing += sum(not run.found for run in runs)

    def ask(self, number: int) -> None:
        """Take runs into the count that are asked for now; those of the plan are in it."""
        self.total = max(self.total, self.done + number)

    def add(self, seconds: float | None) -> str:
        """Count a run that took so many seconds, None for one that was found; what is to be told behind its line."""
        self.done += 1
        if seconds is not None:
            self._seconds.append(seconds)
        text = f"; {self.done:,} of {counted(self.total, 'run')}"
        left = min(self._missing - len(self._seconds), self.total - self.done)
        if not self._seconds or left <= 0:
            return text
        return f"{text}, about {minutes_text(left * sum(self._seconds) / len(self._seconds) / 60)} left"


def tell(line: str) -> None:
    """Print a line on a study's way; under plain papermill on its terminal too, which shows a bar of cells alone."""
    print(line, flush=True)
    terminal = _papermills_terminal()
    if terminal is not None:
        start = "\r\x1b[K" if os.isatty(terminal) else "\r"  # over the bar, which is drawn again
        with suppress(OSError):
            os.write(terminal, f"{start}{line}\n".encode())


@cache
def _papermills_terminal() -> int | None:
    """The error output of the papermill process that has started this kernel; None where none has, or where it shows
    what cells print.
    """
    # the kernel takes all that is written to the usual descriptors for output of a cell, and keeps a copy of them
    copy = getattr(sys.stderr, "_original_stdstream_copy", None)
    if not isinstance(copy, int):
        return None
    words = _words_of(os.getppid())
    is_papermill = any(Path(word).stem == "papermill" for word in words[:3])
    return copy if is_papermill and "--log-output" not in words else None


def _words_of(process: int) -> list[str]:
    """The command line of a process; empty where the system does not say, and the line is in the notebook alone."""
    listed = Path(f"/proc/{process}/cmdline")
    try:
        if listed.exists():
            return listed.read_bytes().decode(errors="replace").split("\0")
        command = ["ps", "-o", "args=", "-p", str(process)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    except OSError:
        return []
