"""How many vectors an inverter makes in a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

TIMED_SECONDS = 0.5
TIMED_POINTS = 20_000
TIMED_REPEATS = 3
LONG_ENOUGH = 10.0  # an inversion that took so many seconds is not timed again

Floats = NDArray[np.float32]
Invert = Callable[[Floats, NDArray[np.int64]], Floats]


def inversion_speed(
    invert: Invert, coordinates: Floats, anchors: NDArray[np.int64], first_points: int, first_seconds: float
) -> dict[str, float]:
    """Vectors per second, over enough points for a clock; an inversion that was slow anyway is not repeated."""
    count, seconds = first_points, [first_seconds]
    if first_seconds < LONG_ENOUGH:
        count = min(count, len(coordinates))
        while True:
            rows = np.arange(count) % len(coordinates)
            points, starts = coordinates[rows], anchors[rows]
            seconds = [_seconds(invert, points, starts)]
            if seconds[0] >= TIMED_SECONDS or count >= TIMED_POINTS:
                break
            wanted = 1.2 * count * TIMED_SECONDS / max(seconds[0], 1e-6)
            count = int(min(TIMED_POINTS, max(2 * count, wanted)))
        seconds += [_seconds(invert, points, starts) for _ in range(TIMED_REPEATS - 1) if seconds[0] < LONG_ENOUGH]
    return {
        "vectors_per_second": count / max(float(np.median(seconds)), 1e-9),
        "points": count,
        "repeats": len(seconds),
        "seconds": float(np.median(seconds)),
        **_threads(),
    }


def _seconds(invert: Invert, points: Floats, anchors: NDArray[np.int64]) -> float:
    started = time.perf_counter()
    invert(points, anchors)
    return time.perf_counter() - started


def _threads() -> dict[str, int]:
    from threadpoolctl import threadpool_info  # type: ignore[import-untyped, unused-ignore]

    pools = [int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {
        "threads": max(pools, default=1),
        "torch_threads": torch.get_num_threads(),
        "processors": os.cpu_count() or 1,
    }
