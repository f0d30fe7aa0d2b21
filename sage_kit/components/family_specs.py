"""What a family of encoders is described by: where its parts stand in the stock model, and how its blocks compute.

A family whose blocks are built as BERT's is data alone. One whose blocks differ says how they compute: its factory
returns an object with the methods of :class:`~sage_kit.components.Family`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sage_kit.components.specs import ComponentSpec, Factory, lazy

if TYPE_CHECKING:
    from sage_kit.components.task_kinds import Architecture

STOCK_BLOCKS = lazy("sage_kit.models.block_parts:StockBlocks")
"""What computes blocks that are built as BERT's."""


@dataclass(frozen=True, kw_only=True)
class HeadParts:
    """A head: pooling, [dropout,] `dense`, `activation`, [`norm`,] dropout, `output`.

    Attributes
    ----------
    dense, output, dropout : str
        Paths of these modules inside the model with the head; `dense` is "" where the pooled state goes to `output`,
        and `dropout` where there is none.
    activation : str
        Behind `dense`: a name of ``transformers.activations.ACT2FN`` ("tanh"), or the setting of ``config.json`` that
        holds one.
    first_dropout : str
        Path of the dropout on the pooled state; "" for none.
    norm : str
        Path of the normalisation behind the activation; "" for none.
    pooling : str
        "first" for the first token's state, "mean" for the mean over real tokens, or the setting of ``config.json``
        that says which, with the value "mean" for the mean.
    """

    dense: str
    output: str
    dropout: str
    activation: str = "tanh"
    first_dropout: str = ""
    norm: str = ""
    pooling: str = "first"

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of the modules that have weights, in the order in which they compute."""
        return tuple(path for path in (self.dense, self.norm, self.output) if path)

    def activation_of(self, config: Any) -> str:
        """The name of the activation in a model of this configuration."""
        return str(getattr(config, self.activation, self.activation))

    def pools_mean(self, config: Any) -> bool:
        """Whether a model of this configuration pools the mean, and not the first token's state."""
        return getattr(config, self.pooling, self.pooling) == "mean"


NO_HEAD = HeadParts(dense="", output="", dropout="")
"""Of a sentence encoder."""


@dataclass(frozen=True, kw_only=True)
class FamilySpec(ComponentSpec):
    """A family of encoders whose sequence classifiers are built alike; their code is in transformers.

    All paths are those of modules inside transformers' stock sequence classifier, as its ``named_modules()`` has them.

    Attributes
    ----------
    model_types : tuple of str
        The ``model_type`` values of ``config.json`` that belong to it.
    embeddings : str
        From token ids, and token types where it takes them, to states; it finds the position ids itself.
    blocks : str
        List of the encoder's blocks.
    head : HeadParts
        The head of the sequence classifier.
    token_head, span_head : HeadParts
        Those of the token classifier and of the model for question answering, which compute each token by itself:
        `pooling` says nothing there.
    projection : str
        From the width of the embeddings to that of the blocks; "" for none. A model may lack it where the two agree.
    shared : tuple of str
        Further modules with weights that all blocks use, such as an embedding of relative positions. They belong to
        what a student bypasses: copied and frozen.
    final_norm : str
        Normalisation behind the last block; "" for none.
    token_types : bool
        Whether the embeddings take token type ids.
    positions_from_padding : bool
        Whether position ids are counted from the padding index on, over the tokens that are no padding.
    relative_positions : str
        Path of the module that computes a bias of all blocks' attention from relative positions, and has its weights
        as ``relative_attention_bias``; "" where there is none. The weights belong to what a student bypasses.
    one_block : bool
        Whether all blocks are one and the same, the first of `blocks`, which is applied ``num_hidden_layers`` times.
    attention : "sdpa" or "eager"
        Which of transformers' implementations the stock model is loaded with: "eager" where it has no other.
    own_blocks : bool
        Whether the blocks are built otherwise than BERT's, so that what the factory returns computes them (see
        :class:`~sage_kit.components.Family`).
    masked_lm : tuple of str
        Modules of the stock masked language model that make logits from final states, one after the other; empty where
        there is no such model.
    refuses : callable or None
        ``refuses(config)`` gives the reason why a model of this configuration cannot be taken, to stand behind "model
        'x' ", or "".
    student_config : callable or None
        ``student_config(config, blocks)`` makes the configuration of a student fit its blocks: `config` is the
        teacher's with ``num_hidden_layers`` set, and is changed in place; `blocks` has the number of the teacher's
        block that each starts as, None for a random one. It raises ``CompatibilityError`` for what cannot be.
    example : callable or None
        ``example(config)`` makes a small configuration of one of the types, with the usual names for its sizes, fit for
        the checks; it changes it in place. None where those names say all.
    """

    kind: ClassVar[str] = "family"

    model_types: tuple[str, ...]
    embeddings: str
    blocks: str
    head: HeadParts
    token_head: HeadParts = HeadParts(dense="", output="classifier", dropout="dropout")
    span_head: HeadParts = HeadParts(dense="", output="qa_outputs", dropout="")
    factory: Factory = STOCK_BLOCKS
    projection: str = ""
    shared: tuple[str, ...] = ()
    final_norm: str = ""
    token_types: bool = True
    positions_from_padding: bool = False
    relative_positions: str = ""
    one_block: bool = False
    attention: Literal["sdpa", "eager"] = "sdpa"
    own_blocks: bool = False
    masked_lm: tuple[str, ...] = ()
    refuses: Callable[[Any], str] | None = None
    student_config: Callable[[Any, Sequence[int | None]], None] | None = None
    example: Callable[[Any], None] | None = None

    @property
    def head_dense(self) -> str:
        """Path of the first layer of the sequence classifier's head."""
        return self.head.dense

    @property
    def head_output(self) -> str:
        """Path of the output layer of the sequence classifier."""
        return self.head.output

    def max_tokens(self, config: Any) -> int:
        """The longest text a model of this family can take, in tokens, special ones included."""
        return int(config.max_position_embeddings) - self.first_position(config)

    def first_position(self, config: Any) -> int:
        """The position id of the first token of a text."""
        return int(config.pad_token_id) + 1 if self.positions_from_padding else 0

    def uses_token_types(self, config: Any) -> bool:
        """Whether the model distinguishes the two texts of a pair by token type ids."""
        return self.token_types and config.type_vocab_size > 1

    def head_for(self, architecture: Architecture) -> HeadParts:
        """The head of a model of that architecture; that of embeddings has no modules."""
        return {"token": self.token_head, "span": self.span_head, "embedding": NO_HEAD}.get(architecture, self.head)

    def in_head(self, parameter: str, architecture: Architecture = "sequence") -> bool:
        """Whether a parameter of a model of that architecture, given by name, belongs to the head."""
        return parameter.startswith(tuple(f"{path}." for path in self.head_for(architecture).modules))

    def capabilities(self) -> dict[str, Any]:
        """What listings show beside the name."""
        return {
            "model_types": list(self.model_types),
            "own_blocks": self.own_blocks,
            "masked_lm": bool(self.masked_lm),
        }
