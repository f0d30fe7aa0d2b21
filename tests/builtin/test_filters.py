"""Filters `none` and `cosine`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage_kit.builtin.filters import cosine
from sage_kit.components import FilterRequest


def request_of(synthetic: Any, real: Any, anchors: Any = None) -> FilterRequest:
    return FilterRequest(
        vectors=np.asarray(synthetic, np.float32),
        anchors=np.zeros(len(synthetic), np.int64) if anchors is None else anchors,
        coordinates=None,
        real_vectors=np.asarray(real, np.float32),
        real_logits=np.zeros((len(real), 2), np.float32),
    )


def test_none_keeps_all(build: Any, vectors: Any) -> None:
    keep = build("filter", "none").keep(request_of(-vectors, vectors))
    assert keep.dtype == bool
    assert keep.shape == (300,)
    assert keep.all()


@pytest.mark.parametrize("minimum", [-1.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("blocks", [(2048, 8192), (7, 11)])
def test_cosine_agrees_with_all_cosines(
    build: Any, minimum: float, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosine, "SYNTHETIC_BLOCK", blocks[0])
    monkeypatch.setattr(cosine, "REAL_BLOCK", blocks[1])
    rng = np.random.default_rng(0)
    synthetic, real = rng.standard_normal((60, 8)), rng.standard_normal((40, 8))
    keep = build("filter", "cosine", {"minimum": minimum}).keep(
        request_of(synthetic * 9, real * 5, rng.integers(40, size=60))
    )
    cosines = (synthetic / np.linalg.norm(synthetic, axis=1)[:, None]) @ (
        real / np.linalg.norm(real, axis=1)[:, None]
    ).T
    nearest = cosines.max(axis=1)
    assert keep.dtype == bool
    assert np.abs(nearest - minimum).min() > 1e-6 or minimum in (-1.0, 1.0)
    np.testing.assert_array_equal(keep, nearest >= minimum)


def test_cosine_drops_by_default_what_points_away(build: Any) -> None:
    real = [[1.0, 0.0], [1.0, 0.1]]
    keep = build("filter", "cosine").keep(request_of([[3.0, 0.0], [-1.0, 0.0], [0.1, 1.0], [1.0, 1.0]], real))
    assert keep.tolist() == [True, False, False, True]


def test_a_zero_vector_has_no_direction(build: Any) -> None:
    keep = build("filter", "cosine").keep(request_of([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]))
    assert keep.tolist() == [False, True]


def test_cosine_of_nothing_is_nothing(build: Any, vectors: Any) -> None:
    assert build("filter", "cosine").keep(request_of(vectors[:0], vectors)).shape == (0,)
