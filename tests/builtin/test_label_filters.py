"""Filters `teacher_confidence` and `agreement_with_anchor`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage_kit.components import FilterRequest
from sage_kit.components.plugins import Plugins
from sage_kit.errors import CompatibilityError

NAMES = ["teacher_confidence", "agreement_with_anchor"]


def request_of(logits: Any, real_logits: Any, anchors: Any) -> FilterRequest:
    return FilterRequest(
        vectors=np.zeros((len(anchors), 3), np.float32),
        anchors=np.asarray(anchors, np.int64),
        coordinates=None,
        real_vectors=np.zeros((len(real_logits), 3), np.float32),
        real_logits=np.asarray(real_logits, np.float32),
        logits=None if logits is None else np.asarray(logits, np.float32),
    )


@pytest.mark.parametrize("minimum", [0.0, 0.4, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_confidence_is_the_largest_probability(build: Any, minimum: float, classes: int) -> None:
    logits = np.random.default_rng(0).standard_normal((200, classes)).astype(np.float32) * 2
    keep = build("filter", "teacher_confidence", {"minimum": minimum}).keep(
        request_of(logits, np.zeros((1, classes)), np.zeros(200))
    )
    exponents = np.exp(logits.astype(np.float64))
    largest = (exponents / exponents.sum(1, keepdims=True)).max(1)
    assert keep.dtype == bool
    assert np.abs(largest - minimum).min() > 1e-9
    np.testing.assert_array_equal(keep, largest >= minimum)


def test_confidence_of_extreme_logits(build: Any) -> None:
    keep = build("filter", "teacher_confidence", {"minimum": 1.0}).keep(
        request_of([[1e4, -1e4], [1e4, 1e4], [-1e4, -1e4]], np.zeros((1, 2)), np.zeros(3))
    )
    assert keep.tolist() == [True, False, False]


def test_agreement_compares_the_classes(build: Any) -> None:
    rng = np.random.default_rng(0)
    logits, real = rng.standard_normal((300, 3)), rng.standard_normal((40, 3))
    anchors = rng.integers(40, size=300)
    keep = build("filter", "agreement_with_anchor").keep(request_of(logits, real, anchors))
    expected = [
        max(range(3), key=logits[row].__getitem__) == max(range(3), key=real[anchor].__getitem__)
        for row, anchor in enumerate(anchors)
    ]
    assert keep.dtype == bool
    assert keep.tolist() == expected
    assert 60 < keep.sum() < 140


@pytest.mark.parametrize("name", NAMES)
def test_they_run_after_labelling(build: Any, plugins: Plugins, name: str) -> None:
    assert plugins.filter(name).needs_labels
    with pytest.raises(CompatibilityError, match="needs the teacher's labels"):
        build("filter", name).keep(request_of(None, np.zeros((1, 2)), [0]))


@pytest.mark.parametrize("name", NAMES)
def test_regression_has_no_classes(build: Any, name: str) -> None:
    with pytest.raises(CompatibilityError, match="regression") as caught:
        build("filter", name).keep(request_of([[1.0]], [[1.0]], [0]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_of_nothing_is_nothing(build: Any, name: str) -> None:
    assert build("filter", name).keep(request_of(np.zeros((0, 2)), np.zeros((1, 2)), [])).shape == (0,)
