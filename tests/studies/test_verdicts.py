"""Verdicts in words: every finding says its numbers in one way."""

from __future__ import annotations

import math
from typing import Any

import pytest
from studies.fakeresults import decide, make_finding

from sage_kit.studies.verdicts import can_decide, number_text, sentence, state_of

DIFFERENCE = ("difference", "low", "high")
OF_RUNS = {"threshold": 0.5, "columns": ("share", "low", "high"), "unit": ""}


def say(text: str, low: float, high: float, **changes: Any) -> str:
    changes = {"columns": DIFFERENCE, "df": 10.0, **changes}
    (finding,) = decide(make_finding("gain", low, high, **changes))
    return sentence(text, finding)


def test_an_undecided_difference_reads_as_in_a_paper() -> None:
    # the half width is 2.228 standard errors of ten degrees of freedom, and 80 % power asks for 2.228 + 0.879
    assert say("No significant difference.", -0.0051, 0.0066) == (
        "No significant difference: +0.07 points (95 % CI -0.51 to +0.66; detectable: 0.82)."
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"low": 0.001, "high": 0.003}, "Ahead: +0.20 points (95 % CI +0.10 to +0.30)."),
        ({"low": 0.001, "high": 0.003, "seeds": 3}, "; 3 seeds, and a decision needs 5; detectable: 0.14)."),
        ({"low": 0.001, "high": 0.003, "seeds": 1}, "; 1 seed, and a decision needs 5; detectable: 0.14)."),
        ({"low": 0.5, "high": 0.7, "threshold": 0.5}, "(95 % CI +50.00 to +70.00; threshold +50.00"),
        (
            {"low": 0.5, "high": 0.7, "threshold": 0.4, "unit": "rounds", "columns": ("mean", "low", "high")},
            "Ahead: 0.6 rounds (95 % CI 0.5 to 0.7; threshold 0.4).",
        ),
        ({"low": math.nan, "high": math.nan, "value": 0.1}, "Ahead: +10.00 points (no interval)."),
        ({"low": math.nan, "high": math.nan, "value": math.nan}, "Ahead: ? points (no interval)."),
        ({"low": -0.1, "high": 0.1, "identical": True}, "+10.00; the same in all pairs; detectable: 14)."),
        (
            {"low": -0.2, "high": -0.1, "unit": "percent change", "direction": "below"},
            "Ahead: -13.9 % (95 % CI -18.1 to -9.5).",
        ),
        (
            {"low": -0.2, "high": 0.1, "unit": "percent change", "direction": "below"},
            "Ahead: -4.9 % (95 % CI -18.1 to +10.5; detectable: -19 %).",
        ),
        (
            {"low": 0.555, "high": 0.998, "value": 0.9, "counts": (9, 10), **OF_RUNS},
            "Ahead: 9 of 10 runs (95 % CI 56 % to 100 %; threshold 50 %).",
        ),
        (
            {"low": 0.147, "high": 0.947, "value": 0.6, "counts": (3, 5), **OF_RUNS},
            "Ahead: 3 of 5 runs (95 % CI 15 % to 95 %; threshold 50 %; detectable: none).",
        ),
    ],
)  # fmt: skip
def test_what_a_sentence_says(changes: dict[str, Any], words: str) -> None:
    said = say("Ahead", **changes)
    assert words in said
    assert said.count("(") == 1


def test_a_correction_that_decides_is_named() -> None:
    first, *_ = decide(*(make_finding(name, 0.001, 0.1, columns=DIFFERENCE) for name in "abc"))
    assert first.state == "undecided"
    assert "; p = 0.046, 0.14 corrected over 3 findings; detectable: " in sentence("No significant difference", first)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.91234, "accuracy", "0.9123"), (1234.5, "s", "1234"), (123456.0, "s", "1.23e+05"), (0.0001, "", "1.00e-04"),
        (0.0, "", "0"), (0.0012, "points", "0.12"), (0.1, "percent change", "10.5"), (math.nan, "points", "?"),
    ],
)  # fmt: skip
def test_numbers(value: float, unit: str, text: str) -> None:
    assert number_text(value, unit) == text


def test_states() -> None:
    assert state_of(0.2, 0.1, "above", 0.01) == state_of(0.0, 0.1, "below", 0.01) == "yes"
    assert state_of(0.2, 0.1, "below", 0.01) == state_of(0.0, 0.1, "above", 0.01) == "no"
    assert state_of(0.2, 0.1, "above", 0.05) == state_of(0.2, 0.1, "above", math.nan) == "undecided"
    assert [can_decide(seeds) for seeds in (0, 1, 4, 5, 50)] == [True, False, False, True, True]
