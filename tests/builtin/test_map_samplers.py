"""Samplers `low_loss`, `kl_max`, `boundary` and `cluster`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage_kit.builtin.samplers.boundary import margins
from sage_kit.components import SampleRequest
from sage_kit.components.plugins import Plugins
from sage_kit.data.metrics import divergence
from sage_kit.errors import CompatibilityError, ConfigError

NAMES = ["low_loss", "kl_max", "boundary", "cluster"]


def request_of(count: int, seed: int = 0, n: int = 120, **arrays: Any) -> SampleRequest:
    rng = np.random.default_rng(1)
    values: dict[str, Any] = {
        "losses": rng.exponential(size=n),
        "coordinates": rng.standard_normal((n, 2)),
        "vectors": np.zeros((n, 4)),
        "teacher_logits": rng.standard_normal((n, 3)),
        "student_logits": rng.standard_normal((n, 3)),
        **arrays,
    }
    values = {name: None if value is None else np.array(value, np.float32) for name, value in values.items()}
    for value in values.values():
        if value is not None:
            value.flags.writeable = False
    return SampleRequest(count=count, rng=np.random.default_rng(seed), **values)


def chosen_neighbors(samples: Any, coordinates: Any) -> Any:
    """Which of its neighbours each new point lies on the way to; there must be no jitter."""
    ways = coordinates[samples.neighbors] - coordinates[samples.anchors][:, None]
    moved = samples.coordinates - coordinates[samples.anchors]
    shares = np.einsum("md,mkd->mk", moved, ways) / np.einsum("mkd,mkd->mk", ways, ways)
    rest = np.linalg.norm(moved[:, None] - shares[..., None] * ways, axis=2)
    assert rest.min(axis=1).max() < 1e-5
    return samples.neighbors[np.arange(len(moved)), rest.argmin(axis=1)]


# ---- what they have in common


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 30, 500])
def test_shapes_and_types(build: Any, name: str, count: int) -> None:
    samples = build("sampler", name, {"k": 6}).sample(request_of(count))
    assert samples.anchors.shape == (count,)
    assert samples.anchors.dtype == np.int64
    assert samples.coordinates.shape == (count, 2)
    assert samples.coordinates.dtype == np.float32
    assert samples.vectors is None
    assert samples.neighbors.shape == (count, 6)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_generator_gives_the_same_samples(build: Any, name: str) -> None:
    first, again, other = (build("sampler", name).sample(request_of(90, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.anchors, again.anchors)
    np.testing.assert_array_equal(first.coordinates, again.coordinates)
    assert not np.array_equal(first.coordinates, other.coordinates)


@pytest.mark.parametrize("name", NAMES)
def test_duplicate_places(build: Any, name: str) -> None:
    coordinates = np.repeat(np.random.default_rng(0).standard_normal((4, 2)), 30, axis=0).astype(np.float32)
    samples = build("sampler", name, {"k": 10}).sample(request_of(150, coordinates=coordinates))
    np.testing.assert_allclose(samples.coordinates, coordinates[samples.anchors], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_examples_are_refused_and_a_map_where_it_is_needed(build: Any, plugins: Plugins, name: str) -> None:
    min_rows = plugins.sampler(name).min_rows
    assert min_rows is not None
    assert min_rows(plugins.options("sampler", name, {"k": 7})) == 8
    sampler = build("sampler", name, {"k": 7})
    assert len(sampler.sample(request_of(9, n=8)).anchors) == 9
    with pytest.raises(CompatibilityError, match="7 neighbours among 6 other examples"):
        sampler.sample(request_of(9, n=7))
    if plugins.sampler(name).anchors_alone:
        alone = sampler.sample(request_of(9, coordinates=None))
        assert alone.coordinates is alone.vectors is alone.neighbors is None
        assert len(alone.anchors) == 9
    else:
        with pytest.raises(CompatibilityError, match="works in the map"):
            sampler.sample(request_of(9, coordinates=None))


@pytest.mark.parametrize("name", ["low_loss", "kl_max", "cluster"])
def test_losses_that_are_not_known(build: Any, name: str) -> None:
    losses = np.random.default_rng(0).exponential(size=120)
    losses[::2] = np.nan
    anchors = build("sampler", name, {"fraction": 1}).sample(request_of(500, losses=losses)).anchors
    assert set((anchors % 2).tolist()) == {1}
    with pytest.raises(ConfigError, match="no training example has a finite loss"):
        build("sampler", name).sample(request_of(5, losses=np.full(120, np.nan)))


# ---- low_loss


def test_low_loss_takes_the_easiest_alike(build: Any) -> None:
    request = request_of(36 * 4)
    anchors = build("sampler", "low_loss", {"fraction": 0.3}).sample(request).anchors
    easiest = np.argsort(request.losses)[:36]
    np.testing.assert_array_equal(np.bincount(anchors, minlength=120)[easiest], 4)


# ---- kl_max


def test_kl_max_goes_toward_the_neighbour_of_largest_divergence(build: Any) -> None:
    request = request_of(200)
    sampler = build("sampler", "kl_max", {"k": 5, "jitter": 0, "fraction": 0.4})
    samples = sampler.sample(request)
    scores = divergence(request.teacher_logits, request.student_logits)
    expected = [max(row, key=scores.__getitem__) for row in samples.neighbors.tolist()]
    assert chosen_neighbors(samples, request.coordinates).tolist() == expected
    assert request.losses[samples.anchors].min() >= np.sort(request.losses)[-48]


def test_kl_max_avoids_neighbours_that_the_student_has_not_seen(build: Any) -> None:
    student = np.random.default_rng(3).standard_normal((120, 3))
    student[::2] = np.nan
    student[1::10] = np.inf
    request = request_of(300, student_logits=student)
    samples = build("sampler", "kl_max", {"k": 15, "jitter": 0}).sample(request)
    chosen = chosen_neighbors(samples, request.coordinates)
    assert np.isfinite(student[chosen]).all()


# ---- boundary


@pytest.mark.parametrize("classes", [2, 4])
def test_margins_are_of_the_two_largest_probabilities(classes: int) -> None:
    logits = np.random.default_rng(0).standard_normal((80, classes)).astype(np.float32)
    probabilities = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(1, keepdims=True)
    ordered = np.sort(probabilities, axis=1)
    np.testing.assert_allclose(margins(logits), ordered[:, -1] - ordered[:, -2], atol=1e-12)


def test_boundary_takes_the_smallest_margins_alike(build: Any) -> None:
    request = request_of(24 * 5)
    anchors = build("sampler", "boundary", {"fraction": 0.2}).sample(request).anchors
    smallest = np.argsort(margins(request.teacher_logits))[:24]
    np.testing.assert_array_equal(np.bincount(anchors, minlength=120)[smallest], 5)


def test_boundary_needs_classes(build: Any) -> None:
    with pytest.raises(CompatibilityError, match="regression") as caught:
        build("sampler", "boundary").sample(request_of(5, teacher_logits=np.zeros((120, 1))))
    assert "\n" not in str(caught.value)


# ---- cluster


def blobs() -> tuple[Any, Any]:
    """Two dense groups of 60 and 30 and ten scattered points, with a mean loss of 1, 4 and 2; and the group of each."""
    rng = np.random.default_rng(5)
    scattered = 40 * np.stack([np.cos(np.arange(10)), np.sin(np.arange(10))], axis=1) * (1 + np.arange(10)[:, None] / 5)
    coordinates = np.concatenate([rng.normal(size=(60, 2)), rng.normal(size=(30, 2)) + 15, scattered])
    groups = np.repeat([0, 1, 2], [60, 30, 10])
    shape = rng.uniform(0.9, 1.1, 100)
    losses = np.array([1.0, 4.0, 2.0])[groups] * shape / np.array([shape[groups == g].mean() for g in range(3)])[groups]
    order = rng.permutation(100)
    return {"n": 100, "coordinates": coordinates[order], "losses": losses[order]}, groups[order]


@pytest.mark.parametrize("sample", [20_000, 100])
def test_clusters_are_drawn_by_mass_and_mean_loss(build: Any, sample: int) -> None:
    arrays, groups = blobs()
    options = {"fraction": 1, "min_cluster_size": 12, "sample": sample}
    samples = build("sampler", "cluster", options).sample(request_of(4000, **arrays))
    # 60 * 1, 30 * 4 and, for the noise, 10 * 2
    np.testing.assert_allclose(np.bincount(groups[samples.anchors]), [1200, 2400, 400], atol=60)
    # within a cluster the loss does not count
    for group in range(3):
        counts = np.bincount(samples.anchors, minlength=100)[groups == group]
        assert counts.max() - counts.min() <= 0.1 * counts.mean() + 1


def test_points_beyond_the_sample_join_the_nearest_cluster(build: Any) -> None:
    arrays, groups = blobs()
    arrays = {**arrays, "coordinates": np.tile(arrays["coordinates"], (3, 1)), "losses": np.tile(arrays["losses"], 3)}
    sampler = build("sampler", "cluster", {"fraction": 1, "min_cluster_size": 12, "sample": 100})
    anchors = sampler.sample(request_of(6000, **{**arrays, "n": 300})).anchors
    shares = np.bincount(np.tile(groups, 3)[anchors]) / 6000
    np.testing.assert_allclose(shares, [0.3, 0.6, 0.1], atol=0.05)


def test_a_large_temperature_leaves_the_mass(build: Any) -> None:
    arrays, _ = blobs()
    sampler = build("sampler", "cluster", {"fraction": 1, "min_cluster_size": 12, "temperature": 1e6})
    anchors = sampler.sample(request_of(3000, **arrays)).anchors
    assert set(np.bincount(anchors).tolist()) == {30}


def test_too_few_hard_examples_are_one_cluster(build: Any) -> None:
    request = request_of(24 * 3)
    anchors = build("sampler", "cluster", {"fraction": 0.2, "min_cluster_size": 15}).sample(request).anchors
    hardest = np.argsort(-request.losses)[:24]
    np.testing.assert_array_equal(np.bincount(anchors, minlength=120)[hardest], 3)
