"""The gradient of the divergence, against one example at a time in double precision and against small steps."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encodedrows import encoded_rows
from transformers import AutoModelForSequenceClassification

from sage_kit.components import TaskSpec
from sage_kit.models.split import split_model
from sage_kit.models.vectors import VectorStore
from sage_kit.training.feedback import divergence_gradient

LENGTHS = [3, 7, 5, 7, 1, 4]
DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def uppers(tiny_bert: Path) -> Any:
    """A teacher and a student that differ in their weights."""
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        found.append(split_model(model, "embeddings")[1])
    return found


@pytest.fixture(scope="module")
def store() -> VectorStore:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    states = rng.standard_normal((offsets[-1], 32)).astype(np.float32)
    pooled = np.stack([states[a:b].mean(0) for a, b in itertools.pairwise(offsets)])
    return VectorStore(states, offsets, pooled, "key")


def settings(regression: bool) -> dict[str, Any]:
    spec = TaskSpec(name="toy", summary="", text_columns=("text",), labels=() if regression else ("a", "b", "c"))
    return {"temperature": 2.0, "encoded": encoded_rows(spec, np.zeros(len(LENGTHS), np.int64))}


def divergence(teacher: Any, student: Any, states: torch.Tensor, regression: bool) -> torch.Tensor:
    """Of one example without padding, straight from the definition."""
    mask = torch.ones(states.shape[:2], dtype=torch.bool)
    t, s = teacher(states, mask).logits[0], student(states, mask).logits[0]
    if regression:
        return (t - s).pow(2).mean()
    p, q = torch.softmax(t / 2, -1), torch.softmax(s / 2, -1)
    return 4 * (p * (p.log() - q.log())).sum()


@pytest.mark.parametrize("regression", [False, True])
def test_equals_one_example_at_a_time_in_double_precision(uppers: Any, store: VectorStore, regression: bool) -> None:
    teacher, student = uppers
    indices = np.array([5, 1, 1, 0, 4, 2])
    found = divergence_gradient(
        student, teacher, store, indices, **settings(regression), device=DEVICE, autocast=contextlib.nullcontext
    )
    assert found.shape == (6, 32)
    assert found.dtype == np.float32
    assert np.array_equal(found[1], found[2])
    teacher, student = teacher.double(), student.double()
    try:
        for row, index in zip(found, indices, strict=True):
            states = torch.from_numpy(store.states[store.offsets[index] : store.offsets[index + 1]]).double()[None]
            moved = torch.zeros(32, dtype=torch.float64, requires_grad=True)
            divergence(teacher, student, states + moved, regression).backward()
            np.testing.assert_allclose(row, moved.grad, rtol=2e-3, atol=1e-6)
            # and really how the divergence grows
            step = 1e-5 * moved.grad / moved.grad.norm()
            with torch.no_grad():
                rise = divergence(teacher, student, states + step, regression) - divergence(
                    teacher, student, states - step, regression
                )
            assert float(rise) / 2e-5 == pytest.approx(float(moved.grad.norm()), rel=1e-4)
    finally:
        teacher.float(), student.float()


def test_no_parameter_gets_a_gradient_and_the_mode_stays(uppers: Any, store: VectorStore) -> None:
    teacher, student = uppers
    student.zero_grad(set_to_none=True)
    student.train()
    arguments: Any = {"device": DEVICE, "autocast": contextlib.nullcontext}
    first = divergence_gradient(student, teacher, store, np.arange(3), **settings(False), **arguments)
    again = divergence_gradient(student, teacher, store, np.arange(3), **settings(False), **arguments)
    assert student.training
    student.eval()
    assert all(parameter.grad is None for parameter in student.parameters())
    assert np.array_equal(first, again)  # dropout was off
