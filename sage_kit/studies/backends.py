"""Executing the cells of a grid: one after the other, in processes of one machine, or on a cluster. Light until then.

However it ends, nothing that was done is lost: the outcome of a cell lies in its folder, and a process that asks for a
cell that is done gets it from there. So a cell whose worker was killed is simply asked for again.
"""

from __future__ import annotations

import signal
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_kit.errors import SageError, StudyError, did_you_mean
from sage_kit.studies.runner import (
    LOG,
    Announce,
    Cell,
    Outcome,
    available_cores,
    is_held,
    mark_stale,
    read_record,
    require_packages,
    run_cell,
)

BACKENDS = ("joblib", "dask")

MOST_ATTEMPTS = 3
"""How often a cell is given to a worker, when each of them dies of it."""

CONNECT_SECONDS = 10
"""How long a scheduler may take to answer [s]."""


def run_cells(
    cells: Sequence[Cell],
    backend: str = "joblib",
    jobs: int = 1,
    scheduler: str = "",
    *,
    again: bool = False,
    announce: Announce = lambda text: None,
) -> list[Outcome]:
    """Execute cells, each unless it is done already; one that fails does not keep the others from being executed.

    Parameters
    ----------
    cells : sequence of Cell
    backend : "joblib" or "dask"
        Processes of this machine, or the workers of a dask.distributed cluster, which must see the same folders.
    jobs : int
        Processes (joblib); each leaves ``cores // jobs`` threads to its notebook. One executes the cells here.
    scheduler : str
        Address of the scheduler (dask).
    again : bool
        Execute cells that are done too.
    announce : callable
        Gets lines on what is going on.

    Returns
    -------
    list of Outcome
        In the order of `cells`.

    Raises
    ------
    StudyError
        For an unknown backend, fewer than one job, or a scheduler that is not named or does not answer.
    MissingPackageError
        When a package that it takes is not installed.
    """
    check_backend(backend, jobs, scheduler)
    invocation = uuid.uuid4().hex
    outcomes: dict[Path, Outcome] = {}
    waiting = {cell.directory: cell for cell in cells}
    total = len(waiting)
    try:
        # What another process is executing comes last: it will often be done by then.
        for wait in (False, True):
            batch = _Batch(list(waiting.values()), again, wait, invocation)
            if backend == "dask":
                results = _on_cluster(batch, scheduler)
            elif min(jobs, len(waiting)) > 1:
                results = _in_processes(batch, min(jobs, len(waiting)))
            else:
                results = _here(batch, announce)
            for outcome in results:
                if outcome.state != "busy":
                    outcomes[outcome.cell.directory] = outcome
                    announce(f"[{len(outcomes)}/{total}] {outcome_text(outcome)}")
            waiting = {path: cell for path, cell in waiting.items() if path not in outcomes}
            if not waiting:
                break
            announce(f"waiting for {len(waiting)} that another process is executing")
    except KeyboardInterrupt:
        for cell in waiting.values():
            mark_stale(cell, "interrupted")
        raise
    return [outcomes[cell.directory] for cell in cells]


def check_backend(backend: str, jobs: int, scheduler: str) -> None:
    """Check how cells are to be executed, without starting anything.

    Raises
    ------
    StudyError
        For an unknown backend, fewer than one job, or a scheduler without dask or dask without one.
    MissingPackageError
        When a package that it takes is not installed.
    """
    if backend not in BACKENDS:
        raise StudyError(f"Unknown backend {backend!r}.{did_you_mean(backend, BACKENDS)}")
    if jobs < 1:
        raise StudyError(f"jobs is {jobs}: expected at least 1")
    if backend == "dask" and not scheduler:
        raise StudyError("backend 'dask' needs --scheduler ADDRESS, as `dask scheduler` prints it")
    if backend != "dask" and scheduler:
        raise StudyError(f"backend {backend!r} has no scheduler: take --backend dask, or leave --scheduler out")
    require_packages("papermill", "ipykernel", "distributed" if backend == "dask" else "joblib")


