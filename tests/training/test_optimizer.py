"""The optimizer: what it decays, and its state in and out of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sage_kit.errors import ConfigError
from sage_kit.models.split import split_model
from sage_kit.storage.frozen import FrozenList
from sage_kit.training.optimizer import (
    REFUSED,
    check_optimizer,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    optimizers,
)

OPTIONS = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "rmsprop": {"momentum": 0.9, "centered": True},
    "adam": {"amsgrad": True, "betas": FrozenList([0.8, 0.99])},
}


def test_every_optimizer_of_torch_is_admitted_or_refused_with_a_reason() -> None:
    own = {name.lower() for name, item in vars(torch.optim).items() if isinstance(item, type)} - {"optimizer"}
    assert set(optimizers()) | REFUSED.keys() >= own
    assert {"adamw", "adam", "sgd", "adafactor", "rmsprop", "nadam", "radam", "adagrad"} <= set(optimizers())
    for name in REFUSED.keys() & own:
        with pytest.raises(ConfigError, match=f"optimizer {name!r} .*: take one of adadelta"):
            check_optimizer(name, {})


@pytest.mark.parametrize("name", sorted(optimizers()))
def test_optimizer_state_survives_as_named_tensors(name: str, tmp_path: Path) -> None:
    options = OPTIONS.get(name, {})
    check_optimizer(name, options)

    def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        _, upper = split_model(tiny.make_model(layers=1), "embeddings")
        return upper, make_optimizer(upper, 1e-3, 0.01, name, options)

    def step(upper: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        states = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(seed))
        upper.eval()
        upper(states, None).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    upper, optimizer = trained(0)
    for seed in range(3):
        step(upper, optimizer, seed)
    weights = {name: value.clone() for name, value in upper.state_dict().items()}
    save_file(optimizer_tensors(optimizer, upper), tmp_path / "optimizer.safetensors")
    state = load_file(tmp_path / "optimizer.safetensors")
    step(upper, optimizer, 3)
    assert any((weights[key] != value).any() for key, value in upper.state_dict().items())

    other, other_optimizer = trained(0)
    other.load_state_dict(weights)
    load_optimizer_tensors(other_optimizer, other, state)
    step(other, other_optimizer, 3)
    for key, value in upper.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, rtol=0, atol=0)
    for entry, value in optimizer_tensors(optimizer, upper).items():
        again = optimizer_tensors(other_optimizer, other)[entry]
        assert again.dtype == value.dtype
        torch.testing.assert_close(again, value, rtol=0, atol=0)


def test_optimizer_decays_matrices_only_and_leaves_the_input_layers() -> None:
    model = tiny.make_model(layers=2)
    _, upper = split_model(model, 1)
    optimizer = make_optimizer(upper, 1e-3, 0.1)
    decayed, plain = optimizer.param_groups
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim < 2 for p in plain["params"])
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen
    assert not known & {id(p) for p in frozen}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamww", {}, r"Unknown optimizer 'adamww'\. Did you mean 'adamw'\?"),
        ("sgd", {"lr": 0.1}, "'lr' is the setting learning_rate: set that"),
        ("sgd", {"weight_decay": 0.1}, "'weight_decay' is the setting weight_decay: set that"),
        ("rprop", {"weight_decay": 0.1}, "unknown option 'weight_decay'"),
        ("sgd", {"momentm": 0.9}, r"optimizer_options of 'sgd': unknown option 'momentm'\. Did you mean 'momentum'\?"),
        ("sgd", {"nesterov": True}, "torch refuses them: Nesterov momentum requires a momentum"),
        ("adam", {"betas": [0.9]}, "optimizer_options of 'adam': torch refuses them"),
        ("sgd", {"momentum": "much"}, "optimizer_options of 'sgd': torch refuses them"),
    ],
)
def test_mistakes_are_told_in_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        check_optimizer(name, options)
    assert "\n" not in str(raised.value)


def test_a_check_draws_nothing_and_adamw_stays_fused() -> None:
    before = torch.get_rng_state()
    for name in optimizers():
        check_optimizer(name, {})
    torch.testing.assert_close(torch.get_rng_state(), before)
    layer = nn.Linear(2, 2)
    assert make_optimizer(layer, 1e-3, 0.01).defaults["fused"] is True
    assert make_optimizer(layer, 1e-3, 0.01, "adamw", {"fused": False}).defaults["fused"] is False
    assert make_optimizer(layer, 1e-3, 0.01, "sgd").param_groups[0]["weight_decay"] == 0.01
