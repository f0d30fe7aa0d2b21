"""What components carry from round to round, in and out of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import Stateful
from sage_kit.errors import PluginError
from sage_kit.recipe import Choice


def state_of(choice: Choice, component: Any) -> dict[str, NDArray[Any]]:
    """A component's state under ``<kind>.<entry>``; empty for one that has none.

    Raises
    ------
    PluginError
        When it fails, or gives something else than arrays of numbers by name.
    """
    if not isinstance(component, Stateful):
        return {}
    state = choice.call(component.get_state)
    if not isinstance(state, Mapping):
        raise PluginError(f"{choice}: get_state returned {type(state).__name__}, not a mapping of names to arrays")
    found = {}
    for entry, values in state.items():
        array = np.array(values, order="C")  # a copy: the component may go on writing to its own
        if not isinstance(entry, str) or array.dtype.kind not in "biuf":
            raise PluginError(
                f"{choice}: get_state gave {array.dtype} under {entry!r}: a checkpoint holds arrays of numbers by name"
            )
        found[f"{choice.kind}.{entry}"] = array
    return found


def give_back(choice: Choice, component: Any, saved: Mapping[str, NDArray[Any]]) -> None:
    """Hand a new instance of a component what `state_of` took from the old one.

    Raises
    ------
    PluginError
        When it fails.
    """
    head = f"{choice.kind}."
    state = {entry[len(head) :]: values for entry, values in saved.items() if entry.startswith(head)}
    if state and isinstance(component, Stateful):  # before its first round there was nothing to save
        choice.call(component.set_state, state)
