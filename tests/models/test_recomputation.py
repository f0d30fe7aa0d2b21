"""Blocks that are computed twice have the gradients that they had, and keep less."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from sage_kit.models import split
from sage_kit.models.split import UpperLayers, split_model


def step(upper: UpperLayers, recomputes: bool, **asked: bool) -> tuple[Tensor, list[Tensor], int]:
    """Logits, gradients, and the bytes that are kept for the backward pass."""
    upper.train()
    upper.recomputes = recomputes
    upper.zero_grad()
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(6, 24, upper.dim, generator=generator)
    mask = torch.arange(24)[None] < torch.tensor([24, 20, 11, 24, 3, 9])[:, None]
    sizes: dict[tuple[int, int], int] = {}
    known = {parameter.untyped_storage().data_ptr() for parameter in upper.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr(), storage.nbytes()] = storage.nbytes()
        return tensor

    torch.manual_seed(5)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = upper(states, mask, **asked)
    kept = sum(sizes.values())
    loss = output.logits.square().sum() + sum((each * mask[..., None]).square().sum() for each in output.hidden)
    for projections in output.projections:
        loss = loss + (projections * mask[..., None, None]).square().sum()
    loss.backward()
    gradients = [p.grad.clone() for p in upper.parameters() if p.grad is not None]
    return output.logits.detach(), gradients, kept


@pytest.mark.parametrize(
    "asked", [{}, {"hidden": True}, {"projections": (2,)}, {"hidden": True, "projections": (1, 2)}]
)
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("family", ["bert", "mpnet"])
def test_gradients_are_the_same_to_the_bit_with_dropout(
    monkeypatch: pytest.MonkeyPatch, family: str, packed: bool, asked: dict[str, Any]
) -> None:
    if not packed:
        monkeypatch.setattr(split, "runs_packed", lambda states: False)
    _, upper = split_model(tiny.make_model(family, layers=4), "embeddings")
    logits, gradients, kept = step(upper, False, **asked)
    again, others, less = step(upper, True, **asked)
    torch.testing.assert_close(again, logits, rtol=0, atol=0)
    assert len(gradients) == len(others) > 10
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert less < 0.5 * kept


def test_nothing_is_computed_twice_where_nothing_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: Any, **named: Any) -> Any:
        raise AssertionError("computed twice")

    monkeypatch.setattr(split, "recomputed", never)
    _, upper = split_model(tiny.make_model(layers=2), "embeddings")
    upper.recomputes = True
    upper.eval()
    upper(torch.randn(2, 5, upper.dim), None)
    upper.train()
    with torch.no_grad():
        upper(torch.randn(2, 5, upper.dim), None)
