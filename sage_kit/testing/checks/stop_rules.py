"""Checks of stop rules."""

from __future__ import annotations

from sage_kit.records import RoundResult
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


@check("stop_rule")
def stop_rule_answers(subject: Subject) -> None:
    """After one round or more, good or bad, the answer is None or a text of one line, and the same when asked again.

    To fix: return None to go on, or one line that ends "Stopped: ..."; a value of the history may be NaN. Keep nothing
    between calls: a resumed run hands over the whole history.
    """
    for agreement in (0.0, 0.6, 1.0):
        for rounds in (1, 2, 3, 5):
            history = _history(rounds, agreement)
            answers = [subject.build().reason_to_stop(history) for _ in range(2)]
            for answer in answers:
                is_right = answer is None or (isinstance(answer, str) and len(answer.strip().splitlines()) == 1)
                require(is_right, f"it answers {answer!r} after {rounds} rounds")
            require(answers[0] == answers[1], "it answers differently when asked again")
