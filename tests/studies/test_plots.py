"""Pictures of a study: what they show is what the table says."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from sage_kit.errors import ConfigError, DataError
from sage_kit.reports.figures import ANCHOR, SYNTHETIC, TEACHER
from sage_kit.studies.plots import PALETTE, bars, curves, intervals, scatter
from sage_kit.studies.result import Finding, decided
from sage_kit.studies.statistics import compare_cells, t_interval
from sage_kit.studies.verdicts import STATES, in_unit

NAN = float("nan")
ROWS = [
    {"task": "rte", "arm": "sage", "difference": 0.02, "low": 0.01, "high": 0.03},
    {"task": "rte", "arm": "smote", "difference": -0.004, "low": -0.02, "high": 0.01},
    {"task": "rte", "arm": "gaussian", "difference": 0.01, "low": NAN, "high": NAN},
]


def texts(figure: Figure) -> str:
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    found += [text for axes in figure.axes for text in (axes.get_title(), axes.get_xlabel())] + [
        text.get_text() for text in figure.texts
    ]
    return "\n".join(found + [t.get_text() for legend in figure.legends for t in legend.get_texts()])


def drawn(figure: Figure) -> np.ndarray[Any, Any]:
    """The pixels, (height, width, 3), of a figure that is drawn without a warning and leaves no state behind."""
    import matplotlib._pylab_helpers as state

    file = io.BytesIO()
    figure.savefig(file, dpi=70, format="png")
    assert not state.Gcf.get_all_fig_managers()
    file.seek(0)
    return np.asarray(image.imread(file))[..., :3]


def assert_colours(figure: Figure, *colours: str) -> None:
    pixels = drawn(figure).reshape(-1, 3)
    for colour in colours:
        wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert (np.abs(pixels - wanted).max(1) < 0.02).sum() > 10, colour


def points(axes: Any) -> dict[float, Any]:
    """The points of a forest plot by their height."""
    return {line.get_ydata()[0]: line for line in axes.lines if line.get_marker() == "o"}


def test_forest_plot_shows_the_rows() -> None:
    figure = intervals(pd.DataFrame(ROWS), title="Gain over plain", unit="accuracy")
    (axes,) = figure.axes
    heights = dict(zip([label.get_text() for label in axes.get_yticklabels()], axes.get_yticks(), strict=True))
    assert list(heights) == ["sage", "smote", "gaussian"]
    assert heights["sage"] > heights["smote"] > heights["gaussian"]  # read from the top
    marks = points(axes)
    assert [float(marks[heights[row["arm"]]].get_xdata()[0]) for row in ROWS] == [0.02, -0.004, 0.01]
    spans = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2]
    assert spans == [(0.01, 0.03), (-0.02, 0.01)]
    for text in ("Gain over plain", "accuracy", "+0.0200 [+0.0100, +0.0300]", "+0.0100 (no interval)"):
        assert text in texts(figure)
    assert_colours(figure, SYNTHETIC)


@pytest.mark.parametrize(("zero", "expected"), [(True, [0.005]), (False, [])])
def test_the_threshold_is_a_dashed_line(zero: bool, expected: list[float]) -> None:
    figure = intervals(ROWS, title="x", unit="x", zero=zero, threshold=0.005)
    assert [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "--"] == expected


@pytest.mark.parametrize(("metric", "unit"), [("accuracy", "points"), ("divergence", "percent change")])
def test_a_forest_plot_draws_the_numbers_of_its_findings(metric: str, unit: str) -> None:
    rng = np.random.default_rng(0)
    cells = {("rte", arm): rng.random((5, 80)) for arm in ("plain", "sage", "smote")}
    table = compare_cells(cells, "plain")
    (axes,) = intervals(table, title="Over plain", unit=unit).axes
    spans = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 2]
    written = [text.get_text() for text in axes.texts]
    for row, line, mark, text in zip(table.to_dict("records"), spans, points(axes).values(), written, strict=True):
        finding = Finding(
            row["arm"], "?", row["difference"], row["low"], row["high"], 0.0, "undecided", "", unit, 5, "t", {}
        )  # fmt: skip
        (decided_one,) = decided([finding], [dict.fromkeys(STATES, "x")])
        assert list(line.get_xdata()) == [in_unit(finding.low, unit), in_unit(finding.high, unit)]
        assert mark.get_xdata()[0] == in_unit(finding.value, unit)
        value, low, high = re.findall(r"[+-][0-9.]+", text)
        assert f"{value} " in decided_one.sentence
        assert f"95 % CI {low} to {high}" in decided_one.sentence


@pytest.mark.parametrize("tasks", [2, 4, 9])
def test_a_panel_for_each_task(tasks: int) -> None:
    rows = [{**row, "task": f"task{index}"} for index in range(tasks) for row in ROWS]
    figure = intervals(rows, title="All tasks", unit="metric")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [f"task{index}" for index in range(tasks)]
    assert all(len(points(axes)) == 3 for axes in shown)
    drawn(figure)


def test_tasks_as_labels_share_a_panel() -> None:
    rows = [{**ROWS[0], "task": task} for task in ("rte", "cola", "average")]
    (axes,) = intervals(rows, title="One arm", unit="metric", label="task").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["rte", "cola", "average"]
    assert len(points(axes)) == 3


def test_no_row_hides_another() -> None:
    # Arms of different tasks keep their heights, whatever the order or lack of rows.
    rows = [*ROWS, {**ROWS[2], "task": "cola"}, {**ROWS[0], "task": "cola"}]
    rte, cola = intervals(rows, title="x", unit="x").axes
    assert set(points(cola)) == {0, -2}
    assert points(cola)[0].get_xdata()[0] == points(rte)[0].get_xdata()[0] == 0.02


TABLE = pd.DataFrame(
    [
        {"arm": arm, "seed": seed, "round": round, "agreement": base + 0.02 * round + 0.01 * seed}
        for arm, base in (("plain", 0.7), ("sage", 0.75))
        for seed in range(3)
        for round in (1, 2, 3)
    ]
)


@pytest.mark.parametrize("band", ["interval", "range", "none"])
def test_curves_are_means_with_a_band(band: Any) -> None:
    figure = curves(TABLE, "round", "agreement", "arm", band, title="Agreement", reference={"teacher": 0.9})
    (axes,) = figure.axes
    plain, sage, teacher = axes.lines
    assert plain.get_ydata() == pytest.approx([0.73, 0.75, 0.77])
    assert sage.get_xdata() == pytest.approx([1, 2, 3])
    assert teacher.get_ydata()[0] == 0.9
    outline = axes.collections[0].get_paths()
    if band == "none":
        assert sum(len(path.vertices) for path in outline) == 0
    else:
        student = t_interval(np.array([0.72, 0.73, 0.74]))
        low, high = (student.low, student.high) if band == "interval" else (0.72, 0.74)
        at_one = outline[0].vertices[outline[0].vertices[:, 0] == 1, 1]
        assert (at_one.min(), at_one.max()) == pytest.approx((low, high))
    assert "teacher" in texts(figure)
    assert_colours(figure, SYNTHETIC, ANCHOR, TEACHER)


def test_curves_leave_out_what_has_no_value() -> None:
    table = TABLE.copy()
    table.loc[table["round"] == 1, "agreement"] = np.nan
    table = table[(table["round"] < 3) | (table["seed"] == 0)]  # a seed alone has no band
    figure = curves(table, "round", "agreement", "arm")
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([2, 3])
    drawn(figure)
    with pytest.raises(ConfigError, match=r"Unknown band 'rnge'. Did you mean 'range'\?"):
        curves(TABLE, "round", "agreement", "arm", "rnge")  # type: ignore[arg-type]


def test_curves_of_seeds_with_points_of_their_own() -> None:
    rows = [{"arm": "a", "seed": 0, "steps": steps, "y": steps / 10} for steps in (1, 3)]
    rows += [{"arm": "a", "seed": 1, "steps": steps, "y": value} for steps, value in ((1, 0.3), (2, 0.6), (4, 0.0))]
    (line,) = curves(rows, "steps", "y", "arm", "range").axes[0].lines
    assert line.get_xdata() == pytest.approx([1, 2, 3, 4])
    assert line.get_ydata() == pytest.approx([0.2, 0.4, 0.3, 0.0])  # seed 0 has nothing beyond 3
    twice = [{**row, "y": row["y"] + shift} for row in rows for shift in (0, 0.2)]
    (line,) = curves(twice, "steps", "y", "arm", "range").axes[0].lines
    assert line.get_ydata() == pytest.approx([0.3, 0.7, 0.4, 0.1])  # no line to interpolate on


def test_curves_in_panels_keep_their_colours() -> None:
    table = pd.concat([TABLE.assign(task="rte"), TABLE[TABLE["arm"] == "sage"].assign(task="cola", agreement=0.5)])
    figure = curves(table, "round", "agreement", "arm", panel="task", reference={"teacher": 0.9})
    rte, cola = (axes for axes in figure.axes if axes.get_visible())
    assert (rte.get_title(), cola.get_title()) == ("rte", "cola")
    assert [line.get_label() for line in cola.lines] == ["sage", "teacher"]
    assert cola.lines[0].get_color() == rte.lines[1].get_color() == PALETTE[1]
    assert cola.lines[0].get_ydata() == pytest.approx([0.5] * 3)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "sage", "teacher"]
    drawn(figure)


def test_scatter_names_its_points_side_by_side() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 12))
    y[1], x[1] = y[0], x[0] + 0.01  # two points almost on each other
    names = [f"reducer{index} + inverter" for index in range(12)]
    figure = scatter(
        [*x, NAN], [*y, 0.5], [*names, "lost"], title="t", x_label="R²", y_label="accuracy", note="Spearman 0.5",
        groups=["a", "b"] * 6 + ["c"],
    )  # fmt: skip
    drawn(figure)
    (axes,) = figure.axes
    assert sorted(text.get_text() for text in axes.texts) == sorted(names)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for index, a in enumerate(boxes) for b in boxes[:index])
    shown = np.concatenate([points.get_offsets() for points in axes.collections])
    assert sorted(shown[:, 0]) == pytest.approx(sorted(x))
    assert sorted(shown[:, 1]) == pytest.approx(sorted(y))
    assert "Spearman 0.5" in texts(figure)
    with pytest.raises(DataError, match=r"lengths \[1, 2, 1, 1, 2, 2\]"):
        scatter([1], [1, 2], ["a"], title="t", x_label="x", y_label="y")


def test_scatter_draws_intervals() -> None:
    figure = scatter(
        [1, 2, 3], [0.1, 0.2, 0.3], ["p", "q", "r"], title="t", x_label="R²", y_label="accuracy",
        groups=["a", "b", "a"], y_low=[0.05, NAN, 0.2], y_high=[0.2, NAN, 0.35],
    )  # fmt: skip
    drawn(figure)
    lines = [line for bundle in figure.axes[0].collections if isinstance(bundle, LineCollection)
             for line in bundle.get_segments()]  # fmt: skip
    known = [line.tolist() for line in lines if np.isfinite(line).all() and len(line)]
    assert known == [[[1, 0.05], [1, 0.2]], [[3, 0.2], [3, 0.35]]]


def test_bars_show_values_and_intervals() -> None:
    rows = [
        {"arm": "plain", "task": "rte", "value": 0.61, "low": 0.6, "high": 0.63},
        {"arm": "plain", "task": "cola", "value": -0.2},
        {"arm": "sage", "task": "cola", "value": NAN},
    ]
    figure = bars(rows, title="Scores", unit="metric", group="task", reference={"teacher": 0.7})
    (axes,) = figure.axes
    assert sorted(patch.get_width() for patch in axes.patches) == pytest.approx([-0.2, 0, 0.61])
    assert (0.6, 0.63) in [tuple(line.get_xdata()) for line in axes.lines]
    assert {text.get_text() for text in axes.texts} == {"0.610", "-0.200", "no value"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["rte", "cola", "teacher"]
    assert_colours(figure, *PALETTE[:2])
    # Bars of one name stand beside each other, not on each other.
    tops = sorted((patch.get_y(), patch.get_y() + patch.get_height()) for patch in axes.patches)
    assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(tops))


def test_more_groups_than_colours() -> None:
    table = [{"arm": f"arm{a}", "round": r, "seed": 0, "y": a + r} for a in range(11) for r in (1, 2)]
    lines = curves(table, "round", "y", "arm").axes[0].lines
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == 11


def test_unusable_tables_are_named() -> None:
    with pytest.raises(DataError, match="no rows"):
        intervals([], title="x", unit="x")
    with pytest.raises(ConfigError, match=r"no column 'diference'. Did you mean 'difference'\?"):
        intervals(ROWS, title="x", unit="x", value="diference")
    with pytest.raises(ConfigError, match="no column 'group'"):
        bars(ROWS, title="x", unit="x", value="difference", group="group")
