"""Every loss against the same formula in float64, written with numpy and scipy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial import distance
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from sage_kit.training.losses import (
    hard_label_loss,
    hidden_state_loss,
    kl_divergence,
    relation_loss,
    squared_error,
)

Array = NDArray[Any]

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(0, 3, (16, 5)), RNG.normal(0, 3, (16, 5))
LABELS = RNG.integers(0, 5, 16)
LENGTHS = np.array([1, 2, 7, 7, 3, 5, 4, 6, 1, 2, 3, 4, 5, 6, 7, 1])
MASK = np.arange(7) < LENGTHS[:, None]
STUDENT_HIDDEN, TEACHER_HIDDEN = RNG.normal(0, 1, (16, 7, 3, 8)), RNG.normal(0.5, 2, (16, 7, 3, 8))


STUDENT_QKV, TEACHER_QKV = RNG.normal(0, 1, (16, 7, 3, 8)), RNG.normal(0.3, 1.5, (16, 7, 3, 8))


def tensor(values: Array) -> torch.Tensor:
    values = np.asarray(values)
    return torch.from_numpy(values.astype(np.float32) if values.dtype == np.float64 else values)


def reference_kl(student: Array, teacher: Array, temperature: float) -> Array:
    return temperature**2 * entropy(softmax(teacher / temperature, -1), softmax(student / temperature, -1), axis=-1)


def reference_hidden(student: Array, teacher: Array, lengths: Array, kind: str) -> Array:
    """Token by token and layer by layer."""
    measure: Callable[[Array, Array], float] = (
        distance.cosine if kind == "cosine" else lambda a, b: float(((a - b) ** 2).mean())
    )
    return np.array(
        [
            np.mean([measure(student[i, t, k], teacher[i, t, k]) for t in range(n) for k in range(student.shape[2])])
            for i, n in enumerate(lengths)
        ]
    )


def reference_relations(student: Array, teacher: Array, lengths: Array, heads: int) -> tuple[Array, Array]:
    """Each example's relations loss, and its gradient by the student, head by head; zero at padding."""
    width = student.shape[-1] // heads
    losses, gradient = np.zeros(len(lengths)), np.zeros(student.shape)
    for i, n in enumerate(lengths):
        for kind in range(3):
            for head in range(heads):
                columns = slice(head * width, (head + 1) * width)
                x, y = student[i, :n, kind, columns], teacher[i, :n, kind, columns]
                q, p = (softmax(states @ states.T / np.sqrt(width), axis=-1) for states in (x, y))
                for token in range(n):
                    losses[i] += entropy(p[token], q[token]) / (3 * heads * n)
                by_scores = (q - p) / (3 * heads * n)
                gradient[i, :n, kind, columns] = (by_scores + by_scores.T) @ x / np.sqrt(width)
    return losses, gradient


def assert_close(found: torch.Tensor, expected: Array) -> None:
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-5, atol=2e-6)


# ---- KL


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])
def test_kl(temperature: float) -> None:
    found = kl_divergence(tensor(STUDENT), tensor(TEACHER), temperature)
    assert_close(found, reference_kl(STUDENT, TEACHER, temperature))


def test_kl_of_equal_logits_is_zero_and_a_shift_of_all_logits_does_not_count() -> None:
    logits = tensor(TEACHER)
    assert_close(kl_divergence(logits, logits), np.zeros(16))
    assert_close(kl_divergence(logits + 100, logits), np.zeros(16))


def test_kl_by_hand() -> None:
    # teacher (3/4, 1/4), student (1/2, 1/2)
    found = kl_divergence(torch.zeros(1, 2), torch.log(torch.tensor([[3.0, 1.0]])))
    assert_close(found, np.array([0.75 * np.log(1.5) + 0.25 * np.log(0.5)]))


def test_kl_stays_finite_for_extreme_logits() -> None:
    extreme = torch.tensor([[1e4, -1e4, 0.0]])
    assert float(kl_divergence(extreme, extreme)) == 0
    assert float(kl_divergence(-extreme, extreme)) == pytest.approx(2e4)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_gradient_of_kl_is_that_of_the_formula_and_of_finite_differences(temperature: float) -> None:
    student = tensor(STUDENT).requires_grad_()
    kl_divergence(student, tensor(TEACHER), temperature).sum().backward()
    # T^2 * d KL / d s = T * (q - p)
    exact = temperature * (softmax(STUDENT / temperature, -1) - softmax(TEACHER / temperature, -1))
    np.testing.assert_allclose(student.grad, exact, rtol=1e-4, atol=1e-6)
    step = 1e-6
    for column in range(STUDENT.shape[1]):
        shift = step * np.eye(STUDENT.shape[1])[column]
        ahead = reference_kl(STUDENT + shift, TEACHER, temperature)
        behind = reference_kl(STUDENT - shift, TEACHER, temperature)
        np.testing.assert_allclose(student.grad[:, column], (ahead - behind) / (2 * step), rtol=1e-3, atol=1e-5)


