"""In a process that another has started: end with that one, however it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

WATCH = 1.0  # seconds between looks at whether the parent still runs


def end_itself() -> None:
    """End this process as if it had been told to."""
    os.kill(os.getpid(), signal.SIGTERM)


def end_session() -> None:
    """End this process, which leads a session, and whatever it has started."""
    os.killpg(0, signal.SIGKILL)


def end_with(parent: int, end: Callable[[], None] = end_itself) -> None:
    """Call `end` once the process `parent`, which has started this one, is gone. Nothing on Windows, where a process
    does not learn of it.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        end()

    if os.name != "nt":
        threading.Thread(target=watch, daemon=True, name="parent").start()
