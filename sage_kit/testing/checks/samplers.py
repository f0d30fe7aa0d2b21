"""Checks of samplers."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from sage_kit.components import SampleRequest, SamplerSpec, Samples
from sage_kit.testing import toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import Subject, require_array, unchanged, works_or_explains
from sage_kit.testing.surroundings import disturbed

COUNT = 32

PARTS = ("anchors", "coordinates", "vectors", "neighbors", "shares")


def _request(subject: Subject, count: int = COUNT, rows: int = toy.ROWS, **fields: Any) -> SampleRequest:
    """A request as the core makes it: what the spec does not ask for is None."""
    spec = cast(SamplerSpec, subject.spec)
    vectors = fields.pop("vectors") if "vectors" in fields else toy.train(rows)
    given = {
        "count": count,
        "losses": toy.losses(rows),
        "rng": np.random.default_rng(5),
        "vectors": vectors,
        "teacher_logits": toy.logits(rows, 0),
        "student_logits": toy.logits(rows, 1),
        "coordinates": np.ascontiguousarray(vectors[:, :2]) if spec.space == "map" else None,
        "round": 2,
        "labels": toy.labels(rows),
        "tokens": toy.token_ids(rows),
        **fields,
    }
    given.setdefault("loss_history", np.asarray(given["losses"])[None].copy())
    if spec.needs_gradient:
        given["divergence_gradient"] = lambda indices: np.sin(3 * vectors[indices] + 1).astype(np.float32)
    if spec.needs_hidden:
        given["student_hidden"] = lambda indices: np.sin(vectors[indices, None] + 2).astype(np.float32)
    return SampleRequest(**given)


def _space(subject: Subject) -> str:
    return cast(SamplerSpec, subject.spec).space


def _require_samples(subject: Subject, samples: Any, request: SampleRequest) -> Samples:
    require(isinstance(samples, Samples), f"sample returns {type(samples).__name__} instead of Samples")
    rows, count = len(request.losses), request.count
    anchors = np.asarray(samples.anchors)
    require(anchors.shape == (count,), f"anchors have shape {anchors.shape} instead of {(count,)}")
    require(anchors.dtype.kind in "iu", f"anchors are {anchors.dtype} instead of integers")
    require(((anchors >= 0) & (anchors < rows)).all(), f"an anchor lies outside 0 to {rows - 1}")
    if _space(subject) == "map":
        require_array("coordinates", samples.coordinates, (count, 2), "float32")
    else:
        require_array("vectors", samples.vectors, (count, toy.DIM), "float32")
    if samples.neighbors is not None:
        neighbors = np.asarray(samples.neighbors)
        is_right = neighbors.ndim == 2 and len(neighbors) == count and neighbors.dtype.kind in "iu"
        require(is_right, f"neighbors are {neighbors.dtype} of shape {neighbors.shape} instead of integers (count, k)")
        require(((neighbors >= 0) & (neighbors < rows)).all(), f"a neighbour lies outside 0 to {rows - 1}")
    if cast(SamplerSpec, subject.spec).gives_shares:
        require(samples.neighbors is not None, "the spec says that it gives shares, and it names no neighbors")
        shares = require_array("shares", samples.shares, (count,), "float32")
        require(((shares >= 0) & (shares <= 1)).all(), "a share lies outside 0 to 1")
    return cast(Samples, samples)


def _sample(subject: Subject, request: SampleRequest, sampler: Any = None) -> Samples:
    return _require_samples(subject, (sampler or subject.build()).sample(request), request)


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    fields = {
        "losses": toy.losses(rows, round),
        "student_logits": toy.logits(rows, round),
        "rng": np.random.default_rng(round),
        "round": round,
        "loss_history": np.stack([toy.losses(rows, number) for number in range(2, round + 1)]),
    }
    return {"request": _request(subject, rows, rows, vectors=toy.many(rows), **fields)}


def _use(subject: Subject, sampler: Any, inputs: Inputs) -> Outputs:
    request = inputs["request"]
    samples = _require_samples(subject, sampler.sample(request), request)
    return {name: getattr(samples, name) for name in PARTS}


EXERCISES["sampler"] = Exercise(_make, _use)


@check("sampler")
def sampler_shapes(subject: Subject) -> None:
    """Exactly `count` anchors within the real examples, and as many finite new points, float32, in the spec's space.

    To fix: return ``Samples(anchors=integers of shape (count,), coordinates=float32 of shape (count, n_components))``,
    or `vectors` instead of `coordinates` if the spec's space is "full"; draw with replacement if rows do not suffice.
    """
    for count in (COUNT, 1, 3 * toy.ROWS):
        _sample(subject, _request(subject, count))


@check("sampler")
def sampler_keeps_its_input(subject: Subject) -> None:
    """The request's arrays are left as they were.

    To fix: work on copies; in a run the arrays are read-only.
    """
    request = _request(subject)
    names = ("losses", "vectors", "teacher_logits", "student_logits", "coordinates")
    with unchanged(**{name: getattr(request, name) for name in names}):
        subject.build().sample(request)


@check("sampler")
def sampler_is_repeatable(subject: Subject) -> None:
    """The same request and generator give the same samples, whatever was sampled before or random states hold.

    To fix: draw everything random from ``request.rng``, which is new in each round, and keep no generator of your own:
    a resumed run would find it in another state. What has to go on from round to round belongs into get_state.
    """
    sampler = subject.build()
    with disturbed(21):
        first = _sample(subject, _request(subject), sampler)
    with disturbed(22):
        pairs = [(_sample(subject, _request(subject)), "between two samplers")]
        if not subject.is_stateful:  # one with a state may go on
            pairs.append((_sample(subject, _request(subject), sampler), "between two calls of one sampler"))
    for name in PARTS:
        for found, when in pairs:
            one, two = getattr(first, name), getattr(found, name)
            same = (one is None and two is None) or np.array_equal(one, two)
            require(same, f"{name} differ {when}, with generators of the same seed")


@check("sampler")
def sampler_takes_hard_data(subject: Subject) -> None:
    """Losses that are all equal or all zero, equal vectors, and the fewest rows work or give a SageError of one line.

    To fix: look for divisions by a sum of weights or by a distance that may be zero, declare `min_rows` in the spec,
    and raise sage_kit.errors.CompatibilityError for what cannot work.
    """
    spec, space = cast(SamplerSpec, subject.spec), _space(subject)
    least = max(1, spec.min_rows(subject.options)) if spec.min_rows is not None else 1

    def take(**given: Any) -> None:
        _sample(subject, _request(subject, **given))

    for what, value in (("equal losses", 0.7), ("losses of zero", 0.0)):
        losses = np.full(toy.ROWS, value, dtype=np.float32)
        works_or_explains(what, lambda losses=losses: take(losses=losses))  # type: ignore[misc]
    same = toy.logits()
    works_or_explains("a student that agrees in all", lambda: take(teacher_logits=same, student_logits=same.copy()))
    repeated = np.tile(toy.train(toy.ROWS // 4), (4, 1))
    places = repeated[:, :2].copy() if space == "map" else None
    works_or_explains("rows that occur four times each", lambda: take(vectors=repeated, coordinates=places))
    if least <= toy.ROWS:
        rows = f"{least} rows, the fewest it says it takes" if least > 1 else "one row"
        works_or_explains(rows, lambda: take(rows=least))
