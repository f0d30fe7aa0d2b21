"""Observers: what they get, and what becomes of a run when one fails."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pluginsources import Install

from sage_kit import hookimpl
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs, RoundResult, RunInfo
from sage_kit.config import RunConfig
from sage_kit.errors import (
    PluginError,
    SageError,
)


class Recorder:
    """Notes what it hears, each hook with another subset of its parameters."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    @hookimpl
    def sage_run_started(self) -> None:
        self.heard.append("started")

    @hookimpl
    def sage_step_finished(self, total: int, activity: str) -> None:
        self.heard.append((activity, total))

    @hookimpl
    def sage_round_finished(self, result: Any, run: Any) -> None:
        self.heard.append((run, result))

    @hookimpl
    def sage_message(self, text: str, run: Any = "default") -> None:
        self.heard.append((text, run))


class Failing:
    """Raises whenever it hears one of two hooks."""

    calls = 0

    @hookimpl
    def sage_round_started(self, round: int) -> None:
        self.calls += 1
        raise RuntimeError(f"bad\nround {round}")

    @hookimpl
    def sage_message(self, text: str) -> None:
        self.calls += 1
        raise RuntimeError("mute")


RUN: Any = SimpleNamespace(name="run")


def test_observers_get_the_parameters_they_ask_for() -> None:
    plugins, recorder = Plugins(allow=""), Recorder()
    plugins.add_observer("recorder", recorder)
    plugins.run_started(RUN)
    plugins.step_finished(RUN, "train", 1, 9)
    plugins.round_finished(RUN, "result")  # type: ignore[arg-type]
    plugins.message(RUN, "text")
    # A parameter with a default is not a hook's parameter, as in pluggy.
    assert recorder.heard == ["started", ("train", 9), (RUN, "result"), ("text", "default")]


def test_failing_observer_is_disabled_reported_once_and_recorded() -> None:
    plugins, failing, recorder = Plugins(allow=""), Failing(), Recorder()
    plugins.add_observer("failing", failing)
    plugins.add_observer("recorder", recorder)
    plugins.round_started(RUN, 1)
    plugins.round_started(RUN, 2)
    plugins.message(RUN, "still here")
    cause = plugins.disabled["observer:failing"]
    assert re.fullmatch(rf"sage_round_started raised RuntimeError: bad round 1 at {re.escape(__file__)}:\d+", cause)
    assert [text for text, _ in recorder.heard] == [f"observer:failing is disabled: {cause}", "still here"]
    assert failing.calls == 1


def test_observer_that_fails_on_a_message_is_reported_to_the_others() -> None:
    plugins, recorder = Plugins(allow=""), Recorder()
    plugins.add_observer("failing", Failing())
    plugins.add_observer("also_failing", Failing())
    plugins.add_observer("recorder", recorder)
    plugins.message(None, "hello")
    assert set(plugins.disabled) == {"observer:failing", "observer:also_failing"}
    assert sorted(text.split()[0] for text, _ in recorder.heard) == [
        "hello",
        "observer:also_failing",
        "observer:failing",
    ]


@pytest.mark.parametrize("error", [SystemExit(4), KeyboardInterrupt(), GeneratorExit(), SageError("no"), Exception()])
def test_whatever_an_observer_raises_disables_it_alone(error: BaseException) -> None:
    class Leaving:
        @hookimpl
        def sage_round_started(self) -> None:
            raise error

    plugins, recorder, told = Plugins(allow=""), Recorder(), []
    plugins.record_disabled = lambda name, cause: told.append((name, cause))
    plugins.add_observer("leaving", Leaving())
    plugins.add_observer("recorder", recorder)
    plugins.round_started(RUN, 1)
    plugins.round_started(RUN, 2)
    (cause,) = plugins.disabled.values()
    assert cause.startswith(f"sage_round_started raised {type(error).__name__}")
    assert re.search(rf" at {re.escape(__file__)}:\d+$", cause)
    assert told == [("observer:leaving", cause)]
    assert recorder.heard == [(f"observer:leaving is disabled: {cause}", "default")]


