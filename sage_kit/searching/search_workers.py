"""Several processes of one search on this machine: each runs the same command, and ends with the one that began it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sage_kit.errors import StudyError
from sage_kit.searching.search_plan import Ending

GRACE = 10.0
"""Seconds that a process may take to end by itself once it is told to."""


@contextlib.contextmanager
def workers(folder: Path, jobs: int, trials: int, ending: Ending) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that make trials until there are enough, then the finals and the check; ended with the block.

    They share the cores of the machine, unless OMP_NUM_THREADS says otherwise.
    """
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    command = [sys.executable, "-m", "sage_kit", "search", str(folder)]
    command += ["--trust-plugins"]  # of which the user has been asked
    command += ["--trials", str(trials), *ending.flags()]
    processes = [
        subprocess.Popen([*command, "--worker", str(os.getpid())], env=environment, stdin=subprocess.DEVNULL)
        for _ in range(jobs)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def make_trials(folder: Path, jobs: int, trials: int, ending: Ending) -> None:
    """Let `jobs` processes make the trials and the runs of the ending, and wait for them.

    Raises
    ------
    StudyError
        When none of them ended well; each has said why.
    """
    with workers(folder, jobs, trials, ending) as processes:
        codes = [process.wait() for process in processes]
    if all(codes):
        raise StudyError(f"none of the {jobs} processes ended well (exit codes {', '.join(map(str, codes))})")
