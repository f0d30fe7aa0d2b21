"""One cell of a study: a notebook with its parameters, executed at most once. Light until it executes.

A cell lies in ``<out>/<study>/<key>/``::

    notebook.ipynb   the executed notebook
    notebook.html    the same as a page, its code folded
    failed.ipynb     what was executed of it, with the error, when it failed
    cell.json        study, parameters, state, times, error, machine and versions
    log.txt          when each cell of the notebook started and ended, and what it printed

The key is a fingerprint of all that the outcome depends on. Whoever executes a cell holds its lock, so a cell that says
it is running while its lock is free was interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import sage_kit
from sage_kit.config import DATA_DIR_VARIABLE
from sage_kit.errors import MissingPackageError, StudyError
from sage_kit.storage.files import TEMPORARY_PREFIX, disk_errors, remove_temporaries, write_json
from sage_kit.studies.cell_key import FORMAT, cell_key, check_names, version_of
from sage_kit.studies.page import write_page
from sage_kit.studies.parameters import cell_source, check, load_notebook, read_parameters
from sage_kit.studies.places import RESULTS

CELL = "cell.json"
NOTEBOOK = "notebook.ipynb"
PAGE = "notebook.html"
FAILED = "failed.ipynb"
LOG = "log.txt"
LOCK = ".lock"

STATES = ("running", "done", "failed", "interrupted")

HANDED_ON = (DATA_DIR_VARIABLE, "SAGE_KIT_CACHE_DIR", "SAGE_KIT_PLUGINS", "HF_HOME", "HF_HUB_OFFLINE",
             "HF_DATASETS_OFFLINE")  # fmt: skip
"""Variables that a notebook finds as they were where the grid was started, on whatever machine it runs."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                    "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")  # fmt: skip

PROGRESS_SECONDS = 60.0
"""How often a progress bar that overwrites its line gets one in the log [s]."""

START_SECONDS = 300
"""How long a kernel may take to start [s]; several that start at once on a busy machine take long."""

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """A notebook with its parameters, and where its outcome lies.

    Attributes
    ----------
    study : str
        Name of the notebook without its ending.
    notebook : Path
    parameters : mapping
        Complete and checked.
    key : str
        Fingerprint of all that the outcome depends on; 16 hexadecimal digits.
    out : Path
        Folder of all cells.
    working_dir : Path
        Where the kernel runs; relative paths among the parameters start there.
    environment : mapping
        Variables that the kernel gets besides those of the process that starts it.
    """

    study: str
    notebook: Path
    parameters: Mapping[str, Any]
    key: str
    out: Path
    working_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Where the outcome lies."""
        return self.out / self.study / self.key

    @property
    def name(self) -> str:
        """Study and the beginning of the key."""
        return f"{self.study} {self.key[:8]}"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes
    ----------
    cell : Cell
    state : "done", "failed", "interrupted" or "busy"
        Busy: another process is executing it, and was not waited for.
    seconds : float
        Wall time of its execution [s].
    error : str
        One line; "" unless it failed.
    reused : bool
        It had been executed before.
    note : str
        What else a reader should know; mostly "".
    """

    cell: Cell
    state: str
    seconds: float = 0.0
    error: str = ""
    reused: bool = False
    note: str = ""


# ---- planning --------------------------------------------------------------------------------------------------------


def make_cell(notebook: Path, parameters: Mapping[str, Any], out: Path, working_dir: Path | None = None) -> Cell:
    """A cell and its key.

    Parameters
    ----------
    notebook : Path
    parameters : mapping
        As text or of their types; those that are missing take the notebook's defaults.
    out : Path
        Folder of all cells.
    working_dir : Path or None
        Where the kernel will run; None takes the current folder.

    Returns
    -------
    Cell

    Raises
    ------
    StudyError
        For a notebook or a parameter that is not as it must be.
    PluginError
        For a one-file plugin that cannot be loaded.
    UnknownComponentError, MissingPackageError
        For a parameter that names a component or a task which is not there.
    """
    checked = check(read_parameters(notebook), parameters, study=notebook.stem)
    here = (working_dir or Path.cwd()).resolve()
    check_names(notebook, checked, set(parameters), here)
    return Cell(
        study=notebook.stem,
        notebook=notebook.resolve(),
        parameters=checked,
        key=cell_key(notebook, checked, here),
        out=Path(out).expanduser().resolve(),
        working_dir=here,
        environment={name: os.environ[name] for name in HANDED_ON if name in os.environ},
    )


