"""A student computed by torch, as the distillation loop computes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sage_kit.data.tokens import Tokens
from sage_kit.models.split import InputLayers, UpperLayers, split_model
from sage_kit.models.vectors import VectorStore
from sage_kit.training.steps import predict

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class TorchBackend:
    """A student on a device.

    Attributes
    ----------
    model : PreTrainedModel
        The whole model: a classifier, or a sentence encoder.
    input_layers : InputLayers
    upper : UpperLayers
        Both are views of it.
    accelerator : Accelerator
        Of its device and precision.
    """

    model: PreTrainedModel
    input_layers: InputLayers
    upper: UpperLayers
    accelerator: Accelerator

    @classmethod
    def of(cls, model: PreTrainedModel, accelerator: Accelerator) -> TorchBackend:
        """A model, which is brought to the device and frozen."""
        whole: Any = model
        whole = whole.to(accelerator.device).eval()
        input_layers, upper = split_model(cast("PreTrainedModel", whole), "embeddings")
        upper.requires_grad_(False)
        return cls(whole, input_layers, upper, accelerator)

    @property
    def weight_bytes(self) -> int:
        """What its parameters take [bytes]; those of a part that it shares with itself count once."""
        whole: Any = self.model
        parameters: Iterator[Any] = whole.parameters()
        return sum(one.numel() * one.element_size() for one in parameters)

    def outputs(self, tokens: Tokens) -> NDArray[np.float32]:
        """The model's outputs: (sequences, n_outputs), or flat; batches hold texts of like length."""
        upper = self.upper
        nothing = np.empty((0, 0), np.float32)  # pooled vectors, which nobody looks at
        store = VectorStore(None, tokens.offsets, nothing, "", tokens, self.input_layers)
        return predict(upper, store, upper.n_outputs, self.accelerator, per_token=upper.head.per_token)
