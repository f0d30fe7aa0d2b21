"""Grids of cells: here, in processes, and on a cluster, with workers that die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from studies.toynotebook import write_notebook

from sage_kit.errors import StudyError
from sage_kit.studies.runner import Cell, make_cell, read_record

pytest.importorskip("papermill", reason="needs the extra `notebooks`")
pytest.importorskip("ipykernel", reason="needs the extra `notebooks`")
pytest.importorskip("joblib", reason="needs the extra `notebooks`")

from sage_kit.studies import backends, dask_cluster
from sage_kit.studies.backends import run_cells
from sage_kit.studies.dask_cluster import SECURITY_FILES, Scheduler

pytestmark = [
    # of the packages that execute notebooks
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
]

CODE = """
import os
with open(f"count{seeds}", "a") as file:
    file.write("x")
with open(f"threads{seeds}", "w") as file:
    file.write(os.environ.get("OMP_NUM_THREADS", ""))
if seeds == 2 and not os.path.exists("mended"):
    raise RuntimeError("two")
"""

KILLS_ITS_WORKER = """
import os, signal, time
with open(f"count{seeds}", "a") as file:
    file.write("x")
for _ in range(1000 if seeds == 0 and not os.path.exists("killed") else 0):
    time.sleep(0.02)
    if os.path.exists("killed"):
        time.sleep(2)
        break
if seeds == 1 and (os.path.exists("always") or not os.path.exists("killed")):
    for _ in range(1000 if not os.path.exists("count0") else 0):
        time.sleep(0.02)
        if os.path.exists("count0"):
            break
    open("killed", "w").close()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def grid(code: str, seeds: int) -> list[Cell]:
    notebook = write_notebook(Path("notebooks/01_toy.ipynb"), code)
    return [make_cell(notebook, {"seeds": seed}, Path("cells")) for seed in range(seeds)]


def counts(seeds: int) -> list[int]:
    return [len(Path(f"count{seed}").read_text()) if Path(f"count{seed}").exists() else 0 for seed in range(seeds)]


def states(cells: list[Cell]) -> list[str]:
    return [read_record(cell.directory)["state"] for cell in cells]


def test_a_failing_cell_does_not_end_the_grid_and_only_it_is_executed_again() -> None:
    cells = grid(CODE, 4)
    lines: list[str] = []
    outcomes = run_cells(cells, jobs=2, announce=lines.append)
    assert [outcome.cell for outcome in outcomes] == cells
    assert [outcome.state for outcome in outcomes] == ["done", "done", "failed", "done"]
    assert outcomes[2].error.startswith("RuntimeError: two")
    assert {line.partition(" ")[0] for line in lines} == {"[1/4]", "[2/4]", "[3/4]", "[4/4]"}
    assert sum("failed: RuntimeError: two" in line for line in lines) == 1
    import joblib

    threads = str(max(1, joblib.cpu_count() // 2))
    assert [Path(f"threads{seed}").read_text() for seed in range(4)] == [threads] * 4

    Path("mended").touch()
    resumed = run_cells([*cells, *grid(CODE, 4)], jobs=1)
    assert [outcome.state for outcome in resumed] == ["done"] * 8
    assert [outcome.reused for outcome in resumed[:4]] == [True, True, False, True]
    assert counts(4) == [1, 1, 2, 1]


def test_a_cell_that_kills_its_processes_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "MOST_ATTEMPTS", 2)
    Path("always").touch()
    cells = grid(KILLS_ITS_WORKER, 2)
    outcomes = run_cells(cells, jobs=2)
    # the first went down with the second, and was executed again
    assert counts(2) == [2, 2]
    assert [outcome.state for outcome in outcomes] == ["done", "failed"]
    assert outcomes[1].error == "its worker died 2 times"
    assert states(cells) == ["done", "interrupted"]


def test_workers_that_die_before_they_begin_are_not_asked_forever() -> None:
    cells = grid("1", 3)
    outcomes = list(backends._in_processes(cells, lambda cell: os.kill(os.getpid(), signal.SIGKILL), 2))
    assert {outcome.cell.directory for outcome in outcomes} == {cell.directory for cell in cells}
    assert {(outcome.state, outcome.error) for outcome in outcomes} == {("failed", "its worker died 3 times")}


def test_what_another_process_executes_comes_last_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = grid(CODE, 2)
    order: list[tuple[int, bool]] = []

    def run_cell(cell: Cell, wait: bool, **others: Any) -> backends.Outcome:
        order.append((cell.parameters["seeds"], wait))
        return backends.Outcome(cell, "busy" if cell is cells[0] and not wait else "done")

    monkeypatch.setattr(backends, "run_cell", run_cell)
    lines: list[str] = []
    outcomes = run_cells(cells, announce=lines.append)
    assert order == [(0, False), (1, False), (0, True)]
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert "waiting for 1 that another process is executing" in lines


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("jobli", 1, None), r"Unknown backend 'jobli'. Did you mean 'joblib'\?"),
        (("joblib", 0, None), "jobs is 0: expected at least 1"),
        (("dask", 1, None), "backend 'dask' needs --scheduler"),
        (("joblib", 1, Scheduler("tcp://127.0.0.1:1")), "backend 'joblib' has no scheduler"),
    ],
)
def test_backends_that_make_no_sense(arguments: tuple[str, int, Scheduler | None], what: str) -> None:
    with pytest.raises(StudyError, match=what):
        run_cells([], *arguments)


