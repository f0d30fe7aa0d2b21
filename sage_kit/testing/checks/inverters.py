"""Checks of inverters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sage_kit.recipe import calls_inverse
from sage_kit.testing import toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs, recorded
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import LEAST_FIT, Subject, r_squared, require_array, unchanged, works_or_explains
from sage_kit.testing.surroundings import disturbed

TOLERANCE = 1e-3  # largest difference between a point's vectors in two batches [standard deviations of the vectors]


@dataclass(frozen=True)
class Opaque:
    """Something that the checks hand over and do not look into."""

    value: Any


def _map(subject: Subject) -> tuple[Any, Any]:
    """A fitted linear reducer, and the coordinates of the toy vectors."""
    reducer = subject.plugins.build("reducer", "pca", {}, subject.context())
    return reducer, reducer.fit_transform(toy.train())


def _fit(subject: Subject, coordinates: Any, vectors: Any, reducer: Any, inverter: Any = None) -> Any:
    needs = calls_inverse(subject.config(), subject.plugins)
    inverter = (inverter or subject.build()).fit(coordinates, vectors, reducer if needs else None)
    require(callable(getattr(inverter, "invert", None)), "fit returns something without invert: it must return self")
    return inverter


def _nearest(points: Any, coordinates: Any) -> Any:
    from scipy.spatial import cKDTree

    return cKDTree(coordinates).query(points)[1].astype(np.int64)


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    reducer = subject.plugins.build("reducer", "pca", {}, subject.context())
    vectors = toy.many(rows)
    coordinates = reducer.fit_transform(vectors)
    points = reducer.transform(toy.many(rows, seed=1))
    anchors = _nearest(points, coordinates)
    return {
        "coordinates": coordinates, "vectors": vectors, "points": points, "anchors": anchors, "reducer": Opaque(reducer)
    }  # fmt: skip


def _use(subject: Subject, inverter: Any, inputs: Inputs) -> Outputs:
    fitted = _fit(subject, inputs["coordinates"], inputs["vectors"], inputs["reducer"].value, inverter)
    found = fitted.invert(inputs["points"], inputs["anchors"])
    return {"vectors": require_array("what invert returns", found, inputs["vectors"].shape, "float32")}


EXERCISES["inverter"] = Exercise(_make, _use)


@check("inverter")
def inverter_shapes(subject: Subject) -> None:
    """Fit returns the inverter; vectors are finite float32 of shape (m, dim), for one point and for many.

    To fix: end fit with ``return self`` and invert with ``np.asarray(vectors, dtype=np.float32)``.
    """
    reducer, coordinates = _map(subject)
    inverter = _fit(subject, coordinates, toy.train(), reducer)
    points = reducer.transform(toy.held_out())
    for count in (toy.HELD_OUT, 1):
        found = inverter.invert(points[:count], _nearest(points[:count], coordinates))
        require_array(f"what invert returns for {count} points", found, (count, toy.DIM), "float32")


@check("inverter")
def inverter_keeps_its_input(subject: Subject) -> None:
    """Fit and invert leave their arguments as they were.

    To fix: work on copies; in a run the vectors are read-only.
    """
    reducer, coordinates = _map(subject)
    vectors, points = toy.train(), reducer.transform(toy.held_out())
    anchors = _nearest(points, coordinates)
    with unchanged(coordinates=coordinates, vectors=vectors, points=points, anchors=anchors):
        _fit(subject, coordinates, vectors, reducer).invert(points, anchors)


@check("inverter")
def inverter_is_repeatable(subject: Subject) -> None:
    """The same seed and map give the same vectors, whatever the state of the global random generators.

    To fix: draw everything random from ``context.seed``.
    """
    reducer, coordinates = _map(subject)
    points = reducer.transform(toy.held_out())
    anchors = _nearest(points, coordinates)
    found = []
    for number in (31, 32):
        with disturbed(number):
            inverter = _fit(subject, coordinates, toy.train(), reducer)
            found.append(np.array(inverter.invert(points, anchors)))
    require(np.array_equal(found[0], found[1]), "two fits under the same seed give different vectors")
    again = inverter.invert(points, anchors)
    require(np.array_equal(found[1], again), "the same points inverted twice give different vectors")


@check("inverter")
def inverter_follows_coordinates(subject: Subject) -> None:
    """Other coordinates give other vectors, also near the same anchor.

    To fix: use the coordinates; the anchors only say which real example each point was made from.
    """
    reducer, coordinates = _map(subject)
    inverter = _fit(subject, coordinates, toy.train(), reducer)
    anchors = np.zeros(2, dtype=np.int64)
    found = np.asarray(inverter.invert(np.ascontiguousarray(coordinates[[0, 50]]), anchors))
    require(not np.allclose(found[0], found[1]), "two places far apart give the same vector")


@check("inverter")
def inverter_beats_mean(subject: Subject) -> None:
    """At the places of held-out vectors it finds vectors nearer to the truth than the mean vector is (R2 above 0.02).

    To fix: check that the inverter returns vectors in the order of the points, and uses the map it was fitted on.
    """
    reducer, coordinates = _map(subject)
    truth = toy.held_out()
    points = reducer.transform(truth)
    inverter = _fit(subject, coordinates, toy.train(), reducer)
    fit = r_squared(truth, inverter.invert(points, _nearest(points, coordinates)), toy.train().mean(axis=0))
    require(fit > LEAST_FIT, f"it is no better than the mean vector: R2 is {fit:.2f}")


@check("inverter")
def inverter_takes_hard_data(subject: Subject) -> None:
    """Equal points in the map, points far outside it, and three rows work or give a SageError of one line.

    To fix: look for divisions by a distance that may be zero and for neighbours that are more than there are rows;
    raise sage_kit.errors.CompatibilityError for what cannot work.
    """

    def invert(vectors: Any, shift: float = 0.0) -> None:
        reducer = subject.plugins.build("reducer", "pca", {}, subject.context())
        coordinates = reducer.fit_transform(vectors)
        anchors = np.arange(min(4, len(vectors)), dtype=np.int64)
        points = (coordinates[anchors] + shift).astype(np.float32)
        found = _fit(subject, coordinates, vectors, reducer).invert(points, anchors)
        require_array("what invert returns", found, (len(anchors), toy.DIM))

    works_or_explains("rows that occur four times each", lambda: invert(np.tile(toy.train(toy.ROWS // 4), (4, 1))))
    works_or_explains("points far outside the map", lambda: invert(toy.train(), shift=100.0))
    works_or_explains("three rows", lambda: invert(toy.train(3)))


@check("inverter")
def inverter_keeps_order(subject: Subject) -> None:
    """With many rows, too, each vector belongs to the point of the same row (R2 against the mean vector above 0.02).

    To fix: put the rows back in order after sorting or splitting them.
    """
    truth, found = toy.many(seed=1), recorded(subject).many.outputs["vectors"]
    fit = r_squared(truth, found, toy.many().mean(axis=0))
    require(fit > LEAST_FIT, f"with many rows it is no better than the mean vector: R2 is {fit:.2f}")


@check("inverter")
def inverter_batch_invariance(subject: Subject) -> None:
    """A point is inverted alike alone, among a few and among many: a run inverts in parts of any size.

    To fix: let invert treat each point by itself; what depends on all points belongs into fit.
    """
    recording = recorded(subject)
    inputs, together = recording.again.inputs, recording.again.outputs["vectors"]
    scale = np.std(toy.many(), axis=0)
    for part in (slice(0, 1), slice(1, 40), slice(1200, None)):
        points, anchors = inputs["points"][part].copy(), inputs["anchors"][part].copy()
        apart = float(np.max(np.abs(recording.component.invert(points, anchors) - together[part]) / scale))
        require(
            apart <= TOLERANCE, f"vectors of the same points differ by {apart:.2g} standard deviations between batches"
        )
