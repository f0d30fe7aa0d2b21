"""Observer `costs`."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from toyrun import toy_run

from sage_kit.builtin.observers import costs as module
from sage_kit.builtin.observers.costs import FILE_NAME, peak_cuda_memory, peak_memory
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs, RoundResult, RunInfo
from sage_kit.config import RunConfig
from sage_kit.distill import resume
from sage_kit.rundir import RunDirectory

MEASURES = ("seconds", "tokens", "flops")


def result(round: int) -> RoundResult:
    return RoundResult(
        round=round, steps=5, total_steps=5 * round, train_loss=0.5, train_agreement=0.5, synthetic_loss=0.5,
        synthetic=3, dropped=1, dev={}, validation={}, seconds=2.5, padding=0.01,
    )  # fmt: skip


def run_in(directory: Path, costs: Costs, *history: RoundResult) -> RunInfo:
    return RunInfo(
        directory=directory, config=RunConfig(), examples={}, parameters={}, primary_metric="accuracy",
        history=history, costs=costs,
    )  # fmt: skip


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / FILE_NAME).read_text("utf-8").splitlines()]


def sums(lines: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """What the lines add up to."""
    added: dict[str, dict[str, float]] = {measure: {} for measure in MEASURES}
    for line in lines:
        for measure in MEASURES:
            for activity, value in line[measure].items():
                added[measure][activity] = added[measure].get(activity, 0) + value
    return added


def told(build: Any, directory: Path) -> Costs:
    """A run of two rounds after a preparation and a warm-up; each amount is a power of two, so that sums are exact."""
    observer, costs = build("observer", "costs"), Costs()
    run = run_in(directory, costs)
    costs.add("teacher", 8.0, tokens=100, flops=1000)
    observer.sage_run_started(run)
    costs.add("warm-up", 4.0, tokens=70)
    for round in (1, 2):
        observer.sage_round_started(run, round)
        costs.add("student", 2.0, tokens=10, flops=2**60 + 1)
        costs.add("evaluate", 0.25 * round)
        observer.sage_round_finished(run, result(round))
    return costs


def test_a_line_per_round_holds_what_it_has_cost(build: Any, tmp_path: Path) -> None:
    costs = told(build, tmp_path)
    preparation, first, second = records(tmp_path)
    assert [line["round"] for line in (preparation, first, second)] == [0, 1, 2]
    assert preparation["seconds"] == {"teacher": 8.0, "warm-up": 4.0}
    assert preparation["tokens"] == {"teacher": 100, "warm-up": 70}
    assert preparation["flops"] == {"teacher": 1000}
    assert (preparation["steps"], preparation["wall_seconds"]) == (0, None)
    assert first["seconds"] == {"student": 2.0, "evaluate": 0.25}
    assert second["seconds"] == {"student": 2.0, "evaluate": 0.5}
    # whole numbers stay whole, however large
    assert second["flops"] == {"student": 2**60 + 1}
    assert second["total"] == costs.to_json()
    assert (second["steps"], second["total_steps"], second["wall_seconds"]) == (5, 10, 2.5)
    assert not any(line["resumed"] for line in records(tmp_path))


def test_a_resumed_run_has_each_round_once_and_adds_up(build: Any, tmp_path: Path) -> None:
    costs = told(build, tmp_path)
    before = records(tmp_path)
    # killed after round 3's line, before its checkpoint, within another line
    with (tmp_path / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**before[-1], "round": 3}) + "\n" + '{"round": 4, "ste')
    observer = build("observer", "costs")
    costs = Costs.from_json(json.loads(json.dumps(costs.to_json())))
    costs.add("teacher", 1.0)
    run = run_in(tmp_path, costs, result(1), result(2))
    observer.sage_run_started(run)
    assert records(tmp_path) == before
    for round in (3, 4):
        observer.sage_round_started(run, round)
        costs.add("student", 16.0)
        observer.sage_round_finished(run, result(round))
    lines = records(tmp_path)
    assert [line["round"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[3]["seconds"] == {"teacher": 1.0, "student": 16.0}
    assert lines[4]["seconds"] == {"student": 16.0}
    assert [line["resumed"] for line in lines] == [False, False, False, True, False]
    assert sums(lines)["seconds"] == lines[-1]["total"]["seconds"]


def test_a_run_killed_before_its_first_round_prepares_once_more(build: Any, tmp_path: Path) -> None:
    costs = Costs()
    costs.add("teacher", 8.0)
    build("observer", "costs").sage_run_started(run_in(tmp_path, costs))
    costs.add("teacher", 1.0)
    build("observer", "costs").sage_run_started(run_in(tmp_path, costs))
    (line,) = records(tmp_path)
    assert (line["round"], line["seconds"]) == (0, {"teacher": 9.0})


@pytest.mark.parametrize(
    "damage", ["", "[1]\n", '{"round": 0, "total": 3}\n', '{"round": 1, "total": {"seconds": {}}}\n']
)
def test_lines_that_were_lost_are_counted_in_the_next(build: Any, tmp_path: Path, damage: str) -> None:
    (tmp_path / FILE_NAME).write_text(damage, "utf-8")
    costs = Costs()
    costs.add("student", 4.0)
    observer = build("observer", "costs")
    run = run_in(tmp_path, costs, result(1))
    observer.sage_run_started(run)
    assert records(tmp_path) == []
    observer.sage_round_finished(run, result(2))
    (line,) = records(tmp_path)
    assert (line["round"], line["seconds"], line["resumed"]) == (2, {"student": 4.0}, True)


def test_memory_is_in_bytes_on_each_system(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such module")
    usage = types.SimpleNamespace(ru_maxrss=3000)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    for platform, expected in (("linux", 3000 * 1024), ("darwin", 3000), ("win32", None)):
        monkeypatch.setattr(module.sys, "platform", platform)
        assert peak_memory() == expected


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux, which tells the peak a second time")
def test_the_peak_is_what_the_system_says() -> None:
    held = b"x" * (1 << 24)
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines() if ":" in line
    )
    peak = peak_memory()
    assert peak is not None
    assert peak > len(held)
    assert peak == pytest.approx(int(status["VmHWM"].split()[0]) * 1024, rel=0.05)


def test_cuda_is_asked_only_where_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def allocated(device: str) -> int:
        asked.append(device)
        return 4096

    for initialized in (False, True):
        cuda = types.SimpleNamespace(is_initialized=lambda answer=initialized: answer, max_memory_allocated=allocated)
        monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
        assert peak_cuda_memory("cpu") is None
        assert peak_cuda_memory("cuda:1") == (4096 if initialized else None)
    assert asked == ["cuda:1"]
    monkeypatch.delitem(sys.modules, "torch")
    assert peak_cuda_memory("cuda:0") is None


def test_a_real_run_adds_up_also_after_a_resume(tmp_path: Path, tiny_bert: Path) -> None:
    directory, summary = toy_run(tmp_path, tiny_bert, observers=["costs"], rounds=2, keep_checkpoints=0)
    path = directory.path
    lines = records(path)
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert set(lines[1]["seconds"]) == {"student", "evaluate"}
    assert "reduce" in lines[2]["seconds"]
    assert [line["wall_seconds"] for line in lines[1:]] == [r["seconds"] for r in summary["rounds"]]
    spent = json.loads((path / "costs.json").read_text("utf-8"))
    assert lines[-1]["total"] == spent
    for measure in ("tokens", "flops"):
        assert {k: v for k, v in spent[measure].items() if v} == sums(lines)[measure]

    (path / "summary.json").unlink()
    shutil.rmtree(path / "checkpoints" / "round-002")
    again = resume(RunDirectory.open(path), Plugins(allow=""))
    assert again["disabled_observers"] == {}
    resumed = records(path)
    assert resumed[:2] == lines[:2]
    assert [line["round"] for line in resumed] == [0, 1, 2]
    assert resumed[2]["resumed"]
    assert resumed[2]["tokens"] == lines[2]["tokens"]
    assert resumed[2]["total"] == json.loads((path / "costs.json").read_text("utf-8"))
    for activity, value in sums(resumed)["seconds"].items():
        assert value == pytest.approx(resumed[2]["total"]["seconds"][activity])
