"""Which head a transformers model has: that of a sequence, a token or a span classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components.task_kinds import Architecture

SUFFIXES: Mapping[str, str] = {
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "span": "ForQuestionAnswering",
}
"""How the names of model classes end, by architecture."""


def auto_class(architecture: Architecture) -> Any:
    """The class of transformers that finds a model's own by its configuration."""
    import transformers

    return getattr(transformers, f"AutoModel{SUFFIXES[architecture]}")


def has_class(config: Any, architecture: Architecture) -> bool:
    """Whether transformers has such a model of the configuration's family."""
    return type(config) in auto_class(architecture)._model_mapping


def architecture_of(model: PreTrainedModel) -> Architecture:
    """Which head a model has, by the name of its class."""
    name = type(model).__name__
    for architecture, suffix in SUFFIXES.items():
        if name.endswith(suffix):
            return cast("Architecture", architecture)
    return "sequence"


def is_trained_as(config: Any, architecture: Architecture) -> bool:
    """Whether a checkpoint was saved with such a head, as far as its configuration says."""
    names = getattr(config, "architectures", None) or ()
    return not names or any(name.endswith(SUFFIXES[architecture]) for name in names)
