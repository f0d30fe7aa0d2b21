"""One component, checked in a process of its own: whatever it does to that process, the others are checked too."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sage_kit.components.plugins import Registered
from sage_kit.system.child import Child, ChildEnded, ChildSilent
from sage_kit.testing.registry import FIX, CheckResult
from sage_kit.testing.run_checks import check_names, not_run

TIME_LIMIT = 120.0  # processor time that a check may take [s]
IDLE_LIMIT = 40.0  # time that a check may go on without computing anything [s]
SILENCE = 60.0  # time without a sign of life, as where compiled code holds Python's lock [s]
LOADING = "loading"  # the name of the result for a process that ends before its first check


class _Stuck(Exception):
    """A check takes too long; the text says how that shows."""


def check_alone(
    item: Registered, files: Sequence[str], *, hooks: bool = False, time_limit: float = TIME_LIMIT
) -> list[CheckResult]:
    """Run every check of a component in a process of its own, and compare what another process gets.


    `hooks` says that it stands for the observing hooks of a file. Where the process ends or hangs in a check, that one
    has failed, and those after it are skipped.
    """
    message = {
        "files": [str(Path(file).absolute()) for file in files],
        "kind": item.spec.kind,
        "name": item.spec.name,
        "plugin": item.origin.plugin if item.origin.version and item.origin.distribution != "sage-kit" else "",
        "hooks": hooks,
        "results": "",
        "compare_with": "",
    }
    title = f"{item.spec.kind.replace('_', ' ')} {item.spec.name!r}"
    with tempfile.TemporaryDirectory(prefix="sage-kit-check-") as folder:
        file = Path(folder) / "results.json"
        results = _ask({**message, "results": str(file)}, title, "1", time_limit)
        if file.exists() and all(result.passed for result in results):
            results += _ask({**message, "compare_with": str(file)}, title, "2", time_limit)
    known = {result.name for result in results}
    if results and not results[-1].passed:
        results += [not_run(name, results[-1].name) for name in check_names(item.spec.kind) if name not in known]
    return results


def _ask(message: dict[str, Any], title: str, hash_seed: str, time_limit: float) -> list[CheckResult]:
    """The results of one process."""
    results: list[CheckResult] = []
    current, started = LOADING, time.perf_counter()
    with _hash_seed(hash_seed):
        child = Child([sys.executable, "-m", "sage_kit.testing.check_worker"])
    try:
        child.send(message)
        watch = _Watch(time_limit)
        while True:
            event = watch.next(child)
            if event["event"] == "check":
                current, started = event["name"], time.perf_counter()
                watch.restart()
            elif event["event"] == "result":
                del event["event"]
                results.append(CheckResult(**event))
            elif event["event"] == "failed":
                results.append(_failure(current, title, event["reason"], started))
                return results
            elif event["event"] == "end":
                return results
    except ChildEnded as end:
        results.append(_failure(current, title, _how(end), started))
    except _Stuck as stuck:
        results.append(_failure(current, title, str(stuck), started))
    finally:
        child.end()
    return results


class _Watch:
    """Sees from a process's signs of life whether it gets on."""

    def __init__(self, time_limit: float) -> None:
        self._limit = time_limit
        self._used = 0.0
        self.restart()

    def restart(self) -> None:
        """A check begins."""
        self._from = self._used
        self._moved = time.monotonic()

    def next(self, child: Child) -> dict[str, Any]:
        """The next event that is no sign of life."""
        while True:
            try:
                event = child.receive(SILENCE)
            except ChildSilent:
                raise _Stuck(f"it has given no sign of life for {SILENCE:.0f} s (time limit)") from None
            if event["event"] != "alive":
                return event
            now = time.monotonic()
            # the sign of life itself takes a little
            if event["seconds"] > self._used + 0.05:
                self._used, self._moved = event["seconds"], now
            if self._used - self._from > self._limit:
                used = f"{self._limit:.0f} s of processor time"
                raise _Stuck(f"it has not ended after {used} (the time limit; more with --time-limit)")
            if now - self._moved > min(IDLE_LIMIT, self._limit):
                limit = min(IDLE_LIMIT, self._limit)
                raise _Stuck(f"it has waited for {limit:.0f} s without computing anything (time limit)")


def _how(end: ChildEnded) -> str:
    """How a process has ended."""
    if end.code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-end.code).name
            return f"it ends the process: killed by {name}, as by a fault in compiled code or a lack of memory"
    words = f": {end.last_words}" if end.last_words else ""
    return f"it ends the process, with exit status {end.code}{words}"


def _failure(name: str, title: str, problem: str, started: float) -> CheckResult:
    advice = "raise an error of sage_kit.errors instead of ending the process, and put a limit on what waits or loops"
    message = f"{title}: {problem.rstrip('.')}. {FIX} {advice}."
    return CheckResult(name, False, message, time.perf_counter() - started)


@contextlib.contextmanager
def _hash_seed(value: str) -> Any:
    """Give the child's texts other hashes, which decide on the order of its sets."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before
