"""A request to a sampler in full space, with read-only arrays as in a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from sage_kit.components import SampleRequest


def request_of(vectors: Any, count: int, seed: int = 0, losses: Any = None, **fields: Any) -> SampleRequest:
    """Losses are drawn from an exponential distribution unless they are given; all logits are zero."""
    n = len(vectors)
    losses = np.random.default_rng(2).exponential(size=n) if losses is None else losses
    arrays = [np.array(values, np.float32) for values in (losses, vectors, np.zeros((n, 2)))]
    for array in arrays:
        array.flags.writeable = False
    return SampleRequest(
        count=count,
        losses=arrays[0],
        vectors=arrays[1],
        teacher_logits=arrays[2],
        student_logits=arrays[2],
        rng=np.random.default_rng(seed),
        **fields,
    )
