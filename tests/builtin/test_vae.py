"""Reducer `vae`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from sklearn.decomposition import PCA
from torch.distributions import Normal, kl_divergence

from sage_kit.builtin import networks
from sage_kit.builtin.reducers.vae import LEAST_VARIANCE, divergence, negative_log_likelihood
from sage_kit.errors import CompatibilityError

QUICK = {"hidden": [32, 16], "epochs": 15}
"""Options for tests that look at anything but the fit."""


def double(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_divergence_is_that_of_the_distributions() -> None:
    mean, log_variance = 2 * double(40, 3), double(40, 3, seed=1)
    expected = kl_divergence(
        Normal(mean, log_variance.exp().sqrt()), Normal(torch.zeros_like(mean), torch.ones_like(mean))
    ).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)
    torch.testing.assert_close(divergence(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2))


def test_likelihood_is_the_best_of_any_variance() -> None:
    truth, mean = double(30, 5), double(30, 5, seed=1)
    ours = negative_log_likelihood(truth, mean)

    def of(variance: torch.Tensor) -> torch.Tensor:
        return -Normal(mean, variance.sqrt()).log_prob(truth).sum(1).mean()

    best = (truth - mean).square().mean()
    torch.testing.assert_close(ours, of(best))
    for factor in (0.9, 1.1):
        assert of(factor * best) > ours


def test_likelihood_of_rows_that_are_met_exactly_is_finite() -> None:
    truth = double(30, 5).requires_grad_()
    value = negative_log_likelihood(truth.detach(), truth)
    value.backward()
    expected = -Normal(0.0, LEAST_VARIANCE**0.5).log_prob(torch.zeros(5, dtype=torch.float64)).sum()
    torch.testing.assert_close(value, expected, check_dtype=False)
    assert truth.grad is not None
    assert torch.isfinite(truth.grad).all()


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_objective_is_the_bound_for_one_draw(build: Any, vectors: Any, beta: float) -> None:
    reducer = build("reducer", "vae", {**QUICK, "beta": beta, "epochs": 3}, n_components=3).fit(vectors)
    rows = torch.tensor(vectors[:50])
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(50, 3, generator=torch.Generator().manual_seed(4)).double()
    encoder, decoder = reducer.encoder_, reducer.decoder_
    with torch.no_grad():
        value = reducer.objective([rows], generator)
        encoder, decoder, rows = encoder.double(), decoder.double(), rows.double()
        mean, log_variance = encoder(rows)[:, :3], encoder(rows)[:, 3:]
        posterior = Normal(mean, (log_variance / 2).exp())
        found = decoder(posterior.mean + posterior.stddev * noise)
        likelihood = Normal(found, (rows - found).square().mean().sqrt()).log_prob(rows).sum(1).mean()
        kl = kl_divergence(posterior, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(1).mean()
    torch.testing.assert_close(value.double(), beta * kl - likelihood, rtol=1e-5, atol=1e-5)


def test_bound_of_a_linear_network_comes_up_to_the_likelihood_of_probabilistic_pca(build: Any) -> None:
    # where decoder and posterior are linear, the bound is tight (Lucas et al., NeurIPS 2019)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((800, 2)) @ np.linalg.qr(rng.standard_normal((8, 8)))[0][:2] * [[3.0]]
    rows = (rows + 0.5 * rng.standard_normal((800, 8))).astype(np.float32)
    options = {"hidden": [], "epochs": 60, "learning_rate": 0.01, "held_out": 0, "weight_decay": 0}
    reducer = build("reducer", "vae", options, n_components=2).fit(rows)
    units = (rows - rows.mean(0)) / np.sqrt(rows.var(axis=0).mean())
    tensor = torch.tensor(units).repeat(20, 1)  # so many draws of each row
    with torch.no_grad():
        bound = -float(reducer.objective([tensor], torch.Generator().manual_seed(1)))
    likelihood = PCA(2).fit(units.astype(np.float64)).score(units)
    assert likelihood - 0.1 < bound < likelihood + 0.02


def test_coordinates_are_the_posterior_mean(build: Any, vectors: Any) -> None:
    reducer = build("reducer", "vae", QUICK, n_components=3)
    coordinates = reducer.fit_transform(vectors)
    units = torch.from_numpy((vectors - vectors.mean(0)) / np.sqrt(vectors.var(axis=0).mean()))
    with torch.no_grad():
        outputs = reducer.encoder_(units)
    assert outputs.shape == (300, 6)
    assert coordinates.dtype == np.float32
    np.testing.assert_allclose(coordinates, outputs[:, :3], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(reducer.transform(vectors), coordinates)


def test_a_strong_prior_leaves_no_component_active(build: Any, vectors: Any) -> None:
    remarks = []
    for beta in (0.01, 1000.0):
        lines: list[str] = []
        options = {"hidden": [32], "beta": beta, "learning_rate": 0.01}
        coordinates = build("reducer", "vae", options, n_components=3, announce=lines.append).fit_transform(vectors)
        (line,) = lines
        found = re.fullmatch(r"reducer 'vae': .*held-out R2 .*; (\d) of 3 components active", line)
        assert found
        assert int(found[1]) == (coordinates.var(axis=0) > 0.01).sum()
        remarks.append(int(found[1]))
    assert remarks == [3, 0]


def test_same_seed_same_coordinates_whatever_the_global_state(build: Any, vectors: Any) -> None:
    maps = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturbance)
        state = torch.random.get_rng_state()
        maps.append(build("reducer", "vae", QUICK, n_components=2, seed=seed).fit_transform(vectors))
        assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_state_restores_the_map_without_training(build: Any, vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = build("reducer", "vae", QUICK, n_components=2)
    coordinates = fitted.fit_transform(vectors)
    monkeypatch.setattr(networks, "train", None)
    restored = build("reducer", "vae", n_components=2)
    restored.set_state(load(save(fitted.get_state())))
    np.testing.assert_array_equal(restored.transform(vectors), coordinates)
    np.testing.assert_array_equal(restored.inverse_transform(coordinates), fitted.inverse_transform(coordinates))


@pytest.mark.parametrize("equal", [False, True])
def test_few_rows_and_equal_rows(build: Any, vectors: Any, equal: bool) -> None:
    few = np.tile(vectors[:1], (12, 1)) if equal else vectors[:3]
    reducer = build("reducer", "vae", QUICK, n_components=2)
    found = reducer.inverse_transform(reducer.fit_transform(few))
    assert found.shape == few.shape
    assert np.isfinite(found).all()


def test_errors_name_it(build: Any, vectors: Any) -> None:
    bad = vectors.copy()
    bad[0, 0] = np.nan
    with pytest.raises(CompatibilityError, match=r"^reducer 'vae' cannot be trained: vector 1 of 300 holds"):
        build("reducer", "vae", QUICK, n_components=2).fit(bad)
    with pytest.raises(CompatibilityError, match=r"^reducer 'vae' cannot make 25 components"):
        build("reducer", "vae", QUICK, n_components=25).fit(vectors)
    with pytest.raises(CompatibilityError, match=r"^reducer 'vae' cannot be trained: .*: lower learning_rate$"):
        build("reducer", "vae", {**QUICK, "learning_rate": 1e30}, n_components=2).fit(vectors)
