"""Components that tell what they were given, hang, fail or die, in a one-file plugin."""

from __future__ import annotations

from pathlib import Path

from sage_kit.components.plugins import Plugins

PLUGIN = '''
import os
import time

import numpy as np

from sage_kit import hookimpl
from sage_kit.components import InverterSpec, ReducerSpec

SEEN = []


class Reducer:
    """Keeps the first coordinates."""

    def __init__(self, options, context):
        self.n = context.n_components

    def fit_transform(self, vectors):
        SEEN.append(("reducer", vectors.copy()))
        return vectors[:, : self.n].copy()


class Placing(Reducer):
    def transform(self, vectors):
        SEEN.append(("transform", vectors.copy()))
        return vectors[:, : self.n].copy()


class Inverter:
    """Remembers what it is asked, and answers with the mean."""

    def __init__(self, options, context):
        pass

    def fit(self, coordinates, vectors, reducer):
        SEEN.append(("inverter", np.array(vectors)))
        self.mean = np.array(vectors).mean(axis=0)
        return self

    def invert(self, coordinates, anchors):
        SEEN.append(("invert", coordinates.copy(), anchors.copy()))
        return np.repeat(self.mean[None], len(coordinates), axis=0)


class Stalls(Inverter):
    def invert(self, coordinates, anchors):
        time.sleep(1000)


class Fails(Inverter):
    def invert(self, coordinates, anchors):
        raise ValueError("no way back")


class Dies(Inverter):
    def invert(self, coordinates, anchors):
        os._exit(3)


class Narrow(Inverter):
    def invert(self, coordinates, anchors):
        return np.zeros((len(coordinates), 1), np.float32)


class NotANumber(Inverter):
    def invert(self, coordinates, anchors):
        return np.full((len(coordinates), len(self.mean)), np.nan, np.float32)


@hookimpl
def sage_reducers():
    yield ReducerSpec(name="placing", summary="spy", factory=Placing, has_transform=True)
    yield ReducerSpec(name="rigid", summary="spy without transform", factory=Reducer)
    yield ReducerSpec(name="absent", summary="not installed", factory=Reducer, requires=("no-such-package>=1",))


@hookimpl
def sage_inverters():
    for cls in (Inverter, Stalls, Fails, Dies, Narrow, NotANumber):
        name = "spy" if cls is Inverter else cls.__name__.lower()
        yield InverterSpec(name=name, summary="spy", factory=cls)
'''


def write_plugin(folder: Path) -> Path:
    """The plugin as a file."""
    path = folder / "spy.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


class Few(Plugins):
    """Plugins that show only some of their reducers and inverters."""

    shown: tuple[str, ...] = ()

    def names(self, kind: str) -> list[str]:
        return [name for name in super().names(kind) if name in self.shown]