# ---- on a cluster ----------------------------------------------------------------------------------------------------


@pytest.fixture
def scheduler() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="needs the extra `notebooks`")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL"
    ) as cluster:
        yield cluster.scheduler_address


def test_a_killed_worker_of_a_cluster_loses_nothing(scheduler: str) -> None:
    cells = grid(KILLS_ITS_WORKER, 4)
    lines: list[str] = []
    outcomes = run_cells(cells, "dask", scheduler=Scheduler(scheduler), announce=lines.append)
    assert [outcome.state for outcome in outcomes] == ["done"] * 4
    assert not any(outcome.reused for outcome in outcomes)
    assert len(lines) == 4
    assert states(cells) == ["done"] * 4
    assert Path("killed").exists()
    assert counts(4)[1] == 2
    # the other worker's cells were not executed again
    assert sum(counts(4)) == 5

    again = run_cells(cells, "dask", scheduler=Scheduler(scheduler))
    assert all(outcome.reused for outcome in again)
    assert sum(counts(4)) == 5


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs the extra `notebooks`")
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(StudyError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:1"):
        run_cells(grid(CODE, 1), "dask", scheduler=Scheduler("tcp://127.0.0.1:1"))


WAITS = """
import time
open(f"began{seeds}", "w").close()
time.sleep(120)
"""


def test_a_scheduler_that_goes_away_leaves_the_rest_not_started(tmp_path: Path) -> None:
    """One worker with one thread: the first cell is under way, and the others have not begun."""
    pytest.importorskip("distributed", reason="needs the extra `notebooks`")
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
               "--no-dashboard", "--no-jupyter", "--scheduler-file", str(file)]  # fmt: skip
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker = None
    try:
        wait_for(file.exists)
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1",
             "--nworkers", "1", "--no-dashboard", "--local-directory", str(tmp_path / "worker")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        cells = grid(WAITS, 3)

        def kill_once_begun() -> None:
            wait_for(lambda: any(Path(f"began{number}").exists() for number in range(3)))
            started.kill()

        killer = threading.Thread(target=kill_once_begun)
        killer.start()
        outcomes = run_cells(cells, "dask", scheduler=Scheduler(json.loads(file.read_text())["address"]))
        killer.join()
    finally:
        for process in (started, worker):
            if process is not None:
                process.terminate()
                process.wait(60)
    assert sorted(outcome.state for outcome in outcomes) == ["interrupted", "not started", "not started"]
    assert {outcome.error for outcome in outcomes} == {"the scheduler went away"}
    # the worker ends with its scheduler, and nothing says that it runs
    wait_for(lambda: all(read_record(cell.directory).get("state") != "running" for cell in cells))
    assert sum((cell.directory / "cell.json").exists() for cell in cells) == 1


def wait_for(is_so: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A security file, and beside it an authority and one certificate of it."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new_key = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new_key, "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new_key, "-subj", "/CN=cluster", "-keyout", "key.pem", "-out", "request.pem")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-out", "cert.pem")  # fmt: skip
    names = dict(zip(SECURITY_FILES, ("ca.pem", "cert.pem", "key.pem"), strict=True))
    path = folder / "security.toml"
    path.write_text("".join(f'{name} = "{file}"\n' for name, file in names.items()))
    return path


def test_a_cluster_with_certificates(certificates: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra `notebooks`")
    folder = certificates.parent
    ca, cert, key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    security = distributed.Security(
        require_encryption=True, tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key,
        tls_worker_cert=cert, tls_worker_key=key, tls_scheduler_cert=cert, tls_scheduler_key=key,
    )  # fmt: skip
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL",
        protocol="tls://", security=security,
    ) as local:  # fmt: skip
        address = local.scheduler_address
        assert address.startswith("tls://")
        with pytest.raises(StudyError, match="name certificates with --scheduler-security"):
            run_cells(grid(CODE, 1), "dask", scheduler=Scheduler(address))
        outcomes = run_cells(grid(CODE, 1), "dask", scheduler=Scheduler(address, str(certificates)))
    assert [outcome.state for outcome in outcomes] == ["done"]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("tls_ca_file = 'ca.pem", "is not readable"),
        ("tls_ca = 'ca.pem'", r"unknown name 'tls_ca'. Did you mean 'tls_ca_file'\?"),
        ("tls_ca_file = 'ca.pem'", "tls_ca_file: there is no file"),
        ("", "tls_ca_file: it is missing"),
        (None, "No such file"),
    ],
)
def test_security_files_that_make_no_sense(content: str | None, what: str, tmp_path: Path) -> None:
    path = tmp_path / "security.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StudyError, match=what):
        Scheduler("tls://127.0.0.1:8786", str(path)).check()
    with pytest.raises(StudyError, match="give its tls:// address"):
        Scheduler("tcp://127.0.0.1:8786", str(path)).check()


def test_an_open_scheduler_is_warned_of() -> None:
    assert Scheduler("tcp://127.0.0.1:8786").warning == Scheduler("tls://10.0.0.1:8786", "x").warning == ""
    assert "neither encrypted nor authenticated" in Scheduler("tcp://10.0.0.1:8786").warning
