"""The learning rate rises and falls alike for the teacher, the warm-up and the student."""

from __future__ import annotations

import pytest

from sage_kit.models.learning_rate import learning_rate_factor


def test_every_step_of_the_rise_and_of_the_fall_trains() -> None:
    factors = [learning_rate_factor("linear", 0.2, step, 10) for step in range(10)]
    # step k of n takes (k + 1) / n of the rise; what is left falls from 1 to one step above 0
    assert factors == pytest.approx([1 / 2, 1.0, *(share / 8 for share in range(8, 0, -1))])


@pytest.mark.parametrize(("step", "expected"), [(0, 0.25), (3, 1.0), (4, 1.0), (19, 1.0)])
def test_a_constant_rate_stays_after_its_rise(step: int, expected: float) -> None:
    assert learning_rate_factor("constant", 0.2, step, 20) == expected


def test_without_a_rise_the_first_step_takes_the_peak() -> None:
    assert learning_rate_factor("linear", 0.0, 0, 5) == 1.0
    assert learning_rate_factor("linear", 0.0, 0, 1) == 1.0


def test_a_small_share_is_one_step_and_a_step_too_many_takes_the_last_rate() -> None:
    assert learning_rate_factor("linear", 0.06, 0, 4) == 1.0
    assert (
        learning_rate_factor("linear", 0.06, 9, 4) == learning_rate_factor("linear", 0.06, 3, 4) == pytest.approx(1 / 3)
    )
