"""Inverter `decoder`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression

from sage_kit.builtin import networks
from sage_kit.errors import CompatibilityError

QUICK = {"hidden": [32, 16], "epochs": 15}
"""Options for tests that look at anything but the fit."""
NOWHERE = np.zeros(0, np.int64)


@pytest.fixture
def fitted_map(vectors: Any) -> Any:
    coordinates = np.ascontiguousarray(vectors[:, :2])
    coordinates.flags.writeable = False
    return coordinates


def curved(rows: int, seed: int) -> tuple[Any, Any]:
    """Places far from zero, and vectors that bend over them."""
    places = np.random.default_rng(seed).uniform(-2, 2, (rows, 2))
    rng = np.random.default_rng(0)
    waves = np.sin(places @ rng.standard_normal((2, 10)) * 1.5 + rng.uniform(0, 6, 10))
    vectors = waves @ rng.standard_normal((10, 20)) + 4
    return (30 + 10 * places).astype(np.float32), vectors.astype(np.float32)


class Store:
    """A cache as a run has it."""

    def __init__(self) -> None:
        self.kept: dict[bytes, dict[str, Any]] = {}
        self.computed = 0

    def __call__(self, name: str, parts: Sequence[Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        key = repr([name, *(part.tobytes() if isinstance(part, np.ndarray) else part for part in parts)]).encode()
        if key not in self.kept:
            self.computed += 1
            self.kept[key] = {name: np.array(values) for name, values in compute().items()}
            for values in self.kept[key].values():
                values.flags.writeable = False
        return self.kept[key]


def test_learns_what_bends_over_the_map(build: Any) -> None:
    places, vectors = curved(1200, 1)
    others, truth = curved(300, 2)
    lines: list[str] = []
    inverter = build("inverter", "decoder", {"learning_rate": 0.003}, announce=lines.append)
    assert inverter.fit(places, vectors, None) is inverter
    found = inverter.invert(others, NOWHERE)
    assert (found.dtype, found.shape) == (np.float32, truth.shape)
    total = np.square(truth - vectors.mean(0), dtype=np.float64).sum()
    linear = LinearRegression().fit(places, vectors).predict(others)
    assert 1 - np.square(truth - linear, dtype=np.float64).sum() / total < 0.6
    assert 1 - np.square(truth - found, dtype=np.float64).sum() / total > 0.95
    (line,) = lines
    assert line.startswith("inverter 'decoder': ")
    assert float(line.partition("held-out R2 ")[2].split()[0]) > 0.95


def test_without_hidden_layers_it_is_linear_regression(build: Any, vectors: Any, fitted_map: Any) -> None:
    options = {"hidden": [], "epochs": 60, "learning_rate": 0.01, "held_out": 0, "weight_decay": 0}
    inverter = build("inverter", "decoder", options).fit(fitted_map, vectors, None)
    expected = LinearRegression().fit(fitted_map, vectors).predict(fitted_map)
    apart = np.square(inverter.invert(fitted_map, NOWHERE) - expected, dtype=np.float64).sum()
    assert apart < 0.01 * np.square(expected - vectors.mean(0), dtype=np.float64).sum()


def test_weights_in_the_cache_are_not_trained_again(
    build: Any, vectors: Any, fitted_map: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, lines = Store(), list[str]()
    context = {"cached": store, "announce": lines.append}
    first = build("inverter", "decoder", QUICK, **context).fit(fitted_map, vectors, None)
    assert (store.computed, len(lines)) == (1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(networks, "train", None)
        again = build("inverter", "decoder", QUICK, **context).fit(fitted_map.copy(), vectors.copy(), None)
    assert (store.computed, len(lines)) == (1, 1)
    np.testing.assert_array_equal(again.invert(fitted_map, NOWHERE), first.invert(fitted_map, NOWHERE))


@pytest.mark.parametrize("change", ["coordinates", "vectors", "options", "seed"])
def test_weights_of_another_map_are_not_taken(build: Any, vectors: Any, fitted_map: Any, change: str) -> None:
    store = Store()
    build("inverter", "decoder", QUICK, cached=store).fit(fitted_map, vectors, None)
    options = {**QUICK, "epochs": 14} if change == "options" else QUICK
    other = build("inverter", "decoder", options, cached=store, seed=int(change == "seed"))
    other.fit(2 * fitted_map if change == "coordinates" else fitted_map, vectors * (2 if change == "vectors" else 1), 0)
    assert store.computed == 2


def test_same_seed_same_vectors_whatever_the_global_state(build: Any, vectors: Any, fitted_map: Any) -> None:
    found = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturbance)
        state = torch.random.get_rng_state()
        inverter = build("inverter", "decoder", QUICK, seed=seed).fit(fitted_map, vectors, None)
        assert torch.equal(torch.random.get_rng_state(), state)
        found.append(inverter.invert(fitted_map, NOWHERE))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_the_network_lies_on_the_device_of_the_context(build: Any, vectors: Any, fitted_map: Any) -> None:
    store = Store()
    build("inverter", "decoder", QUICK, cached=store).fit(fitted_map, vectors, None)
    elsewhere = build("inverter", "decoder", QUICK, cached=store, device="meta").fit(fitted_map, vectors, None)
    assert store.computed == 1
    assert {parameter.device.type for parameter in elsewhere._network.parameters()} == {"meta"}


def test_the_device_of_the_context_is_trained_on(
    build: Any, vectors: Any, fitted_map: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    class Seen(Exception):
        pass

    def train(who: str, network: Any, objective: Any, tensors: Any, options: Any, **where: Any) -> None:
        seen.update(where, devices={tensor.device.type for tensor in [*network.parameters(), *tensors]})
        raise Seen

    monkeypatch.setattr(networks, "train", train)
    with pytest.raises(Seen):
        build("inverter", "decoder", QUICK, device="meta").fit(fitted_map, vectors, None)
    assert (seen["devices"], seen["device"]) == ({"meta"}, torch.device("meta"))


def test_arrays_may_lie_in_files(build: Any, vectors: Any, fitted_map: Any, tmp_path: Path) -> None:
    for name, values in (("vectors", vectors), ("map", fitted_map)):
        np.save(tmp_path / f"{name}.npy", values)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("map", "vectors")]
    found = build("inverter", "decoder", QUICK).fit(*mapped, None).invert(mapped[0], NOWHERE)
    expected = build("inverter", "decoder", QUICK).fit(fitted_map, vectors, None).invert(fitted_map, NOWHERE)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rows", [1, 3, 12])
@pytest.mark.parametrize("equal", [False, True])
def test_few_rows_equal_places_and_far_points(
    build: Any, vectors: Any, fitted_map: Any, rows: int, equal: bool
) -> None:
    places = np.tile(fitted_map[:1], (rows, 1)) if equal else fitted_map[:rows]
    inverter = build("inverter", "decoder", QUICK).fit(places, vectors[:rows], None)
    found = inverter.invert(np.concatenate([places, places + 1000]), NOWHERE)
    assert found.shape == (2 * rows, 24)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("which", "message"), [(0, "the coordinates of vector 8 of 300 holds"), (1, "vector 8 of 300 holds")]
)
def test_nan_is_refused_before_training(
    build: Any, vectors: Any, fitted_map: Any, which: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "train", None)
    arrays = [fitted_map.copy(), vectors.copy()]
    arrays[which][7, 1] = np.nan
    with pytest.raises(CompatibilityError, match=rf"^inverter 'decoder' cannot be trained: {message}"):
        build("inverter", "decoder", QUICK).fit(*arrays, None)


def test_a_learning_rate_that_is_too_high_is_named(build: Any, vectors: Any, fitted_map: Any) -> None:
    options = {**QUICK, "learning_rate": 1e30}
    with pytest.raises(CompatibilityError, match=r"^inverter 'decoder' cannot be trained: .*: lower learning_rate$"):
        build("inverter", "decoder", options).fit(fitted_map, vectors, None)
