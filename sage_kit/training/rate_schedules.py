"""The learning rate's course by name: sage-kit's own two, and those of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sage_kit.config import RunConfig
from sage_kit.errors import ConfigError, one_line
from sage_kit.models.learning_rate import learning_rate_factor

OWN = ("linear", "constant")
"""Those of `sage_kit.models.learning_rate`, of which no step has a rate of 0."""


def rate_of(config: RunConfig, planned: int) -> Callable[[int], float]:
    """The student's learning rate at each step, from 0.

    A schedule of transformers is that of ``get_scheduler(name, optimizer, num_warmup_steps, num_training_steps,
    scheduler_specific_kwargs)``, with the same rates: one that rises begins at 0. A step beyond the last takes the rate
    of the last.

    Parameters
    ----------
    config : RunConfig
        Its settings `learning_rate`, `lr_schedule`, `lr_schedule_options` and `lr_warmup`.
    planned : int
        Steps over which the rate rises and falls.
    """
    kind, peak = config.lr_schedule, config.learning_rate
    if kind in OWN:
        return lambda step: peak * learning_rate_factor(kind, config.lr_warmup, step, planned)
    factor = _factor(kind, peak, round(config.lr_warmup * planned), planned, config.lr_schedule_options)
    return lambda step: peak * factor(min(step, planned - 1))


def check_schedule(config: RunConfig) -> None:
    """Raise ConfigError for options that the schedule does not take."""
    if config.lr_schedule in OWN:
        if config.lr_schedule_options:
            raise ConfigError(f"lr_schedule {config.lr_schedule!r} has no options: empty lr_schedule_options")
        return
    try:
        rate_of(config, 100)(50)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"lr_schedule_options of {config.lr_schedule!r}: transformers refuses them: {one_line(error)}"
        ) from error


def _factor(kind: str, peak: float, rising: int, total: int, options: Mapping[str, Any]) -> Callable[[int], float]:
    """The share of the peak at each step, from a scheduler of an optimizer that trains nothing."""
    import torch
    from transformers import get_scheduler

    idle = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler: Any = get_scheduler(kind, idle, rising, total, scheduler_specific_kwargs=dict(options))
    found: Callable[[int], float] = scheduler.lr_lambdas[0]
    return found
