"""Checks of reducers."""

from __future__ import annotations

import dataclasses
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from sage_kit.errors import CompatibilityError
from sage_kit.recipe import resolve
from sage_kit.testing import toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs, recorded
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import (
    LEAST_FIT,
    PluginsWith,
    Subject,
    r_squared,
    require_array,
    unchanged,
    works_or_explains,
)
from sage_kit.testing.surroundings import disturbed

SLOW, FEWER = 2.0, 200
"""Processor time that a transform or an inverse of many rows may take [s]; else it is given `FEWER` of them."""

AFFORDABLE: weakref.WeakKeyDictionary[Subject, dict[str, int]] = weakref.WeakKeyDictionary()
"""How many rows each method of a reducer under check is given."""

NEARER = 0.7  # largest distance of neighbours in the map [distance of rows at random]
TOLERANCE = 1e-3
"""Largest difference between a vector's coordinates in two batches [standard deviations of the coordinates]."""


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    return {"vectors": toy.many(rows), "other vectors": toy.many(rows, seed=1)}


def _use(subject: Subject, reducer: Any, inputs: Inputs) -> Outputs:
    vectors, others = inputs["vectors"], inputs["other vectors"]
    width = subject.n_components
    coordinates = require_array("what fit_transform returns", subject.fit(reducer, vectors), (len(vectors), width))
    found: Outputs = {"coordinates": coordinates}
    if subject.reducer_spec.has_transform:
        others = others[: _affordable(subject, "transform", reducer.transform, others)]
        found["placed"] = require_array("what transform returns", reducer.transform(others), (len(others), width))
    if subject.reducer_spec.has_inverse:
        points = np.array(coordinates, dtype=np.float32)
        points = points[: _affordable(subject, "inverse_transform", reducer.inverse_transform, points)]
        inverse = reducer.inverse_transform(points)
        found["inverse"] = require_array("what inverse_transform returns", inverse, (len(points), vectors.shape[1]))
    return found


def _affordable(subject: Subject, method: str, call: Callable[[Any], Any], rows: Any) -> int:
    """How many rows a method is given: all, unless that would take long, as for libraries that search for each one."""
    known = AFFORDABLE.setdefault(subject, {})
    if len(rows) <= toy.FEW:
        call(rows)  # the first call may compile
        started = time.process_time()
        call(rows)
        seconds = (time.process_time() - started) / len(rows) * toy.MANY
        known[method] = toy.MANY if seconds < SLOW else FEWER
    return known.get(method, toy.MANY)


EXERCISES["reducer"] = Exercise(_make, _use)


@check("reducer")
def reducer_shapes(subject: Subject) -> None:
    """Coordinates are finite floats of shape (n, n_components), for two and three components, for one row and for many.

    A reducer that refuses two components with a SageError is checked with one, or with as many as the vectors have.

    To fix: return a numpy array with a row for each vector and ``context.n_components`` columns; declare
    `max_components` if the library takes no more.
    """
    reducer, coordinates = subject.fitted
    require_array("what fit_transform returns", coordinates, (toy.ROWS, subject.n_components))
    if subject.reducer_spec.has_inverse:
        points = np.array(coordinates[:3], dtype=np.float32)
        require_array("what inverse_transform returns", reducer.inverse_transform(points), (3, toy.DIM))
    if subject.reducer_spec.has_transform:
        require_array("what transform returns", reducer.transform(toy.held_out()), (toy.HELD_OUT, subject.n_components))
        require_array(
            "what transform returns for one row", reducer.transform(toy.held_out()[:1]), (1, subject.n_components)
        )
    limit = subject.reducer_spec.max_components
    if subject.n_components == 2 and (limit is None or limit >= 3):
        three = subject.fit(subject.build(n_components=3), toy.train())
        require_array("what fit_transform returns", three, (toy.ROWS, 3))


