"""How much a command tells on standard error: -q, -v and --log-level, which every command takes.

Results go to standard output at every level. The level is that of the logger ``sage_kit``, so observers and plugins can
ask it, and processes that are started find it in the environment.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from sage_kit.errors import ConfigError, did_you_mean

LEVEL_VARIABLE = "SAGE_KIT_LOG_LEVEL"
LEVEL_FLAG = "--log-level"

LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
"""What is told, the least first: errors that end the command; warnings as well; progress and messages as well, which is
usual; and what libraries log as well, with the time and where settings come from."""

USUAL = "info"

Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, show_default=False, help="Tell more: what libraries log as well.")
]
Quiet = Annotated[
    int,
    typer.Option("-q", "--quiet", count=True, show_default=False, help="Tell warnings and errors only; -qq: errors."),
]
LogLevel = Annotated[
    str,
    typer.Option(
        LEVEL_FLAG,
        metavar="NAME",
        help=f"What is told on standard error: {', '.join(LEVELS)}; default: ${LEVEL_VARIABLE}, or {USUAL}.",
        show_default=False,
        autocompletion=lambda: list(LEVELS),
    ),
]

_FLAGS = {"verbose": Verbose, "quiet": Quiet, "log_level": LogLevel}
_LOGGER = logging.getLogger("sage_kit")


def shows(level: str) -> bool:
    """Whether what is of this level is told."""
    return (_LOGGER.level or LEVELS[USUAL]) <= LEVELS[level]


def take_flags(verbose: int, quiet: int, log_level: str) -> None:
    """Set the level as flags say, which count from the level that holds.

    Raises
    ------
    ConfigError
        For a level that is not there.
    """
    if log_level:
        _set(_checked(log_level, LEVEL_FLAG))
    if verbose or quiet:
        order = list(LEVELS.values())
        place = order.index(_LOGGER.level or LEVELS[USUAL]) + verbose - quiet
        _set(order[min(max(place, 0), len(order) - 1)])


@contextlib.contextmanager
def own_level() -> Iterator[None]:
    """Begin with the level of the environment, and leave logging and the environment as they were found."""
    before, given = _LOGGER.level, os.environ.get(LEVEL_VARIABLE)
    root, last, last_level = logging.root.level, logging.lastResort, getattr(logging.lastResort, "level", 0)
    handlers = list(logging.root.handlers)
    _LOGGER.setLevel(logging.NOTSET)
    try:
        if given:
            _set(_checked(given, LEVEL_VARIABLE))
        yield
    finally:
        _LOGGER.setLevel(before)
        logging.root.setLevel(root)
        if last is not None:
            last.setLevel(last_level)
        for handler in set(logging.root.handlers) - set(handlers):
            logging.root.removeHandler(handler)
        os.environ.pop(LEVEL_VARIABLE, None)
        if given is not None:
            os.environ[LEVEL_VARIABLE] = given


def on_every_command(app: typer.Typer) -> None:
    """Let each command of an app, and of those in it, take the flags."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _with_flags(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            on_every_command(group.typer_instance)


def _with_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def command(**arguments: Any) -> Any:
        take_flags(*(arguments.pop(name) for name in _FLAGS))
        return function(**arguments)

    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    for name, annotation in _FLAGS.items():
        default = "" if name == "log_level" else 0
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _checked(name: str, place: str) -> int:
    level = LEVELS.get(name.strip().lower())
    if level is None:
        raise ConfigError(f"Unknown log level {name!r} in {place}.{did_you_mean(name.lower(), LEVELS)}")
    return level


def _set(level: int) -> None:
    _LOGGER.setLevel(level)
    os.environ[LEVEL_VARIABLE] = next(name for name, value in LEVELS.items() if value == level)
    # what libraries warn of goes by Python's last resort as long as nobody has set logging up
    if logging.lastResort is not None:
        logging.lastResort.setLevel(max(level, logging.WARNING))
    if level <= logging.DEBUG and not any(isinstance(handler, _Handler) for handler in logging.root.handlers):
        logging.root.addHandler(_Handler())
        logging.root.setLevel(logging.INFO)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg, unused-ignore]
    """Writes log records to standard error."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
