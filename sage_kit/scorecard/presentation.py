"""Scorecards for people: tables, and the picture of fidelity against speed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.scorecard.all_pairs import Grid, Row
from sage_kit.scorecard.card import PREDICTORS, PUBLISHED, PUBLISHED_NOTE, Scorecard
from sage_kit.scorecard.measures import METRICS, Figure
from sage_kit.storage.files import disk_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Picture
    from rich.table import Table

HEADINGS = {"cosine": "cosine", "centred_cosine": "centred cosine", "mse": "MSE", "r2": "R²"}

COLOURS = (
    "#1f6fb4", "#c1441e", "#2e8b57", "#8b5fbf", "#c79a00", "#0f9fa8", "#c2528b", "#6b6f76", "#7a4a2b", "#9ab52f",
    "#334fa1", "#e2836b",
)  # fmt: skip
MARKERS = "osD^vP*X<>ph"
BASELINES: Mapping[str, Any] = {"mean": "-", "nearest": "--", "random": ":"}  # line of each baseline
DECIMALS = 3

LOWEST = -0.6  # R² below which the picture shows an arrow at its lower edge instead of the point
DOTS_PER_INCH = 140


# ---- tables ---------------------------------------------------------------------------------------------------------


def scorecard_tables(card: Scorecard) -> list[Table]:
    """Two tables of a scorecard: fidelity beside the baselines, and the other figures."""
    from rich.table import Table

    examples = card.examples
    title = (
        f"{card.task}: {card.reducer} ({card.n_components}) with {card.inverter}, learnt from {examples['train']:,} "
        f"vectors, scored on {examples['held_out']:,} held out; 95 % intervals"
    )
    scores = Table(title=title, title_justify="left")
    scores.add_column("prediction")
    for metric in METRICS:
        scores.add_column(HEADINGS[metric], justify="right")
    for name, label in PREDICTORS.items():
        scores.add_row(label, *(_with_interval(card.fidelity[name][metric], metric) for metric in METRICS))
    for name in card.differences:
        cells = (_with_interval(card.differences[name][metric], metric, sign=True) for metric in METRICS)
        scores.add_row(f"inverter less {PREDICTORS[name]}", *cells)
    published = [_short(PUBLISHED[metric]) if metric in PUBLISHED else "-" for metric in METRICS]
    scores.add_row("SAGE's paper*", *published)
    scores.caption = f"* {PUBLISHED_NOTE}"
    scores.caption_justify = "left"

    rest = Table(show_header=False)
    rest.add_column("figure")
    rest.add_column("value")
    for label, value in other_figures(card).items():
        rest.add_row(label, value)
    return [scores, rest]


def other_figures(card: Scorecard) -> dict[str, str]:
    """The figures of a scorecard beyond fidelity, as text by label."""
    novelty, speed, dimension = card.novelty, card.speed, card.intrinsic_dimension
    trip = card.round_trip
    figures = {
        "vectors": f"{card.input_layers} ({card.task}, bypass {card.bypass})",
        "held-out coordinates": f"by {card.placed_by}",
        "novelty": (
            f"synthetic vectors lie {_short(novelty['median'])} from the nearest real one (median; 10-90 %: "
            f"{_short(novelty['low'])} to {_short(novelty['high'])}), {_short(novelty['median_ratio'])} of the real "
            f"vectors' own mean {_short(novelty['real_mean'])}; {novelty['identical']:.1%} are a real one"
        ),
        "intrinsic dimension": (
            f"{_short(dimension['synthetic'])} of the synthetic vectors, {_short(dimension['real'])} of as many real "
            "ones (TwoNN)"
        ),
        "mean norm": (
            f"{_short(card.norms['held_out'])} held out, {_short(card.norms['inverter'])} inverted, "
            f"{_short(card.norms['synthetic'])} synthetic"
        ),
        "round trip in the map": (
            "- (the reducer has no transform)"
            if trip is None
            else f"{_with_interval(trip, 'round_trip')} standard deviations of the map, mean"
        ),
        "outside the map's hull": (
            f"{_percent(card.outside_hull['held_out'])} of held-out, {_percent(card.outside_hull['synthetic'])} of "
            "synthetic points"
        ),
        "speed": (
            f"{_rate(speed['vectors_per_second'])} vectors/s ({speed['points']:,.0f} points, median of "
            f"{speed['repeats']:.0f}; BLAS threads {speed['threads']:.0f}, processors {speed['processors']:.0f})"
        ),
    }
    return figures


def grid_table(grid: Grid) -> Table:
    """One row per pair, by falling R², the baselines among the first rows' heads."""
    from rich.table import Table

    title = f"{grid.task}: vectors {grid.input_layers}; held out, 95 % intervals; {grid.seconds:.0f} s"
    table = Table(title=title, title_justify="left")
    for heading in ("reducer", "n", "inverter"):
        table.add_column(heading, justify="right" if heading == "n" else "left")
    for heading in ("cosine", "centred\ncosine", "MSE", "R²", "novelty\nratio", "intrinsic\ndimension"):
        table.add_column(heading, justify="right", no_wrap=heading == "R²")
    for heading in ("round\ntrip", "vectors/s", "seconds"):
        table.add_column(heading, justify="right")
    if grid.scored:
        fidelity = grid.scored[0].card["fidelity"]
        for name, label in PREDICTORS.items():
            if name != "inverter":
                cells = [_metric(fidelity[name][metric]["value"], metric) for metric in METRICS]
                table.add_row(f"({label})", "", "", *cells, style="dim")
    for row in grid.rows:
        head = (row.reducer, str(row.n_components), row.inverter)
        if not row.card:
            # a long reason would widen a column of numbers; grid.json and the list below the table have it
            table.add_row(*head, row.status, *[""] * 7, f"{row.map_seconds + row.seconds:.0f}")
            continue
        r2 = Figure(*(row.value("r2", part) for part in ("value", "low", "high")))
        trip = row.card["round_trip"]
        table.add_row(
            *head,
            _short(row.value("cosine")),
            _short(row.value("centred_cosine")),
            _metric(row.value("mse"), "mse"),
            _with_interval(r2, "r2"),
            _short(row.card["novelty"]["median_ratio"]),
            _short(row.card["intrinsic_dimension"]["synthetic"]),
            "-" if trip is None else _short(trip["value"]),
            _rate(row.speed),
            f"{row.map_seconds + row.seconds:.0f}",
        )
    return table


