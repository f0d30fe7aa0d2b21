"""Checks of observers."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs, RoundResult, RunInfo
from sage_kit.testing import toy
from sage_kit.testing.exercises import PLAYS
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import Subject, unchanged
from sage_kit.testing.surroundings import ASPECTS, disturbed, watched, workspace

if TYPE_CHECKING:
    from sage_kit.synthesis.synthetic_set import SyntheticSet


STEPS = 24  # steps of each activity that the checks tell an observer of

READING = ("item", "tolist", "cpu", "numpy", "to", "__float__", "__int__", "__bool__", "__index__", "__array__",
           "__repr__", "__format__")  # fmt: skip
"""What a tensor is asked when its value is to be known here, for which the device is waited for."""


@check("observer")
def observer_hooks(subject: Subject) -> None:
    """It implements observing hooks that exist, and bears those that are called before the run has a directory.

    To fix: decorate methods with sage_kit.hookimpl, name them and their parameters as in
    sage_kit.components.hookspecs, and expect ``run`` to be None in sage_step_finished and sage_message.
    """
    with _hooked(subject) as plugins:
        plugins.message(None, "a line")
        plugins.step_finished(None, "teacher", 1, 2)


@check("observer")
def observer_bears_every_hook(subject: Subject) -> None:
    """It raises nothing when a run begins, goes on after a resume, ends well or ends with an error.

    To fix: read which hook raised or returned what. Losses are read-only and NaN for examples not seen yet, a round may
    have no synthetic examples and then has NaN for what they would give, and a run may fail before its first round.
    Only sage_control returns something: a sage_kit.components.Control, or None to go on.
    """
    for ending in ("finished", "failed"):
        with _story(subject) as story:
            story.losses[0] = np.nan
            story.losses.flags.writeable = False
            with _hooked(subject) as plugins:
                story.begin(plugins)
                story.round(plugins, 1)
                plugins.run_failed(story.run, KeyboardInterrupt())
            # another process goes on
            story.restart()
            with _hooked(subject) as plugins:
                story.begin(plugins)
                story.round(plugins, 2)
                story.end(plugins, ending)
    with _story(subject) as story, _hooked(subject) as plugins:
        story.begin(plugins)
        story.end(plugins, "failed")


@check("observer")
def observer_keeps_its_input(subject: Subject) -> None:
    """What it is shown belongs to the run, and stays as it is.

    To fix: copy an array before you change it (``losses = np.sort(losses)``), and only read records.
    """
    with _story(subject) as story:
        synthetic = story.synthetic
        arrays = {name: getattr(synthetic, name) for name in ("anchors", "vectors", "coordinates", "logits", "kept")}
        with unchanged(losses=story.losses, **arrays), _hooked(subject) as plugins:
            story.two_rounds(plugins)
            story.end(plugins, "finished")
        require(not story.changed, f"it changes what it is shown: {', '.join(sorted(story.changed))}")


@check("observer")
def observer_leaves_random_states(subject: Subject) -> None:
    """It neither draws from nor seeds the global random generators: a run comes out the same, observed or not.

    To fix: take random numbers from a generator of your own, ``np.random.default_rng(context.seed)``.
    """
    for seed in (71, 72):  # from two states, since one of them may be what it seeds
        with _story(subject) as story, disturbed(seed), _hooked(subject) as plugins:
            before = ASPECTS["random"].read()
            story.two_rounds(plugins)
            after = ASPECTS["random"].read()
            touched = [name for name in before if before[name] != after[name]]
            require(not touched, f"it draws from or seeds the global random state of {', '.join(touched)}")
            story.end(plugins, "finished")


@check("observer")
def observer_waits_for_no_step(subject: Subject) -> None:
    """It does not read the loss at every step: each look at it makes the run wait until the device has come so far.

    To fix: keep the tensor, ``self.loss = loss.detach()``, and read it at the end of the round, or every hundred steps.
    """
    with _story(subject) as story, _hooked(subject) as plugins:
        with _waits(story):
            story.two_rounds(plugins)
        require(
            2 * len(story.waited) <= story.trained,
            f"it reads the loss, or waits for the device, at {len(story.waited)} of {story.trained} steps",
        )
        story.end(plugins, "finished")


def _play(subject: Subject) -> None:
    """Two rounds and an end, watched as a whole: what it sets up at the start it may take down at the end."""
    from sage_kit.system.devices import make_accelerator

    make_accelerator(subject.config())
    toy.finished_run()
    watch = watched(subject.effects, "during a run it")
    with _story(subject) as story, workspace(), watch, _hooked(subject, watch=True) as plugins:
        story.two_rounds(plugins)
        story.end(plugins, "finished")


PLAYS["observer"] = _play


@contextmanager
def _waits(story: _Story) -> Iterator[None]:
    """Losses that note when they are read, and a torch.cuda.synchronize that notes when it is called."""
    import torch

    class CountedLoss(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") in READING:
                story.waited.add(story.steps_told)
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call, unused-ignore]

    original = torch.cuda.synchronize
    story.loss = torch.tensor(0.25).as_subclass(CountedLoss)
    torch.cuda.synchronize = lambda device=None: story.waited.add(story.steps_told)
    try:
        yield
    finally:
        torch.cuda.synchronize = original
        story.loss = torch.tensor(0.25)


@contextmanager
def _story(subject: Subject) -> Iterator[_Story]:
    """A story in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="sage-kit-check-") as folder:
        yield _Story(subject, Path(folder))