@check("reducer")
def reducer_keeps_its_input(subject: Subject) -> None:
    """fit_transform, transform and inverse_transform leave their arguments as they were.

    To fix: work on a copy, ``np.array(vectors)``, and look for a library's argument like ``copy=False``.
    """
    vectors, others = toy.train(), toy.held_out()
    _ = subject.fitted  # finds a number of components that it takes
    reducer = subject.build_unwatched()
    with unchanged(vectors=vectors, others=others):
        coordinates = np.array(subject.fit(reducer, vectors), dtype=np.float32)[:4]
        if subject.reducer_spec.has_transform:
            reducer.transform(others)
    if subject.reducer_spec.has_inverse:
        with unchanged(coordinates=coordinates):
            reducer.inverse_transform(coordinates)


@check("reducer")
def reducer_is_repeatable(subject: Subject) -> None:
    """The same seed and vectors give the same coordinates, whatever the state of the global random generators.

    To fix: draw everything random from ``context.seed`` (a library's ``random_state``), or declare `repeatable=False`.
    """
    if not subject.reducer_spec.repeatable:
        raise NotApplicable("the spec says that it is not repeatable")
    _, first = subject.fitted
    with disturbed(12):
        second = subject.fit(subject.build_unwatched(), toy.train())
    require(np.array_equal(first, second), "two fits under the same seed give different coordinates")


@check("reducer")
def reducer_state_round_trip(subject: Subject) -> None:
    """A reducer that takes over a state stored as plain arrays does what the fitted one does.

    To fix: let get_state return everything that transform and inverse_transform use as a dictionary of numeric numpy
    arrays, and let set_state take it over.
    """
    spec = subject.reducer_spec
    if not spec.has_state:
        raise NotApplicable("the spec declares no state (has_state)")
    from safetensors.numpy import load, save

    reducer, coordinates = subject.fitted
    state = reducer.get_state()
    require(isinstance(state, dict), f"get_state returns {type(state).__name__} instead of a dict")
    for name, values in state.items():
        require(isinstance(name, str), f"the state's name {name!r} is no text")
        is_plain = isinstance(values, np.ndarray) and values.dtype.kind in "fiub"
        require(is_plain, f"the state's {name!r} is no array of numbers")
    other = subject.build_unwatched()
    other.set_state(load(save({name: np.ascontiguousarray(values) for name, values in state.items()})))
    again = other.get_state()
    require(again.keys() == state.keys(), "get_state after set_state has other names")
    for name, values in state.items():
        same = np.array_equal(again[name], values, equal_nan=values.dtype.kind == "f")
        require(same, f"the state's {name!r} changes on its way through set_state")
    with disturbed(13):
        if spec.has_transform:
            before, after = reducer.transform(toy.held_out()), other.transform(toy.held_out())
            require(np.allclose(before, after, atol=1e-6), "transform differs after set_state")
        if spec.has_inverse:
            points = np.asarray(coordinates, dtype=np.float32)[:4]
            before, after = reducer.inverse_transform(points), other.inverse_transform(points)
            require(np.allclose(before, after, atol=1e-6), "inverse_transform differs after set_state")


