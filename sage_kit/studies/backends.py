"""Executing the cells of a grid: one after the other, in processes of one machine, or on a cluster.

However it ends, nothing that was done is lost: the outcome of a cell lies in its folder, and a process that asks for a
cell that is done gets it from there. So a cell whose worker was killed is simply asked for again.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

from sage_kit.errors import StudyError, did_you_mean
from sage_kit.studies.dask_cluster import MOST_ATTEMPTS, Scheduler, on_cluster
from sage_kit.studies.runner import LOG, Announce, Cell, Outcome, now, read_record, require_packages, run_cell

BACKENDS = ("joblib", "dask")

Run = Callable[[Cell], Outcome]


def run_cells(
    cells: Sequence[Cell],
    backend: str = "joblib",
    jobs: int = 1,
    scheduler: Scheduler | None = None,
    *,
    again: bool = False,
    announce: Announce = lambda text: None,
) -> list[Outcome]:
    """Execute cells, each unless it is done already; one that fails does not keep the others from being executed.

    The backend is processes of this machine, `jobs` of them (one executes the cells here), or the workers of a
    dask.distributed cluster, which must see the same folders. Outcomes are in the order of `cells`.
    """
    check_backend(backend, jobs, scheduler)
    if scheduler and scheduler.warning:
        announce(scheduler.warning)
    outcomes: dict[Path, Outcome] = {}
    waiting = {cell.directory: cell for cell in cells}
    total = len(waiting)
    # what another process is executing comes last: it will often be done by then
    for wait in (False, True):
        batch, run = list(waiting.values()), partial(run_cell, again=again, wait=wait)
        if backend == "dask":
            assert scheduler is not None, "checked"
            results = on_cluster(batch, run, scheduler)
        elif min(jobs, len(batch)) > 1:
            results = _in_processes(batch, run, min(jobs, len(batch)))
        else:
            results = map(partial(run, announce=announce), batch)
        for outcome in results:
            if outcome.state != "busy":
                outcomes[outcome.cell.directory] = outcome
                del waiting[outcome.cell.directory]
                announce(f"[{len(outcomes)}/{total}] {_outcome_text(outcome)}")
        if not waiting:
            break
        announce(f"waiting for {len(waiting)} that another process is executing")
    return [outcomes[cell.directory] for cell in cells]


def check_backend(backend: str, jobs: int, scheduler: Scheduler | None) -> None:
    """Check how cells are to be executed, without starting anything."""
    if backend not in BACKENDS:
        raise StudyError(f"Unknown backend {backend!r}.{did_you_mean(backend, BACKENDS)}")
    if jobs < 1:
        raise StudyError(f"jobs is {jobs}: expected at least 1")
    if backend == "dask" and not scheduler:
        raise StudyError("backend 'dask' needs --scheduler ADDRESS, as `dask scheduler` prints it")
    if backend != "dask" and scheduler:
        raise StudyError(f"backend {backend!r} has no scheduler: take --backend dask, or leave --scheduler out")
    if scheduler:
        scheduler.check()
    require_packages("papermill", "ipykernel", "nbconvert", "distributed" if backend == "dask" else "joblib")


def _outcome_text(outcome: Outcome) -> str:
    """What became of a cell, on one line."""
    name = outcome.cell.name
    if outcome.state == "failed":
        return f"{name} failed: {outcome.error} (see {outcome.cell.directory / LOG})"
    if outcome.error:
        return f"{name} {outcome.state}: {outcome.error}"
    return f"{name} was done before" if outcome.reused else f"{name} {outcome.state} in {outcome.seconds:.1f} s"


def _in_processes(cells: Sequence[Cell], run: Run, jobs: int) -> Iterator[Outcome]:
    """In processes of this machine; outcomes in the order in which they come."""
    import joblib

    left = {cell.directory: cell for cell in cells}
    deaths: Counter[Path] = Counter()
    while left:
        # A worker that dies takes the others along. Whichever was at work twice then is tried once more alone.
        several = [cell for path, cell in left.items() if deaths[path] < MOST_ATTEMPTS - 1]
        batch, began = several or list(left.values())[:1], now()
        try:
            with joblib.Parallel(jobs, "loky", batch_size=1, return_as="generator_unordered") as parallel:
                for outcome in parallel(joblib.delayed(_in_worker)(run, cell) for cell in batch):
                    del left[outcome.cell.directory]
                    yield outcome
        except BrokenProcessPool:
            lost = [cell.directory for cell in batch if cell.directory in left]
            records = [(path, read_record(path)) for path in lost]
            at_work = [
                path for path, told in records if told.get("state") == "interrupted" and told["started"] >= began
            ]
            deaths.update(at_work or lost)
            for path in [path for path in left if deaths[path] >= MOST_ATTEMPTS]:
                yield Outcome(left.pop(path), "failed", error=f"its worker died {MOST_ATTEMPTS} times")


def _in_worker(run: Run, cell: Cell) -> Outcome:
    """Execute a cell in a process that leaves an interruption to the one that started it, which then ends it."""
    # a function, since a kernel would inherit that the signal is ignored
    signal.signal(signal.SIGINT, lambda *_: None)
    return run(cell)
