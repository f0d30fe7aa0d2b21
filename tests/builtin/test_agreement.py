"""Stop rule `agreement`."""

from __future__ import annotations

from typing import Any

import pytest

from sage_kit.components.records import RoundResult
from sage_kit.config import RunConfig


def result(round: int, train: float, dev: float) -> RoundResult:
    return RoundResult(
        round=round, steps=1, total_steps=round, train_loss=0.1, train_agreement=train, synthetic_loss=0.1, synthetic=0,
        dropped=0, dev={"agreement": dev, "accuracy": 0.5}, validation={}, seconds=1.0, padding=0.0,
    )  # fmt: skip


def reason(build: Any, history: list[RoundResult], **settings: Any) -> str | None:
    answer: str | None = build("stop_rule", "agreement", config=RunConfig(**settings)).reason_to_stop(history)
    return answer


def test_stops_on_dev(build: Any) -> None:
    assert reason(build, [result(1, 0.5, 0.991)]) == "agreement with the teacher on dev is 0.991, at least 0.99"
    assert reason(build, [result(1, 1.0, 0.98999)]) is None


def test_stops_on_train(build: Any) -> None:
    said = reason(build, [result(1, 0.9, 0.1)], stop_on="train", stop_agreement=0.9)
    assert said == "agreement with the teacher on train is 0.9, at least 0.9"
    assert reason(build, [result(1, 0.5, 1.0)], stop_on="train") is None


def test_only_the_last_round_counts(build: Any) -> None:
    assert reason(build, [result(1, 1.0, 1.0), result(2, 0.5, 0.5)]) is None
    assert reason(build, [result(1, 0.5, 0.5), result(2, 1.0, 1.0)]) is not None


def test_what_was_not_measured_is_no_reason(build: Any) -> None:
    assert reason(build, []) is None
    assert reason(build, [result(1, float("nan"), 1.0)], stop_on="train") is None


@pytest.mark.parametrize("threshold", [1.0, 1.5])
def test_a_threshold_that_cannot_be_passed(build: Any, threshold: float) -> None:
    stopped = reason(build, [result(1, 1.0, 1.0)], stop_agreement=threshold) is not None
    assert stopped == (threshold == 1.0)
