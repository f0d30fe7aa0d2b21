"""One cell of a study: a notebook with its parameters, executed at most once. Light until it executes.

A cell lies in ``<out>/<study>/<key>/``::

    notebook.ipynb   the executed notebook
    notebook.html    the same as a page, its code folded
    failed.ipynb     what was executed of it, with the error, when it failed
    cell.json        study, parameters, state, times, error and host
    log.txt          when each cell of the notebook started and ended, and what it printed

The key is a fingerprint of all that the outcome depends on. Whoever executes a cell holds its lock, so a cell that says
it is running while its lock is free was interrupted.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_kit.config import DATA_DIR_VARIABLE
from sage_kit.errors import DiskFullError, MissingPackageError, StudyError
from sage_kit.storage.files import TEMPORARY_PREFIX, disk_errors, remove_temporaries, write_json
from sage_kit.storage.privacy import private
from sage_kit.storage.reading import read_json
from sage_kit.studies.cell_key import FORMAT, cell_key, check_names
from sage_kit.studies.page import write_page
from sage_kit.studies.parameters import check, read_parameters
from sage_kit.studies.result_fields import CellFields

CELL = "cell.json"
NOTEBOOK = "notebook.ipynb"
PAGE = "notebook.html"
FAILED = "failed.ipynb"
LOG = "log.txt"
LOCK = ".lock"

HANDED_ON = (DATA_DIR_VARIABLE, "SAGE_KIT_CACHE_DIR", "SAGE_KIT_PLUGINS", "HF_HOME", "HF_HUB_OFFLINE",
             "HF_DATASETS_OFFLINE")  # fmt: skip
"""Variables that a notebook finds as they were where the grid was started, on whatever machine it runs."""

PROGRESS_SECONDS = 60.0  # how often a progress bar that overwrites its line gets one in the log [s]
START_SECONDS = 300  # how long a kernel may take to start [s]; several that start at once on a busy machine take long

Announce = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """A notebook with its parameters, and where its outcome lies."""

    study: str  # name of the notebook without its ending
    notebook: Path
    parameters: Mapping[str, Any]  # complete and checked
    key: str  # fingerprint of all that the outcome depends on; 16 hexadecimal digits
    out: Path  # folder of all cells
    working_dir: Path  # where the kernel runs; relative paths among the parameters start there
    environment: Mapping[str, str]  # variables that the kernel gets besides those of the process that starts it

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
    """What became of a cell."""

    cell: Cell
    state: str  # "done", "failed", "interrupted", "not started"; "busy": another process has it and was not waited for
    seconds: float = 0.0  # wall time of its execution [s]
    error: str = ""  # one line; "" unless it failed
    reused: bool = False  # it had been executed before


def make_cell(notebook: Path, parameters: Mapping[str, Any], out: Path, place: str = "") -> Cell:
    """A cell that will run in the current folder, and its key. Parameters are text or of their types; missing ones take
    the notebook's defaults. `place` says where they stand, for messages.
    """
    checked = check(read_parameters(notebook), parameters, study=notebook.stem, place=place)
    here = Path.cwd().resolve()
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


def read_record(directory: Path) -> dict[str, Any]:
    """The cell.json of a folder; empty when there is none that can be read. One that says it is running while nobody
    executes it has the state "interrupted".
    """
    try:
        record = read_json(directory / CELL, CellFields, StudyError, "", lenient=True)
    except StudyError:
        return {}
    if "state" not in record:
        return {}
    usual: dict[str, Any] = {"study": directory.parent.name, "key": directory.name, "parameters": {}, "error": None}
    if record.faults:  # the rest is shown all the same
        usual["error"] = record.faults[0].removeprefix(f"{directory / CELL}: ")
        record["error"] = record.get("error") or usual["error"]
    found = {**usual, **record}
    return {**found, "state": "interrupted"} if found["state"] == "running" and not is_held(directory) else found


def is_held(directory: Path) -> bool:
    """Whether a process is executing the cell of a folder now."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(directory / LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True


