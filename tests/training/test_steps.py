"""The FLOPs of a student's steps are those that torch counts."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode

from sage_kit.models.split import split_model
from sage_kit.training.steps import count_flops


@pytest.mark.parametrize("projections", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_flops_are_those_that_torch_counts(layers: int, hidden: bool, projections: bool) -> None:
    _, upper = split_model(tiny.make_model(layers=layers), "embeddings")
    lengths = np.full(4, 6)
    states = torch.randn(4, 6, upper.dim)
    with FlopCounterMode(display=False) as forward:
        # those of the blocks before the last cost nothing
        output = upper(states, None, hidden=hidden, projections=tuple(range(1, layers + projections)))
    asked = {"hidden": hidden, "projections": projections}
    assert count_flops(upper, lengths, training=False, **asked) == forward.get_total_flops()
    with FlopCounterMode(display=False) as backward:
        total = output.logits.sum() + sum(states.sum() for states in output.hidden)
        total = total + sum(one.sum() for one in output.projections)
        total.backward()
    counted = forward.get_total_flops() + backward.get_total_flops()
    assert count_flops(upper, lengths, training=True, **asked) == counted


def test_flops_of_attention_grow_with_the_square_of_a_length() -> None:
    _, upper = split_model(tiny.make_model(layers=2), "embeddings")
    uneven, even = np.array([2, 10]), np.array([6, 6])
    more = count_flops(upper, uneven, training=False, hidden=True) - count_flops(
        upper, even, training=False, hidden=True
    )
    assert more == 2 * 4 * upper.dim * (4 + 100 - 72)
