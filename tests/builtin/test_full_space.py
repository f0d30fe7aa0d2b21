"""Samplers `gaussian`, `smote` and `shuffled`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from samplerequest import request_of

from sage_kit.builtin.samplers import full_space
from sage_kit.builtin.samplers.full_space import others
from sage_kit.components.plugins import Plugins
from sage_kit.errors import CompatibilityError, ConfigError

NAMES = ["gaussian", "smote", "shuffled"]


def all_neighbors(vectors: Any, k: int) -> tuple[Any, Any]:
    exact = np.asarray(vectors, np.float64)
    distances = np.linalg.norm(exact[:, None] - exact, axis=2)
    nearest = np.argsort(distances, axis=1)[:, 1 : k + 1]
    return np.take_along_axis(distances, nearest, axis=1), nearest


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 90, 700])
def test_shapes_types_and_anchors(build: Any, plugins: Plugins, vectors: Any, name: str, count: int) -> None:
    assert plugins.sampler(name).space == "full"
    request = request_of(vectors, count)
    samples = build("sampler", name, {"fraction": 0.3}).sample(request)
    assert samples.anchors.shape == (count,)
    assert samples.anchors.dtype == np.int64
    assert samples.vectors.shape == (count, 24)
    assert samples.vectors.dtype == np.float32
    assert samples.coordinates is None
    assert request.losses[samples.anchors].min() >= np.sort(request.losses)[-90]
    assert not np.array_equal(samples.vectors, vectors[samples.anchors])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_gives_the_same_samples(build: Any, vectors: Any, name: str) -> None:
    first, again, other = (build("sampler", name).sample(request_of(vectors, 80, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.anchors, again.anchors)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert not np.array_equal(first.vectors, other.vectors)


@pytest.mark.parametrize("name", NAMES)
def test_duplicates_have_nowhere_to_go(build: Any, name: str) -> None:
    vectors = np.repeat(np.random.default_rng(0).standard_normal((4, 20)), 25, axis=0)
    samples = build("sampler", name, {"k": 10}).sample(request_of(vectors, 120))
    np.testing.assert_allclose(samples.vectors, vectors[samples.anchors], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_examples_are_refused(build: Any, plugins: Plugins, vectors: Any, name: str) -> None:
    min_rows = plugins.sampler(name).min_rows
    assert min_rows is not None
    assert min_rows(plugins.options("sampler", name, {"k": 7})) == 8
    sampler = build("sampler", name, {"k": 7})
    assert len(sampler.sample(request_of(vectors[:8], 9)).anchors) == 9
    for rows in (1, 7):
        with pytest.raises(CompatibilityError, match=f"7 neighbours among {rows - 1} other examples"):
            sampler.sample(request_of(vectors[:rows], 9))


@pytest.mark.parametrize("name", NAMES)
def test_losses_must_be_known(build: Any, vectors: Any, name: str) -> None:
    with pytest.raises(ConfigError, match="no training example has a finite loss"):
        build("sampler", name).sample(request_of(vectors, 9, losses=np.full(300, np.nan)))


@pytest.mark.parametrize(("scale", "k"), [(0.25, 15), (2.0, 3), (0.0, 5)])
def test_gaussian_is_as_long_as_the_neighbourhood_is_wide(build: Any, vectors: Any, scale: float, k: int) -> None:
    samples = build("sampler", "gaussian", {"scale": scale, "k": k}).sample(request_of(vectors, 400))
    noise = samples.vectors - vectors[samples.anchors].astype(np.float64)
    expected = scale * all_neighbors(vectors, k)[0].mean(axis=1)[samples.anchors]
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), expected, rtol=1e-4, atol=1e-6)
    assert samples.neighbors is None


def test_gaussian_of_a_given_length_in_every_direction(build: Any, vectors: Any) -> None:
    samples = build("sampler", "gaussian", {"length": 3.0}).sample(request_of(vectors, 20_000))
    noise = samples.vectors - vectors[samples.anchors].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), 3, rtol=1e-4)
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(noise.T @ noise / len(noise), np.eye(24) * 9 / 24, atol=0.03)


def test_gaussian_and_smote_move_equally_far_by_default(build: Any, vectors: Any) -> None:
    request = request_of(vectors, 20_000)
    lengths = []
    for name in ("gaussian", "smote"):
        samples = build("sampler", name).sample(request)
        lengths.append(np.linalg.norm(samples.vectors - vectors[samples.anchors], axis=1).mean())
    assert lengths[0] == pytest.approx(lengths[1], rel=0.02)


@pytest.mark.parametrize("interpolation", [0.25, 1.0])
def test_smote_goes_toward_a_neighbour_in_full_space(build: Any, vectors: Any, interpolation: float) -> None:
    samples = build("sampler", "smote", {"k": 5, "interpolation": interpolation}).sample(request_of(vectors, 400))
    nearest = all_neighbors(vectors, 5)[1]
    np.testing.assert_array_equal(samples.neighbors, nearest[samples.anchors])
    exact = vectors.astype(np.float64)
    ways = exact[samples.neighbors] - exact[samples.anchors][:, None]
    moved = samples.vectors - exact[samples.anchors]
    shares = np.einsum("md,mkd->mk", moved, ways) / np.einsum("mkd,mkd->mk", ways, ways)
    rest = np.linalg.norm(moved[:, None] - shares[..., None] * ways, axis=2)
    chosen = rest.argmin(axis=1)
    np.testing.assert_allclose(rest.min(axis=1), 0, atol=1e-5)
    share = shares[np.arange(400), chosen]
    assert share.min() >= -1e-4
    assert 0.9 * interpolation < share.max() <= interpolation + 1e-4
    assert len(set(chosen.tolist())) == 5


def test_shuffled_moves_by_the_way_between_other_real_vectors(build: Any, vectors: Any) -> None:
    request = request_of(vectors, 60)
    samples = build("sampler", "shuffled", {"k": 4, "fraction": 0.1}).sample(request)
    exact = vectors.astype(np.float64)
    nearest = all_neighbors(vectors, 4)[1]
    hard = np.argsort(-request.losses)[:30]
    ways = (exact[nearest[hard]] - exact[hard][:, None]).reshape(-1, 24)
    moved = samples.vectors - exact[samples.anchors]
    shares = moved @ ways.T / (ways**2).sum(1)
    rest = np.linalg.norm(moved[:, None] - shares[..., None] * ways, axis=2)
    np.testing.assert_allclose(rest.min(axis=1), 0, atol=1e-5)
    owners = hard[rest.argmin(axis=1) // 4]
    assert (owners != samples.anchors).all()
    # every displacement is used, on another anchor than its own
    np.testing.assert_array_equal(np.sort(owners), np.sort(samples.anchors))
    assert samples.neighbors is None


@pytest.mark.parametrize("seed", range(20))
def test_others_is_an_order_without_meeting_oneself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    examples = rng.permutation(np.repeat(np.arange(7), rng.integers(1, 6, 7)))
    result = others(examples, 9, rng)
    assert (result != examples).all()
    if 2 * np.bincount(examples).max() <= len(examples):
        np.testing.assert_array_equal(np.sort(result), np.sort(examples))


def test_others_of_a_majority_are_any_others() -> None:
    result = others(np.array([3] * 500 + [1]), 5, np.random.default_rng(0))
    assert set(result[:500].tolist()) == {0, 1, 2, 4}
    assert result[500] == 3
    assert others(np.array([0]), 2, np.random.default_rng(0)).tolist() == [1]


def test_of_many_examples_some_are_candidates_and_never_the_example_itself(build: Any, vectors: Any) -> None:
    sampler = build("sampler", "smote", {"k": 5, "fraction": 1.0, "candidates": 100})
    request = request_of(vectors, 300)
    samples = sampler.sample(request)
    chosen = np.unique(samples.neighbors)
    assert len(chosen) <= 100 < len(vectors)
    exact = vectors.astype(np.float64)
    distances = np.linalg.norm(exact[samples.anchors][:, None] - exact[chosen], axis=2)
    distances[samples.anchors[:, None] == chosen] = np.inf
    # candidates that are nobody's neighbour would have been no nearer
    np.testing.assert_array_equal(samples.neighbors, chosen[np.argsort(distances, axis=1)[:, :5]])
    again = sampler.sample(request_of(vectors, 300, seed=1))
    assert not np.array_equal(np.unique(again.neighbors), chosen)


@pytest.mark.parametrize("name", [*NAMES, "mixup", "adversarial"])
def test_blocks_change_nothing(build: Any, vectors: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"divergence_gradient": lambda anchors: vectors[(anchors + 1) % len(vectors)]}
    whole = build("sampler", name, {}).sample(request_of(vectors, 90, **fields))
    monkeypatch.setattr(full_space, "CHUNK", 7)
    monkeypatch.setattr("sage_kit.builtin.samplers.adversarial.CHUNK", 7)
    np.testing.assert_array_equal(build("sampler", name, {}).sample(request_of(vectors, 90, **fields)).vectors,
                                  whole.vectors)  # fmt: skip
