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
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped, unused-ignore]

State = dict[str, Any]

PATIENCE = 0.5  # seconds that a thread may take to end after the call that started it
LONGEST = 60  # characters of a value that a message shows

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE")

POOLS_OF_OTHERS = ("concurrent.futures", "joblib", "multiprocessing", "tqdm")
"""Libraries whose threads wait for the next piece of work."""


@dataclass(frozen=True)
class Aspect:
    """One kind of shared state.

    Attributes
    ----------
    read : callable
        The state, by name.
    restore : callable
        Puts a state back that `read` returned.
    shows_values : bool
        Whether a message says from what to what a state was changed.
    """

    read: Callable[[], State]
    restore: Callable[[State], None]
    shows_values: bool = True


# ---- torch and the pools of threads ---------------------------------------------------------------------------------

_POOLS: list[ThreadpoolController] = []


def look_for_pools() -> None:
    """Find the libraries that are loaded by now and have threads of their own (BLAS, OpenMP)."""
    _POOLS[:] = [ThreadpoolController()]


def _pools() -> list[Any]:
    if not _POOLS:
        look_for_pools()
    return list(_POOLS[0].lib_controllers)


def _read_torch() -> State:
    import torch

    state: State = {
        "torch's default dtype": torch.get_default_dtype(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's gradients": torch.is_grad_enabled(),
        "torch's default device": str(torch.get_default_device()),
        "torch's deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
        "torch's anomaly detection": torch.is_anomaly_enabled(),
    }
    for pool in _pools():
        state[f"the threads of {Path(pool.filepath).name}"] = pool.get_num_threads()
    return state


def _restore_torch(state: State) -> None:
    import torch

    torch.set_default_dtype(state["torch's default dtype"])
    if str(torch.get_default_device()) != state["torch's default device"]:
        torch.set_default_device(state["torch's default device"])
    torch.use_deterministic_algorithms(state["torch's deterministic algorithms"])
    torch.set_float32_matmul_precision(state["torch's matmul precision"])
    torch.autograd.set_detect_anomaly(state["torch's anomaly detection"])
    torch.set_grad_enabled(state["torch's gradients"])
    if torch.get_num_threads() != state["torch's number of threads"]:
        torch.set_num_threads(state["torch's number of threads"])
    for pool in _pools():
        number = state.get(f"the threads of {Path(pool.filepath).name}")
        if number is not None and pool.get_num_threads() != number:
            pool.set_num_threads(number)


# ---- numpy ----------------------------------------------------------------------------------------------------------


def _read_numpy() -> State:
    return {
        "numpy's handling of floating-point errors": dict(np.geterr()),
        "numpy's error callback": np.geterrcall(),
        "numpy's print options": np.get_printoptions(),
    }


def _restore_numpy(state: State) -> None:
    np.seterr(**state["numpy's handling of floating-point errors"])
    np.seterrcall(state["numpy's error callback"])
    np.set_printoptions(**state["numpy's print options"])


# ---- files and environment ------------------------------------------------------------------------------------------


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
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _restore_environment(state: State) -> None:
    for name in _read_environment():
        if name not in state:
            del os.environ[name]
    for name, value in state.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


# ---- logging and warnings -------------------------------------------------------------------------------------------


def _loggers() -> Iterator[tuple[str, logging.Logger]]:
    yield "the root logger", logging.root
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            yield f"logger {name!r}", logger


def _read_logging() -> State:
    state: State = {"logging.disable": logging.root.manager.disable}
    for name, logger in _loggers():
        state[f"the level of {name}"] = logger.level
        state[f"the handlers of {name}"] = list(logger.handlers)
        state[f"the filters of {name}"] = list(logger.filters)
        state[f"whether {name} is disabled"] = logger.disabled
        state[f"whether {name} propagates"] = logger.propagate
    return state


def _restore_logging(state: State) -> None:
    logging.disable(state["logging.disable"])
    for name, logger in _loggers():
        if f"the level of {name}" in state:
            logger.setLevel(state[f"the level of {name}"])
            logger.handlers[:] = state[f"the handlers of {name}"]
            logger.filters[:] = state[f"the filters of {name}"]
            logger.disabled = state[f"whether {name} is disabled"]
            logger.propagate = state[f"whether {name} propagates"]


def _read_warnings() -> State:
    return {"the filters of warnings": list(warnings.filters), "warnings.showwarning": warnings.showwarning}


def _restore_warnings(state: State) -> None:
    if list(warnings.filters) != state["the filters of warnings"]:
        warnings.resetwarnings()  # also tells the module's cache
        warnings.filters[:] = state["the filters of warnings"]  # type: ignore[index]
    warnings.showwarning = state["warnings.showwarning"]


# ---- random states --------------------------------------------------------------------------------------------------


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


# ---- the interpreter ------------------------------------------------------------------------------------------------


def _read_interpreter() -> State:
    state: State = {
        "the recursion limit": sys.getrecursionlimit(),
        "the switch interval": sys.getswitchinterval(),
        "the garbage collector": gc.isenabled(),
        "the locale": locale.setlocale(locale.LC_ALL),
        "the default timeout of sockets": socket.getdefaulttimeout(),
        "sys.excepthook": sys.excepthook,
        "threading.excepthook": threading.excepthook,
        "the precision of decimals": decimal.getcontext().prec,
    }
    for name in SIGNALS:
        if hasattr(signal, name):
            state[f"the handler of {name}"] = signal.getsignal(getattr(signal, name))
    return state


def _restore_interpreter(state: State) -> None:
    sys.setrecursionlimit(state["the recursion limit"])
    sys.setswitchinterval(state["the switch interval"])
    (gc.enable if state["the garbage collector"] else gc.disable)()
    locale.setlocale(locale.LC_ALL, state["the locale"])
    socket.setdefaulttimeout(state["the default timeout of sockets"])
    sys.excepthook, threading.excepthook = state["sys.excepthook"], state["threading.excepthook"]
    decimal.getcontext().prec = state["the precision of decimals"]
    if threading.current_thread() is threading.main_thread():
        for name in SIGNALS:
            handler = state.get(f"the handler of {name}")
            if handler is not None and signal.getsignal(getattr(signal, name)) != handler:
                signal.signal(getattr(signal, name), handler)


ASPECTS: Mapping[str, Aspect] = {
    "torch": Aspect(_read_torch, _restore_torch),
    "numpy": Aspect(_read_numpy, _restore_numpy),
    "directory": Aspect(_read_directory, _restore_directory),
    "environment": Aspect(_read_environment, _restore_environment, shows_values=False),
    "logging": Aspect(_read_logging, _restore_logging, shows_values=False),
    "warnings": Aspect(_read_warnings, _restore_warnings, shows_values=False),
    "random": Aspect(_read_random, _restore_random, shows_values=False),
    "interpreter": Aspect(_read_interpreter, _restore_interpreter),
}


def _differences(aspect: Aspect, before: State, after: State) -> list[str]:
    """What has changed, in words."""
    found = []
    for name, value in before.items():
        if name == "files":
            found += _file_differences(value, after[name])
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


# ---- the ways to look -----------------------------------------------------------------------------------------------

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
    """Note what a block changes, by aspect, and put it back; `printed` and `threads` are aspects, too.

    Parameters
    ----------
    found : dict of str to list of str
        Gets a sentence for each change.
    what : str
        What is done in the block, at the head of each sentence.
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