# ---- what a cell's folder says ---------------------------------------------------------------------------------------


def read_record(directory: Path) -> dict[str, Any]:
    """The cell.json of a folder; empty when there is none that can be read."""
    try:
        record = json.loads((directory / CELL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("state") in STATES else {}


def is_held(directory: Path) -> bool:
    """Whether a process is executing the cell of a folder now."""
    from filelock import FileLock, Timeout

    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def find_cells(out: Path) -> list[dict[str, Any]]:
    """The records of all cells of a folder, by study and time.

    Returns
    -------
    list of dict
        Those of cell.json, and "directory" and "last_line", the last of the log. One that says it is running while
        nobody executes it has the state "interrupted".
    """
    records = []
    for path in sorted(Path(out).expanduser().glob(f"*/[!.]*/{CELL}")):
        record = read_record(path.parent)
        if not record:
            record = {"study": path.parent.parent.name, "key": path.parent.name, "state": "failed", "parameters": {},
                      "started": "", "ended": None, "seconds": None, "error": f"{CELL} is not readable"}  # fmt: skip
        if record["state"] == "running" and not is_held(path.parent):
            record["state"] = "interrupted"
        records.append({**record, "directory": str(path.parent), "last_line": _last_line(path.parent / LOG)})
    return sorted(records, key=lambda record: (record["study"], record.get("started") or ""))


def mark_stale(cell: Cell, state: str, error: str = "") -> bool:
    """Write another state into a cell's folder if it says it is running and nobody executes it.

    Returns
    -------
    bool
        Whether that was so.
    """
    from filelock import FileLock, Timeout

    if read_record(cell.directory).get("state") != "running":
        return False
    try:
        # held while it is written: whoever begins to execute the cell now would find its own record gone
        with FileLock(cell.directory / LOCK).acquire(timeout=0):
            record = read_record(cell.directory)
            if record.get("state") != "running":
                return False
            write_json(cell.directory / CELL, {**record, "state": state, "error": error or None})
    except Timeout:
        return False
    return True


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 4096))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


# ---- execution -------------------------------------------------------------------------------------------------------


