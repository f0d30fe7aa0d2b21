"""Markdown of a model card: what names and texts of a user cannot break."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from sage_kit.errors import shortened

LONGEST_NAME = 80
"""Most characters of a name that a card shows."""


def code(text: str, longest: int = LONGEST_NAME) -> str:
    """A text as a code span, on one line, that holds in tables too, whatever stands in it."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    plain = shortened(" ".join(plain.split()), longest)
    if not plain:
        return "(empty)"
    fence = "`" * (_longest_run(plain) + 1)
    room = " " if plain.startswith("`") or plain.endswith("`") else ""
    # a table ends its cell at a bar inside code as well, unless a backslash stands before it
    return f"{fence}{room}{plain}{room}{fence}".replace("|", "\\|")


def fenced(text: str, language: str) -> str:
    """A text as a block of code, between fences that are longer than any in it."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def listed(names: Sequence[str], most: int) -> str:
    """Names as code with commas between; of more than `most`, how many others there are."""
    shown = ", ".join(code(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} others"


def number(value: float | None) -> str:
    """A score to four digits; a dash for none."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def between(low: float, high: float, *, signed: bool = False) -> str:
    """The ends of an interval; "" where they are not known."""
    if math.isnan(low) or math.isnan(high):
        return ""
    sign = "+" if signed else ""
    return f"({low:{sign}.4f} to {high:{sign}.4f})"


def duration(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _longest_run(text: str) -> int:
    """The most backticks that stand side by side."""
    return max(map(len, re.findall("`+", text)), default=0)
