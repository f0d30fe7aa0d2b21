"""The supported families of encoders: where each keeps its embeddings, blocks and head.

A family is data, not code: the paths of the stock transformers modules inside the sequence classifier, and how its head
puts them together. Adding a family of the same build is one more entry in `FAMILIES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sage_kit.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of encoders whose sequence classifiers are built alike.

    Every head is: first token, [dropout,] `dense`, `activation`, dropout, `output`.

    Attributes
    ----------
    name : str
        What messages call it.
    model_types : tuple of str
        The ``model_type`` values of ``config.json`` that belong to it.
    embeddings, blocks, head_dense, head_output, head_dropout : str
        Paths of these modules inside the sequence classifier.
    activation : "tanh", "relu" or "gelu"
        Between the head's two layers.
    dropout_first : bool
        Whether the head's dropout acts on the first token's state, too.
    token_types : bool
        Whether the embeddings take token type ids.
    positions_from_padding : bool
        Whether position ids are counted from the padding index on, over the tokens that are no padding.
    relative_positions : str
        Path of the module that computes a bias of all blocks' attention from relative positions, and has its weights
        as ``relative_attention_bias``; "" where there is none. The weights belong to what a student bypasses.
    attention : "sdpa" or "eager"
        Which of transformers' implementations the stock model is loaded with.
    """

    name: str
    model_types: tuple[str, ...]
    embeddings: str
    blocks: str
    head_dense: str
    head_output: str
    head_dropout: str
    activation: Literal["tanh", "relu", "gelu"]
    dropout_first: bool = False
    token_types: bool = True
    positions_from_padding: bool = False
    relative_positions: str = ""
    attention: Literal["sdpa", "eager"] = "sdpa"

    def max_tokens(self, config: Any) -> int:
        """The longest text a model of this family can take, in tokens, special ones included."""
        if self.positions_from_padding:
            return int(config.max_position_embeddings - config.pad_token_id - 1)
        return int(config.max_position_embeddings)

    def uses_token_types(self, config: Any) -> bool:
        """Whether the model distinguishes the two texts of a pair by token type ids."""
        return self.token_types and config.type_vocab_size > 1

    def in_head(self, parameter: str) -> bool:
        """Whether a parameter of the sequence classifier, given by name, belongs to the head."""
        return parameter.startswith((f"{self.head_dense}.", f"{self.head_output}."))


FAMILIES = (
    Family(
        name="BERT",
        model_types=("bert",),
        embeddings="bert.embeddings",
        blocks="bert.encoder.layer",
        head_dense="bert.pooler.dense",
        head_output="classifier",
        head_dropout="dropout",
        activation="tanh",
    ),
    Family(
        name="RoBERTa",
        model_types=("roberta", "xlm-roberta", "camembert"),
        embeddings="roberta.embeddings",
        blocks="roberta.encoder.layer",
        head_dense="classifier.dense",
        head_output="classifier.out_proj",
        head_dropout="classifier.dropout",
        activation="tanh",
        dropout_first=True,
        positions_from_padding=True,
    ),
    Family(
        name="DistilBERT",
        model_types=("distilbert",),
        embeddings="distilbert.embeddings",
        blocks="distilbert.transformer.layer",
        head_dense="pre_classifier",
        head_output="classifier",
        head_dropout="dropout",
        activation="relu",
        token_types=False,
    ),
    Family(
        name="MPNet",
        model_types=("mpnet",),
        embeddings="mpnet.embeddings",
        blocks="mpnet.encoder.layer",
        head_dense="classifier.dense",
        head_output="classifier.out_proj",
        head_dropout="classifier.dropout",
        activation="tanh",
        dropout_first=True,
        token_types=False,
        positions_from_padding=True,
        relative_positions="mpnet.encoder",
        attention="eager",
    ),
)

MODEL_TYPES = tuple(model_type for family in FAMILIES for model_type in family.model_types)


def unsupported(model_type: str, name: str = "") -> str:
    """The message for a model of another type."""
    return (
        f"{f'model {name!r}' if name else 'the model'} is of type {model_type!r}: supported are "
        f"{', '.join(MODEL_TYPES)}; MiniLM and the like are of type 'bert'"
    )


def family_of(config: Any, name: str = "") -> Family:
    """The family of a model.

    Parameters
    ----------
    config : PreTrainedConfig
        The model's transformers configuration.
    name : str
        What the user calls the model, for the message.

    Raises
    ------
    ModelError
        For a model of another type, a decoder, or one whose position embeddings are relative.
    """
    for family in FAMILIES:
        if config.model_type in family.model_types:
            break
    else:
        raise ModelError(unsupported(str(config.model_type), name))
    called = f"model {name!r}" if name else "the model"
    if getattr(config, "is_decoder", False):
        raise ModelError(f"{called} is a decoder (is_decoder in its config.json): choose an encoder")
    # transformers 5 ignores this setting and would load such a model with its positions lost
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute":
        raise ModelError(f"{called} has {positions!r} positions: choose one with absolute position embeddings")
    return family
