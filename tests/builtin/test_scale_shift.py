"""Lifts `scale_shift` and `pooled`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sage_kit.components import LiftRequest, TokenBatch


def lift(build: Any, name: str, states: torch.Tensor, mask: torch.Tensor, displacement: torch.Tensor) -> TokenBatch:
    def no_states(indices: Any) -> TokenBatch:
        raise AssertionError(f"{name} looks at no other examples")

    counts = mask.sum(1, keepdim=True)
    request = LiftRequest(
        anchor=TokenBatch(states, mask),
        vectors=states.sum(1) / counts + displacement,
        displacement=displacement,
        anchors=np.arange(len(states)),
        neighbors=None,
        states=no_states,
        generator=torch.Generator(),
        n_real=len(states),
    )
    batch: TokenBatch = build("lift", name).lift(request)
    return batch


@pytest.fixture
def anchor() -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of nine, one and four tokens."""
    mask = torch.arange(9) < torch.tensor([[9], [1], [4]])
    states = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(0)) * mask.unsqueeze(-1)
    return states, mask


@pytest.fixture
def displacement() -> torch.Tensor:
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


def test_scale_shift_agrees_with_a_loop(build: Any, anchor: Any, displacement: torch.Tensor) -> None:
    states, mask = anchor
    before = states.clone()
    lifted = lift(build, "scale_shift", states, mask, displacement)
    expected = np.zeros(states.shape)
    for row, token in zip(*np.nonzero(mask.numpy()), strict=True):
        old = states[row, token].double().numpy()
        new = old + displacement[row].double().numpy()
        expected[row, token] = new * np.sqrt((old**2).sum() / (new**2).sum())
    assert lifted.states.dtype == torch.float32
    np.testing.assert_allclose(lifted.states.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(lifted.mask, mask)
    assert torch.equal(states, before)


def test_scale_shift_keeps_norms_and_padding(build: Any, anchor: Any, displacement: torch.Tensor) -> None:
    states, mask = anchor
    lifted = lift(build, "scale_shift", states, mask, 3 * displacement)
    torch.testing.assert_close(lifted.states.norm(dim=-1), states.norm(dim=-1))
    assert not torch.allclose(lifted.states[mask], states[mask], atol=0.1)
    assert torch.equal(lifted.states[~mask], torch.zeros_like(lifted.states[~mask]))


def test_scale_shift_by_nothing_changes_nothing(build: Any, anchor: Any) -> None:
    states, mask = anchor
    lifted = lift(build, "scale_shift", states, mask, torch.zeros(3, 6))
    torch.testing.assert_close(lifted.states, states)


def test_scale_shift_of_tokens_without_a_direction(build: Any) -> None:
    # the first token lands on the origin, the second has no length to keep
    states = torch.tensor([[[1.0, -2.0], [0.0, 0.0], [3.0, 0.0]]])
    lifted = lift(build, "scale_shift", states, torch.ones(1, 3, dtype=torch.bool), torch.tensor([[-1.0, 2.0]]))
    expected = torch.tensor([[[1.0, -2.0], [0.0, 0.0], [3 / 2**0.5, 3 / 2**0.5]]])
    torch.testing.assert_close(lifted.states, expected)


def test_scale_shift_keeps_the_states_type(build: Any, anchor: Any, displacement: torch.Tensor) -> None:
    states, mask = anchor
    # squares of such values are beyond half precision
    lifted = lift(build, "scale_shift", (300 * states).half(), mask, 300 * displacement)
    assert lifted.states.dtype == torch.float16
    torch.testing.assert_close(
        lifted.states.float().norm(dim=-1), (300 * states).norm(dim=-1), rtol=2e-3, atol=0, check_dtype=False
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_pooled_is_the_vector_alone(build: Any, anchor: Any, displacement: torch.Tensor, dtype: torch.dtype) -> None:
    states, mask = anchor
    lifted = lift(build, "pooled", states.to(dtype), mask, displacement)
    expected = states.to(dtype).sum(1) / mask.sum(1, keepdim=True) + displacement
    assert lifted.states.shape == (3, 1, 6)
    assert lifted.states.dtype == dtype
    torch.testing.assert_close(lifted.states[:, 0], expected.to(dtype))
    assert torch.equal(lifted.mask, torch.ones(3, 1, dtype=torch.bool))
