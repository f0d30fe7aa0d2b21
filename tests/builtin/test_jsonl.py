"""Observer `jsonl`."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from sage_kit.builtin.observers.jsonl import FILE_NAME
from sage_kit.components.records import RoundResult, RunInfo
from sage_kit.config import RunConfig


def result(round: int, loss: float = 0.25) -> RoundResult:
    return RoundResult(
        round=round, steps=10, total_steps=10 * round, train_loss=loss, train_agreement=0.5,
        synthetic_loss=float("nan"), synthetic=3, dropped=1, dev={"agreement": 0.5, "accuracy": 0.75},
        validation={"validation": {"accuracy": 0.7}}, seconds=1.5, padding=0.01,
    )  # fmt: skip


def run_in(directory: Path, *history: RoundResult) -> RunInfo:
    return RunInfo(
        directory=directory, config=RunConfig(), examples={"train": 9, "dev": 1}, parameters={"student": 5},
        primary_metric="accuracy", history=history,
    )  # fmt: skip


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / FILE_NAME).read_text("utf-8").splitlines()]


def test_one_line_per_round(build: Any, tmp_path: Path) -> None:
    observer = build("observer", "jsonl")
    run = run_in(tmp_path)
    observer.sage_run_started(run)
    assert records(tmp_path) == []
    before = datetime.now(timezone.utc).replace(microsecond=0)
    for round in (1, 2):
        observer.sage_round_finished(run, result(round))
        lines = records(tmp_path)
        assert len(lines) == round
        time = datetime.fromisoformat(lines[-1].pop("time"))
        assert before <= time <= datetime.now(timezone.utc)
        assert lines[-1] == result(round).to_json()
        # NaN cannot be compared, so the way back is checked on the text
        assert json.dumps(RoundResult.from_json(lines[-1]).to_json()) == json.dumps(lines[-1])


def test_a_resumed_run_has_each_round_once(build: Any, tmp_path: Path) -> None:
    first = build("observer", "jsonl")
    first.sage_run_started(run_in(tmp_path))
    for round in (1, 2, 3):
        first.sage_round_finished(run_in(tmp_path), result(round))
    times = [record["time"] for record in records(tmp_path)]
    # the process is killed: round 3 has no checkpoint, and a fourth line is half-written
    with (tmp_path / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(result(4).to_json())[:40])

    second = build("observer", "jsonl")
    run = run_in(tmp_path, result(1), result(2))
    second.sage_run_started(run)
    assert [(record["round"], record["time"]) for record in records(tmp_path)] == [(1, times[0]), (2, times[1])]
    second.sage_round_finished(run, result(3, loss=0.125))
    assert [record["round"] for record in records(tmp_path)] == [1, 2, 3]
    assert records(tmp_path)[2]["train_loss"] == 0.125


def test_a_round_whose_line_was_lost_has_no_time(build: Any, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"round": 2, "time": null}\n[1]\n{"round": 1', "utf-8")
    build("observer", "jsonl").sage_run_started(run_in(tmp_path, result(1), result(2)))
    assert [(record["round"], record["time"]) for record in records(tmp_path)] == [(1, None), (2, None)]


def test_the_file_is_replaced_in_one_step(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observer = build("observer", "jsonl")
    observer.sage_run_started(run_in(tmp_path, result(1)))
    before = (tmp_path / FILE_NAME).read_bytes()

    def fails(self: Path, target: Path) -> None:
        raise OSError("the power went")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="the power went"):
        observer.sage_run_started(run_in(tmp_path, result(1), result(2)))
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
