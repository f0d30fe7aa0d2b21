"""What the numbers of an assessment say, by one rule: whether a distilled student is worth having on these rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sage_kit.studies.statistics import Interval, detectable, holm, p_value
from sage_kit.studies.verdicts import ALPHA

Verdict = Literal["yes", "no", "not needed", "cannot tell"]

RULE = (
    "A student is good enough where its loss to the teacher is smaller than the margin, and not where it is larger; "
    "the smallest that is good enough is taken. It is worth distilling where it is also ahead of the same small model "
    "trained on the labels alone, and of a linear model of word counts. All of these comparisons, of every size, are "
    "corrected together (Holm), and what is then not below 5 % counts as not known."
)
"""How the verdict follows from the numbers."""


@dataclass(frozen=True)
class Lead:
    """By how much a student is ahead of something else, over the rows that both were scored on.

    Attributes
    ----------
    over : str
        "teacher", "labels alone" or "word counts".
    interval : Interval
        Of the difference of scores, the student's less the other's.
    """

    over: str
    interval: Interval


@dataclass(frozen=True)
class SizeNumbers:
    """What is known of a student of one size.

    Attributes
    ----------
    name : str
        As the table calls it.
    blocks : int
    score : float
    leads : sequence of Lead
        The one over the teacher first.
    speed : float
        How many times as many single texts as the teacher it answers in the same time; NaN where not measured.
    share : float
        Of the teacher's size on disk.
    """

    name: str
    blocks: int
    score: float
    leads: Sequence[Lead]
    speed: float = math.nan
    share: float = math.nan


def advise(sizes: Sequence[SizeNumbers], *, margin: float, metric: str, rows: int) -> tuple[Verdict, str]:
    """The verdict on students of several sizes, and why, in sentences.

    Parameters
    ----------
    sizes : sequence of SizeNumbers
        At least one.
    margin : float
        The largest loss of score that does not matter, as a share (0.02 for two points).
    metric : str
        Name of the score.
    rows : int
        That all were scored on.
    """
    sizes = sorted(sizes, key=lambda size: size.blocks)
    places = [(size, lead) for size in sizes for lead in size.leads]
    p_values = [p_value(lead.interval, _threshold(lead, margin)) for _, lead in places]
    known = {
        (size.name, lead.over): (_side(lead, margin) if p < ALPHA else 0)
        for (size, lead), p in zip(places, holm(p_values), strict=True)
    }
    family = sum(not math.isnan(p) for p in p_values)
    if not family:
        return "cannot tell", (
            f"Nobody can tell: {metric} does not say what a row contributes to it, so no interval is known. Choose "
            "another metric."
        )
    good = [size for size in sizes if known[size.name, "teacher"] > 0]
    if good:
        return _of_good_enough(good[0], known, margin, metric)
    best = max(sizes, key=lambda size: size.score)
    if all(known[size.name, "teacher"] < 0 for size in sizes):
        return "no", (
            f"Not worth it: each student loses more than {_points(margin)} of {metric} to the teacher; the best, "
            f"{best.name}, is {_told(best.leads[0].interval)} from it. Try larger students, or more rows."
        )
    return "cannot tell", _open(best, margin, metric, rows, family)


def _of_good_enough(
    size: SizeNumbers, known: dict[tuple[str, str], int], margin: float, metric: str
) -> tuple[Verdict, str]:
    rivals = size.leads[1:]
    told = (
        f"{size.name} keeps the teacher's {metric} to within {_points(margin)} ({_told(size.leads[0].interval)})"
        f"{_gain(size)}"
    )
    better = [lead for lead in rivals if known[size.name, lead.over] < 0]
    if better:
        which = better[0]
        return "not needed", (
            f"Not needed: {told}, but {_called(which.over)} does better still (the student is "
            f"{_told(which.interval)} from it)."
        )
    open_ones = [lead for lead in rivals if known[size.name, lead.over] == 0]
    if not open_ones:
        ahead = "".join(f" It is {_told(lead.interval)} ahead of {_called(lead.over)}." for lead in rivals)
        return "yes", f"Worth it: {told}.{ahead}"
    named = " and ".join(f"{_called(lead.over)} ({_told(lead.interval)})" for lead in open_ones)
    return "cannot tell", (
        f"A small model will do: {told}. Whether it takes distilling, these rows cannot tell: no difference is shown "
        f"from {named}. Where that is cheaper for you, try it first."
    )


def _open(best: SizeNumbers, margin: float, metric: str, rows: int, family: int) -> str:
    interval = best.leads[0].interval
    least = detectable(interval.se, interval.df, comparisons=family)
    text = (
        f"These {rows:,} rows cannot tell: {best.name} is {_told(interval)} from the teacher in {metric}, and a loss "
        f"of {_points(margin)} is neither shown nor ruled out."
    )
    if not math.isfinite(least) or least <= 0:
        return text
    # the standard error falls with the square root of the rows
    needed = rows * (least / margin) ** 2
    digits = 10 ** max(0, len(str(math.ceil(needed))) - 2)
    return (
        f"{text} Differences of {_points(least)} are found with 80 % chance here; for one of {_points(margin)} about "
        f"{math.ceil(needed / digits) * digits:,} rows to score on would be needed."
    )


def _threshold(lead: Lead, margin: float) -> float:
    return -margin if lead.over == "teacher" else 0.0


def _side(lead: Lead, margin: float) -> int:
    return 1 if lead.interval.value > _threshold(lead, margin) else -1


def _called(over: str) -> str:
    return {
        "labels alone": "the same small model trained on the labels alone",
        "word counts": "a linear model of word counts",
    }[over]


def _gain(size: SizeNumbers) -> str:
    parts = []
    if math.isfinite(size.speed):
        parts.append(f"answers {size.speed:.1f} times as many texts one by one")
    if math.isfinite(size.share):
        parts.append(f"takes {100 * size.share:.0f} % of its room")
    return "".join(f", {part}" for part in parts[:-1]) + (f", and {parts[-1]}" if parts else "")


def _points(value: float) -> str:
    return f"{100 * value:.3g} point{'' if round(100 * value, 9) == 1 else 's'}"


def _told(interval: Interval) -> str:
    return f"{100 * interval.value:+.1f} points (95 % CI {100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
