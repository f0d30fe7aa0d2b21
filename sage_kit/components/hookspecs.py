"""Every hook of sage_kit.

A *contributing* hook is called once, when plugins are loaded, and yields specs. `sage_commands` adds commands. An
*observing* hook is called while a run goes on; its return value is ignored, but for that of `sage_control`, and an
observer that raises, whatever it raises, is reported once, disabled for the rest of the run and recorded in the run's
summary; it never ends the run. What it gets never changes afterwards, and cannot be changed.

An implementation may take any subset of a hook's parameters, by name. Hooks are called in the order in which plugins
were registered: built-ins first, then installed plugins by name, then one-file plugins, then the run's observers.
``@hookimpl(tryfirst=True)`` and ``trylast=True`` change that; hook wrappers are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from sage_kit import PROJECT
from sage_kit.components.run_hookspecs import (
    sage_checkpoint_saved,
    sage_control,
    sage_evaluated,
    sage_losses_profiled,
    sage_message,
    sage_round_finished,
    sage_round_started,
    sage_run_failed,
    sage_run_finished,
    sage_run_started,
    sage_step_finished,
    sage_synthetic_created,
)

if TYPE_CHECKING:
    import typer

    from sage_kit.components import (
        DecoderSpec,
        FamilySpec,
        FilterSpec,
        InverterSpec,
        LiftSpec,
        LossSpec,
        MetricSpec,
        ObserverSpec,
        ReducerSpec,
        SamplerSpec,
        StopRuleSpec,
        TaskKindSpec,
        TaskSpec,
    )

hookspec = pluggy.HookspecMarker(PROJECT)

OBSERVING = (
    sage_run_started,
    sage_round_started,
    sage_losses_profiled,
    sage_synthetic_created,
    sage_step_finished,
    sage_control,
    sage_evaluated,
    sage_message,
    sage_round_finished,
    sage_checkpoint_saved,
    sage_run_finished,
    sage_run_failed,
)
"""The observing hooks, which `run_hookspecs` declares."""


# ---- contributing hooks ---------------------------------------------------------------------------------------------


@hookspec
def sage_reducers() -> Iterable[ReducerSpec]:
    """Contribute reducers: pooled vectors to coordinates.

    Returns
    -------
    iterable of ReducerSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_reducers():
            yield ReducerSpec(name="isomap", summary="Isomap", factory=lazy("my_package.isomap:IsomapReducer"))
    """
    return ()


@hookspec
def sage_samplers() -> Iterable[SamplerSpec]:
    """Contribute samplers: they choose anchors and new points near them.

    Returns
    -------
    iterable of SamplerSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_samplers():
            yield SamplerSpec(name="median_loss", summary="Anchors of middling loss", factory=make_sampler)
    """
    return ()


@hookspec
def sage_inverters() -> Iterable[InverterSpec]:
    """Contribute inverters: coordinates back to pooled vectors.

    Returns
    -------
    iterable of InverterSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_inverters():
            yield InverterSpec(name="nearest", summary="The nearest real vector", factory=make_inverter)
    """
    return ()


@hookspec
def sage_lifts() -> Iterable[LiftSpec]:
    """Contribute lifts: a synthetic pooled vector and its anchor's token states to synthetic token states.

    Returns
    -------
    iterable of LiftSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_lifts():
            yield LiftSpec(name="half_shift", summary="Shift by half the displacement", factory=make_lift)
    """
    return ()


@hookspec
def sage_filters() -> Iterable[FilterSpec]:
    """Contribute filters: they keep or drop synthetic examples.

    Returns
    -------
    iterable of FilterSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_filters():
            yield FilterSpec(name="norm", summary="Norm within the real range", factory=make_filter)
    """
    return ()


@hookspec
def sage_losses() -> Iterable[LossSpec]:
    """Contribute losses: what the student is trained by, one value for each example.

    Returns
    -------
    iterable of LossSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_losses():
            yield LossSpec(name="huber", summary="Huber distance of the logits", factory=make_loss)
    """
    return ()


@hookspec
def sage_decoders() -> Iterable[DecoderSpec]:
    """Contribute decoders: synthetic token states to text.

    Returns
    -------
    iterable of DecoderSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_decoders():
            yield DecoderSpec(name="nearest_token", summary="Nearest embedding row", factory=make_decoder)
    """
    return ()


@hookspec
def sage_tasks() -> Iterable[TaskSpec]:
    """Contribute tasks.

    Returns
    -------
    iterable of TaskSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_tasks():
            yield TaskSpec(
                name="paws",
                summary="Paraphrase adversaries",
                text_columns=("sentence1", "sentence2"),
                labels=("no", "yes"),
                local="pawsx/en",
                hub=HubSource("google-research-datasets/paws-x", "en"),
            )
    """
    return ()


@hookspec
def sage_metrics() -> Iterable[MetricSpec]:
    """Contribute metrics: gold labels and predictions to a number. Tasks and the setting `metrics` name them.

    Returns
    -------
    iterable of MetricSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_metrics():
            yield MetricSpec(name="kappa", summary="Cohen's kappa", factory=make_metric, range=(-1.0, 1.0))
    """
    return ()


@hookspec
def sage_observers() -> Iterable[ObserverSpec]:
    r"""Contribute observers: objects whose methods are the observing hooks below.

    Returns
    -------
    iterable of ObserverSpec

    Examples
    --------
    ::

        class Bell:
            @hookimpl
            def sage_run_finished(self, run):
                print("\a")


        @hookimpl
        def sage_observers():
            yield ObserverSpec(name="bell", summary="Rings when a run ends", factory=lambda options, context: Bell())
    """
    return ()


@hookspec
def sage_stop_rules() -> Iterable[StopRuleSpec]:
    """Contribute stop rules: they may end a run after a round.

    Returns
    -------
    iterable of StopRuleSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_stop_rules():
            yield StopRuleSpec(name="plateau", summary="Two rounds without gain", factory=make_rule)
    """
    return ()


@hookspec
def sage_families() -> Iterable[FamilySpec]:
    """Contribute families of encoders: which checkpoints can be teachers, and where their parts stand.

    Called once, when plugins are loaded. A run finds the family by the ``model_type`` in the teacher's ``config.json``;
    no setting names it. A model type belongs to one family: a built-in one keeps it.

    Returns
    -------
    iterable of FamilySpec

    Examples
    --------
    ::

        @hookimpl
        def sage_families():
            yield FamilySpec(
                name="rembert",
                summary="RemBERT",
                model_types=("rembert",),
                embeddings="rembert.embeddings",
                projection="rembert.encoder.embedding_hidden_mapping_in",
                blocks="rembert.encoder.layer",
                head=HeadParts(dense="rembert.pooler.dense", output="classifier", dropout="dropout"),
                attention="eager",
            )
    """
    return ()


@hookspec
def sage_task_kinds() -> Iterable[TaskKindSpec]:
    """Contribute kinds of task: how labels and outputs align with tokens, and how they are compared.

    Called once, when plugins are loaded. A task names its kind in `task_kind` of its spec, the user's own file in the
    setting of that name.

    Returns
    -------
    iterable of TaskKindSpec

    Examples
    --------
    ::

        @hookimpl
        def sage_task_kinds():
            yield TaskKindSpec(name="ordinal", summary="Classes in an order", factory=make_kind)
    """
    return ()


# ---- the command line -----------------------------------------------------------------------------------------------


@hookspec
def sage_commands(app: typer.Typer) -> None:
    """Called when a command line asks for help or names no command of sage-kit's own: add commands.

    Installed plugins are asked, and no one-file plugins, each with an `app` of its own; a command whose name is taken
    is left out. Import what is heavy inside the command, since ``sage-kit --help`` waits for the plugin's module.

    Parameters
    ----------
    app : typer.Typer
        Takes commands (``@app.command``) and groups of commands (``app.add_typer``).

    Examples
    --------
    ::

        @hookimpl
        def sage_commands(app):
            app.command("runs", help="List the finished runs of a folder.")(list_runs)
    """