def require_packages(*names: str) -> None:
    """Raise MissingPackageError unless the packages of the extra `notebooks` that are named can be imported."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingPackageError(f"running studies needs {name}: pip install 'sage-kit[notebooks]'")


def run_cell(
    cell: Cell,
    *,
    again: bool = False,
    wait: bool = True,
    invocation: str = "",
    threads: int = 0,
    announce: Announce | None = None,
) -> Outcome:
    """Execute a cell, unless it is done already.

    The notebook runs in a kernel of the current interpreter, whatever kernel its file names.

    Parameters
    ----------
    cell : Cell
    again : bool
        Execute it though it is done.
    wait : bool
        Wait for another process that is executing it.
    invocation : str
        Name of the command that asks; what was done under the same one is not done again, even with `again`.
    threads : int
        Threads that the notebook's libraries may use; 0 leaves it to the environment.
    announce : callable or None
        Gets each line of the log as well.

    Returns
    -------
    Outcome

    Raises
    ------
    MissingPackageError
        When papermill or ipykernel is not installed.
    StudyError
        When the folder cannot be written.
    DiskFullError
        When the disk is full.
    """
    require_packages("papermill", "ipykernel")
    directory = cell.directory
    with _lock(directory, wait, announce) as held:
        if not held:
            return Outcome(cell, "busy")
        record = read_record(directory)
        is_done = record.get("state") == "done" and (directory / NOTEBOOK).is_file()
        if is_done and (not again or (invocation and record.get("invocation") == invocation)):
            reused = not invocation or record.get("invocation") != invocation
            return Outcome(cell, "done", record.get("seconds") or 0.0, reused=reused, note=_elsewhere(cell, record))
        with disk_errors(str(directory)):
            return _execute(cell, invocation, threads, announce)


@contextlib.contextmanager
def _lock(directory: Path, wait: bool, announce: Announce | None) -> Iterator[bool]:
    """Hold a cell; yields whether it is held."""
    from filelock import FileLock, Timeout

    lock = FileLock(directory / LOCK)
    try:
        with disk_errors(str(directory)):
            directory.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        if announce is not None:
            announce("waiting for another process that is executing this cell")
        lock.acquire()
    except OSError as error:
        raise StudyError(
            f"{directory} cannot be written ({error.strerror}): choose another folder with --out"
        ) from None
    try:
        yield True
    finally:
        lock.release()


def _elsewhere(cell: Cell, record: Mapping[str, Any]) -> str:
    """Where the results of a cell that is done went, if that is not where they are wanted now."""
    if "results_dir" not in record.get("parameters", {}) or "results_dir" not in cell.parameters:
        return ""
    there, here = (
        values["results_dir"] or f"{RESULTS} of the project" for values in (record["parameters"], cell.parameters)
    )
    return "" if there == here else f"its results are in {there}; --again writes them to {here}"


def _execute(cell: Cell, invocation: str, threads: int, announce: Announce | None) -> Outcome:
    """Execute a cell whose lock is held."""
    directory = cell.directory
    remove_temporaries(directory)
    clock = time.perf_counter()
    record: dict[str, Any] = {
        "format": FORMAT,
        "study": cell.study,
        "key": cell.key,
        "notebook": str(cell.notebook),
        "parameters": dict(cell.parameters),
        "state": "running",
        "started": _now(),
        "ended": None,
        "seconds": None,
        "error": None,
        "invocation": invocation or uuid.uuid4().hex,
        "machine": _machine(),
        "versions": _versions(),
    }

    def write(state: str, error: str = "") -> float:
        seconds = time.perf_counter() - clock
        ended = {"ended": _now(), "seconds": round(seconds, 3), "error": error or None}
        write_json(directory / CELL, {**record, "state": state, **ended})
        return seconds

    write_json(directory / CELL, record)
    temporary = directory / f"{TEMPORARY_PREFIX}notebook-{uuid.uuid4().hex[:8]}.ipynb"
    with CellLog(directory / LOG, announce) as log:
        log.line(f"{cell.name} started: {parameters_text(cell.parameters)}")
        try:
            _papermill(cell, temporary, log, threads)
        except KeyboardInterrupt:
            log.line("interrupted")
            temporary.unlink(missing_ok=True)
            write("interrupted")
            raise
        except Exception as error:  # a notebook, its kernel and what connects them may raise anything
            _pass_on_full_disk(error)
            text = _error_line(error)
            _keep_failed(temporary, directory / FAILED, text, is_marked=hasattr(error, "ename"))
            for earlier in (NOTEBOOK, PAGE):
                (directory / earlier).unlink(missing_ok=True)
            log.line(f"failed: {text}")
            return Outcome(cell, "failed", write("failed", text), text)
        temporary.replace(directory / NOTEBOOK)
        (directory / FAILED).unlink(missing_ok=True)
        try:
            write_page(directory / NOTEBOOK, directory / PAGE)
        except ImportError as error:
            (directory / PAGE).unlink(missing_ok=True)  # of an earlier execution
            log.line(f"no {PAGE}, for {error.name} is not installed: pip install 'sage-kit[notebooks]'")
        log.line("done")
        return Outcome(cell, "done", write("done"))


def _pass_on_full_disk(error: Exception) -> None:
    """Raise the error of a full disk, which ends the grid and not only the cell."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise error


