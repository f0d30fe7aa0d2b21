"""The student's steps, piece by piece."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sage_kit.models.relations import TeacherRelations
from sage_kit.models.split import split_model
from sage_kit.training.losses import LossSettings, instance_losses
from sage_kit.training.steps import (
    Profile,
    count_flops,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)

CPU = torch.device("cpu")


def test_profile_keeps_old_losses_until_an_example_is_seen_again() -> None:
    profile = Profile(4, 2, CPU)
    profile.record(torch.tensor([0, 2]), torch.tensor([1.0, 3.0]), torch.zeros(2, 2))
    assert profile.mean_loss() == 2.0
    profile.start_pass()
    assert np.isnan(profile.mean_loss())
    profile.record(torch.tensor([2]), torch.tensor([5.0]), torch.zeros(1, 2))
    assert profile.mean_loss() == 5.0
    np.testing.assert_array_equal(profile.losses.numpy(), [1.0, np.nan, 5.0, np.nan])


def test_replaced_examples_take_the_mean_loss_of_their_synthetic_ones() -> None:
    profile, children = Profile(4, 1, CPU), Profile(5, 1, CPU)
    profile.losses[:] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    profile.start_pass()
    profile.record(torch.tensor([3]), torch.tensor([7.0]), torch.tensor([[0.7]]))
    # the last child was dropped by a filter and never seen
    children.record(
        torch.tensor([0, 1, 2, 3]), torch.tensor([1.0, 3.0, 5.0, 9.0]), torch.tensor([[1.0], [3.0], [5.0], [9.0]])
    )
    profile.attribute(np.array([0, 0, 1, 3, 2]), children)
    np.testing.assert_allclose(profile.losses.numpy(), [2.0, 5.0, 30.0, 7.0])
    np.testing.assert_allclose(profile.logits[:, 0].numpy(), [2.0, 5.0, 0.0, 0.7])


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


@pytest.mark.parametrize("projections", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_flops_are_those_that_torch_counts(layers: int, hidden: bool, projections: bool) -> None:
    _, upper = split_model(tiny.make_model(layers=layers), "embeddings")
    lengths = np.full(4, 6)
    states = torch.randn(4, 6, upper.dim)
    with FlopCounterMode(display=False) as forward:
        output = upper(states, None, hidden=hidden, projections=projections)
    asked = {"hidden": hidden, "projections": projections}
    assert count_flops(upper, lengths, training=False, **asked) == forward.get_total_flops()
    with FlopCounterMode(display=False) as backward:
        total = output.logits.sum() + sum(states.sum() for states in output.hidden)
        (total + output.projections.sum() if projections else total).backward()
    counted = forward.get_total_flops() + backward.get_total_flops()
    assert count_flops(upper, lengths, training=True, **asked) == counted


@pytest.mark.parametrize(("layer", "layers"), [(1, 1), (2, 2), (3, 2)])
def test_flops_of_a_step_with_relations_are_those_that_torch_counts(layer: int, layers: int) -> None:
    _, teacher = split_model(tiny.make_model(layers=3), "embeddings")
    _, student = split_model(tiny.make_model(layers=layers), "embeddings")
    relations = TeacherRelations(teacher, layer, 4, None if layer == 1 else 0)
    lengths = np.full(4, 6)
    states, hidden = torch.randn(4, 6, 32), torch.randn(4, 6, 1, 32)
    settings = LossSettings(2.0, 0.0, 0.0, "cosine", False, relation_weight=1.0, relation_heads=4)
    with FlopCounterMode(display=False) as counter:
        output = student(states, None, projections=True)
        losses = instance_losses(
            settings, output.logits, torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64),
            student_projections=output.projections, teacher_projections=relations.projections(states, hidden),
            mask=torch.ones(4, 6, dtype=torch.bool),
        )  # fmt: skip
        losses.mean().backward()
    counted = count_flops(student, lengths, training=True, projections=True) + relations.flops(lengths)
    assert counted == counter.get_total_flops()
    # of examples of other lengths too: attention's and the relations' share grows with the square
    one, two = relations.flops(np.array([2])), relations.flops(np.array([10], dtype=np.int32))
    assert relations.flops(np.array([2, 10])) == one + two
    assert two - 5 * one == 24 * 32 * (100 - 5 * 4)


def test_flops_of_attention_grow_with_the_square_of_a_length() -> None:
    _, upper = split_model(tiny.make_model(layers=2), "embeddings")
    uneven, even = np.array([2, 10]), np.array([6, 6])
    more = count_flops(upper, uneven, training=False, hidden=True) - count_flops(
        upper, even, training=False, hidden=True
    )
    assert more == 2 * 4 * upper.dim * (4 + 100 - 72)
