"""What a component shares with the rest of its process and must leave as it was: read, compared, put back."""

from __future__ import annotations

import ctypes
import decimal
import gc
import io
import locale
import logging
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich.style  # noqa: F401 - it draws a number when it is imported, which would be blamed on a component
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped, unused-ignore]

from sage_kit.system.product_caches import VARIABLES

State = dict[str, Any]

PATIENCE = 0.5  # seconds that a thread may take to end after the call that started it
LONGEST = 60  # characters of a value that a message shows

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE")

NOT_BY_COMPONENTS = frozenset({"PYTEST_CURRENT_TEST", "KMP_INIT_AT_FORK", *VARIABLES})
"""Variables that pytest, scikit-learn when it is imported, and the core set for themselves."""

POOLS_OF_OTHERS = ("concurrent.futures", "joblib", "multiprocessing", "tqdm")
"""Libraries whose threads wait for the next piece of work."""


@dataclass(frozen=True)
class Aspect:
    """One kind of shared state."""

    read: Callable[[], State]  # the state, by name
    restore: Callable[[State], None]  # puts a state back that `read` returned
    shows_values: bool = True  # whether a message says from what to what a state was changed


Setting = tuple[Callable[[], Any], Callable[[Any], Any]]  # what reads it, and what sets it


def _of(settings: Callable[[], Mapping[str, Setting]], shows_values: bool = True) -> Aspect:
    """The aspect of some settings by name."""

    def read() -> State:
        return {name: get() for name, (get, _) in settings().items()}

    def restore(state: State) -> None:
        for name, (get, put) in settings().items():
            if name in state and get() != state[name]:
                put(state[name])

    return Aspect(read, restore, shows_values)


def _attribute(owner: Any, name: str) -> Setting:
    """An attribute as a setting; a list is copied and filled again."""

    def get() -> Any:
        value = getattr(owner, name)
        return list(value) if isinstance(value, list) else value

    def put(value: Any) -> None:
        if isinstance(value, list):
            getattr(owner, name)[:] = value
        else:
            setattr(owner, name, value)

    return get, put


_POOLS: list[ThreadpoolController] = []


def look_for_pools() -> None:
    """Find the libraries that are loaded by now and have threads of their own (BLAS, OpenMP)."""
    _POOLS[:] = [ThreadpoolController()]


def _torch() -> dict[str, Setting]:
    import torch

    if not _POOLS:
        look_for_pools()
    pools = {Path(pool.filepath).name: pool for pool in _POOLS[0].lib_controllers}
    return {
        "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
        "torch's gradients": (torch.is_grad_enabled, torch.set_grad_enabled),
        "torch's default device": (lambda: str(torch.get_default_device()), torch.set_default_device),
        "torch's deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        "torch's matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        "torch's anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        **{f"the threads of {name}": (pool.get_num_threads, pool.set_num_threads) for name, pool in pools.items()},
    }  # fmt: skip


def _numpy() -> dict[str, Setting]:
    return {
        "numpy's handling of floating-point errors": (lambda: dict(np.geterr()), lambda value: np.seterr(**value)),
        "numpy's error callback": (np.geterrcall, np.seterrcall),
        "numpy's print options": (np.get_printoptions, lambda value: np.set_printoptions(**value)),
    }


def _read_directory() -> State:
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return {"the working directory": None, "files": {}}
    # an ordinary working directory may hold anything; the one that the checks make is small
    files = {}
    for folder, _, names in os.walk(here) if here.name.startswith(WORKSPACE) else ():
        for name in names:
            path = Path(folder) / name
            with suppress(OSError):
                files[str(path.relative_to(here))] = (path.stat().st_size, path.stat().st_mtime_ns)
    return {"the working directory": here, "files": files}


def _restore_directory(state: State) -> None:
    here = state["the working directory"]
    if here is None:
        return
    os.chdir(here)
    for name in _read_directory()["files"]:
        if name not in state["files"]:
            (here / name).unlink()


def _read_environment() -> State:
    return {name: value for name, value in os.environ.items() if name not in NOT_BY_COMPONENTS}


