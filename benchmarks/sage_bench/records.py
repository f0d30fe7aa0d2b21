"""What a bench measures: spreads, lines of a table, targets, and the result that holds them. Light."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_kit.storage.files import only_finite


@dataclass(frozen=True)
class Spread:
    """A figure measured several times.

    Attributes
    ----------
    values : tuple of float
        One per repeat, in order.
    """

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of some values; at least one."""
        taken = tuple(float(value) for value in values)
        if not taken:
            raise ValueError("a spread needs at least one value")
        return cls(taken)

    @property
    def median(self) -> float:
        """Median of the repeats."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The lowest repeat."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest repeat."""
        return max(self.values)

    def over(self, other: Spread) -> Spread:
        """Ratios repeat by repeat, self over other: what two things have in common in a repeat cancels."""
        if len(self.values) != len(other.values):
            raise ValueError(f"{len(self.values)} repeats cannot be paired with {len(other.values)}")
        return Spread(tuple(a / b if b else math.nan for a, b in zip(self.values, other.values, strict=True)))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {"median": self.median, "low": self.low, "high": self.high, "values": list(self.values)}


@dataclass(frozen=True)
class Line:
    """One line of a bench's table.

    Attributes
    ----------
    work : str
        What is done: data, models, precision. Lines of the same work were measured alternately.
    who : str
        Who does it.
    values : mapping of str to Spread
        Figures by name and unit, e.g. "examples/s". The first one is drawn.
    ratios : mapping of str to Spread
        Paired ratios by what they say, e.g. "SAGE real round / this".
    ceiling_share : Spread or None
        Share of the ceiling measured in the same repeats.
    ceiling : str
        Which ceiling.
    is_ours : bool
        Whether this project did it.
    note : str
        What else there is to know: an optimizer, a version, why there are no figures.
    """

    work: str
    who: str
    values: Mapping[str, Spread] = field(default_factory=dict)
    ratios: Mapping[str, Spread] = field(default_factory=dict)
    ceiling_share: Spread | None = None
    ceiling: str = ""
    is_ours: bool = False
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "work": self.work,
            "who": self.who,
            "values": {name: spread.to_json() for name, spread in self.values.items()},
            "ratios": {name: spread.to_json() for name, spread in self.ratios.items()},
            "ceiling_share": None if self.ceiling_share is None else self.ceiling_share.to_json(),
            "ceiling": self.ceiling,
            "is_ours": self.is_ours,
            "note": self.note,
        }


@dataclass(frozen=True)
class Target:
    """A figure beside the one that was aimed at.

    Attributes
    ----------
    what : str
    measured : Spread
    goal : float
    at_least : bool
        True when the goal is a lower bound, False for an upper one.
    unit : str
        Written behind both figures: " x", " s", "".
    """

    what: str
    measured: Spread
    goal: float
    at_least: bool = True
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the median reaches the goal."""
        return self.measured.median >= self.goal if self.at_least else self.measured.median <= self.goal

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "what": self.what,
            "measured": self.measured.to_json(),
            "goal": self.goal,
            "at_least": self.at_least,
            "unit": self.unit,
            "is_met": self.is_met,
        }


@dataclass(frozen=True)
class Result:
    """What a bench returns.

    Attributes
    ----------
    bench : str
    lines : sequence of Line
    targets : sequence of Target
    notes : sequence of str
        One sentence each, printed below the table.
    details : mapping
        Anything else worth keeping, JSON-ready.
    arrays : mapping of str to array
        What figures can be computed from again; kept beside the JSON, not in it.
    """

    bench: str
    lines: Sequence[Line]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; NaN and infinity become None, since JSON has neither."""
        data = {
            "bench": self.bench,
            "lines": [line.to_json() for line in self.lines],
            "targets": [target.to_json() for target in self.targets],
            "notes": list(self.notes),
            "details": dict(self.details),
        }
        finite: dict[str, Any] = only_finite(data)
        return finite
