"""What the components share that train a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from sklearn.metrics import r2_score
from torch import nn

from sage_kit.builtin import networks
from sage_kit.builtin.network_options import NetworkOptions
from sage_kit.builtin.networks import Standard, Training
from sage_kit.errors import CompatibilityError

CPU = torch.device("cpu")


def make(widths: tuple[int, ...], seed: int = 0) -> nn.Sequential:
    return networks.perceptron(widths, torch.Generator().manual_seed(seed))


def noisy_line(n: int = 60, dim: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets that have little to do with each other, so that a network soon learns them by heart."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(n, dim, generator=generator)
    return inputs, 0.3 * inputs[:, :1] + torch.randn(n, 1, generator=generator)


def run(
    network: nn.Module, objective: networks.Objective, tensors: list[torch.Tensor], seed: int = 0, **options: Any
) -> Training:
    return networks.train("it", network, objective, tensors, NetworkOptions(**options), seed=seed, device=CPU)


def squared_error(network: nn.Module) -> networks.Objective:
    return lambda tensors, generator: nn.functional.mse_loss(network(tensors[0]), tensors[1])


# ---- standardising


def test_standard_has_mean_zero_and_mean_variance_one(vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "CHUNK", 70)
    rows = 5 + 20 * vectors
    standard = Standard.of(rows)
    double = rows.astype(np.float64)
    np.testing.assert_allclose(standard.mean, double.mean(0), rtol=1e-6)
    np.testing.assert_allclose(standard.scale, [np.sqrt(double.var(axis=0).mean())], rtol=1e-6)
    units = standard.to_units(rows)
    assert units.dtype == np.float32
    np.testing.assert_allclose(units.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(units.var(axis=0).mean(), 1, rtol=1e-5)
    np.testing.assert_allclose(standard.from_units(units), rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_standard_of_equal_rows_divides_by_one(value: float) -> None:
    rows = np.full((30, 4), value, np.float32)
    standard = Standard.of(rows)
    assert standard.scale == 1
    np.testing.assert_array_equal(standard.to_units(rows), 0)


def test_standard_keeps_a_small_spread() -> None:
    rows = np.random.default_rng(0).normal(scale=1e-12, size=(50, 3)).astype(np.float32)
    np.testing.assert_allclose(Standard.of(rows).to_units(rows).std(), 1, rtol=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_counted_and_the_first_named(vectors: Any, value: float) -> None:
    networks.require_finite("reducer 'x'", "vector", vectors)
    bad = vectors.copy()
    bad[[4, 20], [0, 3]] = value
    with pytest.raises(CompatibilityError, match=r"^reducer 'x' .* vector 5 of 300 .* first of 2 such"):
        networks.require_finite("reducer 'x'", "vector", bad)


# ---- networks


def test_initial_weights_come_from_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first = make((100, 50, 30))
    assert torch.equal(torch.random.get_rng_state(), state)
    second, other = make((100, 50, 30)), make((100, 50, 30), seed=1)
    for one, two, three in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, three)


def test_initial_weights_are_spread_as_by_torch() -> None:
    ours, theirs = make((400, 300))[0], nn.Linear(400, 300)
    for part in ("weight", "bias"):
        one, two = getattr(ours, part).detach(), getattr(theirs, part).detach()
        assert one.abs().max() <= 1 / 20
        assert one.std() == pytest.approx(float(two.std()), rel=0.15)


@pytest.mark.parametrize("widths", [(5, 3), (5, 8, 3), (5, 8, 9, 3)])
def test_weights_come_back_from_a_file(widths: tuple[int, ...]) -> None:
    network = make(widths)
    arrays = networks.weights_of(network, "encoder")
    assert len(arrays) == 2 * (len(widths) - 1)
    again = networks.with_weights(load(save({**arrays, "decoder.0.weight": np.ones((1, 1))})), "encoder", CPU)
    rows = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    np.testing.assert_array_equal(networks.apply(again, rows, CPU), networks.apply(network, rows, CPU))


def test_stored_weights_do_not_follow_the_network() -> None:
    network = make((3, 2))
    arrays = networks.weights_of(network, "n")
    before = {name: values.copy() for name, values in arrays.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("rows", [0, 1, 7, 21])
def test_apply_is_the_network_in_float64(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "CHUNK", 7)
    network = make((6, 10, 4))
    inputs = np.random.default_rng(0).standard_normal((rows, 6)).astype(np.float32)
    inputs.flags.writeable = False
    arrays = {name: values.astype(np.float64) for name, values in networks.weights_of(network, "n").items()}
    inner = inputs @ arrays["n.0.weight"].T + arrays["n.0.bias"]
    expected = inner / (1 + np.exp(-inner)) @ arrays["n.1.weight"].T + arrays["n.1.bias"]
    found = networks.apply(network, inputs, CPU)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_stay_on_the_host_where_the_device_has_no_room(vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (vectors.nbytes, 10 * vectors.nbytes))
    kept = networks.on_device(vectors, torch.device("cuda"))
    assert kept.device == CPU
    np.testing.assert_array_equal(kept.numpy(), vectors)


# ---- training


def watch(objective: networks.Objective, network: nn.Module, seen: list[tuple[float, list[Any]]]) -> networks.Objective:
    """The objective, which notes each held-out loss and the weights that gave it."""

    def watched(tensors: Any, generator: torch.Generator) -> torch.Tensor:
        loss = objective(tensors, generator)
        if not torch.is_grad_enabled():
            seen.append((float(loss), [parameter.detach().clone() for parameter in network.parameters()]))
        return loss

    return watched


@pytest.mark.parametrize("patience", [1, 6])
def test_early_stop_brings_back_the_best_weights(patience: int) -> None:
    tensors = list(noisy_line())
    network, seen = make((12, 64, 1)), list[tuple[float, list[Any]]]()
    objective = watch(squared_error(network), network, seen)
    training = run(network, objective, tensors, patience=patience, held_out=0.3, learning_rate=0.01)
    assert training.epochs == len(seen) < 200
    losses = [loss for loss, _ in seen]
    best = int(np.argmin(losses))
    assert losses[-1] > losses[best]
    assert training.best_epoch == best + 1 == training.epochs - patience
    for parameter, kept in zip(network.parameters(), seen[best][1], strict=True):
        assert torch.equal(parameter, kept)


def test_held_out_rows_are_not_trained_on_and_all_others_once_in_each_epoch() -> None:
    rows = torch.arange(103.0)[:, None]
    network = make((1, 1))
    trained: list[float] = []
    looked_at: list[float] = []

    def objective(tensors: Any, generator: torch.Generator) -> torch.Tensor:
        (trained if torch.is_grad_enabled() else looked_at).extend(tensors[0][:, 0].tolist())
        loss: torch.Tensor = network(tensors[0] / 100).square().mean()
        return loss

    training = run(network, objective, [rows], epochs=4, held_out=0.2, patience=9)
    assert len(training.held_out) == 21
    assert sorted(looked_at) == sorted([*training.held_out] * 4)
    assert sorted([*training.held_out, *training.train]) == list(range(103))
    epochs = np.reshape(trained, (4, 82))
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), training.train)
    assert not np.array_equal(epochs[0], epochs[1])


@pytest.mark.parametrize(("n", "held_out"), [(1, 0.1), (9, 0.5), (40, 0.0)])
def test_without_held_out_rows_all_epochs_run_on_all_rows(n: int, held_out: float) -> None:
    network = make((12, 1))
    training = run(network, squared_error(network), list(noisy_line(n)), epochs=30, patience=1, held_out=held_out)
    assert (training.epochs, training.best_epoch, len(training.held_out)) == (30, 30, 0)
    np.testing.assert_array_equal(training.train, np.arange(n))


@pytest.mark.parametrize(("n", "held_out", "count"), [(10, 0.01, 1), (10, 0.99, 9), (300, 0.1, 30)])
def test_at_least_one_row_is_held_out_and_one_trained_on(n: int, held_out: float, count: int) -> None:
    network = make((12, 1))
    training = run(network, squared_error(network), list(noisy_line(n)), epochs=1, held_out=held_out)
    assert len(training.held_out) == count


@pytest.mark.parametrize(("n", "size", "batches"), [(20, 256, [8, 8, 4]), (160, 256, [20] * 8), (160, 64, [20] * 8)])
def test_few_rows_make_small_batches(n: int, size: int, batches: list[int]) -> None:
    network = make((12, 1))
    sizes: list[int] = []

    def objective(tensors: Any, generator: torch.Generator) -> torch.Tensor:
        sizes.append(len(tensors[0]))
        return squared_error(network)(tensors, generator)

    run(network, objective, list(noisy_line(n)), epochs=1, held_out=0, batch_size=size)
    assert sizes == batches


def test_batches_are_no_larger_than_asked_for() -> None:
    network = make((12, 1))
    sizes: list[int] = []

    def objective(tensors: Any, generator: torch.Generator) -> torch.Tensor:
        sizes.append(len(tensors[0]))
        return squared_error(network)(tensors, generator)

    run(network, objective, list(noisy_line(130)), epochs=1, held_out=0, batch_size=3)
    assert sizes == [3] * 43 + [1]


def test_held_out_loss_has_the_same_noise_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "CHUNK", 4)
    network = make((12, 1))
    drawn: dict[bool, list[float]] = {True: [], False: []}

    def objective(tensors: Any, generator: torch.Generator) -> torch.Tensor:
        drawn[torch.is_grad_enabled()].append(float(torch.randn((), generator=generator)))
        return squared_error(network)(tensors, generator)

    run(network, objective, list(noisy_line()), epochs=3, held_out=0.1, patience=9)
    first, second, third = np.reshape(drawn[False], (3, 2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    assert first[0] != first[1]
    assert len(set(drawn[True])) == len(drawn[True])


def test_held_out_loss_is_the_mean_over_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = list(noisy_line())

    def best_epoch() -> tuple[int, list[torch.Tensor]]:
        network = make((12, 16, 1))
        training = run(network, squared_error(network), tensors, held_out=0.35, patience=3, learning_rate=0.01)
        return training.best_epoch, list(network.parameters())

    whole, weights = best_epoch()
    monkeypatch.setattr(networks, "CHUNK", 5)
    parts, again = best_epoch()
    assert whole == parts
    for one, two in zip(weights, again, strict=True):
        assert torch.equal(one, two)


def test_the_network_is_in_training_mode_for_the_steps_only() -> None:
    network = make((12, 1))
    modes: set[tuple[bool, bool]] = set()

    def objective(tensors: Any, generator: torch.Generator) -> torch.Tensor:
        modes.add((torch.is_grad_enabled(), network.training))
        return squared_error(network)(tensors, generator)

    run(network, objective, list(noisy_line()), epochs=3)
    assert modes == {(True, True), (False, False)}
    assert not network.training


def test_steps_are_those_of_adamw() -> None:
    inputs, targets = noisy_line(8)
    network, reference = make((12, 5, 1)), make((12, 5, 1))
    run(network, squared_error(network), [inputs, targets], epochs=3, held_out=0, learning_rate=0.01, weight_decay=0.3)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.01, weight_decay=0.3, foreach=False)
    for _ in range(3):  # one batch holds all rows
        optimizer.zero_grad()
        nn.functional.mse_loss(reference(inputs), targets).backward()
        optimizer.step()
    for one, two in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("surroundings", [torch.no_grad, torch.inference_mode])
def test_learns_where_gradients_are_turned_off(surroundings: Callable[[], Any]) -> None:
    tensors = list(noisy_line())
    trained = []
    for around in (torch.enable_grad, surroundings):
        with around(), networks.learning():
            network = make((12, 8, 1))
            run(network, squared_error(network), tensors, epochs=3)
        trained.append([parameter.detach() for parameter in network.parameters()])
    for one, two in zip(*trained, strict=True):
        assert torch.equal(one, two)


def test_global_random_state_is_neither_used_nor_changed() -> None:
    trained = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        network = make((12, 8, 1))
        run(network, squared_error(network), list(noisy_line()), epochs=3)
        assert torch.equal(torch.random.get_rng_state(), state)
        trained.append(list(network.parameters()))
    for one, two in zip(*trained, strict=True):
        assert torch.equal(one, two)


def test_another_seed_holds_out_other_rows() -> None:
    held_out = []
    for seed in (0, 1):
        network = make((12, 1))
        held_out.append(run(network, squared_error(network), list(noisy_line()), seed=seed, epochs=1).held_out)
    assert not np.array_equal(held_out[0], held_out[1])


@pytest.mark.parametrize("held_out", [0.0, 0.2])
def test_a_training_that_diverges_is_refused(held_out: float) -> None:
    network = make((12, 64, 1))
    with pytest.raises(
        CompatibilityError, match=r"^it cannot be trained: .* learning_rate=1e\+30: lower learning_rate$"
    ):
        run(network, squared_error(network), list(noisy_line()), learning_rate=1e30, epochs=20, held_out=held_out)


def test_a_loss_that_diverges_late_leaves_the_best_weights() -> None:
    network = nn.Linear(1, 1)
    calls: list[float] = []

    def objective(tensors: Any, generator: torch.Generator) -> torch.Tensor:
        loss: torch.Tensor = network(tensors[0]).square().mean()
        if not torch.is_grad_enabled():
            calls.append(float(loss))
        return loss if len(calls) < 3 else loss * math.nan

    training = run(network, objective, [torch.ones(20, 1)], patience=2)
    assert training.best_epoch < training.epochs
    assert all(bool(torch.isfinite(parameter).all()) for parameter in network.parameters())


# ---- the report


def test_report_is_r2_against_the_mean_of_the_training_rows(vectors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "CHUNK", 7)
    order = np.random.default_rng(0).permutation(300)
    train, held_out = np.sort(order[40:]), np.sort(order[:40])
    found = (vectors + np.random.default_rng(1).normal(scale=0.3, size=vectors.shape)).astype(np.float32)
    report = Training(31, 21, train, held_out).report(torch.tensor(vectors), lambda rows: torch.tensor(found)[rows])
    mean = vectors[train].mean(0)
    error, total = ((vectors - found)[held_out] ** 2).sum(), ((vectors[held_out] - mean) ** 2).sum()
    share = f"{1 - error / total:.3f}"
    assert report == f"31 epochs, the best 21; held-out R2 {share} against the mean vector on 40 of 300 vectors"


def test_report_without_held_out_rows(vectors: Any) -> None:
    found = (0.5 * vectors).astype(np.float32)
    training = Training(9, 9, np.arange(300), np.arange(0))
    report = training.report(torch.tensor(vectors), lambda rows: torch.tensor(found)[rows])
    expected = r2_score(vectors, found, multioutput="variance_weighted")
    assert (
        report == f"9 epochs, the best 9; R2 {expected:.3f} on the 300 vectors it was trained on, none being held out"
    )


def test_report_of_equal_rows_names_no_number() -> None:
    truth = torch.ones(12, 3)
    report = Training(9, 9, np.arange(11), np.arange(11, 12)).report(truth, lambda rows: truth[rows])
    assert "R2 undefined, as all are equal" in report
