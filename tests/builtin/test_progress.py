"""Observer `progress`: plain lines with a clock of our own, and bars on a real pseudo-terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sage_kit.builtin.observers import progress
from sage_kit.components.records import RoundResult, RunInfo
from sage_kit.config import RunConfig

RESULT = RoundResult(
    round=2, steps=57, total_steps=114, train_loss=0.12345, train_agreement=0.9, synthetic_loss=0.2, synthetic=1000,
    dropped=12, dev={"agreement": 0.91234, "accuracy": 0.845, "f1": 0.8}, validation={}, seconds=35.24, padding=0.01,
)  # fmt: skip

RUN = RunInfo(
    directory=Path("runs") / "x", config=RunConfig(), examples={"train": 1800, "dev": 200},
    parameters={"student": 12_345_678, "student_trained": 1, "teacher": 2}, primary_metric="accuracy",
)  # fmt: skip


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Loss:
    """Counts how often it is read."""

    value: float
    reads: int = 0

    def __float__(self) -> float:
        self.reads += 1
        return self.value


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


def steps(observer: Any, clock: Clock, activity: str, total: int, seconds: float, loss: Any = None) -> None:
    """All steps of an activity, each taking so many seconds."""
    for done in range(1, total + 1):
        observer.sage_step_finished(activity, done, total, loss)
        clock.now += seconds


def test_an_activity_has_a_first_a_last_and_few_lines_between(
    build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(build("observer", "progress"), clock, "train", 301, 0.125, Loss(0.5))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train: 9/301, loss 0.5000, 0:00:36 left",
        "train: 89/301, loss 0.5000, 0:00:26 left",
        "train: 169/301, loss 0.5000, 0:00:16 left",
        "train: 249/301, loss 0.5000, 0:00:06 left",
        "train: 301/301 done in 37.5 s, loss 0.5000",
    ]


def test_the_loss_is_read_only_to_be_shown(build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    loss = Loss(0.25)
    observer = build("observer", "progress", {"interval": 5})
    steps(observer, clock, "train", 2001, 0.01, loss)
    # first line, 3 in between, the last
    assert loss.reads == len(capsys.readouterr().err.splitlines()) == 5


def test_the_loss_is_read_twice_a_second_at_most(build: Any, clock: Clock) -> None:
    loss = Loss(0.25)
    steps(build("observer", "progress", {"interval": 0.001}), clock, "train", 1001, 0.01, loss)
    assert 15 <= loss.reads <= 20


def test_short_activities_say_nothing(build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    observer = build("observer", "progress")
    steps(observer, clock, "evaluate", 9, 0.1)
    steps(observer, clock, "labels", 1, 0.1)
    assert capsys.readouterr() == ("", "")


def test_an_activity_ends_when_another_begins(build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    observer = build("observer", "progress")
    for done in (1, 2, 3):
        observer.sage_step_finished("train", done, 5, Loss(1.0))
        clock.now += 2
    observer.sage_step_finished("evaluate", 1, 2, None)
    assert capsys.readouterr().err.splitlines() == [
        "train: 2/5, loss 1.0000, 0:00:06 left",
        "train: 3/5 done in 6.0 s, loss 1.0000",
    ]


def test_a_loss_is_not_carried_into_the_next_activity(
    build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = build("observer", "progress")
    steps(observer, clock, "train", 2, 2, Loss(1.0))
    steps(observer, clock, "evaluate", 3, 2)
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "evaluate: 2/3, 0:00:02 left",
        "evaluate: 3/3 done in 4.0 s",
    ]


def test_the_run_told_in_lines(build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    observer = build("observer", "progress")
    observer.sage_message("teacher found in the cache [bold]")
    observer.sage_run_started(RUN)
    observer.sage_round_finished(RUN, RESULT)
    observer.sage_round_finished(RUN, replace(RESULT, dropped=0, synthetic=0, synthetic_loss=float("nan")))
    observer.sage_run_started(replace(RUN, history=(RESULT,)))
    observer.sage_run_finished(RUN, {"stopped": "2 rounds done"})
    out, err = capsys.readouterr()
    started = f"run {Path('runs') / 'x'}: examples: 1800 train, 200 dev; student: 12.3 M parameters"
    assert out == ""
    assert err.splitlines() == [
        "teacher found in the cache [bold]",
        started,
        "round 2: 57 steps, loss 0.1235, synthetic loss 0.2000, agreement 0.9123 (dev), accuracy 0.8450 (dev), "
        "1000 synthetic (12 dropped), 35.2 s",
        "round 2: 57 steps, loss 0.1235, agreement 0.9123 (dev), accuracy 0.8450 (dev), 0 synthetic, 35.2 s",
        f"{started}; resumed after round 2",
        "finished: 2 rounds done",
    ]


def lines_of_round(observer: Any, clock: Clock, capsys: pytest.CaptureFixture[str], number: int, total: int) -> str:
    """The first line of a round whose steps take a second each."""
    capsys.readouterr()
    for done in (1, 2, 3):
        observer.sage_step_finished(f"round {number}", done, total, None)
        clock.now += 1
    return capsys.readouterr().err.splitlines()[-1]


def test_the_time_left_of_round_and_run(build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    observer = build("observer", "progress")
    observer.sage_run_started(RUN)
    # 55 s of this round; each of four more has the 57 steps of real examples and as many of synthetic ones
    assert lines_of_round(observer, clock, capsys, 1, 57) == "round 1: 2/57, 0:00:55 left, of the run 0:08:31"
    observer.sage_round_finished(RUN, replace(RESULT, round=1, steps=57, seconds=114.0))
    # with all else of a round a step took 2 s
    assert lines_of_round(observer, clock, capsys, 2, 114) == "round 2: 2/114, 0:01:52 left, of the run 0:13:16"
    observer.sage_round_finished(RUN, replace(RESULT, steps=114))
    assert lines_of_round(observer, clock, capsys, 5, 114) == "round 5: 2/114, 0:01:52 left, of the run 0:01:52"
    # what is no round says nothing of the run
    assert lines_of_round(observer, clock, capsys, 5, 114).count("of the run") == 1
    steps(observer, clock, "warm-up", 4, 1.0)
    assert "of the run" not in capsys.readouterr().err


def test_the_time_left_where_steps_are_limited_or_nothing_is_synthesised(
    build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = build("observer", "progress")
    observer.sage_run_started(replace(RUN, config=RunConfig(max_steps=300), history=(RESULT,)))  # 114 steps are done
    assert "of the run 0:03:04" in lines_of_round(observer, clock, capsys, 3, 57)  # 55 s, and 129 steps more
    plain = build("observer", "progress")
    plain.sage_run_started(replace(RUN, config=RunConfig(schedule="none")))
    assert lines_of_round(plain, clock, capsys, 1, 57) == "round 1: 2/57, 0:00:55 left, of the run 0:04:43"


@pytest.mark.parametrize(("level", "is_shown"), [("NOTSET", True), ("INFO", True), ("WARNING", False)])
def test_a_program_that_wants_warnings_alone_gets_no_progress(
    build: Any, clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, level: str,
    is_shown: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(logging.getLogger("sage_kit"), "level", getattr(logging, level))
    observer, loss = build("observer", "progress"), Loss(1.0)
    observer.sage_message("said")
    steps(observer, clock, "train", 9, 1.0, loss)
    observer.sage_round_finished(RUN, RESULT)
    observer.sage_run_finished(RUN, {})
    observer.sage_run_failed()
    assert bool(capsys.readouterr().err) is bool(loss.reads) is is_shown


def test_a_failed_run_leaves_the_word_to_the_error(
    build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = build("observer", "progress")
    observer.sage_step_finished("train", 1, 5, None)
    clock.now += 100
    observer.sage_run_failed()
    assert capsys.readouterr() == ("", "")


def test_it_hears_the_hooks(plugins: Any, build: Any, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plugins.add_observer("progress", build("observer", "progress"))
    try:
        plugins.message(None, "hello")
        plugins.step_finished(None, "teacher", 1, 2, Loss(1.0))
        clock.now += 3
        plugins.step_finished(None, "teacher", 2, 2, Loss(1.0))
        plugins.round_finished(RUN, RESULT)
        plugins.checkpoint_saved(RUN, 2, Path("x"))
        plugins.run_failed(RUN, ValueError("no"))
        assert plugins.disabled == {}
    finally:
        plugins.remove_observers()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["hello", "teacher: 2/2 done in 3.0 s, loss 1.0000"]
    assert len(lines) == 3


HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def on_terminal(program: str, tmp_path: Path) -> tuple[str, str, int]:
    """Run a program whose error output is a pseudo-terminal: what it wrote there, its standard output, its code."""
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PREAMBLE) + textwrap.dedent(program), "utf-8")
    main, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=secondary,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150"},
        text=True,
    )
    os.close(secondary)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    out, _ = process.communicate(timeout=60)
    return shown.decode(), out, process.returncode


PREAMBLE = """
    import time
    from sage_kit.builtin.observers import ProgressOptions
    from sage_kit.builtin.observers.progress import ProgressObserver
    observer = ProgressObserver(ProgressOptions(), None)
    def steps(upto):
        for done in range(1, upto + 1):
            observer.sage_step_finished("train", done, 4, 0.25)
            time.sleep(0.05)
