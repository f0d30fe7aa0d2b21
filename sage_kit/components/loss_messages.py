"""What the core hands to losses: the sizes of the two models, and what they make of a batch.

This module is light: torch appears in annotations only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelSizes:
    """Teacher and student behind the input layers, as far as losses must know before they are built.

    Attributes
    ----------
    teacher_blocks, student_blocks : int
        Encoder blocks.
    teacher_dim, student_dim : int
        Width of the hidden states.
    teacher_heads, student_heads : int
        Attention heads of a block.
    n_outputs : int
        Width of the logits.
    regression : bool
        Whether the output is a number, or a vector, rather than a class.
    """

    teacher_blocks: int
    student_blocks: int
    teacher_dim: int
    student_dim: int
    teacher_heads: int
    student_heads: int
    n_outputs: int = 2
    regression: bool = False

    def paired(self, layers: str | Sequence[int], name: str = "layers") -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The blocks of teacher and student that an option of this form compares, one by one.

        Parameters
        ----------
        layers : "last", "mapped" or sequence of int
            The last blocks; every block of the student with one of the teacher at uniform distance; or, for each block
            of the student, the teacher's that is listed.
        name : str
            What the user calls the option.

        Returns
        -------
        teacher, student : tuple of int
            Blocks, from 1.

        Raises
        ------
        CompatibilityError
            For a list of another length than the student is deep.
        """
        teacher, student = self.teacher_blocks, self.student_blocks
        if layers == "last":
            return (teacher,), (student,)
        every = tuple(range(1, student + 1))
        if layers == "mapped":
            return tuple(max(1, round(block * teacher / student)) for block in every), every
        if len(layers) != student:
            raise CompatibilityError(
                f"{name} lists {len(layers)} blocks, but the student has {student}: list one of the teacher's for each"
            )
        return tuple(int(layer) for layer in layers), every


@dataclass(frozen=True)
class LossLayers:
    """The blocks, from 1 behind the input layers, whose inner states a loss looks at; logits it always gets.

    Attributes
    ----------
    teacher_hidden, student_hidden : tuple of int
        Blocks whose output.
    teacher_projections, student_projections : tuple of int
        Blocks whose queries, keys and values.
    teacher_scores, student_scores : tuple of int
        Blocks whose attention scores.
    """

    teacher_hidden: tuple[int, ...] = ()
    student_hidden: tuple[int, ...] = ()
    teacher_projections: tuple[int, ...] = ()
    student_projections: tuple[int, ...] = ()
    teacher_scores: tuple[int, ...] = ()
    student_scores: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class ModelOutputs:
    """What one model makes of a batch. Layers stand in the order in which `LossLayers` names them.

    What stands at padding positions has no meaning; it is finite.

    Attributes
    ----------
    logits : Tensor of shape (batch, n) or (batch, k, n)
        One distribution, or a number or vector, an example; or k distributions: of the tokens, of the labels of which
        any number may be there, or the start and the end of a span over the tokens.
    hidden : Tensor of shape (batch, tokens, n_layers, dim) or None
        Outputs of blocks; None unless asked for, as are all that follow.
    projections : Tensor of shape (batch, tokens, n_layers, 3, dim) or None
        Queries, keys and values, heads beside each other.
    scores : Tensor of shape (batch, n_layers, heads, tokens, tokens), float32, or None
        Attention scores before the softmax: scaled products of queries (last axis but one) and keys, with what relative
        positions add. Those of padding are not masked.
    embeddings : Tensor of shape (batch, dim), float32, or None
        The output of the last block, pooled as the setting `pooling` says.
    """

    logits: torch.Tensor
    hidden: torch.Tensor | None = None
    projections: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None


@dataclass(frozen=True)
class LossBatch:
    """A batch as a loss sees it. Tensors are shared with other losses: never change them in place.

    Attributes
    ----------
    student, teacher : ModelOutputs
        Gradients flow through the student's.
    labels : Tensor of shape (batch,) or (batch, k)
        Gold labels, int64, or float for regression; of synthetic examples the teacher's.
    mask : Tensor of shape (batch, tokens), bool, or None
        Real tokens; None where a loss looks at logits alone and the tokens are not at hand.
    regression : bool
        Whether the output is a number, or a vector, rather than a class.
    positions : Tensor of shape (batch, k), bool, or None
        Which of an example's k distributions count, at least one of them. None for one output an example.
    outcomes : Tensor of shape (batch, n), bool, or None
        Which of the n outcomes of its distributions an example has, where they are places in its text. The logits of
        the others are equal in both models, and their probability is 0. None for all.
    """

    student: ModelOutputs
    teacher: ModelOutputs
    labels: torch.Tensor
    mask: torch.Tensor | None = None
    regression: bool = False
    positions: torch.Tensor | None = None
    outcomes: torch.Tensor | None = None

    def per_example(self, values: torch.Tensor) -> torch.Tensor:
        """One value per example, (batch,), of one per output, (batch,) or (batch, k): the mean where it counts."""
        if self.positions is None:
            return values
        return (values * self.positions).sum(1) / self.positions.sum(1)

    def per_token(self, values: torch.Tensor) -> torch.Tensor:
        """One value per example, (batch,), of one per token, (batch, tokens): the mean over the real tokens."""
        assert self.mask is not None, "the loss looks at tokens, but its spec asks for logits alone"
        weights = self.mask.float()
        return (values * weights).sum(1) / weights.sum(1)
