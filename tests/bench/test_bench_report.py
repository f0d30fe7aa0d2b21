"""Tables and picture of a bench."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from sage_bench.records import Line, Result, Spread, Target
from sage_bench.report import draw_result, number, result_figure, result_tables, shown
from sage_kit.system.machine import Machine

MACHINE = Machine("a processor", 2, ("avx2",), "", "2.13", "5.23", "3.11", "Linux", 2, 0.5)


def example(high: float = 30.0) -> Result:
    ratio = {"real round / this": Spread.of([3.0, 2.9, 3.2])}
    return Result(
        "distill",
        [
            Line("pairs", "SAGE", {"examples/s": Spread.of([high, 29.0, 32.0])}, {}, Spread.of([0.9]), "GEMM", True),
            Line("pairs", "Trainer", {"examples/s": Spread.of([10.0, 10.0, 10.0])}, ratio),
            Line("pairs", "torchdistill", note="not installed: pip install torchdistill"),
            Line("sentences", "SAGE", {"seconds": Spread.of([2.0])}, is_ours=True),
        ],
        [Target("pairs: SAGE / Trainer", Spread.of([3.0]), 3.5, unit=" x")],
    )


def text(result: Result) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for table in result_tables(result):
        console.print(table)
    return console.export_text()


def test_tables_hold_medians_spreads_ratios_shares_targets_and_what_to_install() -> None:
    shown_text = text(example())
    for part in (
        "30.0 (29.0 to 32.0)", "3.00 (2.90 to 3.20)", "0.900 GEMM", "pip install torchdistill", "at least 3.5 x",
        "distill: pairs", "distill: sentences",
    ):  # fmt: skip
        assert part in shown_text
    (target,) = [line for line in shown_text.splitlines() if "at least 3.5 x" in line]
    assert "no" in target.split()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (45.67, "45.7"), (12345.6, "12,346"), (1.2e-7, "1.2e-07"),
     (math.nan, "-")],
)  # fmt: skip
def test_numbers_have_three_digits_that_count(value: float, expected: str) -> None:
    assert number(value) == expected


def test_a_single_repeat_has_no_range() -> None:
    assert shown(Spread.of([2.0]), " s") == "2.00 s"
    assert shown(None) == ""


def test_picture_has_a_panel_per_work_and_a_bar_per_figure(tmp_path: Path) -> None:
    figure = result_figure(example(), MACHINE)
    pairs, sentences = figure.axes
    assert len(pairs.patches) == 2
    assert [label.get_text() for label in pairs.get_yticklabels()] == ["SAGE", "Trainer", "torchdistill"]
    assert len(sentences.patches) == 1
    assert pairs.get_xscale() == "linear"
    draw_result(example(), MACHINE, tmp_path / "new" / "distill.png")
    assert (tmp_path / "new" / "distill.png").read_bytes().startswith(b"\x89PNG")


def test_a_wide_range_is_drawn_on_a_logarithmic_axis() -> None:
    wide = [Line("w", name, {"vectors/s": Spread.of([value])}) for name, value in (("a", 1.0), ("b", 1e5))]
    assert result_figure(Result("synthesis", wide), MACHINE).axes[0].get_xscale() == "log"


def test_nothing_measured_draws_without_error(tmp_path: Path) -> None:
    draw_result(Result("distill", [Line("w", "a", note="not installed")]), MACHINE, tmp_path / "a.png")
    draw_result(Result("distill", []), MACHINE, tmp_path / "b.png")
