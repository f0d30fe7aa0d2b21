"""Observer `tracker`: with a tracker of our own that Accelerate knows, and with those whose packages are here."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from toyrun import toy_config, toy_run

from sage_kit.builtin.observers import tracker as module
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import RoundResult, RunInfo
from sage_kit.config import RunConfig, load_config
from sage_kit.distill import resume
from sage_kit.errors import ConfigError, MissingPackageError
from sage_kit.rundir import RunDirectory
from sage_kit.system.devices import make_accelerator
from sage_kit.testing import check_component

NAN = float("nan")


class Memory(GeneralTracker):
    """A tracker that keeps what it is told."""

    name = "memory"
    requires_logging_directory = False
    made: ClassVar[list[Memory]] = []

    def __init__(self, project: str, **settings: Any) -> None:
        super().__init__()
        self.project, self.settings = project, settings
        self.configured: list[dict[str, Any]] = []
        self.logged: list[tuple[int | None, dict[str, Any]]] = []
        self.calls: list[str] = []
        type(self).made.append(self)

    @property
    def tracker(self) -> Any:
        return self

    def start(self) -> None:
        self.calls.append("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.configured.append(values)

    def log(self, values: dict[str, Any], step: int | None = None, **arguments: Any) -> None:
        assert not arguments
        self.logged.append((step, dict(values)))

    def finish(self) -> None:
        self.calls.append("finish")


class Folder(Memory):
    """One that wants a folder."""

    name = "folder"
    requires_logging_directory = True
    made: ClassVar[list[Memory]] = []

    def __init__(self, project: str, folder: str, **settings: Any) -> None:
        super().__init__(project, folder=folder, **settings)


@pytest.fixture(autouse=True)
def _trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate as a run leaves it, and the two trackers as `accelerate.tracking.register_tracker_class` adds them."""
    make_accelerator(load_config({"device": "cpu"}))
    for tracker in (Memory, Folder):
        monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, tracker.name, tracker)
        tracker.made.clear()


def result(round: int, **changes: Any) -> RoundResult:
    values: dict[str, Any] = {
        "round": round, "steps": 4, "total_steps": 4 * round, "train_loss": 0.5, "train_agreement": 0.75,
        "synthetic_loss": NAN, "synthetic": 0, "dropped": 0, "dev": {"accuracy": 0.7, "agreement": 0.8},
        "validation": {"validation_matched": {"accuracy": 0.6}}, "seconds": 2.5, "padding": 0.01,
    }  # fmt: skip
    return RoundResult(**{**values, **changes})


def run_in(directory: Path, *history: RoundResult, **settings: Any) -> RunInfo:
    return RunInfo(
        directory=directory, config=RunConfig(**settings), examples={"train": 90, "dev": 10},
        parameters={"student": 5, "teacher": 9}, primary_metric="accuracy", history=history,
    )  # fmt: skip


def memory(build: Any, **options: Any) -> Any:
    return build("observer", "tracker", {"to": ["memory"], **options})


SUMMARY = {
    "task": "sst2", "stopped": "2 rounds are done", "rounds": [{"round": 1}], "examples": {"train": 90},
    "parameters": {"student": 5}, "dev": {"accuracy": 0.7, "f1": NAN}, "student_steps": 8, "seconds": None,
    "teacher": {"name": "bert", "dev": {"accuracy": 0.9}}, "checkpoint_equals_student": True,
}  # fmt: skip


# ---- what is sent ---------------------------------------------------------------------------------------------------


