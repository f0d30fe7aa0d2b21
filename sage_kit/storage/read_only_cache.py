"""A cache of which entries are read and none is computed, for those who only look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sage_kit.errors import SageError
from sage_kit.storage.cache import Cache, entry_fault


class NotCachedError(SageError):
    """A result is not in the cache, and is not made for somebody who only looks."""


class ReadOnlyCache(Cache):
    """A cache that computes nothing and removes nothing: what it does not have whole is missing."""

    def entry(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], None],
        about: Mapping[str, Any] | None = None,
        *,
        holds: Sequence[str] = (),
    ) -> Path:
        """The directory of an entry that is there, whole.

        Raises
        ------
        NotCachedError
            For another.
        """
        path = self.directory / kind / key
        if entry_fault(path, holds) is not None:
            raise NotCachedError(f"the cache {self.directory} no longer has the {kind} of this run")
        return super().entry(kind, key, build, about, holds=holds)
