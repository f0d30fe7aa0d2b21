"""What a kind of task is: which head its models have, how outputs align with tokens, and how they are compared.

A text of the data becomes one *sequence* of tokens or several: the windows of a long one, the two texts of a pair that
are read one by one. Arrays that have a row per token of all sequences, one after another, are called flat.

This module is light: numpy and torch appear in annotations only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from sage_kit.components.specs import ComponentSpec

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sage_kit.components.messages import TokenIds

Architecture = Literal["sequence", "token", "span", "embedding"]


@dataclass(frozen=True, kw_only=True)
class TaskKindSpec(ComponentSpec):
    """A kind of task (see :class:`TaskKind`).

    Attributes
    ----------
    architecture : "sequence", "token", "span" or "embedding"
        The head of its models: one output vector per text (``AutoModelForSequenceClassification``), one per token
        (``AutoModelForTokenClassification``), the start and the end of a span
        (``AutoModelForQuestionAnswering``), or none: the pooled states are the output.
    labels : str
        What its labels are, of :data:`~sage_kit.components.specs.LABEL_KINDS`: decides which metrics it is scored by.
    problem_type : str
        The ``problem_type`` of ``config.json``; "" for none.
    needs_names : bool
        Its labels have names, in ``spec.labels``.
    needs_places : bool
        It asks where in its text each token stands (``encoded.places``).
    splits_long : bool
        A text that is too long becomes several windows, which overlap; otherwise it is cut.
    splits_pairs : bool
        The two texts of a pair are read one by one.
    metrics : tuple of str
        What a task of this kind is scored by where neither it nor the settings name metrics.
    """

    kind: ClassVar[str] = "task_kind"

    architecture: Architecture = "sequence"
    labels: str = "classes"
    problem_type: str = ""
    needs_names: bool = True
    needs_places: bool = False
    splits_long: bool = False
    splits_pairs: bool = False
    metrics: tuple[str, ...] = ()

    @property
    def has_distributions(self) -> bool:
        """Whether outputs are distributions, rather than numbers or vectors."""
        return self.labels not in ("numbers", "embeddings")

    @property
    def has_vectors(self) -> bool:
        """Whether outputs are vectors, of which only the direction counts."""
        return self.labels == "embeddings"

    @property
    def keeps_outputs(self) -> bool:
        """Whether an example's outputs are few, so that a run remembers them; else how far they agree."""
        return self.architecture == "sequence"

    @property
    def per_token(self) -> bool:
        """Whether a model gives an output vector for each token."""
        return self.architecture in ("token", "span")


@dataclass(frozen=True)
class Alignment:
    """How labels and outputs align with tokens.

    Attributes
    ----------
    targets : array
        What a model learns from: of shape (sequences,) or (sequences, k), or flat. int64 or float32.
    flat : bool
        Whether `targets` is flat.
    positions : array of shape (total_tokens,), bool, or None
        Where outputs count, at least one in each sequence; None for one output a sequence.
    kept : array of shape (total_tokens,), bool, or None
        Tokens that synthesis leaves as they are, beside the special ones.
    details : Any
        What the kind keeps for `predictions` and `agreement`.
    """

    targets: NDArray[Any]
    flat: bool = False
    positions: NDArray[np.bool_] | None = None
    kept: NDArray[np.bool_] | None = None
    details: Any = None


@dataclass(frozen=True)
class EncodedTexts:
    """The texts of a split and their tokens.

    Attributes
    ----------
    texts : sequence of str
        A text per row of the data, or the first of a pair.
    pairs : sequence of str or None
        The second texts.
    labels : array of shape (rows,) or (rows, k)
        Classes as int64 indices, numbers as float32, or what :meth:`ReadsLabels.read` returned; missing ones are -1,
        NaN or None.
    names : tuple of str
        Names of the labels; empty where they have none.
    label_range : tuple of two float
        Smallest and largest label, of numbers.
    tokens : TokenIds
        Of all sequences.
    row_of : array of shape (sequences,), int64
        The row of the data that each sequence belongs to, in rising order.
    places : array of shape (total_tokens, 2), int32, or None
        Start and end of each token in its own text, in characters; (0, 0) for special tokens.
    unanswered : bool
        Of answers, whether the training split has questions without one.
    """

    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: NDArray[Any]
    names: tuple[str, ...]
    label_range: tuple[float, float]
    tokens: TokenIds
    row_of: NDArray[np.int64]
    places: NDArray[np.int32] | None = None
    unanswered: bool = False