def _restore_environment(state: State) -> None:
    for name in _read_environment():
        if name not in state:
            del os.environ[name]
    for name, value in state.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


class _Logger(NamedTuple):
    """How a logger is set, in one value: a process has hundreds of loggers, all read before and after each check."""

    level: int
    handlers: tuple[Any, ...]
    filters: tuple[Any, ...]
    disabled: bool
    propagate: bool


LOGGER_WORDS = (
    "the level of {}", "the handlers of {}", "the filters of {}", "whether {} is disabled", "whether {} propagates",
)  # fmt: skip
"""What messages call the fields of `_Logger`."""


def _loggers() -> Iterator[tuple[str, logging.Logger]]:
    yield "the root logger", logging.root
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            yield f"logger {name!r}", logger


def _settings_of(logger: logging.Logger) -> _Logger:
    return _Logger(logger.level, (*logger.handlers,), (*logger.filters,), logger.disabled, logger.propagate)


def _read_logging() -> State:
    settings = {name: _settings_of(logger) for name, logger in _loggers()}
    return {"logging.disable": logging.root.manager.disable, **settings}


def _restore_logging(state: State) -> None:
    logging.disable(state["logging.disable"])
    for name, logger in _loggers():
        if name in state and _settings_of(logger) != state[name]:
            level, logger.handlers[:], logger.filters[:], logger.disabled, logger.propagate = state[name]
            logger.setLevel(level)  # also tells the module's cache


def _warnings() -> dict[str, Setting]:
    def put(filters: list[Any]) -> None:
        warnings.resetwarnings()  # also tells the module's cache
        warnings.filters[:] = filters  # type: ignore[index]

    return {
        "the filters of warnings": (lambda: list(warnings.filters), put),
        "warnings.showwarning": _attribute(warnings, "showwarning"),
    }


def _read_random() -> State:
    import torch

    return {
        "random": random.getstate(),
        "numpy": [part.tolist() if hasattr(part, "tolist") else part for part in np.random.get_state()],
        "torch": torch.random.get_rng_state().numpy().tobytes(),
    }


