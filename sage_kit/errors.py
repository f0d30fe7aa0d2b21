"""Errors a user can act on: one class for each kind of remedy.

The command line prints the message as one line and exits with the class's `exit_code`. A message says what was wrong,
where, and what to do.
"""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable

DEBUG_VARIABLE = "SAGE_KIT_DEBUG"
"""Environment variable that, where it is set, lets an error show its traceback as well."""


class SageError(Exception):
    """Base of every error that sage_kit raises on purpose; catch this to catch them all."""

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of the error: one line, as the command line does; IPython looks for this method."""
        if os.environ.get(DEBUG_VARIABLE):
            return traceback.format_exception(type(self), self, self.__traceback__)
        return [f"{type(self).__name__}: {printable(str(self))}"]


class ConfigError(SageError):
    """A setting or an option has an unknown name or a bad value: change the configuration."""


class UnknownComponentError(ConfigError):
    """No component of that kind has that name: correct the name or install the plugin."""


class PluginError(SageError):
    """A plugin is broken, collides with another or mistypes a hook: fix, remove or disallow it.

    Parameters
    ----------
    message : str
    place : str
        ``FILE:LINE`` of the plugin's source, which ends the message; "" where there is none.

    Attributes
    ----------
    place : str
    """

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(f"{message} at {place}" if place else message)
        self.place = place


class MissingPackageError(SageError):
    """A component needs a package that is not installed: install it."""


class DataError(SageError):
    """A file, column, label, text or vector is not usable: correct the data."""


class ModelError(SageError):
    """A teacher, tokenizer or checkpoint cannot be used: choose another."""


class CompatibilityError(ConfigError):
    """Two choices do not go together, or do not fit the data's size: change one of them."""


class HubError(SageError):
    """The hub cannot be reached, or does not let the user write: connect, log in, or name another repository."""


class RunDirectoryError(SageError):
    """A run directory cannot be written, is in use already, or is not a run: choose another."""


class RunInUseError(RunDirectoryError):
    """Another process holds a run directory: wait for it, or end it."""


class RunHeldError(RunInUseError):
    """Another study is making a run, and is not waited for: ask again later."""


class ProcessLostError(SageError):
    """Another of the processes that make a run together has ended: resume the run."""


class TrustError(SageError):
    """A directory names code that would be executed: name the code yourself, or trust it."""


class DiskFullError(SageError):
    """The disk is full: free some space and resume."""


class StudyError(SageError):
    """A study, one of its parameters, or a result of it is not as it must be: correct it."""


class BudgetError(SageError):
    """A step would take longer than its time budget: take a faster component or raise the budget."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no more memory, of the machine or of a card."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text


LONGEST_LIST = 25
"""Most names that a message lists when there is another place to look them up."""


def did_you_mean(name: str, known: Iterable[str], label: str = "Available", elsewhere: str = "") -> str:
    """The closest known name and the whole list, as sentences to end an "unknown name" message.

    Parameters
    ----------
    name : str
        The name that was not found.
    known : iterable of str
        The names that exist.
    label : str
        What to call the list.
    elsewhere : str
        A sentence that says where the names are listed; it stands in for a list of more than `LONGEST_LIST` names.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    if elsewhere and len(names) > LONGEST_LIST:
        return f"{hint} {elsewhere}"
    return f"{hint} {label}: {', '.join(names) or 'none'}."


def causes_of(error: BaseException) -> list[BaseException]:
    """An error, what it was raised from or while handling, and so on."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def one_line(error: BaseException, longest: int = 0) -> str:
    """An error's text on one line, of at most `longest` characters; 0 for as many as it has."""
    text = " ".join(str(error).split())
    return shortened(text, longest) if longest else text


LONGEST_MESSAGE = 1200
"""Most characters of a message: some fifteen lines of a terminal. A message may quote what a file holds."""


def printable(text: str) -> str:
    """A message on one line that fits a screen: its middle left out where it is longer, and no control characters."""
    line = " ".join(text.split())
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
    if len(line) <= LONGEST_MESSAGE:
        return line
    end = LONGEST_MESSAGE // 3  # where the remedy stands
    return f"{line[: LONGEST_MESSAGE - end - 5]} ... {line[-end:]}"


def shortened(text: str, longest: int) -> str:
    """A text, its end replaced by dots where it is longer than so many characters."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
