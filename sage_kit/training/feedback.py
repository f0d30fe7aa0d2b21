"""What samplers ask about the student: where its divergence from the teacher grows, and its hidden states."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.data.batches import plan_batches
from sage_kit.data.encoding import EncodedSplit
from sage_kit.data.targets import Targets
from sage_kit.models.split import UpperLayers
from sage_kit.models.vectors import VectorStore, forward_batches, masked_mean
from sage_kit.training.losses import example_divergence

BATCH_SIZE = 128
BATCH_TOKENS = 4096


def divergence_gradient(
    student: UpperLayers,
    teacher: UpperLayers,
    store: VectorStore,
    indices: NDArray[np.int64],
    *,
    temperature: float,
    encoded: EncodedSplit,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> NDArray[np.float32]:
    """Gradient of each example's divergence by one displacement d that is added to all of its tokens, at d = 0.

    The divergence is the KL loss at the run's temperature, its mean over an example's distributions, or for numbers and
    vectors the squared error, between the outputs of teacher and student, both of which see the shifted tokens. Dropout
    is off; no parameter gets a gradient.

    Parameters
    ----------
    student, teacher : UpperLayers
        On `device`.
    store : VectorStore
        The real examples.
    indices : array of shape (m,), int64
        Which of them; one that occurs several times is computed once.
    temperature : float
        Of the KL loss.
    encoded : EncodedSplit
        Of the real examples; says how outputs are compared.
    device : torch.device
    autocast : callable
        Gives the context in which the models run.

    Returns
    -------
    array of shape (m, dim), float32
    """
    targets, regression = Targets.of(encoded), not encoded.handling.spec.has_distributions
    unique, position = np.unique(indices, return_inverse=True)
    result = np.empty((len(unique), store.pooled.shape[1]), dtype=np.float32)
    was_training = student.training
    student.eval()
    try:
        for rows in plan_batches(store.lengths[unique], batch_size=BATCH_SIZE, batch_tokens=BATCH_TOKENS):
            batch = store.batch(unique[rows], device)
            with torch.enable_grad(), autocast():
                moved = torch.zeros(len(rows), batch.states.shape[2], device=device, requires_grad=True)
                states = batch.states + moved[:, None] * batch.mask[..., None]
                positions = targets.positions(unique[rows], device)
                mine, its = (
                    encoded.handling.compared(
                        model(states, batch.mask, lengths=batch.lengths).logits.float(), positions
                    )
                    for model in (student, teacher)
                )
                divergence = example_divergence(mine, its, temperature, regression=regression)
                # examples do not see each other, so the sum's gradient is each one's own
                (gradient,) = torch.autograd.grad(divergence.sum(), moved)
            result[rows] = gradient.float().cpu().numpy()
    finally:
        student.train(was_training)
    return result[position]


def mean_hidden_states(
    student: UpperLayers,
    store: VectorStore,
    indices: NDArray[np.int64],
    *,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> NDArray[np.float32]:
    """The mean over an example's tokens of what each block of upper layers puts out; dropout off, no gradients.

    Parameters
    ----------
    student : UpperLayers
        On `device`.
    store : VectorStore
        The real examples.
    indices : array of shape (m,), int64
        Which of them.
    device : torch.device
    autocast : callable
        Gives the context in which the upper layers run.

    Returns
    -------
    array of shape (m, blocks, dim), float32
    """
    result: NDArray[np.float32] | None = None
    was_training = student.training
    student.eval()
    try:
        for rows in forward_batches(store.lengths[indices], device):
            batch = store.batch(indices[rows], device)
            with torch.no_grad(), autocast():
                blocks = student(batch.states, batch.mask, hidden=True, lengths=batch.lengths).hidden
            means = torch.stack([masked_mean(states.float(), batch.mask) for states in blocks], dim=1).cpu().numpy()
            if result is None:
                result = np.empty((len(indices), *means.shape[1:]), dtype=np.float32)
            result[rows] = means
    finally:
        student.train(was_training)
    return np.empty((0, student.n_blocks, student.dim), np.float32) if result is None else result
