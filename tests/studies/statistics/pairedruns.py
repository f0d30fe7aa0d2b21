"""Made-up differences between seeds, predictions of several seeds, and the ends of an interval as a pair."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DIFFERENCES = np.array([0.012, -0.003, 0.02, 0.008, 0.011])


def ends(interval: Any) -> tuple[float, float]:
    return interval.low, interval.high


def runs(seeds: int, n: int, right: float, seed: int = 0, spread: float = 0.0) -> Array:
    """Predictions (seeds, n) that hit labels of one with the given chance, which varies between seeds."""
    rng = np.random.default_rng(seed)
    return (rng.random((seeds, n)) < right + rng.normal(0, spread, (seeds, 1))).astype(int)