@check("reducer")
def reducer_takes_hard_data(subject: Subject) -> None:
    """The fewest rows that the spec allows, and rows that occur several times, work or give a SageError of one line.

    To fix: declare `min_rows` in the spec, and raise sage_kit.errors.CompatibilityError for what the library refuses.
    """
    spec = subject.reducer_spec
    _ = subject.fitted  # finds a number of components that it takes
    number = subject.n_components
    least = number + 1
    if spec.min_rows is not None:
        least = max(least, spec.min_rows(subject.options, number))

    def fit(vectors: Any) -> None:
        found = subject.fit(subject.build_unwatched(), vectors)
        require_array("what fit_transform returns", found, (len(vectors), number))

    if least <= toy.ROWS:
        works_or_explains(f"{least} rows, the fewest it says it takes", lambda: fit(toy.train(least)))
    repeated = np.tile(toy.train(toy.ROWS // 4), (4, 1))
    works_or_explains("rows that occur four times each", lambda: fit(repeated))


@check("reducer")
def reducer_does_not_hide_nan(subject: Subject) -> None:
    """A vector with NaN ends in an error, or in coordinates that show it; it is never placed as if it were whole.

    A run refuses such vectors before they reach a reducer; other callers may not.

    To fix: do not replace NaN by a number; let the library refuse it, or raise sage_kit.errors.CompatibilityError.
    """
    _ = subject.fitted  # finds a number of components that it takes
    vectors = toy.train()
    vectors[5] = np.nan
    reducer = subject.build_unwatched()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            coordinates = np.asarray(subject.fit(reducer, vectors), dtype=float)
    except Exception:  # a library may refuse as it likes: a run reports it in one line under the reducer's name
        return
    placed = coordinates.shape == (toy.ROWS, subject.n_components) and np.isfinite(coordinates[5]).all()
    require(not placed, "a vector that holds NaN gets finite coordinates")


@check("reducer")
def reducer_limit_is_kept(subject: Subject) -> None:
    """More components than `max_components` are refused before anything is fitted.

    To fix: set `max_components` in the spec to the most that the library takes.
    """
    limit = subject.reducer_spec.max_components
    if limit is None:
        raise NotApplicable("the spec declares no largest n_components")
    require(isinstance(limit, int) and limit >= 1, f"max_components is {limit!r}")
    subject.need_packages()
    built = []
    spec = dataclasses.replace(subject.component_spec, factory=lambda options, context: built.append(1))
    try:
        resolve(subject.config(n_components=limit + 1), PluginsWith(spec))
    except CompatibilityError as error:
        require(f"at most {limit}" in str(error), f"the error does not name the limit: {error}")
    else:
        require(False, f"{limit + 1} components are not refused")
    require(not built, "it was built before its limit was looked at")
    if 2 < limit < min(toy.DIM, 8) and limit != 3:
        found = subject.fit(subject.build(n_components=limit), toy.train())
        require_array(f"what fit_transform returns for {limit} components", found, (toy.ROWS, limit))


@check("reducer")
def reducer_batch_invariance(subject: Subject) -> None:
    """A vector that it was not fitted on has the same coordinates alone and among others.

    To fix: let transform treat each row by itself. Where the library cannot, name this check in `expected_failures`.
    """
    if not subject.reducer_spec.has_transform:
        raise NotApplicable("the spec declares no transform (has_transform)")
    reducer, coordinates = subject.fitted
    vectors = toy.held_out()
    with disturbed(14):
        together = np.asarray(reducer.transform(vectors))
        parts = np.concatenate([reducer.transform(vectors[:1]), reducer.transform(vectors[1:5])])
        backwards = np.asarray(reducer.transform(vectors[::-1].copy()))[::-1]
    scale = np.std(np.asarray(coordinates, dtype=float), axis=0) + np.finfo(np.float32).tiny
    apart = max(float(np.max(np.abs(a - b) / scale)) for a, b in ((together[:5], parts), (together, backwards)))
    differ = "vectors differ by {:.2g} standard deviations between"
    require(apart <= TOLERANCE, f"coordinates of the same {differ.format(apart)} batches")
    recording = recorded(subject)
    many = np.asarray(recording.many.outputs["placed"])
    others = recording.many.inputs["other vectors"][: len(many)]
    with disturbed(17):
        few = np.asarray(recording.component.transform(others[-30:].copy()))
    scale = np.std(np.asarray(recording.many.outputs["coordinates"], dtype=float), axis=0) + np.finfo(np.float32).tiny
    apart = float(np.max(np.abs(many[-30:] - few) / scale))
    require(apart <= TOLERANCE, f"coordinates of 30 {differ.format(apart)} a batch of them and one of many")


@check("reducer")
def reducer_transform_agrees(subject: Subject) -> None:
    """The vectors that it was fitted on are placed nearer to where fit_transform put them than the map's centre is.

    To fix: let transform use what fit_transform has learned, in the same directions and scale.
    """
    if not subject.reducer_spec.has_transform:
        raise NotApplicable("the spec declares no transform (has_transform)")
    reducer, coordinates = subject.fitted
    coordinates = np.asarray(coordinates, dtype=float)
    with disturbed(15):
        again = np.asarray(reducer.transform(toy.train()), dtype=float)
    fit = r_squared(coordinates, again, coordinates.mean(axis=0))
    require(fit > 0, f"transform places the same vectors elsewhere than fit_transform does: R2 is {fit:.2f}")


@check("reducer")
def reducer_inverse_beats_mean(subject: Subject) -> None:
    """The inverse brings coordinates back to vectors nearer to the truth than the mean vector is (R2 above 0.02).

    Held-out vectors are taken where the reducer can place them, else those it was fitted on.

    To fix: check that inverse_transform undoes transform, or take `has_inverse` back: inverter `knn` needs none.
    """
    spec = subject.reducer_spec
    if not spec.has_inverse:
        raise NotApplicable("the spec declares no inverse (has_inverse)")
    reducer, coordinates = subject.fitted
    truth = toy.held_out() if spec.has_transform else toy.train(toy.HELD_OUT)
    points = reducer.transform(truth) if spec.has_transform else coordinates[: toy.HELD_OUT]
    points = np.array(points, dtype=np.float32)
    found = require_array("what inverse_transform returns", reducer.inverse_transform(points), truth.shape)
    one = reducer.inverse_transform(points[:1])
    require_array("what inverse_transform returns for one row", one, (1, toy.DIM))
    fit = r_squared(truth, found, toy.train().mean(axis=0))
    require(fit > LEAST_FIT, f"its inverse is no better than the mean vector: R2 is {fit:.2f}")


@check("reducer")
def reducer_returns_float32(subject: Subject) -> None:
    """Coordinates and vectors are float32: with float64 every array after them takes twice the memory and time.

    To fix: end with ``np.asarray(coordinates, dtype=np.float32)``.
    """
    methods = {"coordinates": "fit_transform", "placed": "transform", "inverse": "inverse_transform"}
    for use in (recorded(subject).few, recorded(subject).many):
        for name, values in use.outputs.items():
            require(values.dtype == np.float32, f"{methods[name]} returns {values.dtype} instead of float32")


@check("reducer")
def reducer_keeps_order(subject: Subject) -> None:
    """With many rows, too, each row of the map belongs to the vector of the same row.

    Where there is a transform or an inverse, it finds the rows again; else neighbours among the vectors are nearer in
    the map than rows at random.

    To fix: put the rows back in order after sorting or splitting them.
    """
    recording = recorded(subject)
    vectors = toy.many()
    coordinates = np.asarray(recording.many.outputs["coordinates"], dtype=float)
    if subject.reducer_spec.has_transform:
        placed = len(recording.many.outputs["placed"])
        with disturbed(16):
            again = np.asarray(recording.component.transform(vectors[:placed]), dtype=float)
        fit = r_squared(coordinates[:placed], again, coordinates.mean(axis=0))
        require(fit > 0, f"with many rows transform places the same vectors elsewhere than fit_transform: R2 {fit:.2f}")
    if "inverse" in recording.many.outputs:
        inverse = recording.many.outputs["inverse"]
        fit = r_squared(vectors[: len(inverse)], inverse, vectors.mean(axis=0))
        require(fit > LEAST_FIT, f"with many rows its inverse is no better than the mean vector: R2 {fit:.2f}")
    if "inverse" in recording.many.outputs or subject.reducer_spec.has_transform:
        return
    rows, others = np.random.default_rng(0).integers(0, len(vectors), (2, 300))
    nearest = np.square(vectors[rows, None] - vectors[None]).sum(-1).argsort(1)[:, 1]
    near = np.linalg.norm(coordinates[rows] - coordinates[nearest], axis=1)
    far = np.linalg.norm(coordinates[rows] - coordinates[others], axis=1)
    require(
        np.median(near) < NEARER * np.median(far),
        "with many rows neighbours among the vectors are no nearer in the map than rows at random",
    )
