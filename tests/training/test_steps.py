"""The FLOPs of a student's steps are those that torch counts."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode

from sage_kit.models.relations import TeacherRelations
from sage_kit.models.split import split_model
from sage_kit.training.losses import LossSettings, instance_losses
from sage_kit.training.steps import count_flops


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
    relations = TeacherRelations(teacher, layer, 4, None if layer == 1 else 0, student.dim)
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
