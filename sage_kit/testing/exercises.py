"""A component in use: with few rows and with many, twice by one object and by another; what comes out and what it does.

Each kind says in its module of checks how it is used (`exercise`). `Recording` goes through that once per component;
the checks then look at what was noted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_kit.errors import MissingPackageError
from sage_kit.testing import toy
from sage_kit.testing.registry import CheckFailure, NotApplicable, require
from sage_kit.testing.surroundings import disturbed, watched, workspace

if TYPE_CHECKING:
    from sage_kit.testing.subject import Subject

Inputs = Mapping[str, Any]
Outputs = dict[str, Any]

SHARE = 4  # time is compared between many rows and one in `SHARE` of them
LATER = 90_061.0  # seconds by which the clock is put forward for the second of two objects


@dataclasses.dataclass(frozen=True)
class Exercise:
    """How a kind of component is used."""

    # ``make(subject, rows, round)`` returns the inputs by name; the same arguments give equal ones, in new arrays
    make: Callable[[Subject, int, int], Inputs]
    # ``use(subject, component, inputs)`` calls the component as the loop does, checks the shapes and types of what it
    # returns, and returns that by name
    use: Callable[[Subject, Any, Inputs], Outputs]
    few: int = toy.FEW  # rows, or whatever the kind counts
    many: int = toy.MANY
    unit: str = "rows"  # what is counted

    def words(self, rows: int) -> str:
        """A number of rows in words."""
        return f"{rows:,} {self.unit}"


EXERCISES: dict[str, Exercise] = {}  # by kind; each module of checks adds its own

PLAYS: dict[str, Callable[[Subject], None]] = {}
"""By kind that is not used with rows, what goes through its whole use once, watched."""


class Watched:
    """A component whose methods are watched, each call by itself."""

    def __init__(self, component: Any, found: dict[str, list[str]], size: str) -> None:
        self._component, self._found, self._size = component, found, size

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._component, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **keywords: Any) -> Any:
            with watched(self._found, f"{name}() with {self._size}"):
                result = value(*arguments, **keywords)
            return self if result is self._component else result

        return call


@dataclasses.dataclass
class Use:
    """One use of a component: what went in, what came out, and the processor time that it took [s]."""

    inputs: Inputs
    outputs: Outputs
    copies: Outputs
    seconds: float


class Recording:
    """What a component does when it is used."""

    few: Use  # by new objects, as the next
    many: Use
    again: Use  # A second time by the object of `many`, with equal inputs
    other: Use  # by another object, with equal inputs, other random states and a later clock

    def __init__(self, subject: Subject) -> None:
        self.exercise = EXERCISES[subject.spec.kind]
        self.effects = subject.effects  # what it changes of its surroundings, by aspect
        self.changed_inputs: list[str] = []  # in place
        self.shared: list[str] = []  # outputs that are views of inputs
        self._subject = subject
        few, many = self.exercise.few, self.exercise.many
        with workspace():
            self.few = self._use(subject.build_watched(), few)
            self.component = component = subject.build_watched()
            self.many = self._use(component, many)
            self.again = self._use(component, many)
            self.overwritten = differing(self.many.outputs, self.many.copies)  # outputs that the second use changed
            with other_moment():
                self.other = self._use(subject.build_watched(), many, watch=False)

    def _use(self, component: Any, rows: int, watch: bool = True) -> Use:
        subject, exercise = self._subject, self.exercise
        inputs = exercise.make(subject, rows, 2)
        before = {name: np.array(as_array(values)) for name, values in arrays_of(inputs)}
        size = exercise.words(rows)
        started = time.process_time()
        try:
            outputs = exercise.use(subject, Watched(component, self.effects, size) if watch else component, inputs)
        except CheckFailure as failure:
            raise CheckFailure(f"with {size}: {failure}") from failure.__cause__
        seconds = time.process_time() - started
        for name, values in arrays_of(inputs):
            if not np.array_equal(before[name], as_array(values), equal_nan=before[name].dtype.kind == "f"):
                self.changed_inputs.append(f"{name} with {size}")
            for output, result in arrays_of(outputs):
                if np.may_share_memory(as_array(result), as_array(values)):
                    self.shared.append(f"{output} with {size} is a view of {name}")
        return Use(inputs, outputs, {name: _copy(values) for name, values in outputs.items()}, seconds)

    def seconds(self, rows: int) -> float:
        """Processor time that a new object takes for some rows, the least of two tries [s]."""
        with workspace():
            return min(self._use(self._subject.build_unwatched(), rows, watch=False).seconds for _ in range(2))


def recorded(subject: Subject) -> Recording:
    """What the component does when it is used with rows, recorded once."""
    require_use(subject)
    assert isinstance(subject.recording, Recording)
    return subject.recording


def require_use(subject: Subject) -> None:
    """Use the component once, whatever its kind; what it does beside its result is then in ``subject.effects``."""
    subject.need_packages()
    if isinstance(subject.recording, (MissingPackageError, NotApplicable)):
        raise subject.recording
    if isinstance(subject.recording, BaseException):
        found_by = {"observer": "observer_bears_every_hook", "task": "task_loads", "family": "family_equals_the_model"}
        cause = found_by.get(subject.spec.kind, "works_with_many_rows")
        raise NotApplicable(f"not run: first mend what {cause} found")


@contextmanager
def other_moment() -> Iterator[None]:
    """Other states of the global random generators and a later time of day, as another process would find."""
    clocks = time.time, time.time_ns
    time.time = lambda: clocks[0]() + LATER
    time.time_ns = lambda: clocks[1]() + int(LATER * 1e9)
    try:
        with disturbed(5):
            yield
    finally:
        time.time, time.time_ns = clocks


def arrays_of(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every array and tensor in mappings and records, with its name."""
    if isinstance(values, np.ndarray) or type(values).__module__ == "torch":
        yield name, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from arrays_of(value, f"{name}.{key}" if name else str(key))
    elif dataclasses.is_dataclass(values) and not isinstance(values, type):
        for part in dataclasses.fields(values):
            yield from arrays_of(getattr(values, part.name), f"{name}.{part.name}" if name else part.name)


def as_array(values: Any) -> Any:
    """An array or tensor as an array, not copied."""
    return values.detach().numpy() if hasattr(values, "detach") else values


def differing(one: Outputs, two: Outputs) -> list[str]:
    """Names of outputs that are not the same in both."""
    return [name for name in sorted(one.keys() | two.keys()) if not _same(one.get(name), two.get(name))]


def _same(one: Any, two: Any) -> bool:
    if one is None or two is None or isinstance(one, (str, list, tuple)):
        return bool(one == two)
    one, two = as_array(one), as_array(two)
    return one.shape == two.shape and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def _copy(values: Any) -> Any:
    return list(values) if isinstance(values, list) else values if values is None else np.array(as_array(values))


def require_nothing(found: list[str], problem: str) -> None:
    """Raise `CheckFailure` with what was found, unless that is nothing."""
    require(not found, problem.format("; ".join(found[:3]) + (f" (and {len(found) - 3} more)" * (len(found) > 3))))
