"""Every hook of sage_kit.

There are two families. A *contributing* hook is called once, when plugins are loaded, and yields specs. An *observing*
hook is called while a run goes on; its return value is ignored, and an observer that raises, whatever it raises, is
reported once, disabled for the rest of the run and recorded in the run's summary; it never ends the run. What it gets
never changes afterwards, and cannot be changed.

An implementation may take any subset of a hook's parameters, by name. Hooks are called in the order in which plugins
were registered: built-ins first, then installed plugins by name, then one-file plugins, then the run's observers.
``@hookimpl(tryfirst=True)`` and ``trylast=True`` change that; hook wrappers are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

from sage_kit import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from sage_kit.components import (
        DecoderSpec,
        FamilySpec,
        FilterSpec,
        InverterSpec,
        LiftSpec,
        ObserverSpec,
        ReducerSpec,
        SamplerSpec,
        StopRuleSpec,
        TaskSpec,
    )
    from sage_kit.components.records import RoundResult, RunInfo

hookspec = pluggy.HookspecMarker(PROJECT)


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


# ---- observing hooks ------------------------------------------------------------------------------------------------


@hookspec
def sage_run_started(run: RunInfo) -> None:
    """Called once the data, the models and the caches are ready, before the warm-up; again after a resume.

    Parameters
    ----------
    run : RunInfo
        The run; ``run.history`` holds the rounds that a resumed run has behind it.

    Examples
    --------
    ::

        @hookimpl
        def sage_run_started(run):
            print("started", run.directory)
    """


@hookspec
def sage_round_started(run: RunInfo, round: int) -> None:
    """Called before a round's synthesis and training.

    Parameters
    ----------
    run : RunInfo
    round : int
        From 1.

    Examples
    --------
    ::

        @hookimpl
        def sage_round_started(round):
            print("round", round)
    """


@hookspec
def sage_losses_profiled(run: RunInfo, round: int, losses: Any) -> None:
    """Called after each round's training, when its per-instance losses are known; the next round is shaped by them.

    Parameters
    ----------
    run : RunInfo
    round : int
        The round whose pass gave the losses.
    losses : array of shape (n,), float32
        Loss of each real training example, NaN for one not seen yet; read-only.

    Examples
    --------
    ::

        @hookimpl
        def sage_losses_profiled(round, losses):
            print(round, losses.mean())
    """


@hookspec
def sage_synthetic_created(run: RunInfo, round: int, synthetic: Any) -> None:
    """Called when a round's synthetic examples have their teacher labels, before the student trains on them.

    Parameters
    ----------
    run : RunInfo
    round : int
    synthetic : sage_kit.synthesis.synthetic_set.SyntheticSet
        Anchors, coordinates, vectors and the teacher's logits.

    Examples
    --------
    ::

        @hookimpl
        def sage_synthetic_created(synthetic):
            print(len(synthetic), "synthetic examples")
    """


@hookspec
def sage_step_finished(run: RunInfo, activity: str, done: int, total: int, loss: Any) -> None:
    """Called after each step of a long activity: "teacher", "vectors of train", "warm-up", "round 3" and the like.

    Training steps of the student are those of the activities "round N".

    Parameters
    ----------
    run : RunInfo or None
        None before the run has a directory of its own, e.g. while a teacher is fine-tuned.
    activity : str
    done, total : int
        Steps done and steps in all.
    loss : Tensor of shape () or None
        The step's mean loss, still on its device: reading it waits for the device, so do that seldom.

    Examples
    --------
    ::

        @hookimpl
        def sage_step_finished(activity, done, total):
            if done == total:
                print(activity, "done")
    """


@hookspec
def sage_message(run: RunInfo, text: str) -> None:
    """Called with a line worth telling the user: a cache that was found, an estimate, a warning.

    Parameters
    ----------
    run : RunInfo or None
    text : str

    Examples
    --------
    ::

        @hookimpl
        def sage_message(text):
            print(text)
    """


@hookspec
def sage_round_finished(run: RunInfo, result: RoundResult) -> None:
    """Called after a round's evaluation, before its checkpoint.

    Parameters
    ----------
    run : RunInfo
    result : RoundResult

    Examples
    --------
    ::

        @hookimpl
        def sage_round_finished(result):
            print(result.round, result.dev["agreement"])
    """


@hookspec
def sage_checkpoint_saved(run: RunInfo, round: int, path: Path) -> None:
    """Called when a round's checkpoint is complete on disk.

    Parameters
    ----------
    run : RunInfo
    round : int
        0 for the checkpoints during and after the warm-up.
    path : Path
        The checkpoint's directory.

    Examples
    --------
    ::

        @hookimpl
        def sage_checkpoint_saved(path):
            print("saved", path)
    """


@hookspec
def sage_run_finished(run: RunInfo, summary: dict[str, Any]) -> None:
    """Called when a run has ended well and its student is exported.

    Parameters
    ----------
    run : RunInfo
    summary : dict
        What ``summary.json`` holds; a copy for each observer.

    Examples
    --------
    ::

        @hookimpl
        def sage_run_finished(summary):
            print(summary["stopped"])
    """


@hookspec
def sage_run_failed(run: RunInfo, error: BaseException) -> None:
    """Called when a run ends with an error or is interrupted, before the error goes on.

    Parameters
    ----------
    run : RunInfo
    error : BaseException

    Examples
    --------
    ::

        @hookimpl
        def sage_run_failed(run, error):
            print("failed", run.directory, error)
    """
