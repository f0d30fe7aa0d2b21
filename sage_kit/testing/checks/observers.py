"""Checks of observers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.plugins import Plugins
from sage_kit.records import Costs, RoundResult, RunInfo
from sage_kit.testing import toy
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import Subject, disturbed, random_states, unchanged

if TYPE_CHECKING:
    from sage_kit.synthesis import SyntheticSet


@check("observer")
def observer_hooks(subject: Subject) -> None:
    """It implements observing hooks that exist, and bears those that are called before the run has a directory.

    To fix: decorate methods with sage_kit.hookimpl, name them and their parameters as in sage_kit.hookspecs, and expect
    ``run`` to be None in sage_step_finished and sage_message.
    """
    with _Hooked(subject) as plugins:
        plugins.message(None, "a line")
        plugins.step_finished(None, "teacher", 1, 2)


@check("observer")
def observer_bears_every_hook(subject: Subject) -> None:
    """It raises nothing when a run begins, goes on after a resume, ends well or ends with an error.

    To fix: read which hook raised what. Losses are read-only and NaN for examples not seen yet, a round may have no
    synthetic examples and then has NaN for what they would give, and a run may fail before its first round.
    """
    for ending in ("finished", "failed"):
        with tempfile.TemporaryDirectory(prefix="sage-kit-check-") as folder:
            story = _Story(subject, Path(folder))
            story.losses[0] = np.nan
            story.losses.flags.writeable = False
            with _Hooked(subject) as plugins:
                story.begin(plugins)
                story.round(plugins, 1)
                plugins.run_failed(story.run, KeyboardInterrupt())
            # another process goes on
            story.restart()
            with _Hooked(subject) as plugins:
                story.begin(plugins)
                story.round(plugins, 2)
                story.end(plugins, ending)
    with tempfile.TemporaryDirectory(prefix="sage-kit-check-") as folder, _Hooked(subject) as plugins:
        story = _Story(subject, Path(folder))
        story.begin(plugins)
        story.end(plugins, "failed")


@check("observer")
def observer_keeps_its_input(subject: Subject) -> None:
    """What it is shown belongs to the run, and stays as it is.

    To fix: copy an array before you change it (``losses = np.sort(losses)``), and only read records.
    """
    with tempfile.TemporaryDirectory(prefix="sage-kit-check-") as folder:
        story = _Story(subject, Path(folder))
        synthetic = story.synthetic
        arrays = {name: getattr(synthetic, name) for name in ("anchors", "vectors", "coordinates", "logits", "kept")}
        with unchanged(losses=story.losses, **arrays), _Hooked(subject) as plugins:
            story.begin(plugins)
            story.round(plugins, 1)
            story.round(plugins, 2)
            story.end(plugins, "finished")
        require(not story.changed, f"it changes what it is shown: {', '.join(sorted(story.changed))}")


@check("observer")
def observer_leaves_random_states(subject: Subject) -> None:
    """It neither draws from nor seeds the global random generators: a run comes out the same, observed or not.

    To fix: take random numbers from a generator of your own, ``np.random.default_rng(context.seed)``.
    """
    for seed in (71, 72):  # from two states, since one of them may be what it seeds
        with (
            tempfile.TemporaryDirectory(prefix="sage-kit-check-") as folder,
            disturbed(seed),
            _Hooked(subject) as plugins,
        ):
            story = _Story(subject, Path(folder))
            before = random_states()
            story.begin(plugins)
            story.round(plugins, 1)
            story.round(plugins, 2)
            after = random_states()
            touched = [name for name in before if before[name] != after[name]]
            require(not touched, f"it draws from or seeds the global random state of {', '.join(touched)}")
            story.end(plugins, "finished")


class _Hooked:
    """The component hears the hooks within the block; at its end it must not have been disabled."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def __enter__(self) -> Plugins:
        from sage_kit.devices import make_accelerator

        # in a run Accelerate's state is there before observers are
        make_accelerator(self._subject.config())
        plugins = self._subject.plugins
        plugins.remove_observers()
        plugins.add_observer(self._subject.spec.name, self._subject.build())
        return plugins

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        disabled = dict(self._subject.plugins.disabled)
        self._subject.plugins.remove_observers()
        if error is None:
            require(not disabled, "; ".join(disabled.values()))


