"""How much memory this process takes, as the operating system says. Light."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import TracebackType

STATUS = "/proc/{}/status"
FIELDS = ("RssAnon", "RssFile", "RssShmem")


def resident(process: int | str = "self") -> dict[str, int]:
    """Bytes of a process, this one or that of a number, that lie in memory, by kind as Linux names them; empty on other
    systems, and when the process is gone.

    "RssAnon" are its own, "RssFile" those of files that it has mapped, which the system takes back when it needs them.
    """
    try:
        text = Path(STATUS.format(process)).read_text(encoding="ascii", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: int(value.split()[0]) * 1024 for name, _, value in pairs if name in FIELDS}


def most_resident() -> int:
    """Bytes of the process's largest size in memory since it began, mapped files included."""
    import resource  # not on every system

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


class PeakMemory:
    """Looks every few milliseconds how much memory of its own this process holds, in a thread, while in its context.

    Parameters
    ----------
    interval : float
        Time between two looks [s].

    Attributes
    ----------
    before, peak : int
        "RssAnon" at the beginning and the most that was seen [bytes]; 0 where the system does not say.
    """

    def __init__(self, interval: float = 0.005) -> None:
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.peak = 0

    def __enter__(self) -> PeakMemory:
        self.before = self.peak = resident().get("RssAnon", 0)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, resident().get("RssAnon", 0))

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            self._look()