"""


def test_bars_on_a_terminal(tmp_path: Path) -> None:
    shown, out, code = on_terminal(
        """
        observer.sage_message("before [b]")
        steps(3)
        observer.sage_message("in between")
        observer.sage_step_finished("train", 4, 4, 0.25)
        observer.sage_run_finished(None, {"stopped": "enough"})
        print("result")
        """,
        tmp_path,
    )
    assert code == 0
    assert out == "result\n"
    for text in ("before [b]", "in between", "finished: enough", "train", "1/4", "loss 0.2500"):
        assert text in shown
    assert shown.count(HIDE) == shown.count(SHOW) == 1
    assert shown.index(SHOW) < shown.index("finished: enough")


@pytest.mark.parametrize("ending", ["observer.sage_run_failed()", "raise SystemExit(2)"])
def test_the_terminal_is_given_back_whatever_happens(tmp_path: Path, ending: str) -> None:
    shown, _, _ = on_terminal(f"steps(2)\n{ending}\n", tmp_path)
    assert shown.count(HIDE) == shown.count(SHOW) == 1
    assert shown.rindex(SHOW) > shown.rindex("2/4")


def test_plain_lines_can_be_asked_for_on_a_terminal(tmp_path: Path) -> None:
    shown, _, _ = on_terminal(
        """
        observer = ProgressObserver(ProgressOptions(plain=True), None)
        steps(4)
        observer.sage_message("said")
        """,
        tmp_path,
    )
    assert shown.splitlines() == ["said"]
