"""Sources of plugins to install for a test, and what becomes of a broken one."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from sage_kit.components.plugins import Plugins

HEAD = """
from sage_kit import hookimpl
from sage_kit.components import *
from sage_kit.components import lazy
"""


REDUCER = """
class Reducer:
    def fit_transform(self, vectors):
        return vectors[:, :2]

@hookimpl
def sage_reducers():
    yield ReducerSpec(name="{name}", summary="A reducer", factory=lambda options, context: Reducer(){more})
"""


counter = itertools.count()


Install = Callable[..., str]


def reducer(name: str = "acme_map", more: str = "") -> str:
    return REDUCER.format(name=name, more=f", {more}" if more else "")


def only_cause(plugins: Plugins) -> str:
    """Why the one plugin is in quarantine, while everything else works."""
    assert [str(bad) for bad in plugins.quarantined] == ["plugin 'acme' (acme-sage 1.2)"]
    assert plugins.reducer("pca").name == "pca"
    return plugins.quarantined[0].cause
