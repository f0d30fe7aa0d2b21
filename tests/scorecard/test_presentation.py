"""Tables and the picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sage_kit.scorecard import Figure, Grid, Row, draw_grid, grid_notes, grid_table, presentation
from sage_kit.scorecard.presentation import grid_picture


def card(r2: float, speed: float) -> dict[str, Any]:
    def figures(value: float) -> dict[str, dict[str, float]]:
        figure = {"value": value, "low": value - 0.02, "high": value + 0.02}
        return dict.fromkeys(("cosine", "centred_cosine", "mse", "r2"), figure)

    predictors = {"inverter": r2, "mean": 0.0, "nearest": -0.04, "random": -1.0}
    return {
        "fidelity": {name: figures(value) for name, value in predictors.items()},
        "speed": {"vectors_per_second": speed},
        "novelty": {"median_ratio": 0.7},
        "intrinsic_dimension": {"synthetic": 2.0},
        "round_trip": None,
        "examples": {"held_out": 801},
    }


def grid(folder: Path, *values: float) -> Grid:
    rows = [Row("pca", f"inverter_{i}", 2, "scored", card=card(v, 10.0 ** (i + 1))) for i, v in enumerate(values)]
    rows.append(Row("tsne", "knn", 2, "out of time", "slow map"))
    rows.append(Row("tsne", "rbf", 2, "out of time", "slow map"))
    rows.append(Row("umap", "native", 2, "out of time", "it took longer than its share of the budget, 150 s", 150.0))
    return Grid("sst2", "of the checkpoint", tuple(rows), {"tsne (2) with native": "no inverse"}, 10.0, 600.0, folder)


def text(item: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(item)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_shows_baselines_pairs_and_what_has_no_figures(tmp_path: Path) -> None:
    shown = text(grid_table(grid(tmp_path, 0.28, 0.14)))
    assert "(nearest real vector)" in shown
    assert "0.280 [0.260, 0.300]" in shown
    assert "out of time" in shown
    assert grid_notes(grid(tmp_path, 0.28)) == [
        "tsne with knn, rbf: out of time: slow map",
        "umap with native: out of time: it took longer than its share of the budget, 150 s",
        "Do not go together: tsne (2) with native.",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (-0.0001, "0.000"), (12345.6, "12,346"), (float("nan"), "-"), (None, "-")]
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert presentation._short(value) == text


def test_small_errors_keep_three_digits() -> None:
    figure = Figure(0.00123, 0.00119, 0.00128)
    assert presentation._with_interval(figure, "mse") == "0.00123 [0.00119, 0.00128]"
    assert presentation._with_interval(figure, "cosine") == "0.001 [0.001, 0.001]"


def test_the_picture_holds_every_pair_and_baseline(tmp_path: Path) -> None:
    axes = grid_picture(grid(tmp_path, 0.28, 0.14, 0.05)).axes[0]
    assert axes.get_xscale() == "log"
    assert len(axes.containers) == 3  # one point with its interval each
    heights = sorted(float(line.get_ydata()[0]) for line in axes.get_lines() if len(line.get_xdata()) == 2)
    assert heights == pytest.approx([-0.04, 0.0])  # the random pair lies below the picture, and the legend says so
    path = draw_grid(grid(tmp_path, 0.28))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_pair_far_below_is_an_arrow_at_the_edge(tmp_path: Path) -> None:
    axes = grid_picture(grid(tmp_path, 0.28, -7.5)).axes[0]
    assert axes.get_ylim()[0] > -1
    assert [note.get_text() for note in axes.texts] == ["-7.5"]


def test_a_grid_without_any_figures_can_be_drawn(tmp_path: Path) -> None:
    assert draw_grid(grid(tmp_path)).exists()
    assert "out of time" in text(grid_table(grid(tmp_path)))
