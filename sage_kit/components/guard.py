"""Calls of plugin code: what it raises is caught, whatever it is, and traced to the plugin's own line.

Plugin code may raise `SystemExit` or `KeyboardInterrupt` like any other error, and must not end a run by it. A person
who presses Ctrl-C must. The two are told apart by the signal: while plugin code runs, what the handler of SIGINT raises
is counted. Signals are handled in the main thread alone, so in any other thread a `KeyboardInterrupt` is the plugin's
own.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from sage_kit.errors import DEBUG_VARIABLE, PluginError, SageError, one_line


class Failure(Exception):
    """Plugin code raised something of its own, which is `error`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(cause_of(error))
        self.error = error


# ---- the person's Ctrl-C --------------------------------------------------------------------------------------------


class _Counter:
    """A handler of SIGINT that leaves all to the one before it, and counts how often that one raises."""

    presses = 0

    def __init__(self, before: Callable[[int, FrameType | None], Any]) -> None:
        self.before = before

    def __call__(self, number: int, frame: FrameType | None) -> Any:
        try:
            return self.before(number, frame)
        except BaseException:
            _Counter.presses += 1
            raise


@contextlib.contextmanager
def counting_interrupts() -> Iterator[None]:
    """While it lasts, SIGINT is counted, if this is the main thread; one within another does nothing."""
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or isinstance(before, _Counter) or not callable(before):
        yield
        return
    counter = _Counter(before)
    signal.signal(signal.SIGINT, counter)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is counter:  # else the code has set one of its own, for later
            signal.signal(signal.SIGINT, before)


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call plugin code.

    Raises
    ------
    KeyboardInterrupt
        When the person pressed Ctrl-C meanwhile, also where the code caught that or raised something else instead.
    SageError
        As the code raised it.
    Failure
        For anything else that it raised, `SystemExit` and `KeyboardInterrupt` too.
    """
    main = threading.current_thread() is threading.main_thread()
    before = _Counter.presses

    def was_pressed() -> bool:
        return main and _Counter.presses > before

    with counting_interrupts(), torch_threads_kept():
        try:
            result = function(*arguments)
        except BaseException as error:  # plugin code may raise anything
            if _is_of_a_signal(error) or (was_pressed() and isinstance(error, KeyboardInterrupt)):
                raise
            if was_pressed():
                raise KeyboardInterrupt from error
            if isinstance(error, SageError):
                raise
            raise Failure(error) from error
        if was_pressed():
            raise KeyboardInterrupt
        return result


@contextlib.contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Put back the number of torch's threads, on which the last bits of a sum depend.

    Libraries that share OpenMP with torch set it for both: numba does when umap fits a map, and a run would then come
    out otherwise than one that finds the map in the cache.
    """
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None and hasattr(torch, "get_num_threads") else 0
    try:
        yield
    finally:
        if torch is not None and before and torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _is_of_a_signal(error: BaseException) -> bool:
    """Whether a signal's handler raised it, e.g. one of SIGTERM that exits, while plugin code happened to run."""
    if isinstance(error, Exception):
        return False
    handlers: list[Any] = [signal.getsignal(number) for number in signal.valid_signals()]
    own = [handler.before if isinstance(handler, _Counter) else handler for handler in handlers]
    codes = {_code(handler) for handler in own if callable(handler)} - {None}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


# ---- where it happened ----------------------------------------------------------------------------------------------

_homes: set[str] = set()
"""Files and folders that hold the source of plugins, and names of their distributions as ``name:``."""

_built_in = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "builtin")


def remember_home(*, file: str = "", module: str = "", distribution: str = "", functions: Iterable[Any] = ()) -> None:
    """Let `place_of` know where a plugin's own source lies.

    Parameters
    ----------
    file : str
        Its file.
    module : str
        Its module; where that lies in a package, the whole package counts.
    distribution : str
        Its distribution, whose files count.
    functions : iterable of callable
        Functions of it, whose files count.
    """
    if file:
        _homes.add(file)
    if module and not module.startswith("sage_kit."):
        _homes.update(_source_of(module))
    if distribution:
        _homes.add(f"{distribution}:")
    codes = [_code(function) for function in functions]
    _homes.update(code.co_filename for code in codes if code is not None)


