"""Names of points in a scatter plot, each placed where it hides the least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.reports.figures import REAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CORNERS = (
    (7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 7, "center", "bottom"), (0, -7, "center", "top"),
    (6, 6, "left", "bottom"), (6, -6, "left", "top"), (-6, 6, "right", "bottom"), (-6, -6, "right", "top"),
    (14, 14, "left", "bottom"), (14, -14, "left", "top"), (-14, 14, "right", "bottom"), (-14, -14, "right", "top"),
)  # fmt: skip
"""Where a name may stand: offset from its point in points (1/72 inch), and the side of the text that faces it."""


def place_names(
    figure: Figure, axes: Axes, points: Sequence[tuple[float, float, str, str]], colours: Mapping[str, str]
) -> None:
    """Write each name beside its point where it hides the least of other names, of points, and of what is drawn."""
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
    common = type(box).intersection(box, other)
    return 0.0 if common is None else float(common.width * common.height)
