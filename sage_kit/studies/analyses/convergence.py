"""How fast students come to agree with their teacher: steps until a share of agreement, and area under the curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from scipy.integrate import trapezoid

from sage_kit.studies import plots
from sage_kit.studies.runs import Runs

LEVELS = (0.95, 0.99)  # shares of agreement whose first round is told


def speed(rounds: DataFrame, levels: Sequence[float] = LEVELS) -> DataFrame:
    """When each run reaches some shares of agreement on dev, and its mean agreement over its steps.

    One row per run: task, arm, seed, steps_to_95 and so on (student steps at the end of the first round that reaches
    it; NaN for a run that never does), and area: agreement on dev averaged over the steps from the end of the first
    round to the end of the last, by the trapezoidal rule; that of the only round where there is one.
    """
    rows = []
    for (task, arm, seed), own in rounds.groupby(["task", "arm", "seed"], sort=False):
        ordered = own.sort_values("total_steps")
        steps = ordered["total_steps"].to_numpy(float)
        agreement = ordered["dev_agreement"].to_numpy(float)
        first = {level: next(iter(steps[agreement >= level]), np.nan) for level in levels}
        reached = {f"steps_to_{100 * level:g}": step for level, step in first.items()}
        length = steps[-1] - steps[0]
        area = float(trapezoid(agreement, steps) / length if length > 0 else agreement[0])
        rows.append({"task": task, "arm": arm, "seed": seed, **reached, "area": area})
    return DataFrame(rows)


def speed_table(runs: DataFrame) -> DataFrame:
    """Of `speed`, per task and arm: how many runs reach each share (reach_95), their median steps, and the mean area.
    The median steps_to_95 is that of the runs that reach it; NaN without one.
    """
    levels = [name for name in runs.columns if name.startswith("steps_to_")]
    rows = []
    for (task, arm), own in runs.groupby(["task", "arm"], sort=False):
        row = {"task": task, "arm": arm, "runs": len(own)}
        for name in levels:
            row |= {name.replace("steps_to", "reach"): int(own[name].notna().sum()), name: own[name].median()}
        rows.append({**row, "area": own["area"].mean()})
    return DataFrame(rows)


def figure_of_agreement(runs: Runs) -> Figure:
    """Agreement with the teacher on dev after each round, by steps: means over seeds, and the range of the seeds."""
    words: dict[str, Any] = {
        "title": "Agreement with the teacher on dev",
        "x_label": "student steps",
        "y_label": "agreement",
    }
    return plots.curves(runs.rounds(), "total_steps", "dev_agreement", "arm", "range", panel="task", **words)
