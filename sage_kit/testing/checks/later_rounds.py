"""Check that a component goes on after a resume as if nothing had been."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sage_kit.testing.exercises import differing, recorded, require_nothing
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import KEEP_STATE, Subject


@check(*KEEP_STATE, "lift")
def survives_a_resume(subject: Subject) -> None:
    """In round three it does the same whether it has been through round two or is new, as after a resume.

    A sampler, filter or stop rule that has get_state and set_state is given its state back, as from a checkpoint.

    To fix: keep nothing between calls; a sampler, filter or stop rule that has to remember earlier rounds gets two
    methods, ``get_state()``, which returns a dictionary of numeric numpy arrays (also before the first round), and
    ``set_state(state)``, which takes it over: a checkpoint keeps it. The losses of earlier rounds are in the request.
    """
    exercise = recorded(subject).exercise
    rows = exercise.few
    going_on, resumed = subject.build_unwatched(), subject.build_unwatched()
    if subject.is_stateful:
        _through_a_file(going_on.get_state())
    exercise.use(subject, going_on, exercise.make(subject, rows, 2))
    if subject.is_stateful:
        resumed.set_state(_through_a_file(going_on.get_state()))
    one = exercise.use(subject, going_on, exercise.make(subject, rows, 3))
    two = exercise.use(subject, resumed, exercise.make(subject, rows, 3))
    lost = "set_state does not bring everything back" if subject.is_stateful else "a resumed run has lost that"
    require_nothing(differing(one, two), f"its {{}} in round three depend on what it saw in round two, and {lost}")


def _through_a_file(state: Any) -> dict[str, Any]:
    """A state as a checkpoint gives it back."""
    from safetensors.numpy import load, save

    require(isinstance(state, Mapping), f"get_state returns {type(state).__name__} instead of a dict")
    for name, values in state.items():
        require(isinstance(name, str), f"the state's name {name!r} is no text")
        is_plain = isinstance(values, (np.ndarray, np.generic)) and values.dtype.kind in "fiub"
        require(is_plain, f"the state's {name!r} is a {type(values).__name__} and no array of numbers")
    return dict(load(save({name: np.array(values, order="C") for name, values in state.items()})))
