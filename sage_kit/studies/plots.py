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
from sage_kit.reports.figures import ANCHOR, SYNTHETIC, TEACHER
from sage_kit.studies.point_names import place_names
from sage_kit.studies.statistics import t_interval
from sage_kit.studies.verdicts import PERCENT_CHANGE, POINTS, in_unit, number_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Iterable[Mapping[str, Any]]
Numbers = Sequence[float] | NDArray[Any]
Form = Callable[[float], str]
Band = Literal["interval", "range", "none"]

PALETTE = (SYNTHETIC, ANCHOR, "#2f8f6b", "#7a5bb5", "#c8961e", "#3fa7c4", "#a8447a", "#5b6270")
"""Colours of groups, in order, each with a marker and a line of its own; further groups repeat them with others."""

MARKERS = ("o", "s", "^", "D")
LINES = ("-", "--", ":", "-.")
REFERENCE_LINES = (":", "-.", "--")
PANELS_PER_ROW = 3
UNDERLAY = {"color": "white", "alpha": 0.8, "pad": 0.5, "linewidth": 0}  # behind numbers that stand on lines


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

    Where the tasks are the labels there is one panel for all. The intervals are those that findings are decided by, so
    a figure of a finding's table shows its numbers. An interval with NaN ends is drawn as a point alone.

    Parameters
    ----------
    rows : pandas DataFrame or iterable of mapping
        With the columns that `label` and `value` name, "low", "high", and perhaps "task".
    title, unit : str
        Its heading, and what the axis measures; "points" are hundredths of the table's numbers, and "percent change"
        shows differences of logarithms (`sage_kit.studies.verdicts`).
    zero, threshold : bool, float
        Whether to draw the dashed line at what a difference must exceed, and where that is.
    label, value : str
        Columns of the arms' names and of their values.

    Raises
    ------
    ConfigError, DataError
        If a column is missing, or there are no rows.
    """
    records = _records(rows, label, value, "low", "high")
    names = list(dict.fromkeys(str(row[label]) for row in records))
    panels = {"": records} if label == "task" else _grouped(records, "task")
    single = len(panels) == 1
    across = min(len(panels), PANELS_PER_ROW)
    width, height = (8.0, 1.15 + 0.34 * len(names)) if single else (2.2 + 2.9 * across, 1.15 + 0.42 * len(names))
    # each panel has a scale of its own: one task with a wide interval would flatten the others
    figure, grid = _panels(len(panels), width, height, 0.35, sharey=True)
    heights = {name: -index for index, name in enumerate(names)}
    form = _form(records, value, unit)
    for axes, (task, group) in zip(grid, panels.items(), strict=True):
        for row in group:
            _draw_interval(axes, row, value, unit, heights[str(row[label])], form, is_beside=single)
        _name_rows(axes, names, in_unit(threshold, unit) if zero else None)
        axes.set_ylim(-len(names) + 0.4, 0.6)
        if not single:
            axes.set_title(str(task), fontsize=10)
        axes.locator_params(axis="x", nbins=5)  # long numbers would run into each other
    for axes in grid[max(0, len(panels) - across) :]:
        axes.set_xlabel("change [%]" if unit == PERCENT_CHANGE else unit, fontsize=10 if single else 9)
    figure.suptitle(title, fontsize=12)
    return figure


def gains(rows: pd.DataFrame | Rows, *, title: str, units: Mapping[str, str]) -> Figure:
    """Gains by task: one panel per outcome, and on each task a point and its interval per comparison.

    Parameters
    ----------
    rows : pandas DataFrame or iterable of mapping
        With the columns task, outcome, comparison, difference, low and high.
    units : mapping of str to str
        By outcome, in the order of the panels: "points" or "percent change".

    Raises
    ------
    ConfigError, DataError
        If a column is missing, or there are no rows.
    """
    records = _records(rows, "task", "outcome", "comparison", "difference", "low", "high")
    tasks = list(dict.fromkeys(str(row["task"]) for row in records))
    comparisons = list(dict.fromkeys(str(row["comparison"]) for row in records))
    figure, grid = _panels(len(units), 2.0 + 3.0 * len(units), 1.5 + 0.5 * len(tasks), per_row=len(units), sharey=True)
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
        _name_rows(axes, tasks, 0.0)
        axes.set_title(outcome, fontsize=10)
        axes.set_xlabel("change [%]" if unit == PERCENT_CHANGE else unit, fontsize=9)
        axes.locator_params(axis="x", nbins=5)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12)
    return figure


def _form(records: Sequence[Mapping[str, Any]], value: str, unit: str) -> Form:
    """How the numbers of a figure are written, as in the sentences of findings where the unit says how."""
    if unit in (POINTS, PERCENT_CHANGE):
        return lambda number: number_text(number, unit, signed=True)
    # one number of decimals for the whole figure, so that numbers can be compared down the column
    shown = [abs(float(row[column])) for row in records for column in (value, "low", "high")]
    largest = max((number for number in shown if np.isfinite(number)), default=0.0)
    decimals = int(np.clip(2 - np.floor(np.log10(largest)), 0, 6)) if largest else 1
    return lambda number: f"{number:+.{decimals}f}"


def _draw_interval(
    axes: Axes, row: Mapping[str, Any], value: str, unit: str, height: float, form: Form, *, is_beside: bool
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
                  bbox=UNDERLAY)  # fmt: skip


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

    Raises
    ------
    ConfigError, DataError
        If a column is missing, the band is unknown, or there are no rows.
    """
    from matplotlib.ticker import MaxNLocator

    if band not in get_args(Band):
        raise ConfigError(f"Unknown band {band!r}.{did_you_mean(band, get_args(Band))}")
    columns = [x, y, group, *([panel] if panel else [])]
    records = [row for row in _records(table, *columns) if np.isfinite(row[y])]
    panels = _grouped(records, panel) if panel else {"": records}
    styles = dict(zip(_grouped(records, group), _styles(), strict=False))
    size = (7.2, 4.2) if len(panels) < 2 else (2.2 + 3.2 * min(len(panels), PANELS_PER_ROW), 3.0, 0.4)
    figure, grid = _panels(len(panels), *size)
    handles: dict[str, Any] = {}
    for axes, (name, rows) in zip(grid, panels.items(), strict=True):
        for curve, members in _grouped(rows, group).items():
            handles[str(curve)] = _draw_curve(axes, members, x, y, band, styles[curve], str(curve))
        for (line_name, height), line in zip((reference or {}).items(), cycle(REFERENCE_LINES)):
            handles[line_name] = axes.axhline(height, color=TEACHER, linestyle=line, label=line_name)
        axes.set(title=str(name) if len(panels) > 1 else "", xlabel=x_label or x, ylabel=y_label or y)
        if all(float(row[x]).is_integer() for row in rows):
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        frame(axes)
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
    x: Numbers,
    y: Numbers,
    labels: Sequence[str],
    *,
    title: str,
    x_label: str,
    y_label: str,
    groups: Sequence[str] | None = None,
    y_low: Numbers | None = None,
    y_high: Numbers | None = None,
    note: str = "",
) -> Figure:
    """Named points in a plane, each name beside its point where it hides the least.

    Parameters
    ----------
    x, y, labels : each of length n
        A point with a NaN is left out.
    groups : sequence of str, of length n, or None
        What colours the points.
    y_low, y_high : sequence of float, each of length n, or None
        The interval of each `y`, drawn through its point.
    note : str
        A line under the title, such as the rank correlation with its interval.

    Raises
    ------
    DataError
        If the lengths differ.
    """
    lows, highs = (y if ends is None else ends for ends in (y_low, y_high))
    named = groups if groups is not None else [""] * len(labels)
    sizes = [len(each) for each in (x, y, labels, named, lows, highs)]
    if len(set(sizes)) != 1:
        raise DataError(f"x, y, labels, groups, y_low and y_high have lengths {sizes}: they must be one and the same.")
    xs, ys, below, above = (np.asarray(values, np.float64) for values in (x, y, lows, highs))
    members_of = np.array(list(map(str, named)))
    shown = np.isfinite(xs) & np.isfinite(ys)
    figure = new_figure((7.2, 5.4))
    axes = figure.subplots()
    colours = {}
    for name, style in zip(dict.fromkeys(members_of[shown]), _styles(), strict=False):
        own = shown & (members_of == name)
        colours[name] = style["color"]
        if y_low is not None or y_high is not None:
            axes.vlines(xs[own], below[own], above[own], color=style["color"], alpha=0.35, linewidth=1.2)
        axes.scatter(xs[own], ys[own], s=34, color=style["color"], marker=style["marker"], linewidths=0,
                     label=name or None)  # fmt: skip
    axes.set(xlabel=x_label, ylabel=y_label)
    figure.suptitle(title + (f"\n{note}" if note else ""), fontsize=12)
    axes.margins(0.08)
    frame(axes)
    if groups is not None:
        figure.legend(loc="outside right center", frameon=False, fontsize=9)
    points = [(xs[at], ys[at], str(labels[int(at)]), members_of[at]) for at in np.flatnonzero(shown)]
    place_names(figure, axes, points, colours)
    return figure


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
    title, unit : str
        Its heading, and what the axis measures.
    label, value : str
        Columns of the bars' names and of their lengths.
    group : str or None
        Column that splits each name's bar into several, by colour.
    reference : mapping of str to float, or None
        Vertical lines by name.
    form : str
        How the numbers are written, as in `format`.

    Raises
    ------
    ConfigError, DataError
        If a column is missing, or there are no rows.
    """
    records = _records(rows, label, value, *([group] if group else []))
    names = list(dict.fromkeys(str(row[label]) for row in records))
    groups = _grouped(records, group) if group else {"": records}
    thick = 0.8 / len(groups)
    figure = new_figure((8.0, 1.3 + len(names) * max(0.34, 0.24 * len(groups))))
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
                          bbox=UNDERLAY)  # fmt: skip
    for (name, place), line in zip((reference or {}).items(), cycle(REFERENCE_LINES)):
        handles.append(axes.axvline(place, color=TEACHER, linestyle=line, label=name))
    axes.axvline(0, color="black", linewidth=0.8)
    _name_rows(axes, names, None)
    axes.set_ylim(-len(names) + 0.5, 0.5)
    axes.margins(x=0.1)
    figure.suptitle(title, fontsize=12)
    axes.set_xlabel(unit)
    axes.set_axisbelow(True)
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
        marks = {"marker": MARKERS[turn % len(MARKERS)], "linestyle": LINES[turn % len(LINES)]}
        yield {"color": PALETTE[index % len(PALETTE)], **marks}


def _panels(
    count: int, width: float, row: float, more: float = 0.0, *, per_row: int = PANELS_PER_ROW, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels: its width, and height per row of them and beyond [inches]."""
    across = min(max(count, 1), per_row)
    down = max(1, -(-count // across))
    figure = new_figure((width, down * row + more))
    grid = figure.subplots(down, across, squeeze=False, **options).ravel().tolist()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def _name_rows(axes: Axes, names: Sequence[str], threshold: float | None) -> None:
    """Names at the heights 0, -1, ... down the left side, which has no line of its own, and a line at a threshold."""
    if threshold is not None:
        axes.axvline(threshold, color=TEACHER, linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks([-index for index in range(len(names))], labels=names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)


def plane(coordinates: NDArray[Any]) -> NDArray[Any]:
    """The first two dimensions of a map (n, n_components), the second zero where there is one only."""
    return np.pad(coordinates[:, :2], ((0, 0), (0, max(0, 2 - coordinates.shape[1]))))


def frame(axes: Axes, *, grid: bool = True) -> None:
    """Lines on the left and below alone, and a pale grid."""
    if grid:
        axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure that no global state knows [inches]."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")
