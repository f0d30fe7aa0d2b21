"""The learning rate's course, the same for the teacher, the warm-up and the student."""

from __future__ import annotations

WARMUP_SHARE = 0.06
"""Part of the steps in which the learning rate of a teacher and of the warm-up rises."""


def learning_rate_factor(kind: str, warmup: float, step: int, total: int) -> float:
    """The learning rate of a step as a share of its peak.

    It rises linearly over the first ``n = warmup * total`` steps, of which step k, counted from 0, takes
    ``(k + 1) / n``, so that no step is wasted on a rate of 0; then it falls linearly, from 1 towards 0 after the last
    step, or stays.

    Parameters
    ----------
    kind : "linear" or "constant"
        Whether it falls after the rise.
    warmup : float
        Share of the steps in which it rises; of a share above 0 at least one step.
    step : int
        From 0; one beyond the last takes the rate of the last.
    total : int
        Steps in all, at least 1.
    """
    step = min(step, total - 1)
    rising = max(1, round(warmup * total)) if warmup else 0
    if step < rising:
        return (step + 1) / rising
    return 1.0 if kind == "constant" else (total - step) / (total - rising)
