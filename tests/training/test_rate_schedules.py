"""The learning rate by name: our own two as they were, the others as transformers has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import get_scheduler

from sage_kit.config import RunConfig, load_config
from sage_kit.errors import ConfigError
from sage_kit.models.learning_rate import learning_rate_factor
from sage_kit.training.rate_schedules import OWN, check_schedule, rate_of

NAMES = RunConfig.model_fields["lr_schedule"].annotation.__args__  # type: ignore[union-attr]
OPTIONS: dict[str, dict[str, Any]] = {
    "cosine": {"num_cycles": 0.4},
    "cosine_with_restarts": {"num_cycles": 3},
    "cosine_with_min_lr": {"min_lr": 1e-5},
    "polynomial": {"power": 2.0, "lr_end": 1e-6},
    "inverse_sqrt": {"timescale": 7},
    "warmup_stable_decay": {"num_decay_steps": 20},
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN])
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_a_schedule_of_transformers_has_its_rates(name: str, warmup: float) -> None:
    options = OPTIONS.get(name, {})
    config = load_config(
        {"lr_schedule": name, "lr_schedule_options": options, "lr_warmup": warmup, "learning_rate": 3e-4}
    )
    check_schedule(config)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = get_scheduler(name, optimizer, round(100 * warmup), 100, scheduler_specific_kwargs=options)
    rate, expected = rate_of(config, 100), []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [rate(step) for step in range(100)] == pytest.approx(expected, rel=1e-12)
    assert rate(130) == rate(99)


@pytest.mark.parametrize("name", OWN)
def test_our_own_have_the_numbers_that_they_had(name: str) -> None:
    rate = rate_of(load_config({"lr_schedule": name, "learning_rate": 3e-4, "lr_warmup": 0.1}), 50)
    assert [rate(step) for step in range(50)] == [
        3e-4 * learning_rate_factor(name, 0.1, step, 50) for step in range(50)
    ]
    assert rate(0) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_schedule": "cosin"}, "lr_schedule"),
        ({"lr_schedule_options": {"power": 2}}, "lr_schedule 'linear' has no options: empty lr_schedule_options"),
        (
            {"lr_schedule": "polynomial", "lr_schedule_options": {"powr": 2}},
            "of 'polynomial': transformers refuses them",
        ),
        ({"lr_schedule": "cosine", "lr_schedule_options": {"num_cycles": "many"}}, "transformers refuses them"),
        ({"lr_schedule": "warmup_stable_decay"}, "transformers refuses them: .*num_decay_steps"),
        ({"lr_schedule": "cosine_with_min_lr"}, "transformers refuses them: .*min_lr"),
    ],
)
def test_mistakes_are_told_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        check_schedule(load_config(settings))
    assert "\n" not in str(raised.value)
