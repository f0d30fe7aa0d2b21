"""Checks of filters."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from sage_kit.components import FilterRequest, FilterSpec
from sage_kit.testing import toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs
from sage_kit.testing.registry import check, require
from sage_kit.testing.subject import Subject, unchanged, works_or_explains
from sage_kit.testing.surroundings import disturbed


def _request(subject: Subject, count: int = toy.HELD_OUT, **fields: Any) -> FilterRequest:
    vectors = toy.held_out()[:count]
    needs_labels = cast(FilterSpec, subject.spec).needs_labels
    given = {
        "vectors": vectors,
        "anchors": np.arange(count, dtype=np.int64),
        "coordinates": np.ascontiguousarray(vectors[:, :2]),
        "real_vectors": toy.train(),
        "real_logits": toy.logits(),
        "logits": toy.logits(count, 9) if needs_labels else None,
        "wanted": max(1, count // 2),
        "student_logits": toy.logits(count, 8) if cast(FilterSpec, subject.spec).needs_student else None,
        "real_labels": toy.labels(),
        "loss_history": toy.losses()[None].copy(),
        "tokens": toy.token_ids(toy.ROWS),
        "round": 2,
        **fields,
    }
    return FilterRequest(**given)


def _keep(subject: Subject, request: FilterRequest, judge: Any = None) -> Any:
    keep = (judge or subject.build()).keep(request)
    require(isinstance(keep, np.ndarray), f"keep returns {type(keep).__name__} instead of a numpy array")
    require(keep.dtype == bool, f"keep returns {keep.dtype} instead of bool")
    require(
        keep.shape == (len(request.vectors),),
        f"keep returns shape {keep.shape}, unlike the {len(request.vectors)} rows",
    )
    return keep


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    vectors = toy.many(rows, seed=round)
    fields = {
        "vectors": vectors,
        "anchors": np.random.default_rng(round).integers(0, rows, rows),
        "coordinates": np.ascontiguousarray(vectors[:, :2]),
        "real_vectors": toy.many(rows),
        "real_logits": toy.logits(rows),
        "real_labels": toy.labels(rows),
        "loss_history": np.stack([toy.losses(rows, number) for number in range(2, round + 1)]),
        "tokens": toy.token_ids(rows),
        "round": round,
    }
    return {"request": _request(subject, rows, **fields)}


def _use(subject: Subject, judge: Any, inputs: Inputs) -> Outputs:
    return {"answers": _keep(subject, inputs["request"], judge)}


EXERCISES["filter"] = Exercise(_make, _use)


@check("filter")
def filter_shapes(subject: Subject) -> None:
    """An array of bool with one value for each synthetic example, for one and for many.

    To fix: return a comparison such as ``distances < limit`` of shape (m,); set `needs_labels` if ``request.logits`` is
    used.
    """
    for count in (toy.HELD_OUT, 1):
        _keep(subject, _request(subject, count))


@check("filter")
def filter_keeps_its_input(subject: Subject) -> None:
    """The request's arrays are left as they were.

    To fix: work on copies; in a run the arrays are read-only.
    """
    request = _request(subject)
    names = ("vectors", "anchors", "coordinates", "real_vectors", "real_logits", "logits")
    with unchanged(**{name: getattr(request, name) for name in names}):
        subject.build().keep(request)


@check("filter")
def filter_is_repeatable(subject: Subject) -> None:
    """The same request gives the same answer, whatever the state of the global random generators.

    To fix: draw everything random from a generator that each call makes anew from ``context.seed``.
    """
    judge = subject.build()
    with disturbed(51):
        first = _keep(subject, _request(subject), judge)
    with disturbed(52):
        for found in (_keep(subject, _request(subject), judge), _keep(subject, _request(subject))):
            require(np.array_equal(first, found), "the same request is answered differently")


@check("filter")
def filter_takes_hard_data(subject: Subject) -> None:
    """Examples without coordinates, copies of real ones, zero vectors and few real rows work or give a SageError.

    To fix: handle ``request.coordinates is None`` (samplers that bypass the map), divisions by a norm of zero, and
    neighbours that are more than there are rows.
    """
    copies = toy.train(toy.HELD_OUT)
    zero = np.zeros((toy.HELD_OUT, toy.DIM), dtype=np.float32)
    few = {
        "real_vectors": toy.train(3),
        "real_logits": toy.logits(3),
        "real_labels": toy.labels(3),
        "loss_history": toy.losses(3)[None].copy(),
        "tokens": toy.token_ids(3),
        "anchors": np.zeros(toy.HELD_OUT, dtype=np.int64),
    }
    cases: list[tuple[str, dict[str, Any]]] = [
        ("no coordinates", {"coordinates": None}),
        ("copies of real vectors", {"vectors": copies, "coordinates": copies[:, :2].copy()}),
        ("zero vectors", {"vectors": zero}),
        ("three real rows", few),
    ]
    for what, fields in cases:
        works_or_explains(what, lambda fields=fields: _keep(subject, _request(subject, **fields)))  # type: ignore[misc]
