"""Samplers `high_loss` and `random`, and the draws they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage_kit.builtin.samplers.draws import draw_anchors
from sage_kit.builtin.samplers.high_loss import hardest, log_losses
from sage_kit.components import SampleRequest
from sage_kit.components.plugins import Plugins
from sage_kit.errors import CompatibilityError, ConfigError


def request_of(losses: Any, coordinates: Any, count: int, seed: int = 0) -> SampleRequest:
    n = len(losses)
    arrays = [
        np.asarray(losses, np.float32),
        None if coordinates is None else np.asarray(coordinates, np.float32),
        np.zeros((n, 4), np.float32),
        np.zeros((n, 2), np.float32),
    ]
    for array in arrays:
        if array is not None:
            array.flags.writeable = False
    return SampleRequest(
        count=count,
        losses=arrays[0],
        coordinates=arrays[1],
        vectors=arrays[2],
        teacher_logits=arrays[3],
        student_logits=arrays[3],
        rng=np.random.default_rng(seed),
    )


def a_map(n: int, dimensions: int = 2, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((n, dimensions))


def losses_of(n: int, seed: int = 2) -> Any:
    return np.random.default_rng(seed).exponential(size=n)


@pytest.mark.parametrize("name", ["high_loss", "random"])
@pytest.mark.parametrize("count", [1, 40, 60, 200, 1000])
@pytest.mark.parametrize("dimensions", [2, 20])
def test_shapes_types_and_neighbours(build: Any, name: str, count: int, dimensions: int) -> None:
    n = 200
    coordinates = a_map(n, dimensions)
    samples = build("sampler", name, {"k": 6}).sample(request_of(losses_of(n), coordinates, count))
    assert samples.anchors.shape == (count,)
    assert samples.anchors.dtype == np.int64
    assert samples.coordinates.shape == (count, dimensions)
    assert samples.coordinates.dtype == np.float32
    assert samples.vectors is None
    assert samples.neighbors.shape == (count, 6)
    assert samples.neighbors.dtype == np.int64
    distances = np.linalg.norm(coordinates[samples.anchors][:, None] - coordinates[None], axis=2)
    np.testing.assert_array_equal(samples.neighbors, np.argsort(distances, axis=1)[:, 1:7])


@pytest.mark.parametrize("seed", range(20))
def test_anchors_come_from_the_top_fraction(build: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 400))
    fraction = float(rng.uniform(0.02, 1))
    losses = rng.exponential(size=n).astype(np.float32)
    options = {"fraction": fraction, "temperature": float(rng.uniform(0.05, 20)), "k": 3}
    request = request_of(losses, a_map(n), int(rng.integers(1, 3 * n)), seed)
    samples = build("sampler", "high_loss", options).sample(request)
    top = np.sort(losses)[::-1][: int(np.ceil(fraction * n))]
    assert losses[samples.anchors].min() >= top[-1]


@pytest.mark.parametrize(
    ("fraction", "n", "expected"), [(0.3, 10, 3), (0.07, 100, 7), (0.3, 11, 4), (0.001, 10, 1), (1.0, 10, 10)]
)
def test_how_many_are_hard(fraction: float, n: int, expected: int) -> None:
    losses = losses_of(n).astype(np.float32)
    hard = hardest(losses, fraction, np.random.default_rng(0))
    np.testing.assert_array_equal(hard, np.argsort(-losses)[:expected])


def test_equal_losses_are_chosen_at_random() -> None:
    losses = np.full(1000, 0.1, np.float32)
    hard = hardest(losses, 0.1, np.random.default_rng(0))
    assert len(set(hard.tolist())) == 100
    assert 400 < hard.mean() < 600
    assert set(log_losses(losses[hard])) == {np.log(np.float64(losses[0]))}


def test_examples_without_a_loss_are_not_hard() -> None:
    losses = np.array([np.nan, 1, 3, np.inf, 2], np.float32)
    assert hardest(losses, 0.5, np.random.default_rng(0)).tolist() == [2, 4]
    with pytest.raises(ConfigError, match="lower learning_rate"):
        hardest(np.full(5, np.nan, np.float32), 0.5, np.random.default_rng(0))


def test_few_are_drawn_once_each_and_the_harder_more_often(build: Any) -> None:
    n = 100
    losses = np.arange(n, dtype=np.float32)
    sampler = build("sampler", "high_loss", {"fraction": 0.2, "temperature": 0.05})
    counts = np.zeros(n)
    for seed in range(300):
        anchors = sampler.sample(request_of(losses, a_map(n), 5, seed)).anchors
        assert len(set(anchors.tolist())) == 5
        counts[anchors] += 1
    assert counts[:80].sum() == 0
    assert counts[90:].sum() > 3 * counts[80:90].sum()


def test_losses_decide_even_when_as_many_are_asked_for_as_there_are(build: Any) -> None:
    losses = losses_of(40)
    anchors = build("sampler", "high_loss", {"fraction": 1}).sample(request_of(losses, a_map(40), 40)).anchors
    assert np.abs(np.bincount(anchors, minlength=40) - 40 * losses / losses.sum()).max() < 1


@pytest.mark.parametrize("seed", range(20))
def test_they_are_drawn_as_evenly_as_the_weights_allow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    candidates = rng.permutation(100)[:30]
    weights = rng.exponential(size=30)
    count = int(rng.integers(1, 100 if seed % 2 else 500))
    drawn = draw_anchors(candidates, np.log(weights), count, rng)
    expected = count * weights / weights.sum()
    got = np.bincount(drawn, minlength=100)[candidates]
    assert len(drawn) == count
    assert (got >= np.floor(expected - 1e-9)).all()
    assert (got <= np.ceil(expected + 1e-9)).all()


def test_the_last_mark_finds_a_candidate_in_spite_of_rounding() -> None:
    class Highest(np.random.Generator):
        def random(self, *args: Any, **kwargs: Any) -> Any:
            return np.nextafter(1.0, 0.0)

    drawn = draw_anchors(np.arange(3), np.log([0.1, 0.2, 0.7]), 1000, Highest(np.random.PCG64(0)))
    np.testing.assert_allclose(np.bincount(drawn), [100, 200, 700], atol=1)


def test_a_large_temperature_weighs_all_hard_examples_alike(build: Any) -> None:
    sampler = build("sampler", "high_loss", {"fraction": 0.5, "temperature": 1e6})
    anchors = sampler.sample(request_of(losses_of(40), a_map(40), 60)).anchors
    assert set(np.bincount(anchors)[np.unique(anchors)].tolist()) == {3}
    assert len(np.unique(anchors)) == 20


def test_a_small_temperature_takes_the_hardest_only(build: Any) -> None:
    losses = losses_of(40)
    sampler = build("sampler", "high_loss", {"temperature": 1e-3})
    anchors = sampler.sample(request_of(losses, a_map(40), 100)).anchors
    assert set(anchors.tolist()) == {int(np.argmax(losses))}


def test_hard_examples_are_drawn_in_proportion_to_their_loss(build: Any) -> None:
    losses = np.array([1.0, 2.0, 4.0, 8.0] + [0.0] * 36, np.float32)
    anchors = build("sampler", "high_loss", {"fraction": 0.1}).sample(request_of(losses, a_map(40), 1500)).anchors
    np.testing.assert_allclose(np.bincount(anchors, minlength=4), [100, 200, 400, 800], atol=1)


def test_losses_of_zero_weigh_alike() -> None:
    np.testing.assert_array_equal(log_losses(np.zeros(5, np.float32)), np.zeros(5))
    assert np.isfinite(log_losses(np.array([0.0, 3.0], np.float32))).all()


def test_random_takes_every_example_equally_often(build: Any) -> None:
    anchors = build("sampler", "random").sample(request_of(losses_of(50), a_map(50), 150)).anchors
    assert set(np.bincount(anchors, minlength=50).tolist()) == {3}
    assert anchors.tolist() != sorted(anchors.tolist())


@pytest.mark.parametrize("name", ["high_loss", "random"])
@pytest.mark.parametrize("interpolation", [0.0, 0.25, 1.0])
def test_points_lie_between_anchor_and_a_neighbour(build: Any, name: str, interpolation: float) -> None:
    n, count = 100, 400
    coordinates = a_map(n)
    sampler = build("sampler", name, {"interpolation": interpolation, "jitter": 0, "k": 5})
    samples = sampler.sample(request_of(losses_of(n), coordinates, count))
    start = coordinates[samples.anchors]
    moved = samples.coordinates - start
    ways = coordinates[samples.neighbors] - start[:, None]
    shares = np.einsum("md,mkd->mk", moved, ways) / np.einsum("mkd,mkd->mk", ways, ways)
    rest = np.linalg.norm(moved[:, None] - shares[..., None] * ways, axis=2)
    chosen = rest.argmin(axis=1)
    share = shares[np.arange(count), chosen]
    np.testing.assert_allclose(rest.min(axis=1), 0, atol=1e-6)
    assert share.min() >= -1e-4
    assert share.max() <= interpolation + 1e-4
    if interpolation:
        assert share.max() > 0.9 * interpolation
        assert len(set(chosen.tolist())) == 5
    else:
        np.testing.assert_allclose(samples.coordinates, start, rtol=1e-6)


def test_jitter_is_in_units_of_the_anchors_neighbourhood(build: Any) -> None:
    # two clusters, one a hundred times as wide as the other
    coordinates = np.concatenate([a_map(100) * 0.01, a_map(100, seed=3) + 50])
    sampler = build("sampler", "random", {"interpolation": 0, "jitter": 0.2, "k": 8})
    samples = sampler.sample(request_of(losses_of(200), coordinates, 20_000))
    noise = samples.coordinates - coordinates[samples.anchors]
    distances = np.linalg.norm(coordinates[samples.anchors][:, None] - coordinates[samples.neighbors], axis=2)
    relative = noise / distances.mean(axis=1, keepdims=True)
    for cluster in (samples.anchors < 100, samples.anchors >= 100):
        assert relative[cluster].mean() == pytest.approx(0, abs=0.01)
        assert relative[cluster].std() == pytest.approx(0.2, rel=0.03)


@pytest.mark.parametrize("name", ["high_loss", "random"])
def test_the_same_generator_gives_the_same_samples(build: Any, name: str) -> None:
    sampler = build("sampler", name)
    losses, coordinates = losses_of(100), a_map(100)
    first, again, other = (sampler.sample(request_of(losses, coordinates, 80, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.anchors, again.anchors)
    np.testing.assert_array_equal(first.coordinates, again.coordinates)
    assert not np.array_equal(first.coordinates, other.coordinates)


@pytest.mark.parametrize("name", ["high_loss", "random"])
def test_duplicate_places(build: Any, name: str) -> None:
    coordinates = np.repeat(a_map(4), 25, axis=0)
    samples = build("sampler", name, {"k": 10}).sample(request_of(np.ones(100), coordinates, 120))
    assert not (samples.neighbors == samples.anchors[:, None]).any()
    # all ten neighbours are in the same place, so there is nowhere to go
    np.testing.assert_allclose(samples.coordinates, coordinates[samples.anchors], rtol=1e-6)


@pytest.mark.parametrize("name", ["high_loss", "random"])
def test_too_few_examples_are_refused(build: Any, plugins: Plugins, name: str) -> None:
    min_rows = plugins.sampler(name).min_rows
    assert min_rows is not None
    assert min_rows(plugins.options("sampler", name, {"k": 7})) == 8
    sampler = build("sampler", name, {"k": 7})
    assert len(sampler.sample(request_of(losses_of(8), a_map(8), 8)).anchors) == 8
    with pytest.raises(CompatibilityError, match="7 neighbours among 6 other examples"):
        sampler.sample(request_of(losses_of(7), a_map(7), 8))


@pytest.mark.parametrize("name", ["high_loss", "random"])
def test_without_a_map_there_are_anchors_alone(build: Any, name: str) -> None:
    request = request_of(losses_of(30), None, 8)
    samples = build("sampler", name).sample(request)
    assert samples.coordinates is samples.vectors is samples.neighbors is None
    assert samples.anchors.shape == (8,)
    assert samples.anchors.dtype == np.int64
