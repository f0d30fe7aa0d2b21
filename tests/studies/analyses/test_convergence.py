"""Steps until a share of agreement, and the area under the curve, on curves whose numbers are known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from sage_kit.studies.analyses.convergence import figure_of_agreement, speed, speed_table


def curve(arm: str, seed: int, points: list[tuple[int, float]]) -> list[dict[str, object]]:
    return [{"task": "a", "arm": arm, "seed": seed, "total_steps": x, "dev_agreement": y} for x, y in points]


ROUNDS = pd.DataFrame(
    [
        *curve("x", 0, [(100, 0.8), (200, 0.96), (400, 0.9)]),
        *curve("x", 1, [(100, 0.8), (200, 0.9), (400, 0.99)]),
        *curve("y", 0, [(400, 0.5)]),
    ]
)


def test_the_first_round_that_reaches_a_share_counts_even_if_it_is_lost_again() -> None:
    found = speed(ROUNDS).set_index(["arm", "seed"])
    assert found["steps_to_95"].fillna(-1).tolist() == [200, 400, -1]
    assert found["steps_to_99"].fillna(-1).tolist() == [-1, 400, -1]


def test_the_area_weighs_rounds_by_their_steps() -> None:
    found = speed(ROUNDS).set_index(["arm", "seed"])["area"]
    assert found["x", 0] == pytest.approx((100 * 0.88 + 200 * 0.93) / 300)
    assert found["y", 0] == 0.5


def test_runs_that_never_get_there_are_counted_and_have_no_steps() -> None:
    table = speed_table(speed(ROUNDS)).set_index("arm")
    assert table[["runs", "reach_95", "reach_99"]].to_numpy().tolist() == [[2, 2, 1], [1, 0, 0]]
    assert table["steps_to_95"]["x"] == 300
    assert table["steps_to_99"]["x"] == 400
    assert math.isnan(table["steps_to_95"]["y"])


def test_the_figure_shows_means_over_seeds() -> None:
    runs = SimpleNamespace(rounds=lambda: ROUNDS)
    (axes,) = figure_of_agreement(runs).axes  # type: ignore[arg-type]
    x, y = axes.lines
    assert (x.get_label(), y.get_label()) == ("x", "y")
    assert x.get_ydata() == pytest.approx([0.8, 0.93, 0.945])
