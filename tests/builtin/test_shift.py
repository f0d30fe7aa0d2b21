"""Lift `shift`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sage_kit.components import LiftRequest, TokenBatch


def lift(build: Any, states: torch.Tensor, mask: torch.Tensor, displacement: torch.Tensor) -> TokenBatch:
    def no_states(indices: Any) -> TokenBatch:
        raise AssertionError("shift looks at no other examples")

    request = LiftRequest(
        anchor=TokenBatch(states, mask),
        vectors=displacement,
        displacement=displacement,
        anchors=np.arange(len(states)),
        neighbors=None,
        states=no_states,
        generator=torch.Generator(),
        n_real=len(states),
    )
    batch: TokenBatch = build("lift", "shift").lift(request)
    return batch


@pytest.fixture
def anchor() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(9) < torch.tensor([[9], [1], [4]])
    states = torch.randn(3, 9, 6, generator=generator, dtype=torch.float64) * mask.unsqueeze(-1)
    return states, mask


def test_the_mean_of_the_real_tokens_moves_by_the_displacement(
    build: Any, anchor: tuple[torch.Tensor, torch.Tensor]
) -> None:
    states, mask = anchor
    before = states.clone()
    displacement = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    lifted = lift(build, states, mask, displacement)
    counts = mask.sum(1, keepdim=True)
    means = lifted.states.sum(1) / counts
    torch.testing.assert_close(means, states.sum(1) / counts + displacement, rtol=0, atol=1e-14)
    assert torch.equal(lifted.mask, mask)
    assert torch.equal(lifted.states[~mask], torch.zeros_like(lifted.states[~mask]))
    assert torch.equal(states, before)


def test_differences_between_tokens_stay(build: Any, anchor: tuple[torch.Tensor, torch.Tensor]) -> None:
    states, mask = anchor
    lifted = lift(build, states, mask, torch.ones(3, 6, dtype=torch.float64))
    torch.testing.assert_close(lifted.states[0, 1:] - lifted.states[0, :-1], states[0, 1:] - states[0, :-1])


def test_the_states_type_is_kept(build: Any, anchor: tuple[torch.Tensor, torch.Tensor]) -> None:
    states, mask = anchor
    lifted = lift(build, states.half(), mask, torch.ones(3, 6))
    assert lifted.states.dtype == torch.float16
    torch.testing.assert_close(lifted.states[mask], states.half()[mask] + 1)
