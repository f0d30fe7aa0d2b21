"""The verdict follows from the intervals by one rule, and says what it rests on."""

from __future__ import annotations

import math

import pytest

from sage_kit.studies.statistics import Interval, around
from sage_kit.worth.advice import Lead, SizeNumbers, advise


def size(
    blocks: int, teacher: float, alone: float | None = None, words: float | None = None, se: float = 0.005
) -> SizeNumbers:
    """A student whose leads have this standard error."""
    leads = [("teacher", teacher), ("labels alone", alone), ("word counts", words)]
    told = [Lead(over, around(value, se**2, math.inf)) for over, value in leads if value is not None]
    return SizeNumbers(f"the student of {blocks} blocks", blocks, 0.9 + teacher, told, 2.0, 0.6)


@pytest.mark.parametrize(
    ("sizes", "verdict", "says"),
    [
        ([size(1, -0.2, 0.1, 0.1), size(3, 0.0, 0.05, 0.1)], "yes", "Worth it: the student of 3 blocks keeps"),
        ([size(3, 0.0, 0.05, 0.1), size(2, 0.0, 0.05, 0.1)], "yes", "Worth it: the student of 2 blocks keeps"),
        ([size(3, 0.0, 0.001, 0.1)], "cannot tell", "no difference is shown from the same small model trained on"),
        ([size(3, 0.0, -0.05, 0.1)], "not needed", "the same small model trained on the labels alone does better"),
        ([size(3, 0.0, 0.05, -0.05)], "not needed", "a linear model of word counts does better still"),
        ([size(1, -0.2), size(3, -0.06)], "no", "the best, the student of 3 blocks, is -6.0 points"),
        ([size(1, -0.2), size(3, -0.02)], "cannot tell", "These 500 rows cannot tell: the student of 3 blocks is -2.0"),
        ([size(3, 0.0)], "yes", "answers 2.0 times as many texts one by one, and takes 60 % of its room."),
    ],
)  # fmt: skip
def test_the_rule(sizes: list[SizeNumbers], verdict: str, says: str) -> None:
    found, text = advise(sizes, margin=0.02, metric="accuracy", rows=500)
    assert found == verdict, text
    assert says in text


def test_comparisons_are_corrected_together() -> None:
    def verdict(sizes: int) -> str:
        # p of the margin is 0.03 for the largest alone
        return advise([size(n, -0.0092) if n == sizes else size(n, -0.02) for n in range(1, sizes + 1)],
                      margin=0.02, metric="accuracy", rows=500)[0]  # fmt: skip

    assert verdict(1) == "yes"
    assert verdict(3) == "cannot tell"


def test_how_many_rows_would_tell() -> None:
    _, text = advise([size(3, -0.02, se=0.01)], margin=0.02, metric="accuracy", rows=500)
    # (1.96 + 0.84) standard errors are found with 80 % chance: 2.8 points, and (2.8 / 2)^2 times the rows
    assert "Differences of 2.8 points are found with 80 % chance here; for one of 2 points about 990 rows" in text


def test_without_an_interval_nobody_can_tell() -> None:
    lead = Lead("teacher", Interval(0.0, math.nan, math.nan))
    found, text = advise([SizeNumbers("the student of 3 blocks", 3, 0.9, [lead])], margin=0.02, metric="odd", rows=9)
    assert found == "cannot tell"
    assert text.startswith("Nobody can tell: odd does not say what a row contributes")