@contextmanager
def _hooked(subject: Subject, watch: bool = False) -> Iterator[Plugins]:
    """The component hears the hooks within the block; at its end it must not have been disabled."""
    from sage_kit.system.devices import make_accelerator

    make_accelerator(subject.config())  # in a run Accelerate's state is there before observers are
    plugins = subject.plugins
    plugins.remove_observers()
    try:
        plugins.add_observer(subject.spec.name, subject.build_watched() if watch else subject.build())
        yield plugins
        disabled = dict(plugins.disabled)
    finally:
        plugins.remove_observers()
    require(not disabled, "; ".join(disabled.values()))


class _Story:
    """A run told through the hooks, in the order in which the loop calls them."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        import torch

        self.config = subject.config()
        self.folder = folder
        self.real = toy.finished_run()  # made here at the latest, since it draws random numbers
        self.loss = torch.tensor(0.25)  # of each training step
        self.steps_told = self.trained = 0  # steps that were told of so far, and those of them that trained the student
        self.waited: set[int] = set()  # steps at which the loss was read
        self.files: dict[Path, bytes] = {}
        self.losses = toy.losses()
        self.synthetic = _synthetic_set()
        self.costs = Costs()
        self.history: list[RoundResult] = []
        self.summary: dict[str, Any] = {}
        self.changed: set[str] = set()  # records and files that were not the same after a hook as before it
        self.restart()

    def _bring(self, *names: str) -> None:
        """Put files of a real run into the folder, as the loop would have written them by now."""
        for name in names:
            place = self.real / name
            for source in [place] if place.is_file() else sorted(place.rglob("*")):
                target = self.folder / source.relative_to(self.real)
                if source.is_file() and not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, target)
                    self.files[target] = source.read_bytes()

    def two_rounds(self, plugins: Plugins) -> None:
        """The beginning and two rounds."""
        self.begin(plugins)
        self.round(plugins, 1)
        self.round(plugins, 2)

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
        self._bring("config.toml", "environment.json")
        self._tell(plugins.message, None, "a line")
        self._steps(plugins, None, "vectors", None)
        self.costs.add("teacher", 0.5, tokens=100, flops=1000)
        self._tell(plugins.run_started, self.run)
        self._tell(plugins.message, self.run, "another line")
        if not self.history:
            self._save(plugins, 0)

    def round(self, plugins: Plugins, number: int) -> None:
        """A round; the first one has no synthetic examples."""
        self._tell(plugins.round_started, self.run, number)
        if number > 1:
            self._steps(plugins, self.run, "teacher's labels", None)
            self._tell(plugins.synthetic_created, self.run, number, self.synthetic)
        self.trained += STEPS
        self._tell(plugins.control, self.run, STEPS * (number - 1), 2 * STEPS)
        self._steps(plugins, self.run, f"round {number}", self.loss)
        self._tell(plugins.evaluated, self.run, STEPS * number - 1, {"accuracy": 0.7, "agreement": 0.75})
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
        self._save(plugins, number)

    def _save(self, plugins: Plugins, number: int) -> None:
        name = f"checkpoints/round-{number:03d}"
        self._bring(name, "costs.json")
        self._tell(plugins.checkpoint_saved, self.run, number, self.folder / name)

    def end(self, plugins: Plugins, ending: str) -> None:
        """The run's end, "finished" or "failed"."""
        if ending == "failed":
            self._tell(plugins.run_failed, self.run, RuntimeError("out of memory"))
            return
        told = json.loads((self.real / "summary.json").read_text(encoding="utf-8"))
        self.summary = {**told, "rounds": [result.to_json() for result in self.history]}
        self._bring(*sorted(path.name for path in self.real.iterdir() if path.name != "checkpoints"))
        self._tell(plugins.run_finished, self.run, self.summary)
        for path, content in self.files.items():
            if not path.is_file() or path.read_bytes() != content:
                self.changed.add(f"the run's file {path.relative_to(self.folder)}")

    def _tell(self, hook: Callable[..., object], *arguments: Any) -> None:
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
            "run.history": [result.to_json() for result in self.run.history],
        }
        return {name: json.dumps(value, default=str) for name, value in records.items()}

    def _steps(self, plugins: Plugins, run: RunInfo | None, activity: str, loss: Any) -> None:
        for done in range(1, STEPS + 1):
            self.steps_told += 1
            if done == STEPS:  # what one step changes, the last changes too
                self._tell(plugins.step_finished, run, activity, done, STEPS, loss)
            else:
                plugins.step_finished(run, activity, done, STEPS, loss)
                if run is not None and loss is not None:
                    plugins.control(run, done, 2 * STEPS)


def _synthetic_set() -> SyntheticSet:
    from sage_kit.synthesis.synthetic_set import SyntheticSet

    anchors = np.arange(0, toy.ROWS, 4)
    coordinates = np.random.default_rng(5).standard_normal((len(anchors), 2)).astype(np.float32)
    logits = toy.logits(len(anchors))
    return SyntheticSet(round=2, anchors=anchors, vectors=toy.train()[anchors], coordinates=coordinates, logits=logits)
