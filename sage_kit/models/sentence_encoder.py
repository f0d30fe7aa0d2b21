"""A sentence encoder: a stock encoder without a head, whose pooled states are the output."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components.task_kinds import Architecture
    from sage_kit.models.sentence_folders import SentenceSettings


class SentenceEncoder(nn.Module):
    """An encoder in the place that it has inside a classifier, so that the paths of its family lead to its parts.

    A pooler, which no embedding is made by, is not part of it.

    Parameters
    ----------
    encoder : PreTrainedModel
        As ``AutoModel`` loads it.
    settings : SentenceSettings
        How its states become a vector.
    """

    architecture: ClassVar[Architecture] = "embedding"

    def __init__(self, encoder: PreTrainedModel, settings: SentenceSettings) -> None:
        super().__init__()
        self.settings = settings
        self._place = encoder.base_model_prefix
        self.add_module(self._place, cast(nn.Module, encoder))
        self.train(encoder.training)

    @property
    def encoder(self) -> PreTrainedModel:
        """The stock encoder."""
        return cast("PreTrainedModel", self._modules[self._place])

    @property
    def base_model(self) -> PreTrainedModel:
        """The same, as a classifier calls it."""
        return self.encoder

    @property
    def config(self) -> Any:
        """Its transformers configuration."""
        return self.encoder.config

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.encoder.device

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings of its tokens."""
        return self.encoder.get_input_embeddings()

    def set_attn_implementation(self, implementation: str) -> None:
        """Choose how transformers computes its attention."""
        self.encoder.set_attn_implementation(implementation)

    def like(self, config: Any, attention: str) -> SentenceEncoder:
        """One with random weights and another configuration."""
        from transformers import AutoModel

        encoder = AutoModel.from_config(
            config, attn_implementation=attention, dtype=torch.float32, **without_pooler(type(self.encoder))
        )
        return SentenceEncoder(encoder, self.settings)


def without_pooler(encoder_class: type) -> dict[str, Any]:
    """What asks the class of an encoder to leave its pooler out; nothing where it has none."""
    takes = "add_pooling_layer" in inspect.signature(encoder_class).parameters
    return {"add_pooling_layer": False} if takes else {}


def load_sentence_encoder(source: str, config: Any, settings: SentenceSettings, **loading: Any) -> tuple[Any, Any]:
    """A checkpoint as a sentence encoder, and what transformers says of its loading.

    Parameters
    ----------
    source : str
        A directory or hub name.
    config : PreTrainedConfig
    settings : SentenceSettings
    **loading
        As ``from_pretrained`` takes it.
    """
    from transformers import AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    encoder_class = cast(type, MODEL_MAPPING[type(config)])
    encoder, info = AutoModel.from_pretrained(source, config=config, **loading, **without_pooler(encoder_class))
    return SentenceEncoder(encoder, settings), info
