"""Filter `density`, against all distances in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage_kit.builtin.filters import density
from sage_kit.components import FilterRequest
from sage_kit.errors import CompatibilityError


def request_of(synthetic: Any, real: Any) -> FilterRequest:
    arrays = np.array(synthetic, np.float32), np.array(real, np.float32)
    for array in arrays:
        array.flags.writeable = False
    return FilterRequest(
        vectors=arrays[0],
        anchors=np.zeros(len(synthetic), np.int64),
        coordinates=None,
        real_vectors=arrays[1],
        real_logits=np.zeros((len(real), 2), np.float32),
    )


def nth_smallest(points: Any, real: Any, number: int) -> Any:
    distances = np.linalg.norm(np.asarray(points, np.float64)[:, None] - np.asarray(real, np.float64), axis=2)
    return np.sort(distances, axis=1)[:, number]


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("k", "dim", "chunk"), [(1, 3, 4096), (5, 24, 7), (12, 24, 4096)])
def test_agrees_with_all_distances(
    build: Any, quantile: float, k: int, dim: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(density, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    real = rng.standard_normal((150, dim)).astype(np.float32)
    synthetic = (
        real[rng.integers(150, size=80)] + rng.exponential(size=(80, 1)) * rng.standard_normal((80, dim))
    ).astype(np.float32)
    keep = build("filter", "density", {"k": k, "quantile": quantile}).keep(request_of(synthetic, real))
    # a real vector's own distance of zero comes first
    limit = np.quantile(nth_smallest(real, real, k), quantile)
    distances = nth_smallest(synthetic, real, k - 1)
    assert np.abs(distances - limit).min() > 1e-6
    assert keep.dtype == bool
    np.testing.assert_array_equal(keep, distances <= limit)
    assert 0 < keep.sum() < 80 or quantile in (0.0, 1.0)


def test_a_sample_gives_nearly_the_same_limit_and_the_seed_chooses_it(build: Any) -> None:
    rng = np.random.default_rng(0)
    real = rng.standard_normal((3000, 4))
    request = request_of(rng.standard_normal((2000, 4)) * 1.5, real)
    whole = build("filter", "density", {"sample": 3000}).keep(request)
    sampled, again, other = (
        build("filter", "density", {"sample": 300}, seed=seed).keep(request) for seed in (2**62, 2**62, 1)
    )
    np.testing.assert_array_equal(sampled, again)
    assert not np.array_equal(sampled, other)
    assert (sampled == whole).mean() > 0.95


def test_duplicates(build: Any) -> None:
    real = np.repeat([[0.0, 0.0], [5.0, 5.0]], 10, axis=0)
    keep = build("filter", "density").keep(request_of([[0.0, 0.0], [5.0, 5.0], [0.1, 0.0]], real))
    assert keep.tolist() == [True, True, False]


def test_too_few_real_vectors_are_refused(build: Any) -> None:
    rng = np.random.default_rng(0)
    density = build("filter", "density", {"k": 5})
    assert density.keep(request_of(np.zeros((2, 3)), rng.standard_normal((6, 3)))).shape == (2,)
    with pytest.raises(CompatibilityError, match="5 neighbours among 4 other examples"):
        density.keep(request_of(np.zeros((2, 3)), rng.standard_normal((5, 3))))


def test_of_nothing_is_nothing(build: Any, vectors: Any) -> None:
    assert build("filter", "density").keep(request_of(vectors[:0], vectors)).shape == (0,)