def _papermill(cell: Cell, output: Path, log: CellLog, threads: int) -> None:
    """Execute the notebook by papermill in a kernel of this interpreter."""
    import nbformat
    from papermill.execute import execute_notebook

    # papermill does not understand "int | None" and takes such a parameter for unknown; these have been checked
    logging.getLogger("papermill").addFilter(_is_no_false_alarm)

    notebook = nbformat.from_dict(load_notebook(cell.notebook))
    # what the file says may name a kernel that only its author has
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for item in notebook.cells:
        if "id" not in item and (notebook.nbformat, notebook.nbformat_minor) >= (4, 5):
            item["id"] = uuid.uuid4().hex[:8]
    codes = [item for item in notebook.cells if item.cell_type == "code" and cell_source(item).strip()]
    log.cells = len(codes) + bool(cell.parameters)  # papermill adds one that sets them
    environment = dict(cell.environment)
    if threads:
        environment.update({name: str(threads) for name in THREAD_VARIABLES})
    execute_notebook(
        notebook,
        str(output),
        dict(cell.parameters),
        engine_name="nbclient",
        kernel_name="python3",
        language="python",
        progress_bar=False,
        stdout_file=log.stream(),
        stderr_file=log.stream(),
        start_timeout=START_SECONDS,
        kernel_manager_class=_kernel_manager_class(environment, log),
        resources={"metadata": {"path": str(cell.working_dir)}},
        # a busy machine may be slow to deliver the last output of a cell
        iopub_timeout=START_SECONDS,
        # or the notebook keeps each state of a progress bar
        coalesce_streams=True,
        on_cell_execute=log.cell_started,
        on_cell_executed=log.cell_ended,
    )


