"""Calls of plugin code: the plugin's own errors and the person's Ctrl-C are told apart, and errors have a place."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_kit.components.guard import Failure, attempt, cause_of, counting_interrupts, place_of, remember_home
from sage_kit.errors import ConfigError, PluginError


class Abrupt(BaseException):
    """No Exception."""


def raises(error: BaseException) -> Callable[[], Any]:
    def function() -> Any:
        raise error

    return function


def press() -> None:
    """What Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def handler() -> Iterator[Any]:
    """The handler of SIGINT before a test; it must be there again after it."""
    before = signal.getsignal(signal.SIGINT)
    yield before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Abrupt("a\nb"), ValueError("no"), StopIteration()]
)
def test_whatever_is_raised_becomes_a_failure(error: BaseException, handler: Any) -> None:
    with pytest.raises(Failure) as caught:
        attempt(raises(error))
    assert caught.value.error is error


def test_errors_of_sage_kit_pass_through(handler: Any) -> None:
    with pytest.raises(ConfigError, match="mine"):
        attempt(raises(ConfigError("mine")))


def test_the_result_is_returned(handler: Any) -> None:
    assert attempt(lambda a, b: a + b, 1, 2) == 3


def swallow() -> str:
    try:
        press()
        time.sleep(5)
    except BaseException:
        return "never mind"
    return "not pressed"


def exit_instead() -> None:
    try:
        press()
        time.sleep(5)
    except KeyboardInterrupt:
        sys.exit(0)


def wrap() -> None:
    try:
        press()
        time.sleep(5)
    except KeyboardInterrupt as error:
        raise ConfigError("it was interrupted") from error


@pytest.mark.parametrize("function", [press, swallow, exit_instead, wrap])
@pytest.mark.parametrize("nested", [False, True])
def test_the_persons_interruption_is_one_whatever_the_plugin_makes_of_it(
    function: Callable[[], Any], nested: bool, handler: Any
) -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(attempt, function) if nested else attempt(function)


def test_an_interruption_before_makes_no_later_error_one(handler: Any) -> None:
    with counting_interrupts():
        with pytest.raises(KeyboardInterrupt):
            attempt(press)
        with pytest.raises(Failure):
            attempt(raises(KeyboardInterrupt()))


@pytest.mark.parametrize("raised", [None, SystemExit(130), KeyboardInterrupt()])
def test_a_handler_of_the_users_own_decides(raised: BaseException | None) -> None:
    before = signal.getsignal(signal.SIGINT)

    def own(number: int, frame: Any) -> None:
        heard.append(number)
        if raised is not None:
            raise raised

    heard: list[int] = []
    signal.signal(signal.SIGINT, own)
    try:
        if raised is None:  # it ignores the signal on purpose, as workers do whose parent hears it too
            attempt(press)
        else:
            with pytest.raises(type(raised)) as caught:
                attempt(press)
            assert caught.value is raised
        assert heard == [signal.SIGINT]
        with pytest.raises(Failure):
            attempt(raises(KeyboardInterrupt()))
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process can send to itself")
def test_what_the_users_handler_of_another_signal_raises_is_not_the_plugins() -> None:
    def leave(number: int, frame: Any) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit, match="143"):
            attempt(os.kill, os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_an_interruption_is_the_plugins_own(handler: Any) -> None:
    found: list[BaseException] = []

    def work() -> None:
        try:
            attempt(raises(KeyboardInterrupt()))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in found] == [Failure]


def test_signals_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        attempt(press)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_the_plugin_sets_stays_its_own_doing() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        attempt(signal.signal, signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# ---- places


def loaded(path: Path, source: str) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    names: dict[str, Any] = {"__name__": path.stem}
    exec(compile(source, str(path), "exec"), names)
    return names


def failure_of(function: Callable[..., Any], *arguments: Any) -> BaseException:
    with pytest.raises(Failure) as caught:
        attempt(function, *arguments)
    return caught.value.error


def test_the_place_is_the_innermost_line_of_the_plugin_not_of_its_library(tmp_path: Path) -> None:
    source = "import json\ndef outer(text):\n    return inner(text)\ndef inner(text):\n    return json.loads(text)\n"
    names = loaded(tmp_path / "mine.py", source)
    remember_home(functions=[names["outer"]])
    assert place_of(failure_of(names["outer"], "{")) == f"{tmp_path / 'mine.py'}:5"


def test_a_plugins_helper_beside_sage_kit_counts_and_a_strangers_does_not(tmp_path: Path) -> None:
    mine = loaded(tmp_path / "mine.py", "def call(function):\n    return function()\n")
    theirs = loaded(tmp_path / "theirs.py", "def fail():\n    return 1 / 0\n")
    error = failure_of(mine["call"], theirs["fail"])
    assert place_of(error) == ""
    remember_home(functions=[mine["call"]])
    assert place_of(error) == f"{tmp_path / 'mine.py'}:2"
    remember_home(file=str(tmp_path / "theirs.py"))
    assert place_of(error) == f"{tmp_path / 'theirs.py'}:2"


def test_every_module_of_a_plugins_package_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "acme_place_test"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "work.py").write_text("def fail():\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    work = import_module("acme_place_test.deep.work")
    error = failure_of(work.fail)
    remember_home(module="acme_place_test.deep")
    assert place_of(error) == f"{package / 'deep' / 'work.py'}:2"


def test_a_method_that_takes_other_arguments_is_found_by_where_it_is_defined(tmp_path: Path) -> None:
    source = "class Mine:\n    def fit(self):\n        pass\n    def __init__(self, options):\n        pass\n"
    names = loaded(tmp_path / "mine.py", source)
    method = names["Mine"](1).fit
    remember_home(functions=[method])
    assert place_of(failure_of(method, 1, 2), method) == f"{tmp_path / 'mine.py'}:2"
    assert place_of(failure_of(names["Mine"]), names["Mine"]) == f"{tmp_path / 'mine.py'}:4"


def test_a_syntax_error_has_its_own_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("x = 1\ny = (\n")
    error = failure_of(compile, path.read_text(), str(path), "exec")
    assert place_of(error) == f"{path}:2"


def test_a_built_in_has_a_place_too() -> None:
    import numpy as np

    from sage_kit.builtin.reducers.identity import IdentityReducer

    error = failure_of(IdentityReducer.fit_transform, object(), np.zeros((2, 2)))
    assert f"{os.sep}builtin{os.sep}reducers{os.sep}identity.py:" in place_of(error)


def test_an_error_that_cannot_be_printed_is_still_named() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert cause_of(Mute()) == "Mute"
    assert cause_of(failure_of(raises(Mute()))) == "Mute"


def test_a_plugin_error_with_a_place_survives_a_pickle() -> None:
    error = pickle.loads(pickle.dumps(PluginError("reducer 'mine' failed", "mine.py:3")))
    assert (str(error), error.place) == ("reducer 'mine' failed at mine.py:3", "mine.py:3")


def test_the_number_of_torchs_threads_is_kept_whatever_plugin_code_does() -> None:
    import torch

    before = torch.get_num_threads()

    def sets_threads(then_raises: bool) -> int:
        torch.set_num_threads(before + 1)
        if then_raises:
            raise ValueError("after all")
        return torch.get_num_threads()

    assert attempt(sets_threads, False) == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(Failure):
        attempt(sets_threads, True)
    assert torch.get_num_threads() == before
