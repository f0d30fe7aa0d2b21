"""Reducer `autoencoder`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from sklearn.decomposition import PCA

from sage_kit.builtin import networks
from sage_kit.errors import CompatibilityError

QUICK = {"hidden": [32, 16], "epochs": 15}
"""Options for tests that look at anything but the fit."""


def rolled_sheet(rows: int, seed: int) -> Any:
    """A sheet of two dimensions, rolled up in three and turned in twelve."""
    rng = np.random.default_rng(seed)
    angle, height = rng.uniform(0.5 * np.pi, 2.5 * np.pi, rows), rng.uniform(-4, 4, rows)
    place = np.column_stack([angle * np.cos(angle), angle * np.sin(angle), height])
    axes = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0][:3]
    return (place @ axes + 3 + 0.05 * rng.standard_normal((rows, 12))).astype(np.float32)


def r2(truth: Any, found: Any, mean: Any) -> float:
    return float(1 - np.square(truth - found, dtype=np.float64).sum() / np.square(truth - mean, dtype=np.float64).sum())


def test_learns_a_curved_surface_better_than_pca(build: Any) -> None:
    train, others = rolled_sheet(1200, 1), rolled_sheet(300, 2)
    reducer = build("reducer", "autoencoder", {"hidden": [64, 64], "learning_rate": 0.003}, n_components=2)
    coordinates = reducer.fit_transform(train)
    assert coordinates.shape == (1200, 2)
    own = r2(others, reducer.inverse_transform(reducer.transform(others)), train.mean(0))
    pca = PCA(2).fit(train)
    linear = r2(others, pca.inverse_transform(pca.transform(others)), train.mean(0))
    assert linear < 0.85
    assert own > 0.95


def test_coordinates_have_mean_zero_and_mean_variance_one(build: Any, vectors: Any) -> None:
    coordinates = build("reducer", "autoencoder", QUICK, n_components=3).fit_transform(1000 * vectors)
    assert coordinates.dtype == np.float32
    np.testing.assert_allclose(coordinates.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(coordinates.var(axis=0).mean(), 1, rtol=1e-4)


def test_the_unit_of_the_vectors_does_not_matter(build: Any, vectors: Any) -> None:
    first, second = (
        build("reducer", "autoencoder", QUICK, n_components=2).fit_transform(unit * vectors) for unit in (1, 1024)
    )
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


def test_transform_places_fitted_vectors_where_they_are(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "autoencoder", QUICK, n_components=3)
    coordinates = reducer.fit_transform(vectors)
    np.testing.assert_array_equal(reducer.transform(vectors), coordinates)
    np.testing.assert_allclose(reducer.transform(vectors[:1]), coordinates[:1], rtol=1e-4, atol=1e-5)


def test_inverse_is_the_decoder_after_the_encoder(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "autoencoder", QUICK, n_components=3)
    found = reducer.inverse_transform(reducer.fit_transform(vectors))
    assert found.dtype == np.float32
    units = torch.from_numpy((vectors - vectors.mean(0)) / np.sqrt(vectors.var(axis=0).mean()))
    with torch.no_grad():
        through = reducer.decoder_(reducer.encoder_(units)).numpy()
    np.testing.assert_allclose(
        found, through * np.sqrt(vectors.var(axis=0).mean()) + vectors.mean(0), rtol=1e-3, atol=1e-4
    )


def test_same_seed_same_coordinates_whatever_the_global_state(build: Any, vectors: Any) -> None:
    maps = []
    for seed, disturbance in ((2**63 + 5, 1), (2**63 + 5, 2), (1, 1)):
        torch.manual_seed(disturbance)
        np.random.seed(disturbance)
        state = torch.random.get_rng_state()
        maps.append(build("reducer", "autoencoder", QUICK, n_components=2, seed=seed).fit_transform(vectors))
        assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_state_restores_the_map_without_training(build: Any, vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = build("reducer", "autoencoder", QUICK, n_components=4)
    coordinates = fitted.fit_transform(vectors)
    state = load(save(fitted.get_state()))
    monkeypatch.setattr(networks, "train", None)
    restored = build("reducer", "autoencoder", n_components=4)  # the widths are those of the state
    restored.set_state(state)
    np.testing.assert_array_equal(restored.transform(vectors), coordinates)
    np.testing.assert_array_equal(restored.inverse_transform(coordinates), fitted.inverse_transform(coordinates))
    for name, values in restored.get_state().items():
        np.testing.assert_array_equal(values, state[name])


def test_networks_lie_on_the_device_of_the_context(build: Any, vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = build("reducer", "autoencoder", QUICK, n_components=2)
    fitted.fit(vectors)
    elsewhere = build("reducer", "autoencoder", n_components=2, device="meta")
    elsewhere.set_state(fitted.get_state())
    parameters = [*elsewhere.encoder_.parameters(), *elsewhere.decoder_.parameters()]
    assert {parameter.device.type for parameter in parameters} == {"meta"}

    seen: dict[str, Any] = {}

    class Seen(Exception):
        pass

    def train(who: str, network: Any, objective: Any, tensors: Any, options: Any, **where: Any) -> None:
        seen.update(where, devices={tensor.device.type for tensor in [*network.parameters(), *tensors]})
        raise Seen

    monkeypatch.setattr(networks, "train", train)
    with pytest.raises(Seen):
        elsewhere.fit(vectors)
    assert (seen["devices"], seen["device"]) == ({"meta"}, torch.device("meta"))


def test_one_line_is_announced(build: Any, vectors: Any) -> None:
    lines: list[str] = []
    options = {**QUICK, "epochs": 60, "learning_rate": 0.01}
    reducer = build("reducer", "autoencoder", options, n_components=4, announce=lines.append)
    reducer.fit(vectors)
    reducer.transform(vectors)
    (line,) = lines
    found = re.fullmatch(
        r"reducer 'autoencoder': (\d+) epochs, the best (\d+); held-out R2 (\S+) against the mean vector on 30 of 300 "
        r"vectors",
        line,
    )
    assert found
    whole = r2(vectors, reducer.inverse_transform(reducer.transform(vectors)), vectors.mean(0))
    assert 0.1 < float(found[3]) < whole + 0.1


def test_a_linear_network_finds_the_principal_plane(build: Any, vectors: Any) -> None:
    options = {"hidden": [], "epochs": 150, "learning_rate": 0.01, "held_out": 0, "weight_decay": 0, "noise": 0}
    reducer = build("reducer", "autoencoder", options, n_components=2)
    found = reducer.inverse_transform(reducer.fit_transform(vectors))
    pca = PCA(2).fit(vectors)
    best = r2(vectors, pca.inverse_transform(pca.transform(vectors)), vectors.mean(0))
    assert best - 0.01 < r2(vectors, found, vectors.mean(0)) < best + 1e-4


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_objective_is_the_error_of_what_is_made_of_noisy_vectors(build: Any, vectors: Any, noise: float) -> None:
    reducer = build("reducer", "autoencoder", {**QUICK, "noise": noise, "epochs": 3}, n_components=3).fit(vectors)
    rows = torch.tensor(vectors)
    drawn = torch.randn(rows.shape, generator=torch.Generator().manual_seed(4)).double()

    def objective() -> torch.Tensor:
        value: torch.Tensor = reducer.objective([rows], torch.Generator().manual_seed(4))
        return value.double()

    def error(inputs: torch.Tensor) -> torch.Tensor:
        return (reducer.decoder_(reducer.encoder_(inputs)) - rows).square().mean()

    with torch.no_grad():
        clean = objective()  # a fitted network is out of training
        reducer.encoder_.train()
        noisy = objective()
        rows = rows.double()
        reducer.encoder_.double(), reducer.decoder_.double()
        torch.testing.assert_close(clean, error(rows), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(noisy, error(rows + noise * drawn), rtol=1e-5, atol=1e-6)


def test_vectors_may_lie_in_a_file(build: Any, vectors: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    coordinates = build("reducer", "autoencoder", QUICK, n_components=2).fit_transform(mapped)
    np.testing.assert_array_equal(
        coordinates, build("reducer", "autoencoder", QUICK, n_components=2).fit_transform(vectors)
    )


@pytest.mark.parametrize("rows", [3, 12])
@pytest.mark.parametrize("equal", [False, True])
def test_few_rows_equal_rows_and_flat_dimensions(build: Any, vectors: Any, rows: int, equal: bool) -> None:
    few = np.array(vectors[:rows])
    few[:, 2:5] = 7
    if equal:
        few[:] = few[0]
    reducer = build("reducer", "autoencoder", QUICK, n_components=2)
    found = reducer.inverse_transform(reducer.fit_transform(few))
    assert found.shape == few.shape
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("rows", "components", "most"), [(3, 3, 2), (300, 25, 24), (1, 1, 0)])
def test_more_components_than_fit_are_refused(build: Any, vectors: Any, rows: int, components: int, most: int) -> None:
    reducer = build("reducer", "autoencoder", n_components=components)
    with pytest.raises(CompatibilityError, match=rf"^reducer 'autoencoder' .* n_components may be at most {most}$"):
        reducer.fit_transform(vectors[:rows])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_with_nan_is_refused_before_training(
    build: Any, vectors: Any, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "train", None)
    bad = vectors.copy()
    bad[41, 3] = value
    with pytest.raises(CompatibilityError, match=r"^reducer 'autoencoder' cannot be trained: vector 42 of 300 holds"):
        build("reducer", "autoencoder", QUICK, n_components=2).fit(bad)


def test_a_learning_rate_that_is_too_high_is_named(build: Any, vectors: Any) -> None:
    options = {**QUICK, "learning_rate": 1e30}
    with pytest.raises(CompatibilityError, match=r"^reducer 'autoencoder' cannot be trained: .*: lower learning_rate$"):
        build("reducer", "autoencoder", options, n_components=2).fit(vectors)
