"""Pictures of a run: learning curves, and the map with hard anchors and synthetic points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components.records import RoundResult
from sage_kit.reports.tables import primary_of
from sage_kit.rundir import RunDirectory
from sage_kit.storage.files import disk_errors
from sage_kit.synthesis.synthetic_set import SyntheticSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL, ANCHOR, SYNTHETIC, TEACHER = "#b8bec8", "#c1441e", "#1f6fb4", "#777777"
SPLIT_LINES = (("o-", ":"), ("s--", "-."))
"""Line of the student and of the teacher by validation split, and from the start again."""
DOTS_PER_INCH = 140


def draw_run(directory: RunDirectory) -> list[Path]:
    """Draw what a run directory allows and return the files: ``figures/learning_curves.png``, ``figures/map.png``.

    Parameters
    ----------
    directory : RunDirectory

    Returns
    -------
    list of Path
        Empty for a run without a finished round.
    """
    history = directory.history()
    if not history:
        return []
    folder = directory.path / "figures"
    folder.mkdir(exist_ok=True)
    summary = directory.summary()
    primary = primary_of(summary, history)
    paths = [_save(learning_curves(history, primary, summary), folder / "learning_curves.png")]
    rounds = directory.rounds_with_synthetic()
    if rounds and directory.map.exists():
        synthetic = SyntheticSet.load(directory.synthetic(rounds[-1]))
        coordinates = directory.coordinates()
        if synthetic.coordinates is not None:
            title = f"{directory.config().reducer} map, round {rounds[-1]}"
            paths.append(_save(synthesis_map(coordinates, synthetic, title), folder / "map.png"))
    return paths


def learning_curves(
    history: Sequence[RoundResult], primary_metric: str, summary: Mapping[str, Any] | None = None
) -> Figure:
    """Loss, agreement and primary metric by student steps.

    Parameters
    ----------
    history : sequence of RoundResult
    primary_metric : str
    summary : mapping or None
        What summary.json holds; adds the teacher's score as a line.

    Returns
    -------
    matplotlib Figure
    """
    figure = _figure((10.5, 3.4))
    left, middle, right = figure.subplots(1, 3)
    steps = [result.total_steps for result in history]
    left.plot(steps, [r.train_loss for r in history], "o-", color=ANCHOR, label="real")
    if any(r.synthetic for r in history):
        left.plot(steps, [r.synthetic_loss for r in history], "o-", color=SYNTHETIC, label="synthetic")
    left.set(title="mean per-instance loss", xlabel="student steps")
    left.set_ylim(bottom=0)
    middle.plot(steps, [r.train_agreement for r in history], "o--", color=TEACHER, label="train")
    middle.plot(steps, [r.dev["agreement"] for r in history], "o-", color=ANCHOR, label="dev")
    for split, (line, _) in zip(history[-1].validation, cycle(SPLIT_LINES)):
        middle.plot(steps, [r.validation[split]["agreement"] for r in history], line, color=SYNTHETIC, label=split)
    middle.set(title="agreement with the teacher", xlabel="student steps")
    right.plot(steps, [r.dev[primary_metric] for r in history], "o-", color=ANCHOR, label="dev")
    for split, (line, teacher_line) in zip(history[-1].validation, cycle(SPLIT_LINES)):
        right.plot(steps, [r.validation[split][primary_metric] for r in history], line, color=SYNTHETIC, label=split)
        score = summary["teacher"]["validation"][split].get(primary_metric) if summary else None
        if score is not None:
            right.axhline(score, color=TEACHER, linestyle=teacher_line, label=f"teacher, {split}")
    right.set(title=primary_metric, xlabel="student steps")
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def synthesis_map(coordinates: NDArray[np.float32], synthetic: SyntheticSet, title: str) -> Figure:
    """The first two dimensions of the map: real examples, the anchors of a round, and its synthetic points.

    Parameters
    ----------
    coordinates : array of shape (n, n_components)
        Of the real examples.
    synthetic : SyntheticSet
    title : str

    Returns
    -------
    matplotlib Figure
    """
    figure = _figure((7.2, 6.0))
    axes = figure.subplots()
    made = synthetic.coordinates[synthetic.kept] if synthetic.coordinates is not None else coordinates[:0]
    anchors = np.unique(synthetic.anchors[synthetic.kept])
    real, points = _plane(coordinates), _plane(made)
    axes.scatter(real[:, 0], real[:, 1], s=7, color=REAL, linewidths=0, label=f"real examples ({len(real):,})")
    axes.scatter(
        points[:, 0], points[:, 1], s=6, color=SYNTHETIC, alpha=0.6, linewidths=0,
        label=f"synthetic points ({len(points):,})",
    )  # fmt: skip
    axes.scatter(
        real[anchors, 0], real[anchors, 1], s=18, facecolors="none", edgecolors=ANCHOR, linewidths=0.8,
        label=f"anchors ({len(anchors):,})",
    )  # fmt: skip
    n_components = coordinates.shape[1]
    dimensions = f", first two of {n_components} dimensions" if n_components > 2 else ""
    axes.set(title=f"{title}{dimensions}", xlabel="coordinate 1", ylabel="coordinate 2" if n_components > 1 else "")
    axes.legend(frameon=True, framealpha=0.9, fontsize=8, loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plane(coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first two dimensions, the second zero where there is one only: (n, n_components) to (n, 2)."""
    missing = max(0, 2 - coordinates.shape[1])
    return np.pad(coordinates[:, :2], ((0, 0), (0, missing)))


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _save(figure: Figure, path: Path) -> Path:
    with disk_errors(str(path)):
        figure.savefig(path, dpi=DOTS_PER_INCH)
    return path
