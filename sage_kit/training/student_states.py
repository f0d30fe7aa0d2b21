"""The student's hidden states of real examples, for samplers that ask for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.data.batches import plan_batches
from sage_kit.models.split import UpperLayers
from sage_kit.models.vectors import INFERENCE_BATCH_SIZE, INFERENCE_BATCH_TOKENS, VectorStore, masked_mean


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
        lengths = store.lengths[indices]
        for rows in plan_batches(lengths, batch_size=INFERENCE_BATCH_SIZE, batch_tokens=INFERENCE_BATCH_TOKENS):
            batch = store.batch(indices[rows], device)
            with torch.no_grad(), autocast():
                blocks = student(batch.states, batch.mask, hidden=True).hidden
            means = torch.stack([masked_mean(states.float(), batch.mask) for states in blocks], dim=1).cpu().numpy()
            if result is None:
                result = np.empty((len(indices), *means.shape[1:]), dtype=np.float32)
            result[rows] = means
    finally:
        student.train(was_training)
    return np.empty((0, student.n_blocks, store.pooled.shape[1]), np.float32) if result is None else result
