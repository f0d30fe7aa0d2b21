"""The teacher's side of the relations loss: which of its blocks, how many heads, and what the loss costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError
from sage_kit.models.split import UpperLayers


@dataclass(frozen=True, eq=False)
class TeacherRelations:
    """Where the teacher's queries, keys and values come from.

    Attributes
    ----------
    teacher : UpperLayers
    layer : int
        Its block (from 1) whose relations the student's last block learns.
    heads : int
        Relation heads.
    place : int or None
        Where the states that enter this block stand among the hidden states kept of the teacher; None for the first
        block, which token states enter.
    width : int
        Width of the student's blocks.
    """

    teacher: UpperLayers
    layer: int
    heads: int
    place: int | None
    width: int

    def projections(self, states: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
        """The teacher's queries, keys and values on a batch, without gradients.

        Parameters
        ----------
        states : Tensor of shape (batch, tokens, dim)
            Token states.
        hidden : Tensor of shape (batch, tokens, n_layers, dim) or None
            What was kept of the teacher's hidden states.

        Returns
        -------
        Tensor of shape (batch, tokens, 3, dim)
        """
        entering = states
        if self.place is not None:
            assert hidden is not None, "the states that enter the block were not kept"
            entering = hidden[:, :, self.place]
        with torch.no_grad():
            return self.teacher.project(self.layer, entering)

    def flops(self, lengths: NDArray[np.integer]) -> int:
        """FLOPs that the loss adds to a training step, counted as in `UpperLayers.flops`, without the student's
        projections.

        With d the width of a model, the teacher's queries, keys and values cost ``6 d^2`` per token, and the relations
        of a model ``6 d n^2`` per example of n tokens. Those of the student have two products for each in the backward
        pass.
        """
        wide = lengths.astype("int64")
        tokens, squares, dim = int(wide.sum()), int((wide * wide).sum()), self.teacher.dim
        return 6 * dim * dim * tokens + 6 * (dim + 3 * self.width) * squares


def teacher_relations(
    config: RunConfig, teacher: UpperLayers, kept: list[int], width: int
) -> tuple[TeacherRelations | None, list[int]]:
    """The teacher's side of the relations loss, and the blocks whose outputs must be kept.

    Parameters
    ----------
    config : RunConfig
    teacher : UpperLayers
    kept : list of int
        Blocks (from 1) whose outputs are kept for other reasons.
    width : int
        Width of the student's blocks.

    Returns
    -------
    relations : TeacherRelations or None
        None where the loss is off.
    kept : list of int
        Those given, and behind them the one whose output enters the relations' block, if it is not among them.

    Raises
    ------
    CompatibilityError
        For a block that the teacher does not have, and for heads that do not divide both widths.
    """
    if not config.relation_weight:
        return None, kept
    layer, heads = config.relation_layer or teacher.n_blocks, config.relation_heads or teacher.heads
    if layer > teacher.n_blocks:
        raise CompatibilityError(
            f"relation_layer names block {layer}, but the teacher has {teacher.n_blocks} behind the input layers: "
            "set it to one of them, or to 0 for the last"
        )
    if teacher.dim % heads:
        divisors = [number for number in range(1, teacher.dim + 1) if teacher.dim % number == 0]
        near = [max(number for number in divisors if number < heads), *[n for n in divisors if n > heads][:1]]
        raise CompatibilityError(
            f"relation_heads is {heads}, but must divide the width of the teacher's states, {teacher.dim}: set it to "
            f"{' or '.join(map(str, near))}, or to 0 for the teacher's own {teacher.heads}"
        )
    if width % heads:
        both = math.gcd(width, teacher.dim)
        near = [number for number in range(1, both + 1) if both % number == 0]
        raise CompatibilityError(
            f"relation_heads is {heads}, but must divide the student's width, {width}, as well as the teacher's, "
            f"{teacher.dim}: set it to one of {', '.join(map(str, near))}"
        )
    entering = layer - 1
    if entering and entering not in kept:
        kept = [*kept, entering]
    return TeacherRelations(teacher, layer, heads, kept.index(entering) if entering else None, width), kept