def _restore_random(state: State) -> None:
    import torch

    random.setstate(state["random"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.random.set_rng_state(torch.frombuffer(bytearray(state["torch"]), dtype=torch.uint8))


@contextmanager
def disturbed(seed: int) -> Iterator[None]:
    """Other states of the global random generators, as another process would have; put back afterwards."""
    import torch

    before = _read_random()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        _restore_random(before)


def _interpreter() -> dict[str, Setting]:
    numbers = {name: getattr(signal, name) for name in SIGNALS if hasattr(signal, name)}
    return {
        "the recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
        "the switch interval": (sys.getswitchinterval, sys.setswitchinterval),
        "the garbage collector": (gc.isenabled, lambda on: (gc.enable if on else gc.disable)()),
        "the locale": (partial(locale.setlocale, locale.LC_ALL), partial(locale.setlocale, locale.LC_ALL)),
        "the default timeout of sockets": (socket.getdefaulttimeout, socket.setdefaulttimeout),
        "sys.excepthook": _attribute(sys, "excepthook"),
        "threading.excepthook": _attribute(threading, "excepthook"),
        "the precision of decimals": _attribute(decimal.getcontext(), "prec"),
        **{f"the handler of {name}": (partial(signal.getsignal, number), partial(_handle, number))
           for name, number in numbers.items()},
    }  # fmt: skip


def _handle(number: int, handler: Any) -> None:
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(number, handler)


ASPECTS: Mapping[str, Aspect] = {
    "torch": _of(_torch),
    "numpy": _of(_numpy),
    "directory": Aspect(_read_directory, _restore_directory),
    "environment": Aspect(_read_environment, _restore_environment, shows_values=False),
    "logging": Aspect(_read_logging, _restore_logging, shows_values=False),
    "warnings": _of(_warnings, shows_values=False),
    "random": Aspect(_read_random, _restore_random, shows_values=False),
    "interpreter": _of(_interpreter),
}


def _differences(aspect: Aspect, before: State, after: State) -> list[str]:
    """What has changed, in words."""
    found = []
    for name, value in before.items():
        if name == "files":
            found += _file_differences(value, after[name])
        elif isinstance(value, _Logger):
            pairs = zip(LOGGER_WORDS, value, after.get(name, (None,) * len(value)), strict=True)
            found += [f"changes {words.format(name)}" for words, one, two in pairs if one != two]
        elif after.get(name) != value:
            values = f" from {_short(value)} to {_short(after.get(name))}" if aspect.shows_values else ""
            found.append(f"changes {name}{values}")
    if aspect is ASPECTS["environment"]:
        found += [f"sets {name}" for name in after if name not in before]
    return found


def _file_differences(before: State, after: State) -> list[str]:
    words = {True: "removes", False: "changes"}
    found = [f"{words[name not in after]} {name!r}" for name in before if after.get(name) != before[name]]
    return found + [f"leaves the file {name!r}" for name in after if name not in before]


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


WORKSPACE = "sage-kit-check-work-"


@contextmanager
def workspace() -> Iterator[Path]:
    """A working directory with one file, of the block's own."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix=WORKSPACE) as folder:
        (Path(folder) / "notes.txt").write_text("yours\n", encoding="utf-8")
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(here)


@contextmanager
def preserved() -> Iterator[None]:
    """Put everything back at the end, so that one check leaves nothing to the next."""
    before = {name: aspect.read() for name, aspect in ASPECTS.items()}
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name, aspect in ASPECTS.items():
            if aspect.read() != before[name]:
                aspect.restore(before[name])


@contextmanager
def watched(found: dict[str, list[str]], what: str) -> Iterator[None]:
    """Note what a block changes, by aspect, and put it back; `printed` and `threads` are aspects, too. `what` is done
    in the block, and stands at the head of each sentence.
    """
    before = {name: aspect.read() for name, aspect in ASPECTS.items()}
    running = set(threading.enumerate())
    changes: dict[str, list[str]] = {}
    with warnings.catch_warnings():
        before["warnings"] = ASPECTS["warnings"].read()
        with _captured() as output:
            try:
                yield
            finally:
                for name, aspect in ASPECTS.items():
                    after = aspect.read()
                    changes[name] = _differences(aspect, before[name], after)
                    if changes[name] and name != "warnings":
                        aspect.restore(before[name])
        changes["threads"] = [f"leaves the thread {name!r} running" for name in _left_running(running)]
    text = output()
    changes["printed"] = [f"prints {_short(text)!r}"] if text.strip() else []
    for name, sentences in changes.items():
        for sentence in sentences:
            if f"{what} {sentence}" not in found.setdefault(name, []):
                found[name].append(f"{what} {sentence}")


def _left_running(before: set[threading.Thread]) -> list[str]:
    new = [thread for thread in threading.enumerate() if thread not in before and not _waits_for_work(thread)]
    for thread in new:
        thread.join(PATIENCE)
    return [thread.name for thread in new if thread.is_alive()]


def _waits_for_work(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", "") or "")
    return any(module.startswith(POOLS_OF_OTHERS) for module in modules)


@contextmanager
def _captured() -> Iterator[Callable[[], str]]:
    """Catch what is written to both outputs, by Python or by compiled code; gives a function that returns it."""
    texts: list[str] = []
    with tempfile.TemporaryFile() as file:
        _flush()
        saved = {number: os.dup(number) for number in (1, 2)}
        shown = io.StringIO()
        for number in saved:
            os.dup2(file.fileno(), number)
        try:
            with redirect_stdout(shown), redirect_stderr(shown):
                yield lambda: "".join(texts)
        finally:
            _flush()
            for number, copy in saved.items():
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            texts += [shown.getvalue(), file.read().decode(errors="replace")]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(ValueError, OSError):
            stream.flush()
    if os.name != "nt":
        ctypes.CDLL(None).fflush(None)  # what compiled code has printed waits in a buffer of its own