def _source_of(module: str) -> Iterator[str]:
    """The folder of a module's outermost package, namespaces left aside, or the module's file."""
    parts = module.split(".")
    for name in (".".join(parts[: number + 1]) for number in range(len(parts))):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None and "." not in name:  # its import failed
            with contextlib.suppress(Exception):
                file = getattr(importlib.util.find_spec(name), "origin", None)
        if file:
            yield os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file
            return


def place_of(error: BaseException, *called: Any) -> str:
    """Where plugin code raised an error, as ``FILE:LINE``; "" where no plugin's source took part.

    That is the innermost line of a plugin's own source, rather than of a library that it calls or of sage_kit; for a
    built-in component, of its module. Where there is no such line, as for a method that takes other arguments than it
    is given, it is where the first of `called` is defined.

    Parameters
    ----------
    error : BaseException
    *called
        Functions or classes that were called, the most telling first.
    """
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):
        return f"{error.filename}:{error.lineno}"
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    codes = [code for code in map(_code, called) if code is not None]
    defined = [(code.co_filename, code.co_firstlineno) for code in codes]
    of_distributions = _files_of_distributions()
    for owns in (_is_of_a_plugin, of_distributions.__contains__, _is_built_in):
        for file, line in [*reversed(lines), *defined]:
            if owns(file):
                return f"{file}:{line}"
    return ""


def _is_of_a_plugin(file: str) -> bool:
    if _is_built_in(file):
        return False
    return file in _homes or any(file.startswith(home + os.sep) for home in _homes)


def _is_built_in(file: str) -> bool:
    return file.startswith(_built_in + os.sep)


def _files_of_distributions() -> set[str]:
    """The files that installed plugins list; one that is installed in place lists none of its source."""
    files: set[str] = set()
    for name in _homes:
        if name.endswith(":"):
            with contextlib.suppress(Exception):  # what is wrong with its metadata is told elsewhere
                listed = importlib.metadata.files(name[:-1]) or []
                files.update(str(Path(str(item.locate()))) for item in listed if item.suffix == ".py")
    return files


def _code(item: Any) -> CodeType | None:
    """The code of a function or method, or of the constructor of a class."""
    if isinstance(item, type):
        item = vars(item).get("__init__") or vars(item).get("__new__")
    with contextlib.suppress(Exception):
        item = inspect.unwrap(item)
    code = getattr(getattr(item, "__func__", item), "__code__", None)
    return code if isinstance(code, CodeType) else None


# ---- what to say ----------------------------------------------------------------------------------------------------


def own_error(raised: BaseException) -> BaseException:
    """What plugin code itself raised, of what `attempt` raised."""
    return raised.error if isinstance(raised, Failure) else raised


def cause_of(error: BaseException) -> str:
    """An error's class and message, as one line."""
    try:
        text = one_line(error)
    except Exception:  # its own __str__ may raise, too
        text = ""
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def where(error: BaseException, *called: Any) -> str:
    """An error's cause and, where a plugin's source took part, its place: ``CAUSE at FILE:LINE``."""
    place = place_of(error, *called)
    return f"{cause_of(error)} at {place}" if place else cause_of(error)


def plugin_error(what: str, error: BaseException, *called: Any) -> PluginError:
    """A PluginError ``WHAT: CAUSE at FILE:LINE``, to be raised from `error`."""
    return PluginError(f"{what}: {cause_of(error)}", place_of(error, *called))


def show_traceback(error: BaseException) -> None:
    """Print an error's traceback to the error output if the person asked for tracebacks."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(type(error), error, error.__traceback__)
