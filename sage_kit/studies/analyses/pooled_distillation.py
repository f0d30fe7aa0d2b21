"""The paper's literal reading: teacher and student read one pooled vector for each example.

The arm differs from one with ``granularity="pooled"`` in one thing: its teacher was fine-tuned on such vectors
(`sage_kit.studies.analyses.pooled_teacher`). With it come the student's first weights and the frozen embeddings.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.data.splits import load_task
from sage_kit.data.teacher_report import report_teacher
from sage_kit.recipe import Recipe, resolve
from sage_kit.rundir import RunDirectory
from sage_kit.storage.cache import Cache
from sage_kit.studies.analyses.own_loop import UnsavedLoop, run_loop
from sage_kit.studies.analyses.pooled_teacher import pooled_teacher
from sage_kit.training.preparation import FINE_TUNING, Prepared, prepare

if TYPE_CHECKING:
    from accelerate import Accelerator


def run_pooled_teacher(
    config: RunConfig, plugins: Plugins, plugin_files: list[str] | None = None, *, freeze: bool = False
) -> tuple[RunDirectory, dict[str, Any]]:
    """Distil a student of pooled vectors from a teacher fine-tuned on them; the counterpart of `sage_kit.distill.run`.

    Settings and records name the checkpoint that the teacher was made from; the teacher itself is in the cache. The run
    keeps no checkpoints: one that was killed is made again.

    Parameters
    ----------
    config : RunConfig
        With ``schedule="none"``, ``bypass="embeddings"`` and ``granularity="pooled"``, and without a warm-up.
    plugins : Plugins
    plugin_files : list of str
        One-file plugins that `plugins` was made with; recorded.
    freeze : bool
        Whether the teacher's embeddings stay those of the checkpoint; see `pooled_teacher`.

    Returns
    -------
    directory : RunDirectory
    summary : dict
        What summary.json holds, with the keys of any run's.

    Raises
    ------
    ConfigError
        For a setting that such a run has no use for.
    SageError
        As `sage_kit.distill.run` does.
    """

    def make(recipe: Recipe, accelerator: Accelerator, costs: Costs) -> tuple[Prepared, type[UnsavedLoop]]:
        return prepare_pooled(recipe.config, plugins, accelerator, costs, freeze=freeze), UnsavedLoop

    needs = {"bypass": "embeddings", "granularity": "pooled"}
    return run_loop(config, plugins, plugin_files or [], make, who="a student of a pooled teacher", needs=needs)


def run_frozen_pooled_teacher(
    config: RunConfig, plugins: Plugins, plugin_files: list[str] | None = None
) -> tuple[RunDirectory, dict[str, Any]]:
    """The same from a teacher whose embeddings stay those of the checkpoint; see `run_pooled_teacher`."""
    return run_pooled_teacher(config, plugins, plugin_files, freeze=True)


def prepare_pooled(
    config: RunConfig, plugins: Plugins, accelerator: Accelerator, costs: Costs, *, freeze: bool = False
) -> Prepared:
    """What a run starts from (`sage_kit.training.preparation.prepare`), with a teacher fine-tuned on pooled input.

    Raises
    ------
    SageError
        As `prepare` does.
    """

    def announce(text: str) -> None:
        plugins.message(None, text)

    folder, seconds = pooled_teacher(
        config,
        load_task(plugins.task(config.task), config, lambda text: None),  # `prepare` tells about the data
        Cache(Path(config.cache_dir).expanduser(), announce),
        accelerator.device,
        announce,
        lambda done, total, loss: plugins.step_finished(None, "teacher", done, total, loss),
        freeze=freeze,
    )
    # its outputs are in the task's order, whatever those of the checkpoint mean
    named = config.model_copy(update={"teacher": str(folder), "teacher_labels": []})
    prepared = prepare(resolve(named, plugins), accelerator, costs)
    if seconds:
        costs.add(FINE_TUNING, seconds)
    return replace(
        prepared,
        teacher=replace(prepared.teacher, finetuned=True, outputs=None, seconds=seconds),
        # which names the checkpoint, and advises on a teacher that is fine-tuned here
        report=report_teacher(
            config.teacher, prepared.data.spec, prepared.dev.outputs.logits, prepared.dev.labels, outputs=None
        ),
    )
