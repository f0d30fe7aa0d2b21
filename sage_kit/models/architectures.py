"""Which head a model has: that of a sequence, a token or a span classifier, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components.task_kinds import Architecture
    from sage_kit.models.sentence_encoder import SentenceEncoder

SUFFIXES: Mapping[str, str] = {
    "sequence": "ForSequenceClassification",
    "token": "ForTokenClassification",
    "span": "ForQuestionAnswering",
}
"""How the names of model classes end, by architecture; of an encoder alone they say nothing."""

MAPPINGS: Mapping[str, str] = {
    "sequence": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "token": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "span": "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
}
"""What transformers calls the table of such models."""


def auto_class(architecture: Architecture) -> Any:
    """The class of transformers that finds a model's own by its configuration."""
    import transformers

    return getattr(transformers, f"AutoModel{SUFFIXES[architecture]}")


def _classes(architecture: Architecture) -> Any:
    """The model classes with such a head, by the class of the configuration."""
    from transformers.models.auto import modeling_auto

    return getattr(modeling_auto, MAPPINGS[architecture])


def has_class(config: Any, architecture: Architecture) -> bool:
    """Whether transformers has such a model of the configuration's family; an encoder alone it always has."""
    return architecture not in SUFFIXES or type(config) in _classes(architecture)


def architecture_of(model: PreTrainedModel) -> Architecture:
    """Which head a model has, by the name of its class; a sentence encoder says it itself."""
    own: Architecture | None = getattr(model, "architecture", None)
    if own is not None:
        return own
    name = type(model).__name__
    for architecture, suffix in SUFFIXES.items():
        if name.endswith(suffix):
            return cast("Architecture", architecture)
    return "sequence"


def new_model(config: Any, like: PreTrainedModel, attention: str) -> Any:
    """A model with random weights, the head that another has, and a configuration of its own."""
    if architecture_of(like) == "embedding":
        return cast("SentenceEncoder", like).like(config, attention)
    found = auto_class(architecture_of(like))
    return found.from_config(config, attn_implementation=attention, dtype=torch.float32)


def is_trained_as(config: Any, architecture: Architecture) -> bool:
    """Whether a checkpoint was saved with such a head, as far as its configuration says."""
    names = getattr(config, "architectures", None) or ()
    return not names or architecture not in SUFFIXES or any(name.endswith(SUFFIXES[architecture]) for name in names)