def test_the_persons_own_interruption_is_not_swallowed() -> None:
    class Slow:
        @hookimpl
        def sage_message(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    plugins = Plugins(allow="")
    plugins.add_observer("slow", Slow())
    with pytest.raises(KeyboardInterrupt):
        plugins.message(None, "hello")
    assert plugins.disabled == {}


def test_an_observer_can_change_nothing_of_a_run(tmp_path: Path) -> None:
    class Meddler:
        @hookimpl
        def sage_round_finished(self, run: RunInfo, result: RoundResult) -> None:
            changes: list[Callable[[], Any]] = [
                lambda: run.costs.add("teacher", 1.0),
                lambda: run.examples.__setitem__("train", 0),  # type: ignore[attr-defined]
                lambda: run.parameters.__setitem__("student", 0),  # type: ignore[attr-defined]
                lambda: result.dev.__setitem__("agreement", 1.0),  # type: ignore[attr-defined]
                lambda: result.validation["v"].__setitem__("agreement", 1.0),  # type: ignore[index]
                lambda: run.history[0].dev.clear(),  # type: ignore[attr-defined]
            ]
            for number, change in enumerate(changes):
                with pytest.raises(TypeError, match="read-only"):
                    change()
                done.append(number)
            kept.append(run.costs)

        @hookimpl
        def sage_losses_profiled(self, losses: Any) -> None:
            with pytest.raises(ValueError, match="WRITEABLE"):
                losses.flags.writeable = True
            kept.append(losses)

        @hookimpl
        def sage_run_finished(self, summary: dict[str, Any]) -> None:
            summary["validation"]["v"]["agreement"] = 1.0

    done: list[int] = []
    kept: list[Any] = []
    scores = {"agreement": 0.5}
    result = RoundResult(1, 2, 2, 0.1, 0.9, 0.1, 3, 0, scores, {"v": scores}, 1.0, 0.0)
    costs = Costs()
    costs.add("teacher", 2.0)
    run = RunInfo(tmp_path, RunConfig(), {"train": 3}, {"student": 4}, "accuracy", (result,), costs)
    plugins = Plugins(allow="")
    plugins.add_observer("meddler", Meddler())
    plugins.round_finished(run, result)
    assert (done, plugins.disabled) == (list(range(6)), {})
    losses = np.zeros(3, np.float32)
    plugins.losses_profiled(run, 1, losses)
    costs.add("teacher", 1.0)
    losses[:] = 1
    # neither grew behind its back
    assert kept[0].seconds == {"teacher": 2.0}
    assert kept[1].tolist() == [0, 0, 0]
    summary = {"validation": {"v": {"agreement": 0.5}}}
    plugins.run_finished(run, summary)
    assert (summary, plugins.disabled) == ({"validation": {"v": {"agreement": 0.5}}}, {})
    assert result.dev == scores


def test_observers_are_called_in_order_of_registration_save_those_that_ask_otherwise() -> None:
    heard: list[str] = []

    def observer(name: str, **marks: bool) -> object:
        class Observer:
            @hookimpl(**marks)  # type: ignore[call-overload]
            def sage_message(self) -> None:
                heard.append(name)

        return Observer()

    plugins = Plugins(allow="")
    plugins.add_observer("last", observer("last", trylast=True))
    plugins.add_observer("a", observer("a"))
    plugins.add_observer("b", observer("b"))
    plugins.add_observer("first", observer("first", tryfirst=True))
    plugins.message(None, "hello")
    assert heard == ["first", "a", "b", "last"]


def test_removed_observers_hear_nothing_and_may_come_again() -> None:
    plugins, recorder = Plugins(allow=""), Recorder()
    plugins.add_observer("recorder", recorder)
    plugins.add_observer("failing", Failing())
    plugins.message(None, "one")
    plugins.remove_observers()
    plugins.message(None, "two")
    assert plugins.disabled == {}
    assert "two" not in [text for text, _ in recorder.heard]
    plugins.add_observer("recorder", recorder)
    plugins.message(None, "three")
    assert recorder.heard[-1] == ("three", "default")


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("sage_round_ended", "unknown hook 'sage_round_ended'. Did you mean 'sage_round_"),
        ("", "implements no hook: decorate its functions with sage_kit.hookimpl"),
    ],
)
def test_observer_with_the_wrong_hooks_is_refused_and_left_out(hook: str, words: str) -> None:
    methods = {hook: hookimpl(lambda self: None)} if hook else {}
    plugins = Plugins(allow="")
    with pytest.raises(PluginError) as caught:
        plugins.add_observer("mine", type("Mine", (), methods)())
    assert str(caught.value).startswith("observer 'mine' implements ")
    assert words in str(caught.value)
    plugins.add_observer("mine", Recorder())


def test_observer_with_an_unknown_parameter_is_refused_and_left_out() -> None:
    class Mine(Recorder):
        @hookimpl
        def sage_run_failed(self, reason: str) -> None:
            """Asks for a parameter that the hook does not have."""

    plugins, mine = Plugins(allow=""), Mine()
    with pytest.raises(PluginError, match=r"observer 'mine': .*'reason'"):
        plugins.add_observer("mine", mine)
    plugins.message(None, "hello")
    assert mine.heard == []


def test_an_observer_that_is_none_at_all() -> None:
    plugins = Plugins(allow="")
    with pytest.raises(PluginError, match="observer 'one' is None, not an object with hooks"):
        plugins.add_observer("one", None)
    plugins.add_observer("one", Recorder())


def test_same_observer_twice() -> None:
    plugins = Plugins(allow="")
    plugins.add_observer("one", Recorder())
    with pytest.raises(PluginError, match="observer 'one' is registered already"):
        plugins.add_observer("one", Recorder())


def test_observing_hooks_of_an_installed_plugin_are_called_and_isolated(install: Install) -> None:
    module = install("@hookimpl\ndef sage_message(text):\n    raise ValueError(text)\n")
    plugins, recorder = Plugins(allow="acme"), Recorder()
    plugins.add_observer("recorder", recorder)
    plugins.message(None, "hello")
    file = sys.modules[module].__file__
    assert plugins.disabled == {"acme-sage:acme": f"sage_message raised ValueError: hello at {file}:7"}
    assert ("hello", "default") in recorder.heard
