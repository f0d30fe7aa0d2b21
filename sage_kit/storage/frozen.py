"""Tables, lists and arrays that cannot be changed: what the core hands to components and observers."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _refuse(self: Any, *_: Any, **__: Any) -> NoReturn:
    kind, copy = ("table", "dict") if isinstance(self, dict) else ("list", "list")
    raise TypeError(f"this {kind} is read-only: change a copy of it, {copy}(...)")


class FrozenTable(dict[str, Any]):
    """A table that cannot be changed; equal to the dict that it was made from, and JSON, TOML and pydantic take it."""

    __slots__ = ()

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> FrozenTable:
        return self

    def __deepcopy__(self, memo: Any) -> FrozenTable:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # by default a pickle or copy of a dict's subclass fills it item by item
        return FrozenTable, (dict(self),)


class FrozenList(list[Any]):
    """A list that cannot be changed; equal to the list that it was made from, and JSON, TOML and pydantic take it."""

    __slots__ = ()

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> FrozenList:
        return self

    def __deepcopy__(self, memo: Any) -> FrozenList:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenList, (list(self),)


def freeze(value: Any) -> Any:
    """`value` with every dict and list in it, at any depth, replaced by one that cannot be changed.

    Parameters
    ----------
    value
        Mappings become `FrozenTable`, lists `FrozenList`; tuples are looked into; anything else stays as it is.
    """
    if isinstance(value, FrozenTable | FrozenList):
        return value
    if isinstance(value, Mapping):
        return FrozenTable({key: freeze(item) for key, item in value.items()})
    if isinstance(value, list):
        return FrozenList(freeze(item) for item in value)
    if type(value) is tuple:
        return tuple(freeze(item) for item in value)
    return value


def frozen_copy(values: Any) -> NDArray[Any]:
    """A copy of an array that never changes: its memory is immutable, so that no flag makes it writable.

    What such a copy holds is not copied again.

    Parameters
    ----------
    values : array of any shape and dtype
    """
    import numpy as np

    array = np.asarray(values)
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, bytes) or (isinstance(owner, mmap.mmap) and memoryview(owner).readonly):
        return array
    return np.frombuffer(array.tobytes(), dtype=array.dtype).reshape(array.shape)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view of an array that a component cannot write to."""
    view = array.view()
    view.flags.writeable = False
    return view