def test_settings_rounds_and_summary_arrive(build: Any, tmp_path: Path) -> None:
    observer = memory(build, project="study", init={"memory": {"tags": ["a"]}})
    assert Memory.made == []
    run = run_in(tmp_path, reducer_options={"whiten": True}, student_layers=3, task="sst2")
    observer.sage_run_started(run)
    (tracker,) = Memory.made
    assert (tracker.project, tracker.settings, tracker.calls) == ("study", {"tags": ["a"]}, ["start"])
    (settings,) = tracker.configured
    expected = {"task": "sst2", "student_layers": 3, "reducer_options/whiten": True, "examples/train": 90}
    assert expected.items() <= settings.items()
    assert settings["parameters/student"] == 5
    assert json.loads(settings["observers"]) == ["jsonl", "progress"]
    assert all(isinstance(value, bool | int | float | str) and value != "" for value in settings.values())

    for round in (1, 2):
        observer.sage_round_started(round)
        observer.sage_step_finished(f"round {round}", 4, torch.tensor(0.5))
        observer.sage_round_finished(result(round, outside_hull=0.25 if round == 2 else NAN))
    observer.sage_run_finished(SUMMARY)
    (step_1, first), (step_2, second), (step_3, summary) = tracker.logged
    assert (step_1, step_2, step_3) == (4, 8, 8)
    assert first == {
        "round": 1, "steps": 4, "total_steps": 4, "train_loss": 0.5, "train_agreement": 0.75, "synthetic": 0,
        "dropped": 0, "dev/accuracy": 0.7, "dev/agreement": 0.8, "validation/validation_matched/accuracy": 0.6,
        "seconds": 2.5, "padding": 0.01, "processes": 1,
    }  # fmt: skip
    assert second["outside_hull"] == 0.25
    assert summary == {"summary/dev/accuracy": 0.7, "summary/teacher/dev/accuracy": 0.9, "summary/student_steps": 8}
    assert tracker.calls == ["start", "finish"]


class Loss:
    """Counts how often it is read."""

    reads = 0

    def __float__(self) -> float:
        self.reads += 1
        return 0.25


@pytest.mark.parametrize(("every", "steps"), [(0, []), (3, [3, 6]), (1, list(range(1, 9)))])
def test_training_losses_are_read_only_when_they_are_sent(
    build: Any, tmp_path: Path, every: int, steps: list[int]
) -> None:
    observer = memory(build, every_steps=every)
    observer.sage_run_started(run_in(tmp_path))
    loss = Loss()
    for done in range(1, 5):  # not the student's training on the task
        observer.sage_step_finished("warm-up", done, loss)
        observer.sage_step_finished("teacher's labels", done, None)
    for round in (1, 2):
        observer.sage_round_started(round)
        for done in range(1, 5):
            observer.sage_step_finished(f"round {round}", done, loss)
        observer.sage_round_finished(result(round))
    sent = [(step, values) for step, values in Memory.made[0].logged if "step_loss" in values]
    assert sent == [(step, {"step_loss": 0.25}) for step in steps]
    assert loss.reads == len(steps)


def test_hooks_before_and_after_a_run_are_borne(build: Any, tmp_path: Path) -> None:
    observer = memory(build, every_steps=1)
    observer.sage_step_finished("round 0", 1, torch.tensor(1.0))
    observer.sage_run_started(run_in(tmp_path))
    observer.sage_run_failed()
    observer.sage_run_failed()
    assert Memory.made[0].calls == ["start", "finish"]


def test_a_resumed_run_goes_on_at_its_step(build: Any, tmp_path: Path) -> None:
    observer = memory(build, every_steps=2)
    observer.sage_run_started(run_in(tmp_path, result(1), result(2)))
    observer.sage_round_started(3)
    observer.sage_step_finished("round 3", 2, torch.tensor(0.5))
    observer.sage_round_finished(result(3))
    assert [step for step, _ in Memory.made[0].logged] == [10, 12]


# ---- how trackers are started ---------------------------------------------------------------------------------------


