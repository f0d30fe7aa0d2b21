"""What a component changes beside its result is caught by the check that is meant for it, and put back."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sage_kit import hookimpl
from sage_kit.components import FilterSpec, ObserverSpec
from sage_kit.testing.registry import CheckResult
from sage_kit.testing.run_checks import checks_for
from sage_kit.testing.subject import Subject
from sage_kit.testing.surroundings import ASPECTS, look_for_pools


def outcome(spec: Any, name: str) -> CheckResult:
    """The result of one check."""
    (check,) = (check for check in checks_for(spec.kind) if check.name == name)
    return check.result(Subject(spec))


def keeping(effect: Callable[[], object]) -> FilterSpec:
    """A filter that does something else, too."""

    class Keep:
        def __init__(self, options: Any, context: Any) -> None:
            pass

        def keep(self, request: Any) -> Any:
            effect()
            return np.ones(len(request.vectors), dtype=bool)

    return FilterSpec(name="busy", summary="Keeps all", factory=Keep)


def _warn() -> None:
    warnings.warn("a library's own", UserWarning, stacklevel=1)


def _thread() -> None:
    threading.Thread(target=time.sleep, args=(1.5,), name="busy-thread", daemon=True).start()


def _log() -> None:
    logging.getLogger("busy").warning("told as it should be")


EFFECTS: list[tuple[Callable[[], object], str, str]] = [
    (lambda: torch.set_default_dtype(torch.float64), "leaves_torch_as_it_was", "from torch.float32 to torch.float64"),
    (lambda: torch.set_num_threads(torch.get_num_threads() + 1), "leaves_torch_as_it_was", "torch's number of threads"),
    (lambda: torch.set_grad_enabled(False), "leaves_torch_as_it_was", "torch's gradients from True to False"),
    (lambda: np.seterr(all="ignore"), "leaves_numpy_as_it_was", "handling of floating-point errors"),
    (lambda: np.set_printoptions(precision=2), "leaves_numpy_as_it_was", "numpy's print options"),
    (lambda: os.chdir("/"), "leaves_the_working_directory", "changes the working directory"),
    (lambda: Path("cache.bin").write_bytes(b"x"), "leaves_the_working_directory", "leaves the file 'cache.bin'"),
    (lambda: Path("notes.txt").unlink(missing_ok=True), "leaves_the_working_directory", "removes 'notes.txt'"),
    (lambda: os.environ.update(BUSY="1"), "leaves_the_environment", "sets BUSY"),
    (lambda: os.environ.pop("PATH", None), "leaves_the_environment", "changes PATH"),
    (lambda: logging.root.addHandler(logging.NullHandler()), "leaves_logging_as_it_was", "handlers of the root logger"),
    (lambda: logging.getLogger("sage_kit_busy").setLevel(50), "leaves_logging_as_it_was", "logger 'sage_kit_busy'"),
    (lambda: logging.disable(50), "leaves_logging_as_it_was", "changes logging.disable"),
    (lambda: warnings.simplefilter("ignore"), "leaves_warnings_as_they_were", "the filters of warnings"),
    (random.random, "leaves_random_states", "changes random"),
    (lambda: np.random.seed(0), "leaves_random_states", "changes numpy"),
    (lambda: torch.manual_seed(0), "leaves_random_states", "changes torch"),
    (lambda: print("hello"), "prints_nothing", "prints 'hello'"),
    (lambda: sys.stderr.write("bar"), "prints_nothing", "prints 'bar'"),
    (lambda: os.write(1, b"from compiled code"), "prints_nothing", "prints 'from compiled code'"),
    (_thread, "leaves_no_threads", "leaves the thread 'busy-thread' running"),
    (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "leaves_the_interpreter", "the handler of SIGTERM"),
    (lambda: sys.setrecursionlimit(5000), "leaves_the_interpreter", "the recursion limit from"),
    (lambda: socket.setdefaulttimeout(5), "leaves_the_interpreter", "the default timeout of sockets"),
    (gc.disable, "leaves_the_interpreter", "the garbage collector from True to False"),
]


def test_what_libraries_set_when_they_are_imported_is_not_the_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a component's module is the first to import scikit-learn."""
    for name in ("KMP_INIT_AT_FORK", "LRU_CACHE_CAPACITY"):
        monkeypatch.delenv(name, raising=False)

    def effect() -> None:
        os.environ.update(KMP_INIT_AT_FORK="FALSE", LRU_CACHE_CAPACITY="64")

    assert outcome(keeping(effect), "leaves_the_environment").passed


@pytest.mark.parametrize(("effect", "check", "message"), EFFECTS, ids=[message for _, _, message in EFFECTS])
def test_a_side_effect_is_told_and_put_back(effect: Callable[[], object], check: str, message: str) -> None:
    logging.getLogger("sage_kit_busy")
    look_for_pools()
    before = {name: aspect.read() for name, aspect in ASPECTS.items()}
    result = outcome(keeping(effect), check)
    assert not result.passed
    assert "filter 'busy': keep() with 96 rows" in result.message
    assert message in result.message
    assert "To fix: " in result.message
    for name, aspect in ASPECTS.items():
        after = aspect.read()
        assert {key: after.get(key) for key in before[name]} == before[name]  # an import may bring loggers of its own
    assert "BUSY" not in os.environ


@pytest.mark.parametrize("check", sorted({check for _, check, _ in EFFECTS}))
@pytest.mark.parametrize("effect", [_log, _warn], ids=["logs", "warns"])
def test_logging_and_warning_are_no_side_effects(effect: Callable[[], object], check: str) -> None:
    if effect is _warn:
        warnings.simplefilter("ignore", UserWarning)  # pytest puts it back
    assert outcome(keeping(effect), check).passed


def test_what_a_factory_does_is_told() -> None:
    def factory(options: Any, context: Any) -> Any:
        np.seterr(all="ignore")
        object.__setattr__(context.config, "seed", 99)
        return keeping(lambda: None).factory(options, context)

    spec = FilterSpec(name="busy", summary="Keeps all", factory=factory)
    assert "its factory changes numpy's handling" in outcome(spec, "leaves_numpy_as_it_was").message
    assert "it changes the settings seed" in outcome(spec, "keeps_the_configuration").message


class Watcher:
    """Sets logging up for a run and takes it down again, which is right, and prints, which is its business."""

    def __init__(self, options: Any, context: Any) -> None:
        self.handler = logging.NullHandler()

    @hookimpl
    def sage_run_started(self) -> None:
        print("a run begins")
        logging.root.addHandler(self.handler)

    @hookimpl
    def sage_run_finished(self) -> None:
        logging.root.removeHandler(self.handler)


class Forgetful(Watcher):
    @hookimpl
    def sage_run_finished(self) -> None:
        os.environ["LAST_RUN"] = "done"


def test_an_observer_is_looked_at_over_a_whole_run() -> None:
    sound = ObserverSpec(name="sound", summary="Sound", factory=Watcher)
    assert outcome(sound, "leaves_logging_as_it_was").passed
    forgetful = ObserverSpec(name="forgetful", summary="Forgetful", factory=Forgetful)
    assert "handlers of the root logger" in outcome(forgetful, "leaves_logging_as_it_was").message
    assert "sets LAST_RUN" in outcome(forgetful, "leaves_the_environment").message