def grid_notes(grid: Grid) -> list[str]:
    """One line for each reason why pairs have no figures, and one for those that do not go together."""
    without: dict[tuple[str, str, str], list[str]] = {}
    for row in grid.rows:
        if not row.card:
            without.setdefault((row.reducer, row.status, row.reason), []).append(row.inverter)
    lines = [
        f"{reducer} with {', '.join(inverters)}: {status}: {reason}"
        for (reducer, status, reason), inverters in without.items()
    ]
    if grid.left_out:
        lines.append(f"Do not go together: {', '.join(grid.left_out)}.")
    return lines


def _with_interval(figure: Figure | Mapping[str, float], metric: str, sign: bool = False) -> str:
    value, low, high = (
        (figure.value, figure.low, figure.high)
        if isinstance(figure, Figure)
        else (figure["value"], figure["low"], figure["high"])
    )
    decimals = DECIMALS if metric != "mse" else _decimals(value, low, high)
    return f"{_short(value, decimals, sign)} [{_short(low, decimals, sign)}, {_short(high, decimals, sign)}]"


def _metric(value: float, metric: str) -> str:
    return _short(value, _decimals(value) if metric == "mse" else DECIMALS)


def _decimals(*values: float) -> int:
    """Three, or more where even the largest value would show fewer than three digits."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return DECIMALS if largest >= 0.1 or largest == 0 else min(8, 2 - math.floor(math.log10(largest)))


def _short(value: float | None, decimals: int = DECIMALS, sign: bool = False) -> str:
    """A number in few digits; "-" for none."""
    if value is None or math.isnan(value):
        return "-"
    plus = "+" if sign else ""
    text = f"{value:{plus},.0f}" if abs(value) >= 100 else f"{value:{plus}.{decimals}f}"
    # no sign for what rounds to zero
    return text.lstrip("+-") if not text.strip("+-0.") else text


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1%}"


def _rate(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{float(f'{value:.2g}'):,.0f}"


# ---- the picture ----------------------------------------------------------------------------------------------------


def draw_grid(grid: Grid) -> Path:
    """Draw R² against vectors per second as ``grid.png`` in the grid's directory, and return the file.

    Colour tells the reducer, marker the inverter; bars are 95 % intervals; lines are the baselines.
    """
    picture = grid_picture(grid)
    path = grid.directory / "grid.png"
    with disk_errors(str(path)):
        picture.savefig(path, dpi=DOTS_PER_INCH)
    return path


def grid_picture(grid: Grid) -> Picture:
    """The picture of a grid, as a matplotlib figure."""
    from matplotlib.figure import Figure as MatplotlibFigure

    picture = MatplotlibFigure(figsize=(10.0, 6.4), layout="constrained")
    axes = picture.subplots()
    rows = grid.scored
    reducers = sorted({(row.reducer, row.n_components) for row in rows})
    inverters = sorted({row.inverter for row in rows})
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(reducers)}
    markers = {name: MARKERS[index % len(MARKERS)] for index, name in enumerate(inverters)}
    bottom = LOWEST if any(row.value("r2", "low") < LOWEST for row in rows) else None
    for row in rows:
        _draw_row(axes, row, colours[row.reducer, row.n_components], markers[row.inverter], bottom)
    lines = _draw_baselines(axes, rows, bottom)
    axes.set_xscale("log")
    axes.set(xlabel="vectors per second", ylabel="R² on held-out vectors")
    examples = f"{rows[0].card['examples']['held_out']:,} held-out vectors " if rows else ""
    title = f"{grid.task}: fidelity against speed of inversion\n{examples}{grid.input_layers}; 95 % intervals"
    axes.set_title(title, loc="left", fontsize=10)
    if bottom is not None:
        axes.set_ylim(bottom=bottom - 0.02)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    _legends(picture, axes, colours, markers, lines)
    return picture


def _draw_row(axes: Axes, row: Row, colour: str, marker: str, bottom: float | None) -> None:
    value, low, high = (row.value("r2", part) for part in ("value", "low", "high"))
    if bottom is not None and value < bottom:
        axes.annotate(
            f"{value:.2g}", (row.speed, bottom), xytext=(0, 16), textcoords="offset points", ha="center", fontsize=7,
            color=colour, arrowprops={"arrowstyle": "->", "color": colour},
        )  # fmt: skip
        return
    bars = [[max(0.0, value - low)], [max(0.0, high - value)]]
    axes.errorbar(
        row.speed, value, yerr=bars, fmt=marker, color=colour, markersize=7.5, markeredgecolor="white",
        markeredgewidth=0.7, elinewidth=1.1, alpha=0.85, zorder=3,
    )  # fmt: skip


def _draw_baselines(axes: Axes, rows: list[Row], bottom: float | None) -> list[Any]:
    """Horizontal lines, and what a legend says of them; one that lies below the picture is told there only."""
    from matplotlib.lines import Line2D

    handles: list[Any] = []
    if not rows:
        return handles
    fidelity = rows[0].card["fidelity"]
    least = min(row.value("r2") for row in rows)
    for name, style in BASELINES.items():
        value = float(fidelity[name]["r2"]["value"])
        label = f"{PREDICTORS[name]} ({value:.2f})".replace("-0.00", "0.00")
        if value < (bottom if bottom is not None else min(LOWEST, least)):
            label = f"{PREDICTORS[name]}\n({value:.2f}, below the picture)"
        else:
            axes.axhline(value, color="#666666", linestyle=style, linewidth=1, zorder=1)
        handles.append(Line2D([], [], color="#666666", linestyle=style, linewidth=1, label=label))
    return handles


def _legends(
    picture: Picture, axes: Axes, colours: Mapping[tuple[str, int], str], markers: Mapping[str, str], lines: list[Any]
) -> None:
    """One legend beside the picture: reducers, inverters, baselines."""
    from matplotlib.lines import Line2D

    def heading(text: str) -> Any:
        return Line2D([], [], linestyle="", label=text)

    reducers = [
        Line2D([], [], marker="o", linestyle="", color=colour, markersize=7, label=f"{name} ({n})")
        for (name, n), colour in colours.items()
    ]
    inverters = [
        Line2D([], [], marker=marker, linestyle="", color="#444444", markersize=7, label=name)
        for name, marker in markers.items()
    ]
    headings = ("reducer (dimensions)", "inverter", "baseline (R²)")
    handles = []
    for text, group in zip(headings, (reducers, inverters, lines), strict=True):
        handles += [heading(text), *group]
    legend = picture.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8.5)
    for entry in legend.get_texts():
        if entry.get_text() in headings:
            entry.set_fontweight("bold")