def test_a_tracker_that_wants_a_folder_gets_the_run_directory_or_yours(build: Any, tmp_path: Path) -> None:
    build("observer", "tracker", {"to": "folder"}).sage_run_started(run_in(tmp_path))
    elsewhere = {"to": "folder, memory", "init": {"folder": {"logging_dir": "elsewhere", "more": 1}}}
    build("observer", "tracker", elsewhere).sage_run_started(run_in(tmp_path))
    assert [tracker.settings for tracker in Folder.made] == [
        {"folder": str(tmp_path)},
        {"folder": "elsewhere", "more": 1},
    ]
    assert len(Memory.made) == 1


def test_a_resumed_run_goes_on_in_the_same_run_of_its_tracker(tmp_path: Path) -> None:
    run = run_in(tmp_path / "the-run", result(1))
    own = module._own_settings
    assert own("mlflow", run, "name", None, 0) == {"run_name": "name"}
    assert own("mlflow", run, "name", "7f", 4) == {"run_id": "7f"}
    assert own("wandb", run, "name", None, 0) == {"name": "name", "dir": str(run.directory)}
    assert own("wandb", run, "name", "7f", 4).items() >= {"id": "7f", "resume": "allow"}.items()
    assert own("trackio", run, "name", None, 0) == {"name": "name"}
    assert own("trackio", run, "name", "name-2", 4) == {"name": "name-2", "resume": "allow"}
    assert own("tensorboard", run, "name", None, 0) == {}
    assert own("tensorboard", run, "name", "tensorboard", 4) == {"purge_step": 5}
    assert own("memory", run, "name", "memory", 4) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": ["tensorbord"]}, "Accelerate knows no tracker 'tensorbord'. Did you mean 'tensorboard'?"),
        ({"to": ["all"]}, "Accelerate knows no tracker 'all'."),
        ({"to": ["memory"], "init": {"wandb": {}}}, "option 'init' names 'wandb', which is not in 'to'."),
        ({"to": []}, "option 'to'"),
        ({"to": [["memory"]]}, "option 'to"),
        ({"every_steps": -1}, "option 'every_steps' is -1"),
        ({"init": {"memory": 3}}, "option 'init"),
    ],
)
def test_bad_options_are_one_clear_line(build: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        memory(build, **options)
    assert "\n" not in str(caught.value)


def test_missing_packages_are_named_with_the_command(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "get_available_trackers", lambda: [])
    with pytest.raises(MissingPackageError) as caught:
        build("observer", "tracker", {"to": ["wandb", "memory", "mlflow"]})
    assert str(caught.value) == "observer 'tracker' needs 'wandb', 'mlflow': pip install wandb mlflow"


def test_a_run_with_a_missing_package_leaves_no_directory(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_available_trackers", lambda: [])
    with pytest.raises(MissingPackageError, match="pip install mlflow"):
        toy_run(tmp_path, tiny_bert, observers=["tracker"], observer_options={"tracker": {"to": ["mlflow"]}})
    assert [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] == []
    assert not (tmp_path / "cache").exists()


# ---- failures -------------------------------------------------------------------------------------------------------


def test_a_tracker_that_fails_closes_all_and_is_named(
    plugins: Plugins, build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any, values: Any, step: Any = None) -> None:
        raise ConnectionError("no route\nto host")

    plugins.remove_observers()
    plugins.add_observer("tracker", build("observer", "tracker", {"to": ["memory", "folder"]}))
    run = run_in(tmp_path)
    plugins.run_started(run)
    monkeypatch.setattr(Folder, "log", fails)
    plugins.round_finished(run, result(1))
    said = dict(plugins.disabled)
    plugins.remove_observers()
    assert list(said) == ["observer:tracker"]
    assert "tracker 'folder': ConnectionError: no route to host at " in said["observer:tracker"]
    assert [tracker.calls for tracker in (*Memory.made, *Folder.made)] == [["start", "finish"], ["start", "finish"]]


def test_the_others_are_closed_when_one_fails_to(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any) -> None:
        raise ConnectionError("no route")

    observer = build("observer", "tracker", {"to": ["folder", "memory"]})
    observer.sage_run_started(run_in(tmp_path))
    monkeypatch.setattr(Folder, "finish", fails)
    with pytest.raises(Exception, match="tracker 'folder': ConnectionError: no route"):
        observer.sage_run_failed()
    assert Memory.made[0].calls == ["start", "finish"]


# ---- in a run -------------------------------------------------------------------------------------------------------


def test_a_run_is_the_same_with_it_and_accelerate_is_left_alone(tmp_path: Path, tiny_bert: Path) -> None:
    _, expected = toy_run(tmp_path, tiny_bert, rounds=2, precision="bf16")
    states = [copy.copy(AcceleratorState._shared_state), copy.copy(GradientState._shared_state)]
    options = {"tracker": {"to": ["memory"], "every_steps": 2}}
    _, summary = toy_run(
        tmp_path, tiny_bert, rounds=2, precision="bf16", observers=["tracker"], observer_options=options
    )
    assert summary["disabled_observers"] == {}
    assert AcceleratorState().mixed_precision == "bf16"
    assert [AcceleratorState._shared_state, GradientState._shared_state] == states
    assert [r["train_loss"] for r in summary["rounds"]] == [r["train_loss"] for r in expected["rounds"]]

    (tracker,) = Memory.made
    rounds = [(step, values) for step, values in tracker.logged if "train_loss" in values]
    assert [step for step, _ in rounds] == [r["total_steps"] for r in summary["rounds"]]
    for (_, values), told in zip(rounds, summary["rounds"], strict=True):
        assert values["dev/agreement"] == told["dev"]["agreement"]
        assert values["validation/validation/accuracy"] == told["validation"]["validation"]["accuracy"]
        assert ("synthetic_loss" in values) == (told["synthetic_loss"] is not None)
    steps = [step for step, values in tracker.logged if "step_loss" in values]
    assert steps == list(range(2, summary["student_steps"] + 1, 2))
    assert tracker.calls == ["start", "finish"]


def test_an_interrupted_run_closes_its_trackers(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sage_kit.training.learner.train_pass", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, tiny_bert, observers=["tracker"], observer_options={"tracker": {"to": ["memory"]}})
    assert Memory.made[0].calls == ["start", "finish"]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs the package tensorboard")
def test_tensorboard_has_every_round_once_after_a_resume(tmp_path: Path, tiny_bert: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {"observers": ["tracker"], "observer_options": {"tracker": {"every_steps": 1}}, "keep_checkpoints": 0}
    directory, summary = toy_run(tmp_path, tiny_bert, rounds=2, **settings)
    path = directory.path
    (path / "summary.json").unlink()
    shutil.rmtree(path / "checkpoints" / "round-002")
    again = resume(RunDirectory.open(path), Plugins(allow=""))
    assert (summary["disabled_observers"], again["disabled_observers"]) == ({}, {})

    events = EventAccumulator(str(path / "tensorboard"))
    events.Reload()
    losses = events.Scalars("train_loss")
    assert [event.step for event in losses] == [r["total_steps"] for r in again["rounds"]]
    assert [event.value for event in losses] == pytest.approx([r["train_loss"] for r in again["rounds"]])
    assert [event.step for event in events.Scalars("step_loss")] == list(range(1, again["student_steps"] + 1))
    # the settings once: Accelerate gives them a folder of their own
    (stored,) = (path / "tensorboard").rglob("hparams.yml")
    assert "student_layers: 2" in stored.read_text("utf-8").splitlines()
    assert toy_config(tmp_path, tiny_bert).student_layers == 2


def test_every_check_passes_without_any_package(plugins: Plugins) -> None:
    options = {"to": ["memory"]}
    results = check_component(plugins.spec("observer", "tracker"), options=options)
    assert {result.name: result.message for result in results if not result.passed or result.skipped} == {}
    assert {tuple(tracker.calls) for tracker in Memory.made} == {("start", "finish")}