def find_cells(out: Path) -> list[dict[str, Any]]:
    """The records of all cells of a folder, by study and time. As `read_record` has them, with "directory" and
    "last_line", the last of the log.
    """
    records = []
    for path in sorted(Path(out).expanduser().glob(f"*/[!.]*/{CELL}")):
        record = read_record(path.parent) or {
            "study": path.parent.parent.name, "key": path.parent.name, "state": "failed", "parameters": {},
            "started": "", "ended": None, "seconds": None, "error": f"{CELL} is not readable",
        }  # fmt: skip
        records.append({**record, "directory": str(path.parent), "last_line": _last_line(path.parent / LOG)})
    return sorted(records, key=lambda record: (record["study"], record.get("started") or ""))


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def require_packages(*names: str) -> None:
    """Raise MissingPackageError unless the packages of the extra `notebooks` that are named can be imported."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingPackageError(f"running studies needs {name}: pip install 'sage-kit[notebooks]'")


def run_cell(cell: Cell, *, again: bool = False, wait: bool = True, announce: Announce = lambda line: None) -> Outcome:
    """Execute a cell, unless it is done already.

    The notebook runs in a kernel of the current interpreter, whatever kernel its file names. `again` executes it though
    it is done; `wait` waits for another process that executes it; `announce` gets each line of the log as well.
    """
    require_packages("papermill", "ipykernel", "nbconvert")
    from filelock import FileLock, Timeout

    lock = FileLock(cell.directory / LOCK)
    try:
        with disk_errors(str(cell.directory)):
            cell.directory.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            return Outcome(cell, "busy")
        announce("waiting for another process that is executing this cell")
        lock.acquire()
    except OSError as error:
        raise StudyError(
            f"{cell.directory} cannot be written ({error.strerror}): choose another folder with --out"
        ) from None
    try:
        record = read_record(cell.directory)
        if record.get("state") == "done" and (cell.directory / NOTEBOOK).is_file() and not again:
            return Outcome(cell, "done", record.get("seconds") or 0.0, reused=True)
        with disk_errors(str(cell.directory)):
            return _execute(cell, announce)
    finally:
        lock.release()


def _execute(cell: Cell, announce: Announce) -> Outcome:
    """Execute a cell whose lock is held."""
    directory = cell.directory
    remove_temporaries(directory)
    for earlier in (NOTEBOOK, PAGE, FAILED, LOG):
        (directory / earlier).unlink(missing_ok=True)
    clock = time.perf_counter()
    record: dict[str, Any] = {
        "format": FORMAT, "study": cell.study, "key": cell.key,
        "notebook": private(str(cell.notebook)),
        "parameters": private(dict(cell.parameters)), "state": "running", "started": now(), "ended": None,
        "seconds": None, "error": None, "host": socket.gethostname(),
    }  # fmt: skip
    write_json(directory / CELL, record)

    def ended(state: str, error: str = "") -> Outcome:
        seconds = time.perf_counter() - clock
        end = {"state": state, "ended": now(), "seconds": round(seconds, 3), "error": error or None}
        write_json(directory / CELL, {**record, **end})
        log.line(f"{state}: {error}" if error else state)
        return Outcome(cell, state, seconds, error)

    executed = directory / f"{TEMPORARY_PREFIX}{NOTEBOOK}"
    with CellLog(directory / LOG, announce) as log:
        log.line(f"{cell.name} started: {parameters_text(cell.parameters)}")
        try:
            with disk_errors(str(directory)):
                _papermill(cell, executed, log)
                executed.replace(directory / NOTEBOOK)
                write_page(directory / NOTEBOOK, directory / PAGE)
            return ended("done")
        except KeyboardInterrupt:
            ended("interrupted")
            raise
        except DiskFullError:  # which ends the grid and not only the cell
            raise
        except Exception as error:  # a notebook, its kernel and what connects them may raise anything
            return ended("failed", _error_line(error))
        finally:
            if executed.exists():
                executed.replace(directory / FAILED)


def _papermill(cell: Cell, output: Path, log: CellLog) -> None:
    """Execute the notebook by papermill in a kernel of this interpreter."""
    import nbformat
    from papermill import execute_notebook

    # it takes a parameter that is annotated "int | None" for unknown; these have been checked
    logging.getLogger("papermill").setLevel(logging.ERROR)

    notebook = nbformat.read(cell.notebook, as_version=4)
    # papermill adds one that sets the parameters
    log.cells = 1 + sum(item.cell_type == "code" and bool(item.source.strip()) for item in notebook.cells)
    execute_notebook(
        notebook,
        str(output),
        dict(cell.parameters),
        # what the file says may name a kernel that only its author has
        kernel_name="python3",
        language="python",
        progress_bar=False,
        stdout_file=log,
        stderr_file=log,
        start_timeout=START_SECONDS,
        kernel_manager_class=_kernel_manager_class(cell.environment, log),
        # not `cwd`, for which papermill changes the folder of this process
        resources={"metadata": {"path": str(cell.working_dir)}},
        # a busy machine may be slow to deliver the last output of a cell
        iopub_timeout=START_SECONDS,
        # or the notebook keeps each state of a progress bar
        coalesce_streams=True,
        on_cell_execute=log.cell_started,
        on_cell_executed=log.cell_ended,
    )


def _kernel_manager_class(environment: Mapping[str, str], log: CellLog) -> Any:
    """The class of a manager whose kernel runs in this interpreter; nbclient makes the manager itself. An installed
    kernelspec "python3" may start another interpreter, and knows no variables.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    frozen = ["-Xfrozen_modules=off"] if sys.version_info >= (3, 11) else []  # or the debugger warns
    # a kernel is interrupted before it is told to end, and says so as an error
    launch = ["-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]

    class CurrentInterpreter(AsyncKernelManager):  # type: ignore[misc, unused-ignore]
        """Starts the current interpreter whatever kernel is asked for, and needs no kernelspec to be installed."""

        kernel_spec = KernelSpec(argv=[sys.executable, *frozen, *launch], env=dict(environment), language="python")

        async def start_kernel(self, **arguments: Any) -> None:  # type: ignore[override, unused-ignore]
            # what a crash writes past the notebook is told in the log
            await super().start_kernel(**arguments, stdout=log.file, stderr=log.file)

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


class CellLog:
    """A log that a person can read while the notebook runs: one line per event, with the time. A file for what the
    notebook prints, too. papermill's own log would hold every state of every progress bar.
    """

    def __init__(self, path: Path, announce: Announce = lambda line: None) -> None:
        self.cells = 0
        # appending, so that the kernel can write into it as well
        self.file = path.open("a", encoding="utf-8", buffering=1)
        self._announce = announce
        self._started = 0
        self._clock = 0.0
        self._rest = ""
        self._progress = time.monotonic()

    def __enter__(self) -> CellLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.write("\n")
        self.file.close()

    def line(self, text: str) -> None:
        """Write a line."""
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}"
        self.file.write(line + "\n")
        self._announce(line)

    def write(self, content: str) -> None:
        """Take a piece of output, and write its lines; of one that is written over, only some states."""
        *lines, rest = (self._rest + _plain(content)).split("\n")
        if "\r" in rest and time.monotonic() - self._progress >= PROGRESS_SECONDS:
            lines.append(rest)
            self._progress = time.monotonic()
        for line in lines:
            if state := _last_state(line):
                self.line(f"| {state}")
        self._rest = f"\r{_last_state(rest)}" if "\r" in rest else rest

    def flush(self) -> None:
        """Do nothing: a piece of a line waits for its end."""

    def cell_started(self, cell: Any, cell_index: int) -> None:
        """Write that a code cell started; nbclient calls this."""
        self._started += 1
        self._clock = time.perf_counter()
        first = textwrap.shorten(cell.source.strip().partition("\n")[0], 60, placeholder="...")
        self.line(f"cell {self._started} of {self.cells} started: {first}")

    def cell_ended(self, cell: Any, cell_index: int, execute_reply: Mapping[str, Any]) -> None:
        """Write that a code cell ended; nbclient calls this."""
        self.write("\n")
        how = "ended" if execute_reply["content"]["status"] == "ok" else "ended with error"
        self.line(f"cell {self._started} of {self.cells} {how} after {time.perf_counter() - self._clock:.1f} s")


def _last_state(line: str) -> str:
    """What a line that is written over shows at last."""
    return next((state.rstrip() for state in reversed(line.split("\r")) if state.strip()), "")


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


def now() -> str:
    """The time as records have it; later ones sort behind earlier ones."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
