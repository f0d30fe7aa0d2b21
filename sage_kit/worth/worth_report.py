"""An assessment as a table, a figure and a page."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from sage_kit.reports.markdown import table
from sage_kit.storage.files import disk_errors, write_text
from sage_kit.worth.advice import RULE
from sage_kit.worth.assessment import Assessment, Standing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, FIGURE = "report.md", "worth.png"

HEADINGS = (
    "model", "score", "95 % interval", "to the teacher", "weights", "MB", "one by one", "in batches of 32", "made in",
)  # fmt: skip


def rows_of(found: Assessment) -> list[tuple[str, ...]]:
    """The table, a row per model, as `HEADINGS` name its columns."""
    return [_row(one) for one in found.standings]


def _row(one: Standing) -> tuple[str, ...]:
    difference = "" if math.isnan(one.over_teacher) else f"{100 * one.over_teacher:+.1f} points"
    if math.isfinite(one.over_low):
        difference += f" ({100 * one.over_low:+.1f} to {100 * one.over_high:+.1f})"
    interval = f"{one.low:.4f} to {one.high:.4f}" if math.isfinite(one.low) else "not known"
    return (
        one.name, f"{one.score:.4f}", interval, difference, _count(one.parameters), f"{one.megabytes:.3g}",
        _time(one.single_ms, one.single_speed), _time(one.batch_ms, one.batch_speed), f"{one.seconds:.0f} s",
    )  # fmt: skip


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1_000_000 else f"{number:,}"


def _time(milliseconds: float, speed: float) -> str:
    """Of a text, and how many times as fast as the teacher that is."""
    return "" if math.isnan(milliseconds) else f"{milliseconds:.3g} ms (x {speed:.3g})"


def draw(found: Assessment) -> Figure:
    """Score against the time that a single text takes, or against the size where no time was measured."""
    from sage_kit.studies.plots import scatter

    timed = math.isfinite(found.standings[0].single_ms)
    return scatter(
        [one.single_ms if timed else one.megabytes for one in found.standings],
        [one.score for one in found.standings],
        [one.name for one in found.standings],
        groups=[one.role for one in found.standings],
        y_low=[one.low for one in found.standings],
        y_high=[one.high for one in found.standings],
        title=f"{found.metric} on {found.rows:,} rows that no model has seen",
        x_label="a single text [ms]" if timed else "size [MB]",
        y_label=found.metric,
        note="95 % intervals over the rows; each model made once",
    )


def write_report(found: Assessment) -> Path:
    """Write report.md and worth.png into the assessment's folder, and return the page."""
    figure = draw(found)
    path = found.folder / PAGE
    lines = [
        "# Is distilling worth it?", "", found.text, "", f"![{found.metric} against time]({FIGURE})", "",
        table(HEADINGS, rows_of(found)), "",
        f"Score: {found.metric}, on {found.rows:,} rows that no model has learned from and nothing was chosen by, with "
        f"95 % intervals over these rows. Teacher, students and the others learned from {found.trained_on:,} rows. "
        "Each model was made once, under one seed, and none was tuned: another seed, or tuning, may move a score. "
        "Times are medians on the machine that made this, all models in turn on the same texts, tokenisation included; "
        "in brackets the median of the teacher's time over the model's own. A student's time to make does not include "
        "the teacher's.",
        "", f"The rule: {RULE} The margin is {100 * found.margin:g} points.", "",
    ]  # fmt: skip
    with disk_errors(str(path)):
        figure.savefig(found.folder / FIGURE, dpi=110, metadata={"Software": None})
        write_text(path, "\n".join(lines))
    return path
