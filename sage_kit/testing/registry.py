"""What a check is, and the list of them."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage_kit.components.guard import place_of
from sage_kit.errors import MissingPackageError, SageError, one_line
from sage_kit.testing.surroundings import preserved

if TYPE_CHECKING:
    from sage_kit.testing.subject import Subject

FIX = "To fix:"  # starts the part of a check's docstring that is shown with a failure


class CheckFailure(AssertionError):
    """A component does not keep what its spec or its protocol promises."""


class NotApplicable(Exception):
    """The check does not concern this component; the text says why."""


class CheckWarning(Exception):
    """Something that is not wrong and that the author should know."""


class ConformanceWarning(UserWarning):
    """What a check warns of, under pytest."""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check of one component.

    Attributes
    ----------
    name : str
        The check.
    passed : bool
        False when the component failed it; True also when it was skipped.
    message : str
        What was wrong and how to mend it, or why the check was skipped; "" when it passed.
    seconds : float
        Wall time [s].
    skipped : bool
        The check does not concern the component or cannot be run here.
    warned : bool
        It passed, and the message says what is worth knowing.
    """

    name: str
    passed: bool
    message: str
    seconds: float
    skipped: bool = False
    warned: bool = False


@dataclass(frozen=True)
class Check:
    """One check: a function of a subject that returns, or raises what is wrong."""

    name: str  # how results and expected failures name it
    kinds: tuple[str, ...]  # the kinds of component it is for; empty for all
    # its docstring says what is checked and, after "To fix:", how to mend a failure
    function: Callable[[Subject], None]

    @property
    def fix(self) -> str:
        """The advice from the function's docstring, in one line."""
        return " ".join(inspect.cleandoc(self.function.__doc__ or "").partition(FIX)[2].split())

    def run(self, subject: Subject) -> None:
        """Run the check."""
        with preserved():
            self._run(subject)

    def _run(self, subject: Subject) -> None:
        try:
            self.function(subject)
        except NotApplicable:
            raise
        except CheckWarning as warning:
            raise CheckWarning(self._message(subject, str(warning))) from None
        except MissingPackageError as error:
            raise NotApplicable(str(error)) from error
        except CheckFailure as failure:
            raise CheckFailure(self._message(subject, str(failure))) from failure.__cause__
        except SystemExit as error:
            problem = f"it calls sys.exit, which ends a run without a word (SystemExit: {error.code})"
            raise CheckFailure(self._message(subject, problem)) from error
        except Exception as error:  # a component may raise anything
            text = one_line(error)
            hint = _undeclared(subject) if "NoneType" in text else ""
            place = place_of(error, getattr(subject.spec, "factory", None))
            told = f"{type(error).__name__}: {text}{hint}"
            if place and not isinstance(error, SageError):  # a SageError says where, if it matters
                told += f" at {place}"
            raise CheckFailure(self._message(subject, told)) from error

    def result(self, subject: Subject) -> CheckResult:
        """Run the check and say how it went."""
        started = time.perf_counter()
        passed, skipped, warned, message = True, False, False, ""
        try:
            self.run(subject)
        except CheckWarning as warning:
            warned, message = True, str(warning)
        except NotApplicable as reason:
            skipped, message = True, str(reason)
        except CheckFailure as failure:
            passed, message = False, str(failure)
        return CheckResult(self.name, passed, message, time.perf_counter() - started, skipped, warned)

    def _message(self, subject: Subject, problem: str) -> str:
        return f"{subject.title}: {problem.rstrip('.')}. {FIX} {self.fix}"


FIELDS_BY_FLAG = {
    "needs_inverse": "the reducer that fit gets",
    "needs_gradient": "request.divergence_gradient",
    "needs_shares": "request.shares",
    "needs_hidden": "request.student_hidden",
    "needs_labels": "request.logits",
}
"""What is None for a component whose spec does not declare that it needs it."""


def _undeclared(subject: Subject) -> str:
    """A hint at what is None because the spec does not ask for it; "" where it asks for all there is."""
    missing = [
        f"{what} (None without {flag}=True)"
        for flag, what in FIELDS_BY_FLAG.items()
        if getattr(subject.spec, flag, True) is False
    ]
    if getattr(subject.spec, "space", "") == "full":
        missing.append('request.coordinates (None with space="full")')
    return f"; does it use {' or '.join(missing)}?" if missing else ""


CHECKS: list[Check] = []  # all checks, in the order in which they run


def check(*kinds: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register a function as the check of its name, for components of these kinds, or of all."""

    def register(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        CHECKS.append(Check(function.__name__, kinds, function))
        return function

    return register


def require(condition: object, problem: str) -> None:
    """Raise `CheckFailure` with `problem` unless the condition holds."""
    if not condition:
        raise CheckFailure(problem)
