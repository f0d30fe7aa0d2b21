"""The hooks that are called while a run goes on; `sage_kit.components.hookspecs` has them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

from sage_kit import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from sage_kit.components import Control
    from sage_kit.components.records import RoundResult, RunInfo

hookspec = pluggy.HookspecMarker(PROJECT)


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
def sage_control(run: RunInfo, done: int, total: int) -> Control | None:
    """Called before each round, and after each step of the student but a round's last: may stop, evaluate or save.

    Every implementation is asked; None is to go on. The first reason to stop counts, and evaluate and save if any says
    so. A stop between steps ends the round as it is: it is evaluated, its checkpoint is saved, the student is exported,
    and the summary gives the reason. Of several processes the first one's plugins are asked, and all obey at the same
    step; without an implementation nothing is called, nor sent, at a step.

    Parameters
    ----------
    run : RunInfo
    done, total : int
        Steps of the student so far, and those that are planned.

    Returns
    -------
    Control or None

    Examples
    --------
    ::

        from sage_kit.components import Control


        @hookimpl
        def sage_control(run, done):
            if (run.directory / "STOP").exists():
                return Control(stop=f"a file STOP was found after {done} steps")
    """


@hookspec
def sage_evaluated(run: RunInfo, done: int, scores: dict[str, float]) -> None:
    """Called with the student's scores on dev that an answer of `sage_control` asked for.

    Parameters
    ----------
    run : RunInfo
    done : int
        Steps of the student so far.
    scores : dict of str to float
        The task's metrics and "agreement"; a copy for each observer.

    Examples
    --------
    ::

        @hookimpl
        def sage_evaluated(done, scores):
            print(done, scores["agreement"])
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
