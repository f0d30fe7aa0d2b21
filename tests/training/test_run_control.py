"""Plugins that stop, evaluate and keep: a one-file plugin beside whole runs, and the observer `limits`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toyrun import go_back, toy_config, toy_run, without_times

from sage_kit import hookimpl
from sage_kit.builtin.observers import LimitsOptions
from sage_kit.builtin.observers.limits import LimitsObserver
from sage_kit.components import BuildContext, Control
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs, RoundResult, RunInfo
from sage_kit.config import RunConfig
from sage_kit.distill import resume, run
from sage_kit.rundir import RunDirectory

STOPS = """
from sage_kit import hookimpl
from sage_kit.components import Control

ASKED = []

@hookimpl
def sage_control(run, done, total):
    ASKED.append((done, total))
    if done == {stop}:
        return Control(stop="enough after %d of %d" % (done, total))
"""

LOOKS = """
from sage_kit import hookimpl
from sage_kit.components import Control

SEEN, KEPT = [], {kept}

@hookimpl
def sage_control(done):
    return Control(evaluate=done % 3 == 0, save=done in KEPT)

@hookimpl
def sage_evaluated(done, scores):
    SEEN.append((done, scores["agreement"]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("control")


@pytest.fixture(scope="module")
def plain(folder: Path, tiny_bert: Path) -> tuple[RunDirectory, dict[str, Any]]:
    return toy_run(folder, tiny_bert, rounds=2)


def controlled(folder: Path, teacher: Path, source: str, **settings: Any) -> tuple[RunDirectory, dict[str, Any], Any]:
    """A run beside a one-file plugin, and the plugin's module."""
    file = folder / f"control_{len(list(folder.glob('*.py')))}.py"
    file.write_text(source)
    plugins = Plugins([file], allow="")
    directory, summary = run(toy_config(folder, teacher, rounds=2, **settings), plugins, [str(file)])
    (module,) = (item for item in list(sys.modules.values()) if getattr(item, "__file__", None) == str(file))
    return directory, summary, module


def weights(directory: RunDirectory) -> dict[str, torch.Tensor]:
    return load_file(directory.student / "model.safetensors")


def test_a_stop_between_steps_ends_the_round_properly(folder: Path, tiny_bert: Path, plain: Any) -> None:
    per_round = plain[1]["rounds"][0]["steps"]
    stop = per_round + 2
    directory, summary, module = controlled(folder, tiny_bert, STOPS.format(stop=stop))
    planned = plain[1]["planned_steps"]
    assert summary["stopped"] == f"enough after {stop} of {planned}"
    assert [result["steps"] for result in summary["rounds"]] == [per_round, 2]
    assert summary["student_steps"] == stop
    assert summary["dev"]["agreement"] == summary["rounds"][-1]["dev"]["agreement"]
    # before each round, and after each step but a round's last, which the next round's start stands for
    assert [(done, planned) for done in range(stop + 1)] == module.ASKED
    assert directory.latest_checkpoint().round == 2
    # the student is that of so many steps, as a run of so many steps makes it
    equal, _ = toy_run(folder, tiny_bert, rounds=2, max_steps=stop, lr_steps=planned)
    for name, value in weights(equal).items():
        torch.testing.assert_close(weights(directory)[name], value, rtol=0, atol=0)


def test_a_stopped_run_that_died_before_its_end_stays_stopped(folder: Path, tiny_bert: Path, plain: Any) -> None:
    stop = plain[1]["rounds"][0]["steps"] - 3
    directory, expected, _ = controlled(folder, tiny_bert, STOPS.format(stop=stop))
    assert len(expected["rounds"]) == 1
    (directory.path / "summary.json").unlink()
    summary = resume(RunDirectory.open(directory.path), Plugins(allow=""))
    assert without_times(summary) == without_times(expected)


def test_looking_changes_nothing(folder: Path, tiny_bert: Path, plain: Any) -> None:
    steps = plain[1]["student_steps"]
    directory, summary, module = controlled(folder, tiny_bert, LOOKS.format(kept=()))
    assert [done for done, _ in module.SEEN] == list(range(0, steps, 3))
    assert without_times(summary) == without_times(plain[1])
    for name, value in weights(plain[0]).items():
        torch.testing.assert_close(weights(directory)[name], value, rtol=0, atol=0)


def test_a_checkpoint_is_kept_for_good_and_can_be_gone_on_from(folder: Path, tiny_bert: Path, plain: Any) -> None:
    middle = plain[1]["rounds"][0]["steps"] // 2
    directory, summary, _ = controlled(folder, tiny_bert, LOOKS.format(kept=(middle,)), keep_checkpoints=1)
    kept = sorted(path.name for path in (directory.path / "checkpoints").iterdir())
    assert kept == ["round-001", "round-002"]
    go_back(directory, to_round=1)
    again = resume(RunDirectory.open(directory.path), Plugins(directory.plugin_files(), allow=""))
    assert without_times(again) == without_times(summary)
    for name, value in weights(plain[0]).items():
        torch.testing.assert_close(weights(directory)[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ('"stop"', "it is no Control, nor None"),
        ('Control(stop="one\\ntwo")', "not a line of text"),
        ("Control(save=1)", "save is 1, not True or False"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_wrong_answer_disables_the_plugin_and_not_the_run(
    folder: Path, tiny_bert: Path, plain: Any, answer: str, problem: str
) -> None:
    source = "from sage_kit import hookimpl\nfrom sage_kit.components import Control\n\n@hookimpl\n"
    _, summary, _ = controlled(folder, tiny_bert, f"{source}def sage_control():\n    return {answer}\n")
    ((_, cause),) = summary["disabled_observers"].items()
    assert "sage_control" in cause
    assert problem in cause
    assert summary["student_steps"] == plain[1]["student_steps"]


def test_nobody_is_asked_at_a_step_where_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tiny_bert: Path
) -> None:
    def never(self: Plugins, *given: Any) -> Control:
        raise AssertionError("asked")

    monkeypatch.setattr(Plugins, "control", never)
    _, summary = toy_run(folder, tiny_bert, rounds=1)
    assert summary["stopped"] == "1 rounds are done"


def test_answers_are_joined_and_the_first_reason_counts() -> None:
    one, two = Control(stop="first", save=True), Control(stop="second", evaluate=True)
    assert one | two == Control(stop="first", evaluate=True, save=True)
    assert Control() | two == two

    class Says:
        def __init__(self, answer: Control | None) -> None:
            self.answer = answer

        @hookimpl
        def sage_control(self) -> Control | None:
            return self.answer

    plugins = Plugins(allow="")
    assert not plugins.has_control
    for number, answer in enumerate((None, one, two)):
        plugins.add_observer(f"says_{number}", Says(answer))
    assert plugins.has_control
    info = RunInfo(Path(), RunConfig(), {}, {}, "accuracy")
    assert plugins.control(info, 1, 2) == Control(stop="first", evaluate=True, save=True)


PROGRAM = """
import sys
from toyrun import toy_config
from pathlib import Path
from sage_kit.components.plugins import Plugins
from sage_kit.distill import run
folder, teacher, file, target = map(Path, sys.argv[1:])
run(toy_config(folder, teacher, rounds=2, run_dir=str(target)), Plugins([file], allow=""), [str(file)])
"""


def test_two_processes_obey_the_first_ones_plugins_at_the_same_step(
    folder: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    file, program, target = tmp_path / "stops_late.py", tmp_path / "two.py", tmp_path / "run"
    # the second process would go on
    file.write_text(STOPS.format(stop="(3 if __import__('os').environ.get('RANK', '0') == '0' else -1)"))
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(program)]
    # the program imports what lies beside the tests
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [*command, *map(str, (folder, tiny_bert, file, target))],
        capture_output=True, text=True, timeout=240, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    summary = RunDirectory.open(target).summary()
    assert summary["processes"] == 2
    assert summary["stopped"].startswith("enough after 3 of ")
    assert [result["steps"] for result in summary["rounds"]] == [3]


# ---- the observer `limits`


def limits(**options: Any) -> LimitsObserver:
    return LimitsObserver(LimitsOptions(**options), BuildContext(config=RunConfig()))


def info(*seconds: float) -> RunInfo:
    history = tuple(
        RoundResult(
            round=number, steps=1, total_steps=number, train_loss=0.5, train_agreement=0.5, synthetic_loss=0.5,
            synthetic=0, dropped=0, dev={"agreement": 0.5}, validation={}, seconds=each, padding=0.0,
        )
        for number, each in enumerate(seconds, start=1)
    )  # fmt: skip
    return RunInfo(Path(), RunConfig(), {}, {}, "accuracy", history, Costs())


def test_limits_are_off_unless_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    observer, run_info = limits(), info()
    observer.sage_run_started(run_info)
    monkeypatch.setattr("time.monotonic", lambda: 1e9)
    observer.sage_step_finished(run_info, "round 1", torch.tensor(float("nan")))
    assert observer.sage_control(run_info, 1) is None


def test_the_time_of_earlier_processes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    observer, run_info = limits(max_seconds=100), info(30.0, 40.0)
    observer.sage_run_started(run_info)
    now[0] += 29
    assert observer.sage_control(run_info, 7) is None
    now[0] += 1
    assert observer.sage_control(run_info, 8) == Control(stop="100 s are over, of 100 (max_seconds)")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_found_within_so_many_steps(bad: float) -> None:
    observer, run_info = limits(finite_loss=True, every_steps=4), info()
    observer.sage_run_started(run_info)
    answers = []
    for step in range(1, 9):
        observer.sage_step_finished(run_info, "warm-up", torch.tensor(float("nan")))  # another activity
        observer.sage_step_finished(run_info, "round 1", torch.tensor(bad if step == 6 else 0.5))
        answers.append(observer.sage_control(run_info, step))
    assert answers[:7] == [None] * 7
    assert answers[7].stop.startswith("the loss is not finite after 8 steps (finite_loss): lower learning_rate")


def test_a_diverging_run_ends_with_its_reason(folder: Path, tiny_bert: Path) -> None:
    _, summary = toy_run(
        folder, tiny_bert, rounds=3, optimizer="sgd", learning_rate=1e15, max_grad_norm=0.0, schedule="none",
        observers=["limits"], observer_options={"limits": {"finite_loss": True, "every_steps": 2}},
    )  # fmt: skip
    assert summary["stopped"].startswith("the loss is not finite after ")
    assert summary["student_steps"] < summary["planned_steps"]
