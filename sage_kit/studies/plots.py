"""Pictures of a study: forest plots, curves with bands, scatter plots and bars, in the colours of a run's pictures.

Each function takes a table (a pandas DataFrame, or mappings as rows) and returns a Figure that no global state knows,
sized to be read as it is. `sage_kit.studies.statistics.compare_arms` makes the rows of `intervals`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, cycle
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sage_kit.errors import ConfigError, DataError, did_you_mean
from sage_kit.reports.figures import ANCHOR, REAL, SYNTHETIC, TEACHER
from sage_kit.studies.statistics import t_interval
from sage_kit.studies.verdicts import PERCENT_CHANGE, POINTS, in_unit, number_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Iterable[Mapping[str, Any]]
Band = Literal["interval", "range", "none"]

PALETTE = (SYNTHETIC, ANCHOR, "#2f8f6b", "#7a5bb5", "#c8961e", "#3fa7c4", "#a8447a", "#5b6270")
"""Colours of groups, in order, each with a marker and a line of its own; further groups repeat them with others."""

MARKERS = ("o", "s", "^", "D")
LINES = ("-", "--", ":", "-.")
REFERENCE_LINES = (":", "-.", "--")
PANELS_PER_ROW = 3


def intervals(
    rows: pd.DataFrame | Rows,
    *,
    title: str,
    unit: str,
    zero: bool = True,
    threshold: float = 0.0,
    label: str = "arm",
    value: str = "difference",
) -> Figure:
    """A forest plot: per arm a point, its interval and their numbers, in one panel per task with a scale of its own.

    Where the tasks are the labels there is one panel for all.

    The intervals are those that findings are decided by, so a figure of a finding's table shows its numbers. An
    interval with NaN ends is drawn as a point alone.

    Parameters
    ----------
    rows : pandas DataFrame or iterable of mapping
        With the columns that `label` and `value` name, "low", "high", and perhaps "task".
    title : str
    unit : str
        What the axis measures; "points" are hundredths of the table's numbers, and "percent change" shows differences
        of logarithms (`sage_kit.studies.verdicts`).
    zero : bool
        Whether to draw the dashed line at `threshold`.
    threshold : float
        What a difference must exceed.
    label, value : str
        Columns of the arms' names and of their values.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        If a column is missing.
    DataError
        If there are no rows.
    """
    records = _records(rows, label, value, "low", "high")
    names = list(dict.fromkeys(str(row[label]) for row in records))
    panels = {"": records} if label == "task" else _grouped(records, "task")
    single = len(panels) == 1
    across = min(len(panels), PANELS_PER_ROW)
    down = -(-len(panels) // across)
    width = 8.0 if single else 2.2 + 2.9 * across
    figure = _figure((width, down * (1.15 + (0.34 if single else 0.42) * len(names)) + 0.35))
    # each panel has a scale of its own: one task with a wide interval would flatten the others
    grid = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    heights = {name: -index for index, name in enumerate(names)}
    form = _form(records, value, unit)
    for axes, (task, group) in zip(grid, panels.items(), strict=False):
        for row in group:
            _draw_interval(axes, row, value, unit, heights[str(row[label])], form, is_beside=single)
        if zero:
            axes.axvline(in_unit(threshold, unit), color=TEACHER, linestyle="--", linewidth=1, zorder=0)
        axes.set_yticks(list(heights.values()), labels=list(heights))
        axes.set_ylim(-len(names) + 0.4, 0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
        if not single:
            axes.set_title(str(task), fontsize=10)
        axes.locator_params(axis="x", nbins=5)  # long numbers would run into each other
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(panels) - across) : len(panels)]:
        axes.set_xlabel("change [%]" if unit == PERCENT_CHANGE else unit, fontsize=10 if single else 9)
    figure.suptitle(title, fontsize=12)
    return figure


def gains(rows: pd.DataFrame | Rows, *, title: str, units: Mapping[str, str]) -> Figure:
    """Gains by task: one panel per outcome, and on each task a point and its interval per comparison.

    Parameters
    ----------
    rows : pandas DataFrame or iterable of mapping
        With the columns task, outcome, comparison, difference, low and high.
    title : str
    units : mapping of str to str
        By outcome, in the order of the panels: "points" or "percent change".

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        If a column is missing.
    DataError
        If there are no rows.
    """
    records = _records(rows, "task", "outcome", "comparison", "difference", "low", "high")
    tasks = list(dict.fromkeys(str(row["task"]) for row in records))
    comparisons = list(dict.fromkeys(str(row["comparison"]) for row in records))
    figure = _figure((2.0 + 3.0 * len(units), 1.5 + 0.5 * len(tasks)))
    grid = figure.subplots(1, len(units), sharey=True, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axes, (outcome, unit) in zip(grid, units.items(), strict=True):
        for index, (comparison, style) in enumerate(zip(comparisons, _styles(), strict=False)):
            offset = 0.3 * (index - (len(comparisons) - 1) / 2)
            for row in records:
                if (row["outcome"], row["comparison"]) != (outcome, comparison):
                    continue
                height = -tasks.index(str(row["task"])) - offset
                value, low, high = (in_unit(float(row[name]), unit) for name in ("difference", "low", "high"))
                axes.plot([low, high], [height, height], color=style["color"], linewidth=2, solid_capstyle="butt")
                (point,) = axes.plot(value, height, color=style["color"], marker=style["marker"], linestyle="")
                handles.setdefault(comparison, point)
        axes.axvline(0, color=TEACHER, linestyle="--", linewidth=1, zorder=0)
        axes.set_yticks([-index for index in range(len(tasks))], labels=tasks)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_title(outcome, fontsize=10)
        axes.set_xlabel("change [%]" if unit == PERCENT_CHANGE else unit, fontsize=9)
        axes.locator_params(axis="x", nbins=5)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12)
    return figure


def _form(records: Sequence[Mapping[str, Any]], value: str, unit: str) -> Callable[[float], str]:
    """How the numbers of a figure are written, as in the sentences of findings where the unit says how."""
    if unit in (POINTS, PERCENT_CHANGE):
        return lambda number: number_text(number, unit, signed=True)
    # one number of decimals for the whole figure, so that numbers can be compared down the column
    shown = [abs(float(row[column])) for row in records for column in (value, "low", "high")]
    largest = max((number for number in shown if np.isfinite(number)), default=0.0)
    decimals = int(np.clip(2 - np.floor(np.log10(largest)), 0, 6)) if largest else 1
    return lambda number: f"{number:+.{decimals}f}"


def _draw_interval(
    axes: Axes,
    row: Mapping[str, Any],
    value: str,
    unit: str,
    height: float,
    form: Callable[[float], str],
    *,
    is_beside: bool,
) -> None:
    """An interval and its numbers: beside the axes, or above the point where panels stand side by side."""
    number, low, high = (float(row.get(name, np.nan)) for name in (value, "low", "high"))
    known = np.isfinite(low) and np.isfinite(high)
    if known:
        ends = [in_unit(low, unit), in_unit(high, unit)]
        axes.plot(ends, [height, height], color=SYNTHETIC, linewidth=2, solid_capstyle="butt")
    axes.plot(in_unit(number, unit), height, "o", markersize=7, color=SYNTHETIC)
    text = f"{form(number)} [{form(low)}, {form(high)}]" if known else f"{form(number)} (no interval)"
    if is_beside:
        axes.text(1.02, height, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    else:
        axes.text(0.5, height + 0.2, text, transform=axes.get_yaxis_transform(), ha="center", va="bottom", fontsize=7,
                  bbox={"color": "white", "alpha": 0.8, "pad": 0.5, "linewidth": 0})  # fmt: skip


def curves(
    table: pd.DataFrame | Rows,
    x: str,
    y: str,
    group: str,
    band: Band = "interval",
    *,
    panel: str | None = None,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    reference: Mapping[str, float] | None = None,
) -> Figure:
    """Curves of means over seeds, one per group, with a band over the seeds.

    Where seeds have their points at different x, each counts everywhere from its first to its last one, with the value
    that lies on the straight line between its neighbouring points.

    Parameters
    ----------
    table : pandas DataFrame or iterable of mapping
        Long form: one row per group, seed and x. Rows whose y is NaN are left out.
    x, y, group : str
        Columns of the axes and of what makes a curve.
    band : str
        "interval" (Student's 95 % interval of the mean), "range" (from the lowest to the highest seed) or "none".
    panel : str or None
        Column that splits the figure into panels, such as "task".
    title, x_label, y_label : str
        Labels; the axes' default is the column's name.
    reference : mapping of str to float, or None
        Horizontal lines by name, such as the teacher's score.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        If a column is missing, or the band is unknown.
    DataError
        If there are no rows.
    """
    from matplotlib.ticker import MaxNLocator

    if band not in get_args(Band):
        raise ConfigError(f"Unknown band {band!r}.{did_you_mean(band, get_args(Band))}")
    columns = [x, y, group, *([panel] if panel else [])]
    records = [row for row in _records(table, *columns) if np.isfinite(row[y])]
    panels = _grouped(records, panel) if panel else {"": records}
    styles = dict(zip(_grouped(records, group), _styles(), strict=False))
    across = min(max(len(panels), 1), PANELS_PER_ROW)
    down = max(1, -(-len(panels) // across))
    figure = _figure((7.2, 4.2) if len(panels) < 2 else (2.2 + 3.2 * across, 0.4 + 3.0 * down))
    grid = figure.subplots(down, across, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axes, (name, rows) in zip(grid, panels.items(), strict=False):
        for curve, members in _grouped(rows, group).items():
            handles[str(curve)] = _draw_curve(axes, members, x, y, band, styles[curve], str(curve))
        for (line_name, height), line in zip((reference or {}).items(), cycle(REFERENCE_LINES)):
            handles[line_name] = axes.axhline(height, color=TEACHER, linestyle=line, label=line_name)
        axes.set(title=str(name) if len(panels) > 1 else "", xlabel=x_label or x, ylabel=y_label or y)
        if all(float(row[x]).is_integer() for row in rows):
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(title, fontsize=12)
    order = [*map(str, styles), *(reference or {})]
    shown = [handles[name] for name in order if name in handles]
    figure.legend(handles=shown, loc="outside right center", frameon=False, fontsize=9)
    return figure


def _draw_curve(
    axes: Axes, members: Sequence[Mapping[str, Any]], x: str, y: str, band: Band, style: Mapping[str, Any], label: str
) -> Any:
    places = sorted({float(row[x]) for row in members})
    values = _values_of_seeds(members, x, y, places)
    ends = np.array([_band(seeds, band) for seeds in values])
    axes.fill_between(places, ends[:, 0], ends[:, 1], color=style["color"], alpha=0.15, linewidth=0)
    return axes.plot(places, [seeds.mean() for seeds in values], label=label, markersize=4, **style)[0]


def _values_of_seeds(
    members: Sequence[Mapping[str, Any]], x: str, y: str, places: Sequence[float]
) -> list[NDArray[np.float64]]:
    """The values of the seeds at each place; a seed that has none there, but points on both sides, is interpolated."""
    lines = []
    for rows in _grouped(members, "seed").values():
        points = {float(row[x]): float(row[y]) for row in rows}
        if len(points) < len(rows):  # several curves in one, which no line connects
            return [np.array([row[y] for row in members if row[x] == place], dtype=np.float64) for place in places]
        known = sorted(points)
        lines.append(np.interp(places, known, [points[place] for place in known], left=np.nan, right=np.nan))
    return [column[np.isfinite(column)] for column in np.array(lines).T]


def _band(values: NDArray[np.float64], band: Band) -> tuple[float, float]:
    if band == "none" or len(values) < 2:
        return float("nan"), float("nan")
    if band == "range":
        return float(values.min()), float(values.max())
    interval = t_interval(values)
    return interval.low, interval.high


def scatter(
    x: Sequence[float] | NDArray[Any],
    y: Sequence[float] | NDArray[Any],
    labels: Sequence[str],
    *,
    title: str,
    x_label: str,
    y_label: str,
    groups: Sequence[str] | None = None,
    y_low: Sequence[float] | NDArray[Any] | None = None,
    y_high: Sequence[float] | NDArray[Any] | None = None,
    note: str = "",
) -> Figure:
    """Named points in a plane, each name beside its point where it hides the least.

    Parameters
    ----------
    x, y : sequence of float, each of length n
        A point with a NaN is left out.
    labels : sequence of str, of length n
    title, x_label, y_label : str
    groups : sequence of str, of length n, or None
        What colours the points.
    y_low, y_high : sequence of float, each of length n, or None
        The interval of each `y`, drawn through its point.
    note : str
        A line under the title, such as the rank correlation with its interval.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    DataError
        If the lengths differ.
    """
    lows, highs = (y if ends is None else ends for ends in (y_low, y_high))
    sizes = [len(x), len(y), len(labels), len(groups if groups is not None else labels), len(lows), len(highs)]
    if len(set(sizes)) != 1:
        raise DataError(f"x, y, labels, groups, y_low and y_high have lengths {sizes}: they must be one and the same.")
    members_of = groups if groups is not None else [""] * len(labels)
    points = [
        (float(a), float(b), str(name), str(group))
        for a, b, name, group in zip(x, y, labels, members_of, strict=True)
        if np.isfinite(a) and np.isfinite(b)
    ]
    figure = _figure((7.2, 5.4))
    axes = figure.subplots()
    colours = {}
    for name, style in zip(dict.fromkeys(point[3] for point in points), _styles(), strict=False):
        members = [point for point in points if point[3] == name]
        colours[name] = style["color"]
        if y_low is not None or y_high is not None:
            of_group = [str(group) == name for group in members_of]
            places, below, above = (np.asarray(one, float)[of_group] for one in (x, lows, highs))
            axes.vlines(places, below, above, color=style["color"], alpha=0.35, linewidth=1.2)
        axes.scatter(
            [point[0] for point in members], [point[1] for point in members], s=34, color=style["color"],
            marker=style["marker"], linewidths=0, label=name or None,
        )  # fmt: skip
    axes.set(xlabel=x_label, ylabel=y_label)
    figure.suptitle(title + (f"\n{note}" if note else ""), fontsize=12)
    axes.margins(0.08)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if groups is not None:
        figure.legend(loc="outside right center", frameon=False, fontsize=9)
    _place_names(figure, axes, points, colours)
    return figure


CORNERS = (
    (7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 7, "center", "bottom"), (0, -7, "center", "top"),
    (6, 6, "left", "bottom"), (6, -6, "left", "top"), (-6, 6, "right", "bottom"), (-6, -6, "right", "top"),
    (14, 14, "left", "bottom"), (14, -14, "left", "top"), (-14, 14, "right", "bottom"), (-14, -14, "right", "top"),
)  # fmt: skip
"""Where a name may stand: offset from its point in points (1/72 inch), and the side of the text that faces it."""


def _place_names(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str, str]], colours: Mapping[str, str]
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout must stand before a text can be measured against it
    renderer = canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    pixels = axes.transData.transform([point[:2] for point in points]) if points else np.empty((0, 2))
    radius = 4 * figure.dpi / 72
    taken = [Bbox.from_extents(a - radius, b - radius, a + radius, b + radius) for a, b in pixels]
    for index, (a, b, name, group) in enumerate(points):
        best, best_cost, best_box = CORNERS[0], np.inf, None
        for corner in CORNERS:
            text = axes.annotate(
                name, (a, b), corner[:2], textcoords="offset points", ha=corner[2], va=corner[3], fontsize=8
            )
            box = text.get_window_extent(renderer)
            text.remove()
            cost = sum(_overlap(box, other) for at, other in enumerate(taken) if at != index)
            cost += box.width * box.height - _overlap(box, frame)  # what would stick out
            if cost < best_cost - 1e-6:
                best, best_cost, best_box = corner, cost, box
        far = abs(best[0]) == 14
        axes.annotate(
            name, (a, b), best[:2], textcoords="offset points", ha=best[2], va=best[3], fontsize=8,
            color=colours[group] if group else "black",
            arrowprops={"arrowstyle": "-", "color": REAL, "linewidth": 0.7, "shrinkB": 3} if far else None,
        )  # fmt: skip
        if best_box is not None:
            taken.append(best_box)


def _overlap(box: Any, other: Any) -> float:
    width = min(box.x1, other.x1) - max(box.x0, other.x0)
    height = min(box.y1, other.y1) - max(box.y0, other.y0)
    return float(max(width, 0) * max(height, 0))


def bars(
    rows: pd.DataFrame | Rows,
    *,
    title: str,
    unit: str,
    label: str = "arm",
    value: str = "value",
    group: str | None = None,
    reference: Mapping[str, float] | None = None,
    form: str = ".3f",
) -> Figure:
    """Horizontal bars from zero, with intervals where the rows have "low" and "high", and their numbers.

    Parameters
    ----------
    rows : pandas DataFrame or iterable of mapping
        With the columns that `label`, `value` and `group` name, and perhaps "low" and "high". A NaN value leaves a gap.
    title : str
    unit : str
        What the axis measures.
    label, value : str
        Columns of the bars' names and of their lengths.
    group : str or None
        Column that splits each name's bar into several, by colour.
    reference : mapping of str to float, or None
        Vertical lines by name.
    form : str
        How the numbers are written, as in `format`.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    ConfigError
        If a column is missing.
    DataError
        If there are no rows.
    """
    records = _records(rows, label, value, *([group] if group else []))
    names = list(dict.fromkeys(str(row[label]) for row in records))
    groups = _grouped(records, group) if group else {"": records}
    thick = 0.8 / len(groups)
    figure = _figure((8.0, 1.3 + len(names) * max(0.34, 0.24 * len(groups))))
    axes = figure.subplots()
    handles: list[Any] = []
    for (index, (name, members)), style in zip(enumerate(groups.items()), _styles(), strict=False):
        heights = [-names.index(str(row[label])) + 0.4 - thick * (index + 0.5) for row in members]
        lengths = np.array([float(row[value]) for row in members])
        colour = style["color"]
        handles.append(axes.barh(heights, np.nan_to_num(lengths), thick * 0.92, color=colour, label=str(name)))
        for height, length, row in zip(heights, lengths, members, strict=True):
            if not np.isfinite(length):
                axes.annotate("no value", (0, height), (4, 0), textcoords="offset points", va="center", fontsize=8,
                              color=TEACHER)  # fmt: skip
                continue
            low, high = (float(row.get(end, np.nan)) for end in ("low", "high"))
            if np.isfinite(low) and np.isfinite(high):
                axes.plot([low, high], [height, height], color="black", linewidth=1.2, solid_capstyle="butt")
            tip = np.nanmin([length, low]) if length < 0 else np.nanmax([length, high])
            axes.annotate(format(length, form), (tip, height), (-4 if length < 0 else 4, 0), textcoords="offset points",
                          ha="right" if length < 0 else "left", va="center", fontsize=8,
                          bbox={"color": "white", "alpha": 0.8, "pad": 0.5, "linewidth": 0})  # fmt: skip
    for (name, place), line in zip((reference or {}).items(), cycle(REFERENCE_LINES)):
        handles.append(axes.axvline(place, color=TEACHER, linestyle=line, label=name))
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks([-index for index in range(len(names))], labels=names)
    axes.set_ylim(-len(names) + 0.5, 0.5)
    axes.margins(x=0.1)
    figure.suptitle(title, fontsize=12)
    axes.set_xlabel(unit)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if group or reference:
        figure.legend(handles=handles if group else handles[1:], loc="outside right center", frameon=False, fontsize=9)
    return figure


def _records(rows: pd.DataFrame | Rows, *columns: str) -> list[Mapping[str, Any]]:
    """The rows as mappings, checked for the columns."""
    records: list[Mapping[str, Any]] = rows.to_dict("records") if hasattr(rows, "to_dict") else list(rows)
    if not records:
        raise DataError("there is nothing to draw: the table has no rows.")
    for column in columns:
        for row in records:
            if column not in row:
                raise ConfigError(f"A row to draw has no column {column!r}.{did_you_mean(column, map(str, row))}")
    return records


def _grouped(records: Iterable[Mapping[str, Any]], column: str) -> dict[Any, list[Mapping[str, Any]]]:
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for row in records:
        groups.setdefault(row.get(column, ""), []).append(row)
    return groups


def _styles() -> Iterable[dict[str, Any]]:
    """Colour, marker and line of one group after the other, without end; without colours they can be told apart too."""
    for index in count():
        turn = index + index // len(PALETTE)  # or the ninth would look like the first
        yield {
            "color": PALETTE[index % len(PALETTE)],
            "marker": MARKERS[turn % len(MARKERS)],
            "linestyle": LINES[turn % len(LINES)],
        }


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")