def outcome_text(outcome: Outcome) -> str:
    """What became of a cell, on one line."""
    name = outcome.cell.name
    if outcome.state == "failed":
        return f"{name} failed: {outcome.error} (see {outcome.cell.directory / LOG})"
    note = f": {outcome.note}" if outcome.note else ""
    how = "was done before" if outcome.reused else f"{outcome.state} in {outcome.seconds:.1f} s"
    return f"{name} {how}{note}"


@dataclass(frozen=True)
class _Batch:
    """Cells to be executed, and the arguments of `run_cell` that are the same for all of them."""

    cells: Sequence[Cell]
    again: bool
    wait: bool
    invocation: str

    def arguments(self) -> dict[str, Any]:
        return {"again": self.again, "wait": self.wait, "invocation": self.invocation}


def _here(batch: _Batch, announce: Announce) -> Iterator[Outcome]:
    """In this process, one after the other."""
    for cell in batch.cells:
        yield run_cell(cell, **batch.arguments(), announce=announce)


def _in_processes(batch: _Batch, jobs: int) -> Iterator[Outcome]:
    """In processes of this machine; outcomes in the order in which they come."""
    import joblib
    from joblib.externals.loky import get_reusable_executor

    threads = max(1, available_cores() // jobs)
    left = {cell.directory: cell for cell in batch.cells}
    deaths: Counter[Path] = Counter()
    try:
        while left:
            # A worker that dies takes the others along. Whichever was at work twice then is tried once more alone.
            several = [cell for path, cell in left.items() if deaths[path] < MOST_ATTEMPTS - 1]
            chosen = several or list(left.values())[:1]
            parallel = joblib.Parallel(jobs, backend="loky", batch_size=1, return_as="generator_unordered")
            calls = (joblib.delayed(_in_worker)(cell, **batch.arguments(), threads=threads) for cell in chosen)
            try:
                for outcome in parallel(calls):
                    del left[outcome.cell.directory]
                    yield outcome
            except BrokenProcessPool:
                for path, cell in list(left.items()):
                    if read_record(path).get("state") == "running" and not is_held(path):
                        deaths[path] += 1
                        if deaths[path] >= MOST_ATTEMPTS:
                            del left[path]
                            yield _lost(cell)
    finally:
        get_reusable_executor().shutdown(wait=True)


def _in_worker(cell: Cell, **arguments: Any) -> Outcome:
    """Execute a cell in a process that leaves an interruption to the one that started it, which then ends it."""
    # a function, since a kernel would inherit that the signal is ignored
    signal.signal(signal.SIGINT, lambda *_: None)
    return run_cell(cell, **arguments)


def _on_cluster(batch: _Batch, scheduler: str) -> Iterator[Outcome]:
    """On the workers of a dask.distributed cluster; outcomes in the order in which they come."""
    from distributed import Client, as_completed

    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise StudyError(f"no dask scheduler answers at {scheduler}: {reason or type(error).__name__}") from None
    with client:
        # not pure: the same cell under the same arguments is another task when it is asked for again
        futures = {
            client.submit(run_cell, cell, **batch.arguments(), pure=False, retries=MOST_ATTEMPTS - 1): cell
            for cell in batch.cells
        }
        try:
            # its loop is told, or it looks for a client of the whole process
            for future in as_completed(list(futures), loop=client.loop):
                cell = futures.pop(future)
                if future.status == "finished":
                    yield future.result()
                    continue
                failure = future.exception() if future.status == "error" else None
                if isinstance(failure, SageError):
                    raise failure
                yield _lost(cell, f"{type(failure).__name__}: {failure}" if failure else "the scheduler went away")
        finally:
            client.cancel(list(futures), force=True)


def _lost(cell: Cell, reason: str = "") -> Outcome:
    """The outcome of a cell whose workers died, also written into its folder."""
    text = (
        f"its worker died {MOST_ATTEMPTS} times" if not reason else f"its worker was lost ({' '.join(reason.split())})"
    )
    mark_stale(cell, "failed", text)
    return Outcome(cell, "failed", error=text)
