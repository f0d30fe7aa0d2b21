"""The best round: chosen by its score on dev, kept beside the checkpoints, exported, and found again after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toyrun import go_back, toy_config, without_times

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import RoundResult
from sage_kit.data.metrics import METRICS, Measure
from sage_kit.distill import resume, run
from sage_kit.rundir import RunDirectory
from sage_kit.training.best_round import BestRound

ACCURACY = Measure("accuracy", METRICS["accuracy"])
ERROR = Measure("error", METRICS["accuracy"], larger_is_better=False)


def history(*scores: float, name: str = "accuracy") -> list[RoundResult]:
    return [
        RoundResult(
            round=number, steps=1, total_steps=number, train_loss=0.5, train_agreement=0.5, synthetic_loss=0.5,
            synthetic=0, dropped=0, dev={name: score}, validation={}, seconds=1.0, padding=0.0,
        )
        for number, score in enumerate(scores, start=1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "measure", "best"),
    [
        ((), ACCURACY, 0),
        ((0.5,), ACCURACY, 1),
        ((0.5, 0.7, 0.6), ACCURACY, 2),
        ((0.5, 0.7, 0.7), ACCURACY, 2),
        ((float("nan"), 0.2, float("nan")), ACCURACY, 2),
        ((float("nan"), float("nan")), ACCURACY, 2),
        ((0.5, 0.2, 0.3), ERROR, 2),
    ],
)
def test_the_first_of_the_best_is_chosen(
    scores: tuple[float, ...], measure: Measure, best: int, tmp_path: Path
) -> None:
    assert BestRound(tmp_path, measure).number(history(*scores, name=measure.name)) == best


def test_the_file_of_the_best_is_there_whenever_a_run_is_killed(tmp_path: Path) -> None:
    kept, scores = BestRound(tmp_path / "best", ACCURACY), (0.5, 0.4, 0.7, 0.6)
    for done in range(1, len(scores) + 1):
        rounds = history(*scores[:done])
        kept.keep(rounds, {"weight": torch.full((2,), float(done))})
        # killed here, the run goes on from the checkpoint before
        for before in (rounds[:-1], rounds):
            number = kept.number(before)
            found = kept.weights(number)
            assert not number or (found is not None and found["weight"][0] == number)
        kept.forget_others(rounds)
        assert [path.name for path in (tmp_path / "best").iterdir()] == [f"round-{kept.number(rounds):03d}.safetensors"]
    (tmp_path / "best" / "round-003.safetensors").write_bytes(b"no tensors")
    assert kept.weights(3) is kept.weights(1) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("best")


PLUGIN = """
from sage_kit import hookimpl
from sage_kit.adapters import sklearn_metric

@hookimpl
def sage_metrics():
    yield sklearn_metric("wrong", "sklearn.metrics:zero_one_loss", larger_is_better=False)
    # a student that learns gets worse by this one
    yield sklearn_metric("backwards", "sklearn.metrics:zero_one_loss")
"""

BACKWARDS: dict[str, Any] = {"keep_best": "metric", "metrics": ["backwards", "accuracy"], "keep_checkpoints": 0}


@pytest.fixture(scope="module")
def plugin(folder: Path) -> str:
    file = folder / "metrics_both_ways.py"
    file.write_text(PLUGIN)
    return str(file)


@pytest.fixture(scope="module")
def start(folder: Path, tiny_bert: Path, plugin: str) -> Any:
    def make(**settings: Any) -> tuple[RunDirectory, dict[str, Any]]:
        config = toy_config(folder, tiny_bert, **{"rounds": 3, **settings})
        return run(config, Plugins([plugin], allow=""), [plugin])

    return make


@pytest.fixture(scope="module")
def best(start: Any) -> tuple[RunDirectory, dict[str, Any]]:
    made: tuple[RunDirectory, dict[str, Any]] = start(**BACKWARDS)
    return made


def same_student(one: RunDirectory, other: RunDirectory) -> None:
    ours, theirs = (load_file(each.student / "model.safetensors") for each in (one, other))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0)


def test_the_best_round_is_exported_and_scored(start: Any, best: Any) -> None:
    directory, summary = best
    scores = [result["dev"]["backwards"] for result in summary["rounds"]]
    number = 1 + int(np.argmax(scores))
    assert number < len(scores)
    assert summary["exported_round"] == number
    assert summary["dev"] == summary["rounds"][number - 1]["dev"]
    assert summary["validation"] == summary["rounds"][number - 1]["validation"]
    found = directory.predictions()["dev"]
    assert np.mean(found["student"].argmax(-1) != found["labels"]) == pytest.approx(scores[number - 1])
    # as a run that ends with that round
    short, told = start(**{**BACKWARDS, "rounds": number, "lr_steps": summary["planned_steps"]})
    assert told["dev"] == summary["dev"]
    same_student(directory, short)


def test_a_run_that_keeps_none_exports_the_last_round_and_takes_the_same_steps(start: Any, best: Any) -> None:
    directory, summary = start(**{**BACKWARDS, "keep_best": "none"})
    assert summary["exported_round"] == 3
    assert not (directory.path / "best").exists()
    for name in ("rounds",):
        assert without_times(summary)[name] == without_times(best[1])[name]


@pytest.mark.parametrize("to_round", [1, 2])
def test_a_resumed_run_exports_the_same(start: Any, best: Any, plugin: str, to_round: int) -> None:
    directory, _ = start(**BACKWARDS)
    go_back(directory, to_round=to_round)
    again = resume(RunDirectory.open(directory.path), Plugins([plugin], allow=""))
    assert without_times(again) == without_times(best[1])
    same_student(directory, best[0])


@pytest.mark.parametrize("by", ["metric", "agreement"])
def test_what_is_better_goes_by_the_metric_or_the_agreement(start: Any, by: str) -> None:
    _, summary = start(keep_best=by, metrics=["wrong"], rounds=2)
    name, choose = ("wrong", np.argmin) if by == "metric" else ("agreement", np.argmax)
    scores = [result["dev"][name] for result in summary["rounds"]]
    assert summary["exported_round"] == 1 + int(choose(scores))


def test_weights_that_are_lost_are_told_of(start: Any, plugin: str, capsys: pytest.CaptureFixture[str]) -> None:
    directory, summary = start(**BACKWARDS, observers=["progress"])
    (directory.path / "summary.json").unlink()
    for path in (directory.path / "best").iterdir():
        path.unlink()
    again = resume(RunDirectory.open(directory.path), Plugins([plugin], allow=""))
    assert again["exported_round"] == len(summary["rounds"])
    assert "the best, are not readable: the last round is exported" in capsys.readouterr().err
