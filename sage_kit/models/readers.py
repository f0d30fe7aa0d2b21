"""A model as what reads text: tokenizer, input layers and upper layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from sage_kit.data.tokens import Tokens
from sage_kit.models.split import Bypass, InputLayers, UpperLayers, split_model
from sage_kit.models.teacher import Teacher
from sage_kit.storage.fingerprint import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Reader:
    """A model as what reads text.

    Attributes
    ----------
    name : str
        What the user calls it.
    tokenizer : PreTrainedTokenizerBase
    prefix : str
        What stands in front of each text.
    input_layers : InputLayers
    upper : UpperLayers
        Both on the run's device.
    mark : str
        Fingerprint of its weights.
    input_key : str
        Fingerprint of its input layers alone.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    prefix: str
    input_layers: InputLayers
    upper: UpperLayers
    mark: str
    input_key: str

    @classmethod
    def of_teacher(cls, teacher: Teacher, name: str, bypass: Bypass, device: torch.device) -> Reader:
        """A teacher, which is brought to the device."""
        whole: Any = teacher.model
        input_layers, upper = split_model(cast("PreTrainedModel", whole.to(device)), bypass)
        key = fingerprint(teacher.fingerprint, bypass)
        return cls(name, teacher.tokenizer, teacher.prefix, input_layers, upper, teacher.fingerprint, key)

    def parameters(self) -> Iterator[nn.Parameter]:
        """All of the model's that are used."""
        yield from self.input_layers.parameters()
        yield from self.upper.parameters()

    def reads_like(self, other: Reader, own: Tokens, theirs: Tokens) -> bool:
        """Whether the ids of another's tokens mean the same to this model.

        Parameters
        ----------
        other : Reader
        own, theirs : Tokens
            What this model and the other make of the same texts.
        """
        return (
            own.pad_id == theirs.pad_id
            and np.array_equal(own.ids, theirs.ids)
            and np.array_equal(own.offsets, theirs.offsets)
            and (not self.input_layers.uses_types or np.array_equal(own.types, theirs.types))
            and self.tokenizer.get_vocab() == other.tokenizer.get_vocab()
        )


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The teachers of a run.

    Attributes
    ----------
    first : Reader
        Whose input layers and inner states count.
    others : tuple of Reader
    weights : tuple of float
        Of all, the first one's first; they add up to 1.
    """

    first: Reader
    others: tuple[Reader, ...] = ()
    weights: tuple[float, ...] = (1.0,)

    @property
    def all(self) -> tuple[Reader, ...]:
        """Every teacher."""
        return (self.first, *self.others)

    @classmethod
    def of(cls, first: Reader, others: Sequence[Reader], weights: Sequence[float]) -> Ensemble:
        """With weights of any sum, or none for equal ones."""
        own = np.asarray(weights or [1.0] * (1 + len(others)))
        return cls(first, tuple(others), tuple((own / own.sum()).tolist()))