def _is_no_false_alarm(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Passed unknown parameter")


def _kernel_manager_class(environment: Mapping[str, str], log: CellLog) -> Any:
    """The class of a manager whose kernel runs in this interpreter; nbclient makes the manager itself."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    frozen = ["-Xfrozen_modules=off"] if sys.version_info >= (3, 11) else []  # or the debugger warns in every log
    spec = KernelSpec(
        argv=[sys.executable, *frozen, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"],
        env=dict(environment),
        display_name="Python 3",
        language="python",
    )

    class CurrentInterpreter(AsyncKernelManager):  # type: ignore[misc, unused-ignore]
        """Starts the current interpreter whatever kernel is asked for, and needs no kernelspec to be installed."""

        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

        async def _async_launch_kernel(self, kernel_cmd: list[str], **arguments: Any) -> None:
            # what a crash writes past the notebook is told in the log
            await super()._async_launch_kernel(kernel_cmd, **{**arguments, "stdout": log.file, "stderr": log.file})

        async def _async_interrupt_kernel(self) -> None:
            # a kernel is interrupted before it is told to end; one that is idle may say so in the log as an error
            if log.is_cell_running or not self.shutting_down:
                await super()._async_interrupt_kernel()

    return CurrentInterpreter


def _error_line(error: Exception) -> str:
    """An error as one line, with the cell of the notebook where there is one."""
    from nbclient.exceptions import DeadKernelError

    if isinstance(error, DeadKernelError):
        return "the kernel died, perhaps because memory ran out"
    name = getattr(error, "ename", type(error).__name__)
    text = _plain(str(getattr(error, "evalue", error)))
    count = getattr(error, "exec_count", None)
    line = f"{name}: {' '.join(text.split())}".removesuffix(": ")
    return line + (f" (In [{count}])" if count is not None else "")


def _keep_failed(temporary: Path, path: Path, error: str, *, is_marked: bool) -> None:
    """Keep what was executed; papermill marks the cell that raised, and whatever else went wrong is told on top."""
    if not temporary.exists():
        path.unlink(missing_ok=True)
        return
    if not is_marked:
        notebook = json.loads(temporary.read_text(encoding="utf-8"))
        note = {"cell_type": "markdown", "metadata": {"tags": ["papermill-error-cell-tag"]}, "source": error}
        if notebook.get("nbformat_minor", 0) >= 5:
            note["id"] = uuid.uuid4().hex[:8]
        write_json(temporary, {**notebook, "cells": [note, *notebook["cells"]]})
    temporary.replace(path)


# ---- the log ---------------------------------------------------------------------------------------------------------


class CellLog:
    """A log that a person can read while the notebook runs: one line per event, with the time.

    Parameters
    ----------
    path : Path
        Written anew.
    announce : callable or None
        Gets each line as well.

    Attributes
    ----------
    cells : int
        Code cells of the notebook.
    file : TextIO
    is_cell_running : bool
        Whether a code cell has started and not ended.
    """

    def __init__(self, path: Path, announce: Announce | None = None) -> None:
        self.cells = 0
        self.is_cell_running = False
        self._announce = announce
        self._started = 0
        self._clock = 0.0
        self._streams: list[_Stream] = []
        path.unlink(missing_ok=True)
        # appending, so that the kernel can write into it as well
        self.file: TextIO = path.open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> CellLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._flush()
        self.file.close()

    def line(self, text: str) -> None:
        """Write a line."""
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}"
        self.file.write(line + "\n")
        if self._announce is not None:
            self._announce(line)

    def stream(self) -> _Stream:
        """A file to which the notebook's output is written."""
        stream = _Stream(lambda text: self.line(f"| {text}"))
        self._streams.append(stream)
        return stream

    def cell_started(self, cell: Any, cell_index: int) -> None:
        """Write that a code cell started; nbclient calls this."""
        self._started += 1
        self.is_cell_running = True
        self._clock = time.perf_counter()
        first = next((line.strip() for line in cell_source(cell).splitlines() if line.strip()), "")
        shown = first if len(first) <= 60 else f"{first[:57]}..."
        self.line(f"cell {self._started} of {self.cells} started: {shown}")

    def cell_ended(self, cell: Any, cell_index: int, execute_reply: Mapping[str, Any]) -> None:
        """Write that a code cell ended; nbclient calls this."""
        self.is_cell_running = False
        self._flush()
        status = execute_reply.get("content", {}).get("status", "ok")
        seconds = time.perf_counter() - self._clock
        how = "ended" if status == "ok" else f"ended with {status}"
        self.line(f"cell {self._started} of {self.cells} {how} after {seconds:.1f} s")

    def _flush(self) -> None:
        for stream in self._streams:
            stream.end()


class _Stream:
    """Makes lines of what a notebook prints; of a line that is written over, only some states."""

    def __init__(self, write_line: Announce) -> None:
        self._write_line = write_line
        self._rest = ""
        self._last = time.monotonic()

    def write(self, content: str) -> None:
        """Take a piece of output."""
        *lines, self._rest = (self._rest + content).split("\n")
        for line in lines:
            self._show(line)
        if "\r" in self._rest:
            now = time.monotonic()
            if now - self._last >= PROGRESS_SECONDS:
                self._show(self._rest)
                self._last = now
            # what stands before the last return of the carriage is written over
            states = [state for state in self._rest.split("\r") if state]
            self._rest = f"\r{states[-1]}" if states else ""

    def flush(self) -> None:
        """Do nothing: a piece of a line waits for its end."""

    def end(self) -> None:
        """Write the line that has no end."""
        self._show(self._rest)
        self._rest = ""

    def _show(self, line: str) -> None:
        states = [state for state in _plain(line).split("\r") if state.strip()]
        if states:
            self._write_line(states[-1].rstrip())


def _plain(text: str) -> str:
    """Text without the sequences that colour it or move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def parameters_text(parameters: Mapping[str, Any], names: Sequence[str] | None = None) -> str:
    """Parameters on one line, those that are None left out."""
    chosen = parameters if names is None else {name: parameters.get(name) for name in names}
    shown = {
        name: ",".join(map(str, value)) if isinstance(value, list) else value
        for name, value in chosen.items()
        if value is not None and value != ""
    }
    return ", ".join(f"{name}={value}" for name, value in shown.items())


# ---- records ---------------------------------------------------------------------------------------------------------


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def _machine() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "processor": _processor(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()


@functools.cache
def _versions() -> dict[str, str]:
    names = ("sage-kit", "torch", "transformers", "numpy", "scipy", "scikit-learn", "papermill", "ipykernel")
    installed = [point.dist for point in importlib.metadata.entry_points(group=sage_kit.PROJECT) if point.dist]
    versions = {name: version_of(name) or "not installed" for name in names}
    return {**versions, **{distribution.name: distribution.version for distribution in installed}}
