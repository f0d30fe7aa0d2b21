"""Grids of cells: here, in processes, and on a cluster, with workers that die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from studies.toynotebook import write_notebook

from sage_kit.errors import StudyError
from sage_kit.studies.runner import Cell, make_cell, read_record

pytest.importorskip("papermill", reason="needs the extra `notebooks`")
pytest.importorskip("ipykernel", reason="needs the extra `notebooks`")
pytest.importorskip("joblib", reason="needs the extra `notebooks`")

from sage_kit.studies import backends
from sage_kit.studies.backends import run_cells

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
        (("jobli", 1, ""), r"Unknown backend 'jobli'. Did you mean 'joblib'\?"),
        (("joblib", 0, ""), "jobs is 0: expected at least 1"),
        (("dask", 1, ""), "backend 'dask' needs --scheduler"),
        (("joblib", 1, "tcp://127.0.0.1:1"), "backend 'joblib' has no scheduler"),
    ],
)
def test_backends_that_make_no_sense(arguments: tuple[str, int, str], what: str) -> None:
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
    outcomes = run_cells(cells, "dask", scheduler=scheduler, announce=lines.append)
    assert [outcome.state for outcome in outcomes] == ["done"] * 4
    assert not any(outcome.reused for outcome in outcomes)
    assert len(lines) == 4
    assert states(cells) == ["done"] * 4
    assert Path("killed").exists()
    assert counts(4)[1] == 2
    # the other worker's cells were not executed again
    assert sum(counts(4)) == 5

    again = run_cells(cells, "dask", scheduler=scheduler)
    assert all(outcome.reused for outcome in again)
    assert sum(counts(4)) == 5


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs the extra `notebooks`")
    monkeypatch.setattr(backends, "CONNECT_SECONDS", 0.5)
    with pytest.raises(StudyError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:1"):
        run_cells(grid(CODE, 1), "dask", scheduler="tcp://127.0.0.1:1")
