"""Made-up differences between seeds, and the ends of an interval as a pair."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DIFFERENCES = np.array([0.012, -0.003, 0.02, 0.008, 0.011])


def ends(interval: Any) -> tuple[float, float]:
    return interval.low, interval.high
