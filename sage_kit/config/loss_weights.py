"""The weights of losses: as settings write them, over a run, and as the short forms give them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from sage_kit.config.values import Table

if TYPE_CHECKING:
    from sage_kit.config.settings import RunConfig

ENDS = ("start", "end")
"""What a weight that changes over the run is written with."""


@dataclass(frozen=True)
class LossWeight:
    """The weight of a loss, which goes in a straight line from the first step of a run to the last.

    Attributes
    ----------
    start, end : float
    """

    start: float
    end: float

    def at(self, progress: float) -> float:
        """The weight after that share of the run's student steps, from 0 to 1."""
        if self.start == self.end:
            return self.start
        return self.start + (self.end - self.start) * min(max(progress, 0.0), 1.0)


def loss_weight(value: Any) -> LossWeight:
    """The weight that a setting writes; raises ValueError for what is none."""
    ends = value if isinstance(value, Mapping) else dict.fromkeys(ENDS, value)
    if set(ends) != set(ENDS) or not all(_is_weight(number) for number in ends.values()):
        raise ValueError("a weight is a number of at least 0, or a table like {start = 1.0, end = 0.0}")
    return LossWeight(*(float(ends[name]) for name in ENDS))


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _checked(weights: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in weights.items():
        try:
            loss_weight(value)
        except ValueError as error:
            raise ValueError(f"of {name!r} it is {value!r}: {error}") from None
    if weights and not any(loss_weight(value) != LossWeight(0, 0) for value in weights.values()):
        raise ValueError("every weight is 0, so that nothing would be learned")
    return weights


LossWeights = Annotated[Table, AfterValidator(_checked)]


def check_loss_settings(config: RunConfig) -> None:
    """Raise ValueError where `losses` names the losses, and one of the short forms gives a weight as well."""
    if not config.losses:
        return
    hidden = f"hidden_{config.hidden_loss}"
    for setting, loss in (
        ("hard_label_weight", "hard_labels"), ("hidden_weight", hidden), ("relation_weight", "minilm_relations")
    ):  # fmt: skip
        weight = getattr(config, setting)
        if weight:
            raise ValueError(
                f"{setting} is {weight:g}, but losses names every loss of the run: set {setting} to 0 and add "
                f"{loss} = {weight:g} to losses"
            )


def loss_choices(config: RunConfig) -> dict[str, tuple[LossWeight, Mapping[str, Any]]]:
    """By name the losses of a run, with weight and options, those without any weight left out.

    They are those of `losses`, or else what the short forms stand for (`temperature`, `hard_label_weight`,
    `hidden_weight` and `relation_weight` with the settings beside them).
    """
    options = config.loss_options
    if config.losses:
        weights = {name: loss_weight(value) for name, value in config.losses.items()}
    else:
        hidden = f"hidden_{config.hidden_loss}"
        weights = {
            name: LossWeight(weight, weight)
            for name, weight in (
                ("kl", 1 - config.hard_label_weight),
                ("hard_labels", config.hard_label_weight),
                (hidden, config.hidden_weight),
                ("minilm_relations", config.relation_weight),
            )
        }
        options = {
            hidden: {"layers": config.hidden_layers},
            "minilm_relations": {"layer": config.relation_layer, "heads": config.relation_heads},
        }
    return {name: (weight, options.get(name, {})) for name, weight in weights.items() if weight != LossWeight(0, 0)}