class _Story:
    """A run told through the hooks, in the order in which the loop calls them.

    Attributes
    ----------
    changed : set of str
        Records that were not the same after a hook as before it.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.config = subject.config()
        self.folder = folder
        self.losses = toy.losses()
        self.costs = Costs()
        self.history: list[RoundResult] = []
        self.summary: dict[str, Any] = {}
        self.changed: set[str] = set()
        self.synthetic = _synthetic_set()
        self.restart()

    def restart(self) -> None:
        """Another process: what the rounds so far have left is known from its start."""
        self.run = RunInfo(
            directory=self.folder,
            config=self.config,
            examples={"train": len(self.losses), "dev": 8, "validation": 16},
            parameters={"student": 2000, "student_trained": 1000, "teacher": 4000},
            primary_metric="accuracy",
            history=tuple(self.history),
            costs=self.costs,
        )

    def begin(self, plugins: Plugins) -> None:
        """Up to the first round, and a line for the user."""
        self._tell(plugins.message, None, "a line")
        self._steps(plugins, None, "vectors", None)
        self.costs.add("teacher", 0.5, tokens=100, flops=1000)
        self._tell(plugins.run_started, self.run)
        self._tell(plugins.message, self.run, "another line")
        if not self.history:
            self._tell(plugins.checkpoint_saved, self.run, 0, self.folder / "checkpoints" / "round-000")

    def round(self, plugins: Plugins, number: int) -> None:
        """A round; the first one has no synthetic examples."""
        import torch

        self._tell(plugins.round_started, self.run, number)
        if number > 1:
            self._steps(plugins, self.run, "teacher's labels", None)
            self._tell(plugins.synthetic_created, self.run, number, self.synthetic)
        self._steps(plugins, self.run, f"round {number}", torch.tensor(0.25))
        self.costs.add("student", 0.25, tokens=50, flops=3000)
        self._tell(plugins.losses_profiled, self.run, number, self.losses)
        nan = float("nan")
        result = RoundResult(
            round=number,
            steps=4,
            total_steps=4 * number,
            train_loss=0.5 / number,
            train_agreement=0.75,
            synthetic_loss=nan if number == 1 else 0.6,
            synthetic=0 if number == 1 else len(self.synthetic),
            dropped=0,
            dev={"accuracy": 0.75, "agreement": 0.8, "calibration_error": nan},
            validation={"validation": {"accuracy": 0.7, "agreement": 0.75}},
            seconds=0.5,
            padding=0.05,
            outside_hull=nan if number == 1 else 0.125,
        )
        self.history.append(result)
        self._tell(plugins.round_finished, self.run, result)
        self._tell(plugins.checkpoint_saved, self.run, number, self.folder / "checkpoints" / f"round-{number:03d}")

    def end(self, plugins: Plugins, ending: str) -> None:
        """The run's end, "finished" or "failed"."""
        if ending == "failed":
            self._tell(plugins.run_failed, self.run, RuntimeError("out of memory"))
            return
        self.summary = self._summary()
        self._tell(plugins.run_finished, self.run, self.summary)

    def _tell(self, hook: Callable[..., None], *arguments: Any) -> None:
        """Call a hook, and note which records are no longer what they were."""
        before = self._records()
        hook(*arguments)
        after = self._records()
        self.changed |= {name for name in before if before[name] != after[name]}

    def _records(self) -> dict[str, str]:
        records = {
            "run.examples": dict(self.run.examples),
            "run.parameters": dict(self.run.parameters),
            "run.costs": self.costs.to_json(),
            "the round's result": [result.to_json() for result in self.history],
            "the summary": self.summary,
        }
        return {name: json.dumps(value, default=str) for name, value in records.items()}

    def _summary(self) -> dict[str, Any]:
        last = self.history[-1]
        return {
            "task": self.config.task,
            "primary_metric": self.run.primary_metric,
            "stopped": f"{len(self.history)} rounds are done",
            "rounds": [result.to_json() for result in self.history],
            "student_steps": last.total_steps,
            "teacher_tokens": 100,
            "parameters": dict(self.run.parameters),
            "examples": dict(self.run.examples),
            "dev": dict(last.dev),
            "validation": {name: dict(scores) for name, scores in last.validation.items()},
            "teacher": {"name": self.config.teacher, "finetuned_here": False, "seconds": 0.0, "dev": {}},
            "seconds": 1.0,
            "precision": "fp32",
            "device": "cpu",
            "processes": 1,
            "disabled_observers": {},
            "checkpoint_equals_student": True,
        }

    def _steps(self, plugins: Plugins, run: RunInfo | None, activity: str, loss: Any) -> None:
        for done in range(1, 5):
            self._tell(plugins.step_finished, run, activity, done, 4, loss)


def _synthetic_set() -> SyntheticSet:
    from sage_kit.synthesis import SyntheticSet

    anchors = np.arange(0, toy.ROWS, 4)
    coordinates = np.random.default_rng(5).standard_normal((len(anchors), 2)).astype(np.float32)
    return SyntheticSet(
        round=2,
        anchors=anchors,
        vectors=toy.train()[anchors],
        coordinates=coordinates,
        logits=toy.logits(len(anchors)),
    )
