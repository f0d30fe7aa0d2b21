"""What a bench found, for people: tables by work, targets beside what was measured, and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_bench.records import Line, Result, Spread, Target
from sage_kit.storage.files import disk_errors
from sage_kit.system.machine import Machine

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

OURS, PEER = "#1f6fb4", "#b8bec8"
DOTS_PER_INCH = 110
WIDEST_RANGE = 40.0
"""Largest over smallest figure of a panel up to which its axis is linear."""


def works(result: Result) -> list[str]:
    """The works of a result in order."""
    return list(dict.fromkeys(line.work for line in result.lines))


def result_tables(result: Result) -> list[Table]:
    """One table per work, then the targets.

    Figures are medians of the repeats, with the lowest and the highest in brackets.
    """
    from rich.table import Table

    tables = []
    for work in works(result):
        lines = [line for line in result.lines if line.work == work]
        values = list(dict.fromkeys(name for line in lines for name in line.values))
        ratios = list(dict.fromkeys(name for line in lines for name in line.ratios))
        has_share = any(line.ceiling_share for line in lines)
        table = Table(title=f"{result.bench}: {work}", title_justify="left")
        table.add_column("who")
        for name in [*values, *ratios, *(["share of ceiling"] if has_share else [])]:
            table.add_column(name, justify="right")
        table.add_column("note")
        for line in lines:
            cells = [shown(line.values.get(name)) for name in values]
            cells += [shown(line.ratios.get(name)) for name in ratios]
            if has_share:
                cells.append(f"{shown(line.ceiling_share)} {line.ceiling}".strip() if line.ceiling_share else "")
            table.add_row(line.who, *cells, line.note, style="bold" if line.is_ours else "")
        tables.append(table)
    if result.targets:
        tables.append(targets_table(result.targets, result.bench))
    return tables


def targets_table(targets: Sequence[Target], bench: str) -> Table:
    """What was aimed at beside what was measured."""
    from rich.table import Table

    table = Table(title=f"{bench}: targets", title_justify="left")
    for heading in ("what", "target", "measured", "met"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for target in targets:
        goal = f"{'at least' if target.at_least else 'at most'} {target.goal:g}{target.unit}"
        table.add_row(target.what, goal, shown(target.measured, target.unit), "yes" if target.is_met else "no")
    return table


def shown(spread: Spread | None, unit: str = "") -> str:
    """Median, and the lowest and the highest repeat in brackets; "" for none."""
    if spread is None:
        return ""
    text = f"{number(spread.median)}{unit}"
    return text if len(spread.values) == 1 else f"{text} ({number(spread.low)} to {number(spread.high)})"


def number(value: float) -> str:
    """Three digits that count, and no more."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        return f"{value:.1e}"
    if size >= 3:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - size)}f}"


def draw_result(result: Result, machine: Machine, path: Path) -> None:
    """Draw the first figure of every line by work, and write a PNG.

    Raises
    ------
    DiskFullError
        When the disk is full.
    """
    figure = result_figure(result, machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(str(path)):
        figure.savefig(path, dpi=DOTS_PER_INCH)


def result_figure(result: Result, machine: Machine) -> Figure:
    """One panel per work: medians as bars, the range of the repeats as whiskers."""
    from matplotlib.figure import Figure

    groups = [[line for line in result.lines if line.work == work] for work in works(result)]
    heights = [len(lines) + 1.6 for lines in groups] or [1.0]
    figure = Figure(figsize=(10.5, 0.30 * sum(heights) + 0.9), layout="constrained")
    figure.suptitle(f"benchmark: {result.bench}\n{machine}", fontsize=8, x=0.01, ha="left")
    panels: Any = figure.subplots(max(1, len(groups)), 1, height_ratios=heights, squeeze=False)[: len(groups), 0]
    for axes, lines in zip(panels, groups, strict=True):
        _draw_work(axes, lines)
    return figure


def _draw_work(axes: Axes, lines: Sequence[Line]) -> None:
    unit = next((name for line in lines for name in line.values), "")
    places = range(len(lines))[::-1]
    spreads = [line.values[unit] for line in lines if unit in line.values]
    positive = [spread.median for spread in spreads if spread.median > 0]
    logarithmic = bool(positive) and max(positive) / min(positive) > WIDEST_RANGE
    if logarithmic:
        axes.set_xscale("log")
    # room for the text behind the bars
    if positive:
        low, high = min(positive), max(spread.high for spread in spreads)
        axes.set_xlim(low / 3 if logarithmic else 0, high * (high / low) ** 0.5 if logarithmic else high * 1.45)
    start = axes.get_xlim()[0]
    for place, line in zip(places, lines, strict=True):
        spread = line.values.get(unit)
        if spread is None:
            axes.text(start, place, f" {line.note}", va="center", fontsize=7, style="italic")
            continue
        median = spread.median
        axes.barh(place, median - (start if logarithmic else 0), left=start if logarithmic else 0, height=0.7,
                  color=OURS if line.is_ours else PEER)  # fmt: skip
        axes.plot([spread.low, spread.high], [place, place], color="black", linewidth=1)
        parts = [number(median), *(f"{name}: {number(ratio.median)}" for name, ratio in line.ratios.items())]
        if line.ceiling_share:
            parts.append(f"{line.ceiling_share.median:.0%} of {line.ceiling}")
        axes.annotate(
            "   ".join(parts), (max(median, spread.high), place), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    axes.set_yticks(list(places), [line.who for line in lines], fontsize=7)
    axes.set_ylim(-0.6, len(lines) - 0.4)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_title(f"{lines[0].work}   [{unit}]" if unit else lines[0].work, fontsize=8, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