@dataclass(frozen=True)
class Compared:
    """A model's outputs on a batch as losses compare them: k distributions of each example, or vectors.

    Attributes
    ----------
    logits : Tensor of shape (batch, n) or (batch, k, n)
    counts : Tensor of shape (batch, k), bool, or None
        Which of the k count, at least one of each example; None for one.
    outcomes : Tensor of shape (batch, n), bool, or None
        Which of the n outcomes there are, where that differs among examples, as places in a text do; None for all. The
        logits of the others are finite, the same for both models, and so low that their probability is 0.
    """

    logits: torch.Tensor
    counts: torch.Tensor | None = None
    outcomes: torch.Tensor | None = None


@runtime_checkable
class TaskKind(Protocol):
    """What the loop asks of a kind of task. Nothing it is given may be changed in place.

    One whose labels are neither classes nor numbers also reads them (:class:`ReadsLabels`).
    """

    def align(self, encoded: EncodedTexts) -> Alignment:
        """Return how the labels of a split and the outputs align with its tokens."""
        ...

    def compared(self, logits: torch.Tensor, positions: torch.Tensor | None) -> Compared:
        """Return a model's outputs on a batch as losses compare them.

        `logits` has the shape (batch, n_outputs) or, with an output per token, (batch, tokens, n_outputs), and
        `positions` (batch, tokens); what stands at padding has no meaning.
        """
        ...

    def answers(self, compared: Compared) -> torch.Tensor:
        """Return the hard labels that outputs stand for, shaped as `targets` of a batch."""
        ...

    def gold(self, encoded: EncodedTexts) -> Any:
        """Return the labels as metrics take them, for each row of the data; none is missing."""
        ...

    def predictions(self, outputs: NDArray[np.float32], encoded: EncodedTexts, alignment: Alignment) -> Any:
        """Return what metrics score, for each row of the data; `outputs` is of shape (sequences, n) or flat."""
        ...

    def agreement(
        self,
        student: NDArray[np.float32],
        teacher: NDArray[np.float32],
        encoded: EncodedTexts,
        alignment: Alignment,
    ) -> NDArray[np.float64]:
        """Return how far student and teacher agree on each row of the data, from 0 to 1: array of shape (rows,)."""
        ...


@dataclass(frozen=True)
class LabelColumn:
    """A column of labels as it was read, with the texts that they are of; no label is missing.

    Attributes
    ----------
    values : sequence
        For each row.
    texts : sequence of str
    pairs : sequence of str or None
        The second texts.
    names : tuple of str
        Names of the task's labels; empty where they have none.
    embedded : tuple of str
        Names that the file or data set embeds, which integers among the values count; empty where there are none.
    where : str
        File or split, to begin an error message with.
    column : str
        Name of the column.
    rows : sequence of int
        The number of each row in its file, from 1; empty where none was left out.
    """

    values: Sequence[Any]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    names: tuple[str, ...]
    embedded: tuple[str, ...]
    where: str
    column: str
    rows: Sequence[int] = ()


@runtime_checkable
class ReadsLabels(Protocol):
    """A kind of task whose labels are neither classes nor numbers.

    One whose labels have names finds them, too, where neither task nor data say them: `find_names` takes a column of
    the training split and returns them in order.
    """

    def read(self, column: LabelColumn) -> NDArray[Any]:
        """Return the labels: array of shape (rows, k), or of shape (rows,) with a Python object for each row.

        Raises DataError for the first row that holds something else.
        """
        ...
