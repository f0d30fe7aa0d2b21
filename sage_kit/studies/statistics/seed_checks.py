"""What all statistics ask of their arguments: one clear line where they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.errors import DataError

Array = NDArray[Any]
Floats = NDArray[np.float64]

NEGLIGIBLE = 1e-12
"""Differences that spread less than this, relative to the larger of 1 and their size, differ by rounding only."""


def check_rows(labels: Array, predictions: Array, what: str) -> None:
    """Refuse labels that are not (n,), and predictions that are not (k, n)."""
    if labels.ndim != 1 or not len(labels):
        raise DataError(f"labels have shape {labels.shape}: it must be (n,), with one row at least.")
    if predictions.ndim != 2 or not len(predictions) or predictions.shape[1:] != labels.shape:
        raise DataError(
            f"{what} have shape {predictions.shape}: they must be one row per seed and one column for each of the "
            f"{len(labels)} labels."
        )


def seed_values(differences: Array) -> Floats:
    """Values of seeds as (seeds,), float64."""
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(f"differences have shape {values.shape}: it must be (seeds,), with one seed at least.")
    return values


def no_spread(values: Floats) -> bool:
    """Whether values differ by rounding only."""
    return bool(np.ptp(values) <= NEGLIGIBLE * max(1.0, float(np.abs(values).max())))
