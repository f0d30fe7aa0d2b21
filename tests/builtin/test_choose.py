"""Filter `choose`: how many it keeps, which, and of which classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage_kit.components import FilterRequest
from sage_kit.data.metrics import divergence
from sage_kit.errors import CompatibilityError


def request(logits: Any, student: Any, wanted: int, real: Any = None, round: int = 2) -> FilterRequest:
    m = len(logits)
    return FilterRequest(
        vectors=np.zeros((m, 3), np.float32),
        anchors=np.zeros(m, np.int64),
        coordinates=None,
        real_vectors=np.zeros((5, 3), np.float32),
        real_logits=np.zeros((5, logits.shape[1]), np.float32) if real is None else real,
        logits=logits,
        student_logits=student,
        wanted=wanted,
        round=round,
    )


def outputs(m: int = 200, classes: int = 2, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    teacher = rng.standard_normal((m, classes)).astype(np.float32)
    return teacher, (teacher + rng.standard_normal((m, classes))).astype(np.float32)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_the_largest_divergences_are_kept(build: Any, classes: int) -> None:
    teacher, student = outputs(classes=classes)
    keep = build("filter", "choose").keep(request(teacher, student, 100))
    assert keep.dtype == bool
    assert keep.sum() == 100
    found = divergence(teacher, student)
    assert found[keep].min() >= found[~keep].max()


def test_a_draw_by_weight_prefers_them_and_changes_from_round_to_round(build: Any) -> None:
    teacher, student = outputs(2000)
    chosen = build("filter", "choose", {"draw": "weighted", "factor": 4})
    keeps = [chosen.keep(request(teacher, student, 500, round=round)) for round in (2, 2, 3)]
    found = divergence(teacher, student)
    assert [keep.sum() for keep in keeps] == [500] * 3
    assert (keeps[0] == keeps[1]).all()
    assert (keeps[0] != keeps[2]).any()
    largest = np.sort(found)[-500:].mean()
    assert 1.2 * found.mean() < found[keeps[0]].mean() < 0.95 * largest


def test_by_chance_the_divergence_does_not_count(build: Any) -> None:
    teacher, student = outputs(4000)
    keep = build("filter", "choose", {"by": "chance"}).keep(request(teacher, student, 2000))
    found = divergence(teacher, student)
    assert keep.sum() == 2000
    assert abs(found[keep].mean() / found.mean() - 1) < 0.1


@pytest.mark.parametrize(("balance", "expected"), [("teacher", [20, 30, 50]), ("equal", [33, 33, 34])])
def test_classes_are_balanced(build: Any, balance: str, expected: list[int]) -> None:
    teacher, student = outputs(600, 3)
    real = np.eye(3, dtype=np.float32)[np.repeat([0, 1, 2], [2, 3, 5])]
    keep = build("filter", "choose", {"balance": balance}).keep(request(teacher, student, 100, real))
    counts = np.bincount(teacher.argmax(1)[keep], minlength=3)
    assert np.abs(counts - expected).max() <= 1
    assert counts.sum() == 100
    found = divergence(teacher, student)
    for label in range(3):
        own = teacher.argmax(1) == label
        assert found[own & keep].min() >= found[own & ~keep].max()


def test_what_a_class_lacks_is_taken_of_the_others(build: Any) -> None:
    teacher, student = outputs(100)
    teacher[:, 0] += np.where(np.arange(100) < 95, 10, -10)
    for real in ([50, 50], [0, 100], [100, 0]):
        logits = np.eye(2, dtype=np.float32)[np.repeat([0, 1], real)]
        keep = build("filter", "choose", {"balance": "teacher"}).keep(request(teacher, student, 50, logits))
        assert keep.sum() == 50
        few = int((teacher.argmax(1) == 1)[keep].sum())
        assert few == (0 if real == [100, 0] else 5)


def test_fewer_than_wanted_and_outputs_that_are_not_finite(build: Any) -> None:
    teacher, student = outputs(10)
    assert build("filter", "choose").keep(request(teacher, student, 50)).all()
    student[3] = np.nan
    keep = build("filter", "choose").keep(request(teacher, student, 1))
    assert keep.sum() == 1


REFUSALS: list[tuple[dict[str, Any], int, str]] = [({}, 2, "not there"), ({"balance": "equal"}, 1, "regress")]


@pytest.mark.parametrize(("options", "classes", "expected"), REFUSALS)
def test_what_it_cannot_do_is_one_line(build: Any, options: dict[str, Any], classes: int, expected: str) -> None:
    teacher, student = outputs(classes=classes)
    with pytest.raises(CompatibilityError, match=expected) as caught:
        build("filter", "choose", options).keep(request(teacher, student if options else None, 5))
    assert "\n" not in str(caught.value)
