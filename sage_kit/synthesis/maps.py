"""The map: a reducer fitted to the pooled vectors, once, and found again by what it was fitted on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sage_kit.components import BuildContext, ReducerSpec
from sage_kit.components.provenance import component_parts
from sage_kit.errors import CompatibilityError, DataError, PluginError
from sage_kit.recipe import Choice
from sage_kit.storage import tensorfile
from sage_kit.storage.cache import ARRAYS, Cache
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.source_digest import artifact_digest
from sage_kit.synthesis.landmarks import choose_landmarks, place

if TYPE_CHECKING:
    from sage_kit.models.vectors import Pooled

STATE_PREFIX = "state."

RESOLUTION = 32 * float(np.finfo(np.float32).eps)
"""Vectors that differ in no value by more than this share of their largest count as the same: that is rounding."""

BLOCK_ROWS = 8192
"""Vectors compared at a time; they may be a memory map that is larger than memory."""


@dataclass(frozen=True)
class FittedMap:
    """A map of the real examples.

    Attributes
    ----------
    coordinates : array of shape (n, n_components), float32
    reducer : object or None
        The fitted reducer, where it was asked for.
    spec : ReducerSpec
        With the capabilities that it has under its options.
    """

    coordinates: NDArray[np.float32]
    reducer: Any
    spec: ReducerSpec


def fit_map(
    pooled: Pooled, choice: Choice, cache: Cache, context: BuildContext, *, needs_reducer: bool,
    labels: NDArray[Any] | None = None,
) -> FittedMap:  # fmt: skip
    """Fit the reducer that is chosen, or find its map in the cache.

    Parameters
    ----------
    pooled : Pooled
    choice : Choice
        The reducer.
    cache : Cache
    context : BuildContext
        Settings, number of components and seed; says what is going on.
    needs_reducer : bool
        Whether the fitted reducer itself is needed, and not only the coordinates.
    labels : array of shape (n,), int64 or float32, or None
        Gold labels, for a reducer whose spec says `needs_labels`.

    Raises
    ------
    DataError
        When too few of the vectors differ.
    PluginError
        When the reducer fails, or returns something of the wrong shape or not finite.
    SageError
        What the reducer raises of it.
    """
    config, say, vectors = context.config, context.announce, pooled.vectors
    spec, title = cast(ReducerSpec, choice.spec), choice.title
    if spec.needs_labels and labels is None:
        raise CompatibilityError(f"{title} learns from labels, and here are none: take another reducer")
    # built when it is needed: its library may take seconds to import, and a map in the cache may do without
    reducer = functools.cache(lambda: choice.build(context))
    uses_landmarks = 0 < config.landmarks < len(vectors)
    key = map_key(pooled, choice, context, labels)
    fitted = False

    def ask(function: Callable[..., Any], rows: NDArray[np.float32], *others: Any) -> NDArray[np.float32]:
        found = choice.call(function, rows, *others)
        coordinates = choice.call(np.asarray, found, np.float32)
        return _checked(coordinates, len(rows), context.n_components, title)

    def fit_on(chosen: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        # copies in memory: a plugin must not write into the cache
        others = [np.array(labels[chosen])] if spec.needs_labels and labels is not None else []
        rows = np.array(vectors[chosen])
        check_distinct(rows, context.n_components)
        return ask(reducer().fit_transform, rows, *others)

    def on_landmarks() -> NDArray[np.float32]:
        rng = np.random.default_rng([context.seed, config.landmarks])
        landmarks = choose_landmarks(vectors, config.landmarks, config.landmark_choice, rng)
        at_landmarks = fit_on(landmarks)
        how = "by its transform" if spec.has_transform else "at the average of their neighbours among these"
        say(f"{choice}: placing the other {len(vectors) - len(landmarks):,} vectors {how}")
        transform = (lambda block: ask(reducer().transform, block)) if spec.has_transform else None
        return place(vectors, landmarks, at_landmarks, transform)

    def fit() -> NDArray[np.float32]:
        nonlocal fitted
        coordinates = on_landmarks() if uses_landmarks else fit_on(slice(None))
        fitted = True
        return coordinates

    def build(directory: Path) -> None:
        say(f"{choice}: fitting {_rows(config.landmarks, len(vectors))}")
        coordinates = fit()
        state = choice.call(reducer().get_state, step="get_state") if spec.has_state else {}
        try:
            named = {f"{STATE_PREFIX}{name}": values for name, values in state.items()}
            tensorfile.write(directory / ARRAYS, {"coordinates": coordinates, **named})
        except (TypeError, ValueError, AttributeError) as error:
            raise PluginError(f"{title}: its state cannot be stored: {error}") from error

    about = {
        "reducer": spec.name, "examples": len(vectors), "n_components": context.n_components, "seed": context.seed
    }  # fmt: skip
    arrays = cache.mapped("map", key, build, about)
    coordinates = np.array(arrays["coordinates"])
    if needs_reducer and not fitted:
        if spec.has_state:
            state = {k[len(STATE_PREFIX) :]: np.array(v) for k, v in arrays.items() if k.startswith(STATE_PREFIX)}
            choice.call(reducer().set_state, state)
        else:
            say(f"{choice}: fitting again, since the fitted reducer is needed and cannot be stored")
            coordinates = fit()
    return FittedMap(coordinates, reducer() if needs_reducer else None, spec)


def map_key(pooled: Pooled, choice: Choice, context: BuildContext, labels: NDArray[Any] | None) -> str:
    """Key of the map in the cache, which holds everything that it depends on; parameters as for `fit_map`."""
    config, spec = context.config, cast(ReducerSpec, choice.spec)
    uses_landmarks = 0 < config.landmarks < len(pooled.vectors)
    return fingerprint(
        "map-5",
        artifact_digest("sage_kit.synthesis.maps"),
        pooled.key,
        spec.name,
        context.n_components,
        context.seed,
        [config.landmarks, config.landmark_choice] if uses_landmarks else [],
        component_parts(choice.plugins, "reducer", choice.name, choice.options),
        [labels] if spec.needs_labels else [],
    )


def check_distinct(vectors: NDArray[np.float32], n_components: int) -> None:
    """Refuse vectors of which too few differ for a map: of these, each reducer would make something else, or fail.

    Parameters
    ----------
    vectors : array of shape (n, dim), float32
        May be a memory map.
    n_components : int
        Dimensions of the map.

    Raises
    ------
    DataError
        When all are alike, or when a map of two dimensions or more would lie on a line.
    """
    needed = min(n_components, 2) + 1
    different = _distinct(vectors, needed)
    if different >= needed or different == len(vectors):  # of few texts, sizes are checked elsewhere
        return
    what = "all alike" if different == 1 else f"but {different} different ones"
    raise DataError(
        f"the vectors of the {len(vectors):,} texts are {what}, of which no map can be made: look at the texts, and at "
        "whether the tokenizer knows their words (settings text_column, tokenizer and teacher), or set schedule='none' "
        "to distil without a map"
    )


def _distinct(vectors: NDArray[np.float32], most: int) -> int:
    """How many of the vectors differ by more than rounding, counted up to `most`."""
    found: list[NDArray[np.float32]] = []
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = np.asarray(vectors[start : start + BLOCK_ROWS])
        for vector in found:
            block = _without(block, vector)
        while len(block) and len(found) < most:
            found.append(np.array(block[0]))
            block = _without(block[1:], found[-1])
        if len(found) == most:
            break
    return len(found)


def _without(block: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows that differ from a vector."""
    others: NDArray[np.float32] = block[np.abs(block - vector).max(axis=1) > RESOLUTION * np.abs(vector).max()]
    return others


def _checked(coordinates: NDArray[np.float32], rows: int, n_components: int, title: str) -> NDArray[np.float32]:
    if coordinates.shape != (rows, n_components):
        raise PluginError(
            f"{title} returned coordinates of shape {coordinates.shape} instead of {(rows, n_components)}"
        )
    if not np.isfinite(coordinates).all():
        row = int(np.argmin(np.isfinite(coordinates).all(1))) + 1
        raise PluginError(f"{title} returned NaN or infinity for vector {row}")
    return coordinates


def _rows(landmarks: int, total: int) -> str:
    return f"{landmarks:,} landmarks of {total:,} vectors" if 0 < landmarks < total else f"{total} vectors"
