"""The verdict on each finding of a study, and the one way in which it is put into words.

A finding is "yes" or "no" where its p against the threshold, corrected for all findings that are decided together, is
below 5 %; the side on which its value lies says which of the two. Else, and whenever it rests on fewer than
`LEAST_SEEDS` seeds, it is "undecided". The p comes from the interval that tables and figures show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sage_kit.errors import DataError, StudyError

if TYPE_CHECKING:
    from sage_kit.studies.result import Finding

ALPHA = 0.05
LEAST_SEEDS = 5

State = Literal["yes", "no", "undecided"]
STATES: tuple[State, ...] = ("yes", "no", "undecided")
Direction = Literal["above", "below"]

POINTS = "points"  # unit of scores and of their differences: hundredths
PERCENT_CHANGE = "percent change"  # unit of a difference of logarithms: shown as the change in percent


def holm(p_values: Iterable[float]) -> list[float]:
    """Adjusted p by Holm's step-down method, which holds the chance of any false finding among the p at their level.

    With m values in rising order, the i-th becomes the largest of (m - j + 1) p_j over j <= i, and 1 at most (Holm
    1979, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6). Scipy has no
    such correction, and whatever reads a result would have to import statsmodels for it. A p of NaN, where there is no
    test, stays NaN and does not count.
    """
    values = [float(p) for p in p_values]
    known = [index for index, p in enumerate(values) if not math.isnan(p)]
    if any(not 0 <= values[index] <= 1 for index in known):
        raise DataError(f"p values are {values}: each must be between 0 and 1, or NaN.")
    adjusted = [math.nan] * len(values)
    highest = 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: values[index])):
        highest = max(highest, min(1.0, (len(known) - rank) * values[index]))
        adjusted[index] = highest
    return adjusted


def can_decide(seeds: int) -> bool:
    """Whether a finding that rests on so many seeds may be decided; 0 stands for one into which no seed enters."""
    return seeds == 0 or seeds >= LEAST_SEEDS


def state_of(value: float, threshold: float, direction: Direction, p_adjusted: float) -> State:
    """The state that follows from a corrected p, NaN where nothing can be decided, and the side of the value."""
    if not p_adjusted < ALPHA:
        return "undecided"
    return "yes" if (value > threshold) == (direction == "above") else "no"


@dataclass(frozen=True)
class Margin:
    """By how much one thing may be worse than another and still suffice."""

    value: float  # above zero, in the unit of the difference as the table has it (0.005 for half a point)
    reason: str  # why this much, and no more, does not matter
    # the smallest effect that the study is about, in the same unit: a margin as large would call the absence of that
    # effect the same as the effect
    effect: float

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise StudyError(f"a margin of {self.value:g} has no reason: say why so much does not matter")
        if not 0 < self.value < self.effect:
            raise StudyError(
                f"a margin of {self.value:g} must be above 0 and below the smallest effect under study, "
                f"{self.effect:g}: take a smaller one"
            )


def number_text(value: float, unit: str = "", *, signed: bool = False) -> str:
    """A number in its unit, without the unit's name: points to two decimals, others to three or four digits."""
    if math.isnan(value):
        return "?"
    shown = in_unit(value, unit)
    sign = "+" if signed else ""
    if unit == POINTS:
        return f"{shown:{sign}.2f}"
    if unit == PERCENT_CHANGE:
        return f"{shown:{sign}.1f}"
    if shown == 0 or 1e-3 <= abs(shown) < 1e4:
        return f"{shown:{sign}.4g}"
    return f"{shown:{sign}.2e}"


def in_unit(value: float, unit: str) -> float:
    """A number as it is shown in its unit."""
    if unit == POINTS:
        return 100 * value
    return 100 * math.expm1(value) if unit == PERCENT_CHANGE else value


def unit_text(unit: str) -> str:
    """The unit behind a number."""
    return "%" if unit == PERCENT_CHANGE else unit


def numbers_text(finding: Finding) -> str:
    """Value, interval and whatever the state depends on: ``+0.07 points (95 % CI -0.51 to +0.66; detectable: 1.2)``."""
    unit, signed = finding.unit, finding.is_difference
    value, low, high = (number_text(x, unit, signed=signed) for x in (finding.value, finding.low, finding.high))
    head = f"{value} {unit_text(unit)}".rstrip()
    if finding.counts is not None:
        k, n = finding.counts
        head = f"{k} of {n} {unit or 'runs'}"
        low, high = (f"{100 * x:.0f} %" for x in (finding.low, finding.high))
    has_ends = math.isfinite(finding.low) and math.isfinite(finding.high)
    parts = [f"95 % CI {low} to {high}" if has_ends else "no interval"]
    if finding.identical:
        parts.append("the same in all pairs")
    if finding.margin_reason:
        parts.append(f"margin {number_text(abs(finding.threshold), unit)}: {finding.margin_reason}")
    elif finding.threshold:
        threshold = number_text(finding.threshold, unit, signed=signed)
        parts.append(f"threshold {threshold if finding.counts is None else f'{100 * finding.threshold:.0f} %'}")
    if finding.state == "undecided":
        parts += _why_undecided(finding)
    return f"{head} ({'; '.join(parts)})"


def _why_undecided(finding: Finding) -> list[str]:
    parts = []
    if not can_decide(finding.seeds):
        parts.append(f"{finding.seeds} {'seed' if finding.seeds == 1 else 'seeds'}, and a decision needs {LEAST_SEEDS}")
    elif finding.p < ALPHA:
        parts.append(f"p = {finding.p:.2g}, {finding.p_adjusted:.2g} corrected over {finding.family} findings")
    if finding.counts is not None:
        share = finding.detectable
        parts.append("detectable: none" if math.isnan(share) else f"detectable: {100 * share:.0f} % from the threshold")
    elif math.isfinite(finding.detectable):
        parts.append(f"detectable: {detectable_text(finding.detectable, finding.unit)}")
    return parts


def detectable_text(value: float, unit: str) -> str:
    """A difference that can be found, to two digits, without the unit's name; of a change in percent, the fall."""
    if unit == PERCENT_CHANGE:
        return f"{in_unit(-value, unit):.2g} %"
    shown = in_unit(value, unit)
    return f"{shown:.2g}" if shown < 100 else f"{shown:.0f}"


def sentence(text: str, finding: Finding) -> str:
    """The answer in words and its numbers: ``No significant difference: +0.07 points (95 % CI ...).``"""
    return f"{text.rstrip('. ')}: {numbers_text(finding)}."