def test_the_gradient_keeps_its_size_when_the_temperature_rises() -> None:
    sizes = []
    for temperature in (10.0, 100.0):
        student = tensor(STUDENT).requires_grad_()
        kl_divergence(student, tensor(TEACHER), temperature).sum().backward()
        sizes.append(float(student.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)


# ---- the others


def test_hard_labels() -> None:
    expected = -log_softmax(STUDENT, -1)[np.arange(16), LABELS]
    assert_close(hard_label_loss(tensor(STUDENT), tensor(LABELS)), expected)


def test_squared_error() -> None:
    assert_close(squared_error(tensor(STUDENT), tensor(TEACHER)), ((STUDENT - TEACHER) ** 2).mean(-1))


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_hidden_states(kind: Any) -> None:
    found = hidden_state_loss(tensor(STUDENT_HIDDEN), tensor(TEACHER_HIDDEN), tensor(MASK), kind)
    assert_close(found, reference_hidden(STUDENT_HIDDEN, TEACHER_HIDDEN, LENGTHS, kind))


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_what_stands_at_padding_positions_does_not_count(kind: Any) -> None:
    student = tensor(STUDENT_HIDDEN).requires_grad_()
    plain = hidden_state_loss(student, tensor(TEACHER_HIDDEN), tensor(MASK), kind)
    other_student, other_teacher = STUDENT_HIDDEN.copy(), TEACHER_HIDDEN.copy()
    other_student[~MASK] = 1e6 * RNG.normal(size=other_student[~MASK].shape)
    other_teacher[~MASK] = 0
    garbage = hidden_state_loss(tensor(other_student), tensor(other_teacher), tensor(MASK), kind)
    torch.testing.assert_close(garbage, plain.detach(), rtol=0, atol=0)
    plain.sum().backward()
    assert not student.grad[tensor(~MASK)].any()
    assert student.grad[tensor(MASK)].any(-1).all()


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_relations(heads: int) -> None:
    student = tensor(STUDENT_QKV).requires_grad_()
    found = relation_loss(student, tensor(TEACHER_QKV), tensor(MASK), heads)
    losses, gradient = reference_relations(STUDENT_QKV, TEACHER_QKV, LENGTHS, heads)
    assert (losses[LENGTHS > 1] > 1e-3).all()
    assert_close(found.detach(), losses)
    found.sum().backward()
    np.testing.assert_allclose(student.grad, gradient, rtol=1e-4, atol=1e-6)
    # the formula of the gradient itself, by finite differences
    direction = np.random.default_rng(1).normal(size=STUDENT_QKV.shape)
    ahead, behind = (
        reference_relations(STUDENT_QKV + step * direction, TEACHER_QKV, LENGTHS, heads)[0] for step in (1e-6, -1e-6)
    )
    slope = (gradient * direction).sum((1, 2, 3))
    np.testing.assert_allclose((ahead - behind) / 2e-6, slope, rtol=1e-5, atol=1e-8)


def test_equal_relations_have_no_loss_whatever_turns_the_heads() -> None:
    turned = TEACHER_QKV.copy()
    # relations are inner products, so that a rotation within a head does not change them
    turned[..., :4] = turned[..., :4] @ np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    assert_close(relation_loss(tensor(turned), tensor(TEACHER_QKV), tensor(MASK), 2), np.zeros(16))
    across = relation_loss(tensor(turned), tensor(TEACHER_QKV), tensor(MASK), 4)
    assert (across[tensor(LENGTHS > 1)] > 1e-3).all()


def test_relations_of_padding_do_not_count() -> None:
    student = tensor(STUDENT_QKV).requires_grad_()
    plain = relation_loss(student, tensor(TEACHER_QKV), tensor(MASK), 2)
    other_student, other_teacher = STUDENT_QKV.copy(), TEACHER_QKV.copy()
    other_student[~MASK] = 1e6 * RNG.normal(size=other_student[~MASK].shape)
    other_teacher[~MASK] = 0
    garbage = tensor(other_student).requires_grad_()
    found = relation_loss(garbage, tensor(other_teacher), tensor(MASK), 2)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)
    for leaf, losses in ((student, plain), (garbage, found)):
        losses.sum().backward()
        assert not leaf.grad[tensor(~MASK)].any()
    torch.testing.assert_close(garbage.grad, student.grad, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    student, teacher = tensor(STUDENT).to(dtype), tensor(TEACHER).to(dtype)
    assert_close(
        kl_divergence(student, teacher, 2.0), reference_kl(student.double().numpy(), teacher.double().numpy(), 2)
    )
    hidden = tensor(STUDENT_HIDDEN).to(dtype)
    found = hidden_state_loss(hidden, tensor(TEACHER_HIDDEN), tensor(MASK), "mse")
    assert_close(found, reference_hidden(hidden.double().numpy(), TEACHER_HIDDEN, LENGTHS, "mse"))
    qkv = tensor(STUDENT_QKV).to(dtype)
    found = relation_loss(qkv, tensor(TEACHER_QKV), tensor(MASK), 2)
    assert_close(found, reference_relations(qkv.double().numpy(), TEACHER_QKV, LENGTHS, 2)[0])
    assert hard_label_loss(student, tensor(LABELS)).dtype == torch.float32
    assert squared_error(student, teacher).dtype == torch.float32
