"""The optimizer: what it decays, and its state in and out of a checkpoint."""

from __future__ import annotations

import tiny
import torch
from torch import nn

from sage_kit.models.split import split_model
from sage_kit.training.optimizer import load_optimizer_tensors, make_optimizer, optimizer_tensors


def test_optimizer_state_survives_as_named_tensors() -> None:
    def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        _, upper = split_model(tiny.make_model(layers=1), "embeddings")
        return upper, make_optimizer(upper, 1e-3, 0.01)

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
    state = optimizer_tensors(optimizer, upper)
    step(upper, optimizer, 3)

    other, other_optimizer = trained(0)
    other.load_state_dict(weights)
    load_optimizer_tensors(other_optimizer, other, state)
    step(other, other_optimizer, 3)
    for name, value in upper.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)


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
