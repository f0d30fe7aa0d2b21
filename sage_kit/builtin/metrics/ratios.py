"""Scores that are a ratio of two sums over examples, such as a share of words or F1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ratio(parts: ArrayLike, wholes: ArrayLike) -> float:
    """The sum of the parts over that of the wholes, both of shape (n,); 0 where the latter is 0."""
    whole = float(np.sum(wholes))
    return float(np.sum(parts)) / whole if whole else 0.0


def ratio_contributions(parts: ArrayLike, wholes: ArrayLike) -> NDArray[np.float64]:
    """What each example contributes to the ratio: it, and the example's influence on it, shape (n,).

    The influence is (part - ratio * whole) / mean whole, the delta method of a ratio estimator (Cochran 1977, Sampling
    Techniques, section 6.4).
    """
    part, whole = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    score = ratio(part, whole)
    mean: Any = whole.mean()
    return np.asarray(score + (part - score * whole) / mean) if mean else np.zeros(len(part))
