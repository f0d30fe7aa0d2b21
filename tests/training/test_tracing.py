"""A round's trace and the page about it."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from toyrun import toy_run

from sage_kit.components.records import Costs
from sage_kit.training.tracing import LABELLED_BATCHES, STUDENT_STEPS, RoundTrace, costs_between


def events(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return found


def test_a_run_writes_traces_and_a_page(tmp_path: Path, tiny_bert: Path) -> None:
    directory, traced = toy_run(tmp_path, tiny_bert, trace=True)
    folder = directory.path / "profile"
    assert sorted(path.name for path in folder.iterdir()) == [
        "synthesis.json.gz",
        "training.json.gz",
        "where_it_went.txt",
    ]
    training = [event["name"] for event in events(folder / "training.json.gz")]
    steps = traced["rounds"][1]["steps"]
    assert training.count("Optimizer.step#AdamW.step") == min(steps, STUDENT_STEPS)
    assert "Optimizer.step#AdamW.step" not in [event["name"] for event in events(folder / "synthesis.json.gz")]
    page = (folder / "where_it_went.txt").read_text(encoding="utf-8")
    assert page.startswith("Round 2: ")
    shares = [
        float(text) for text in re.findall(r"([\d.]+)%", page.partition("training:")[0].partition("synthesis:")[0])
    ]
    assert sum(shares) == pytest.approx(100, abs=1)
    for word in ("student", "teacher", "evaluate", "synthesis: operations", "training: operations", "aten::"):
        assert word in page
    _, plain = toy_run(tmp_path, tiny_bert, runs_dir=str(tmp_path / "plain"))
    assert [r["train_loss"] for r in traced["rounds"]] == [r["train_loss"] for r in plain["rounds"]]


def test_plain_distillation_traces_its_first_round(tmp_path: Path, tiny_bert: Path) -> None:
    directory, _ = toy_run(tmp_path, tiny_bert, trace=True, schedule="none", rounds=1)
    assert (directory.path / "profile" / "where_it_went.txt").read_text(encoding="utf-8").startswith("Round 1: ")
    assert (directory.path / "profile" / "training.json.gz").exists()


def test_a_window_ends_after_its_steps(tmp_path: Path) -> None:
    trace = RoundTrace(tmp_path, 3, torch.device("cpu"))
    costs = Costs()
    with trace.round(3, costs), trace.window("labels", LABELLED_BATCHES):
        costs.add("student", 1.0)
        for _ in range(LABELLED_BATCHES + 5):
            torch.ones(3).cos()
            trace.step()
    names = [event["name"] for event in events(tmp_path / "profile" / "labels.json.gz")]
    assert names.count("aten::cos") == LABELLED_BATCHES


def test_another_round_is_not_traced(tmp_path: Path) -> None:
    trace = RoundTrace(tmp_path, 3, torch.device("cpu"))
    with trace.round(2, Costs()), trace.window("labels", 5):
        trace.step()
    assert list(tmp_path.iterdir()) == []


def test_a_round_that_fails_leaves_no_half_trace(tmp_path: Path) -> None:
    trace = RoundTrace(tmp_path, 1, torch.device("cpu"))
    with pytest.raises(ZeroDivisionError), trace.round(1, Costs()), trace.window("labels", 5):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    with trace.window("labels", 5):  # and no profiler that goes on
        pass


def test_costs_between_two_moments() -> None:
    before, after = Costs(), Costs()
    before.add("student", 1.0, 10, 100)
    after.add("student", 4.0, 30, 500)
    after.add("lift", 0.5)
    spent = costs_between(before, after)
    assert spent.seconds == {"student": 3.0, "lift": 0.5}
    assert spent.tokens == {"student": 20, "lift": 0}
    assert spent.flops == {"student": 400, "lift": 0}
