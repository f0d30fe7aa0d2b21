"""Checks of stop rules."""

from __future__ import annotations

from typing import Any, cast

from sage_kit.components.records import RoundResult
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import Subject


def _history(rounds: int, agreement: float) -> tuple[RoundResult, ...]:
    nan = float("nan")
    return tuple(
        RoundResult(
            round=number,
            steps=3,
            total_steps=3 * number,
            # a round with mix="replace" may see no real example
            train_loss=nan if number == 2 else 0.5,
            train_agreement=nan if number == 2 else agreement,
            synthetic_loss=nan if number == 1 else 0.6,
            synthetic=0 if number == 1 else 40,
            dropped=0,
            dev={"accuracy": agreement, "agreement": agreement},
            validation={"validation": {"accuracy": agreement, "agreement": agreement}},
            seconds=1.0,
            padding=0.02,
        )
        for number in range(1, rounds + 1)
    )


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    return {"history": _history(rows, 0.6)}


def _use(subject: Subject, rule: Any, inputs: Inputs) -> Outputs:
    history = inputs["history"]
    return {"answers": [_answer(rule, history[:rounds]) for rounds in range(1, len(history) + 1)]}


EXERCISES["stop_rule"] = Exercise(_make, _use, few=3, many=25, unit="rounds")


def _answer(rule: Any, history: tuple[RoundResult, ...]) -> str | None:
    before = [result.to_json() for result in history]
    answer = rule.reason_to_stop(history)
    require([result.to_json() for result in history] == before, "it changes the history that it is given")
    is_right = answer is None or (isinstance(answer, str) and len(answer.strip().splitlines()) == 1)
    require(is_right, f"it answers {answer!r} after {len(history)} rounds")
    return cast("str | None", answer)


@check("stop_rule")
def stop_rule_answers(subject: Subject) -> None:
    """After one round or more, good or bad, the answer is None or a text of one line, and the same when asked again.

    To fix: return None to go on, or one line that ends "Stopped: ..."; a value of the history may be NaN. Copy a
    table of the history before you change it. A resumed run hands over the whole history.
    """
    for agreement in (0.0, 0.6, 1.0):
        for rounds in (1, 2, 3, 5):
            history = _history(rounds, agreement)
            answers = [_answer(subject.build(), history) for _ in range(2)]
            require(answers[0] == answers[1], "it answers differently when asked again")
