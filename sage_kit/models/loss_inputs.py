"""What the losses of a run look at: which blocks of the two models, what is kept of the teacher, and what that costs.

Of the teacher only logits and outputs of blocks are kept. Its queries, keys and values, and attention scores, are
computed anew from the output of the block before, which is smaller and, of several losses, often there already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from sage_kit.components import Compared, LossBatch, LossLayers, ModelOutputs, ModelSizes, TaskHandling
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError, PluginError
from sage_kit.models.split import UpperLayers, UpperOutput
from sage_kit.models.vectors import pool
from sage_kit.recipe import LossChoice, Recipe


@dataclass(frozen=True, eq=False)
class LossInputs:
    """What the losses of a run look at.

    Attributes
    ----------
    losses : mapping of str to LossChoice
    sizes : ModelSizes
    layers : mapping of str to LossLayers
        By loss.
    teacher : UpperLayers
    pooling : "mean" or "cls"
        Of embeddings.
    kept : tuple of int
        Blocks (from 1) of the teacher whose outputs are kept; 0 stands for its token states.
    handling : TaskHandling
        How outputs are compared.
    """

    losses: Mapping[str, LossChoice]
    sizes: ModelSizes
    layers: Mapping[str, LossLayers]
    teacher: UpperLayers
    pooling: str
    kept: tuple[int, ...]
    handling: TaskHandling

    @cached_property
    def hidden(self) -> bool:
        """Whether the student's blocks must return their outputs."""
        return any(self.layers[name].student_hidden or self._embeds(name) for name in self.losses)

    @cached_property
    def projections(self) -> tuple[int, ...]:
        """Blocks of the student that must return queries, keys and values."""
        return self._blocks("student_projections", "student_scores")

    @cached_property
    def teacher_projections(self) -> tuple[int, ...]:
        """Blocks of the teacher whose queries, keys and values are computed anew."""
        return self._blocks("teacher_projections", "teacher_scores")

    def _blocks(self, *parts: str) -> tuple[int, ...]:
        """The blocks of which some loss asks for one of these fields of `LossLayers`, in order."""
        return tuple(sorted({layer for one in self.layers.values() for part in parts for layer in getattr(one, part)}))

    def _embeds(self, name: str) -> bool:
        return self.losses[name].spec.needs_embeddings

    def flops(self, lengths: NDArray[np.integer]) -> int:
        """FLOPs that the losses add to a training step on examples of these lengths, counted as in `UpperLayers.flops`.

        With d the width, the teacher's queries, keys and values of a block cost ``6 d^2`` per token, and attention
        scores ``2 d n^2`` per example of n tokens; those of the student have two products for each in the backward
        pass. To these come what the losses say that they cost themselves.
        """
        wide = lengths.astype("int64")
        tokens, squares, sizes = int(wide.sum()), int((wide * wide).sum()), self.sizes
        total = 6 * sizes.teacher_dim**2 * tokens * len(self.teacher_projections)
        teacher, student = self._blocks("teacher_scores"), self._blocks("student_scores")
        total += 2 * squares * (sizes.teacher_dim * len(teacher) + 3 * sizes.student_dim * len(student))
        for choice in self.losses.values():
            if choice.spec.flops is not None:
                total += int(choice.call(choice.spec.flops, choice.options, sizes, lengths, step="flops"))
        return total


class BatchInputs:
    """What the losses look at of one batch; each part is made when a loss first asks for it.

    Parameters
    ----------
    inputs : LossInputs
    student : UpperLayers
        Whose output it is.
    output : UpperOutput
    states : Tensor of shape (batch, tokens, dim)
        Token states.
    mask : Tensor of shape (batch, tokens), bool
    logits : Tensor of shape (batch, n_outputs) or (batch, tokens, n_outputs)
        The teacher's.
    positions : Tensor of shape (batch, tokens), bool, or None
        Where outputs count; None for one an example.
    hidden : Tensor of shape (batch, tokens, n_layers, dim) or None
        What was kept of the teacher's blocks.
    labels : Tensor of shape (batch,) or (batch, k)
    autocast : callable
        Gives the context in which the teacher's queries, keys and values are computed.
    """

    def __init__(
        self,
        inputs: LossInputs,
        student: UpperLayers,
        output: UpperOutput,
        states: torch.Tensor,
        mask: torch.Tensor,
        logits: torch.Tensor,
        positions: torch.Tensor | None,
        hidden: torch.Tensor | None,
        labels: torch.Tensor,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._inputs = inputs
        self._student = student
        self._output = output
        self._states = states
        self._mask = mask
        self.student = inputs.handling.compared(output.logits, positions)
        self.teacher = inputs.handling.compared(logits, positions)
        self._hidden = hidden
        self._labels = labels
        self._autocast = autocast
        self._projections = dict(zip(inputs.projections, output.projections, strict=True))
        self._made: dict[tuple[Any, ...], torch.Tensor] = {}

    def of(self, name: str) -> LossBatch:
        """The batch as a loss sees it."""
        layers, embeds = self._inputs.layers[name], self._inputs._embeds(name)
        return LossBatch(
            student=ModelOutputs(
                self.student.logits,
                hidden=self._once("student", layers.student_hidden, self._student_hidden),
                projections=self._once("student projections", layers.student_projections, self._student_projections),
                scores=self._once("student scores", layers.student_scores, self._student_scores),
                embeddings=self._once("student embeddings", (self._inputs.sizes.student_blocks,), self._embedded)
                if embeds
                else None,
            ),
            teacher=ModelOutputs(
                self.teacher.logits,
                hidden=self._once("teacher", layers.teacher_hidden, self._teacher_hidden),
                projections=self._once("teacher projections", layers.teacher_projections, self._teacher_projections),
                scores=self._once("teacher scores", layers.teacher_scores, self._teacher_scores),
                embeddings=self._once("teacher embeddings", (self._inputs.sizes.teacher_blocks,), self._teachers)
                if embeds
                else None,
            ),
            labels=self._labels,
            mask=self._mask,
            regression=self._inputs.sizes.regression,
            positions=self.student.counts,
            outcomes=self.student.outcomes,
        )

    def alike(self) -> torch.Tensor:
        """How far student and teacher agree on each example, as `alike` says."""
        return alike(self.student, self.teacher, vectors=self._inputs.handling.spec.has_vectors)

    def _once(
        self, what: str, layers: tuple[int, ...], make: Callable[[tuple[int, ...]], torch.Tensor]
    ) -> torch.Tensor | None:
        """What several losses may look at, made once; None for no layers."""
        if not layers:
            return None
        key = (what, layers)
        if key not in self._made:
            self._made[key] = make(layers)
        return self._made[key]

    def _student_hidden(self, layers: tuple[int, ...]) -> torch.Tensor:
        return torch.stack([self._output.hidden[layer - 1] for layer in layers], dim=2)

    def _student_projections(self, layers: tuple[int, ...]) -> torch.Tensor:
        return torch.stack([self._projections[layer] for layer in layers], dim=2)

    def _student_scores(self, layers: tuple[int, ...]) -> torch.Tensor:
        return torch.stack([self._student.scores(layer, self._projections[layer]) for layer in layers], dim=1)

    def _embedded(self, layers: tuple[int, ...]) -> torch.Tensor:
        return pool(self._output.hidden[layers[0] - 1].float(), self._mask, self._inputs.pooling)

    def _teacher_hidden(self, layers: tuple[int, ...]) -> torch.Tensor:
        assert self._hidden is not None, "the teacher's hidden states were not kept"
        places = [self._inputs.kept.index(layer) for layer in layers]
        if places == list(range(places[0], places[0] + len(places))):  # a view
            return self._hidden[:, :, places[0] : places[0] + len(places)]
        return self._hidden[:, :, places]

    def _of_teacher(self, layer: int) -> torch.Tensor:
        """Queries, keys and values of a block of the teacher."""
        is_shared = layer == 1 and 0 not in self._inputs.kept
        entering = self._states if is_shared else self._teacher_hidden((layer - 1,))[:, :, 0]
        with torch.no_grad(), self._autocast():
            return self._inputs.teacher.project(layer, entering)

    def _teacher_projections(self, layers: tuple[int, ...]) -> torch.Tensor:
        found = [self._once("of teacher", (layer,), lambda one: self._of_teacher(*one)) for layer in layers]
        return torch.stack([one for one in found if one is not None], dim=2)

    def _teacher_scores(self, layers: tuple[int, ...]) -> torch.Tensor:
        projections = self._teacher_projections(layers)
        with torch.no_grad():
            found = [self._inputs.teacher.scores(layer, projections[:, :, place]) for place, layer in enumerate(layers)]
            return torch.stack(found, dim=1)

    def _teachers(self, layers: tuple[int, ...]) -> torch.Tensor:
        return pool(self._teacher_hidden(layers)[:, :, 0].float(), self._mask, self._inputs.pooling)


def alike(student: Compared, teacher: Compared, *, vectors: bool = False) -> torch.Tensor:
    """For each example, the share of the distributions that count whose likeliest outcome is the same: (batch,).

    Of vectors it is their cosine, a negative one as 0.
    """
    if vectors:
        return F.cosine_similarity(student.logits.float(), teacher.logits.float(), dim=-1).clamp(min=0)
    same, counts = student.logits.argmax(-1) == teacher.logits.argmax(-1), student.counts
    return same.float() if counts is None else (same & counts).sum(1) / counts.sum(1)


def loss_inputs(
    recipe: Recipe, teacher: UpperLayers, sizes: ModelSizes, handling: TaskHandling, *, own_input: bool = False
) -> LossInputs:
    """What the losses of a run look at.

    Parameters
    ----------
    recipe : Recipe
    teacher : UpperLayers
    sizes : ModelSizes
    handling : TaskHandling
        The kind of task.
    own_input : bool
        Whether the student has input layers of its own, so that the teacher's token states are kept where they are
        looked at.

    Raises
    ------
    CompatibilityError
        For a block that a model does not have, and for options that do not fit the models.
    PluginError
        When a loss does not say what it looks at.
    """
    config = recipe.config
    if not config.losses:
        check_short_forms(config, sizes)
    layers = {name: _layers_of(choice, sizes) for name, choice in recipe.losses.items()}
    for name, one in layers.items():
        if (one.teacher_scores or one.student_scores) and not teacher.gives_scores:
            raise CompatibilityError(
                f"loss {name!r} looks at attention scores, which the blocks of the teacher's family do not give: take "
                "'minilm_relations', or a teacher whose blocks are built as BERT's"
            )
    hidden = [layer for one in layers.values() for layer in one.teacher_hidden]
    if any(choice.spec.needs_embeddings for choice in recipe.losses.values()):
        hidden.append(sizes.teacher_blocks)
    entered = [layer for one in layers.values() for layer in (*one.teacher_projections, *one.teacher_scores)]
    first = 1 if own_input else 2
    kept = tuple(dict.fromkeys([*hidden, *(layer - 1 for layer in entered if layer >= first)]))
    # what a sentence encoder pools by is the embedding
    pooling = teacher.head.pooling if handling.spec.architecture == "embedding" else config.pooling
    return LossInputs(recipe.losses, sizes, layers, teacher, pooling, kept, handling)


def _layers_of(choice: LossChoice, sizes: ModelSizes) -> LossLayers:
    """What a loss looks at, checked."""
    if choice.spec.layers is None:
        return LossLayers()
    found: Any = choice.call(choice.spec.layers, choice.options, sizes, step="layers")
    if not isinstance(found, LossLayers):
        raise PluginError(f"{choice}: layers gave {found!r}, not a LossLayers")
    for whose, blocks in (("teacher", sizes.teacher_blocks), ("student", sizes.student_blocks)):
        for part in ("hidden", "projections", "scores"):
            for layer in getattr(found, f"{whose}_{part}"):
                if not 1 <= layer <= blocks:
                    raise CompatibilityError(
                        f"{choice} looks at block {layer} of the {whose}, which has {blocks} behind the input layers: "
                        f"set its options in loss_options to blocks from 1 to {blocks}"
                    )
    return found


def check_short_forms(config: RunConfig, sizes: ModelSizes) -> None:
    """Check the settings beside `hidden_weight` and `relation_weight` under their own names.

    Raises
    ------
    CompatibilityError
        For a block that the teacher does not have, and for heads that do not divide its width and the student's.
    """
    if config.hidden_weight and not isinstance(config.hidden_layers, str):
        for layer in config.hidden_layers:
            if int(layer) > sizes.teacher_blocks:
                raise CompatibilityError(
                    f"hidden_layers names block {layer}, but the teacher has {sizes.teacher_blocks} behind the input "
                    "layers"
                )
    if not config.relation_weight:
        return
    heads = config.relation_heads or sizes.teacher_heads
    if config.relation_layer > sizes.teacher_blocks:
        raise CompatibilityError(
            f"relation_layer names block {config.relation_layer}, but the teacher has {sizes.teacher_blocks} behind "
            "the input layers: set it to one of them, or to 0 for the last"
        )
    if sizes.teacher_dim % heads:
        raise CompatibilityError(
            f"relation_heads is {heads}, but must divide the width of the teacher's states, {sizes.teacher_dim}: set "
            f"it to {near_divisors(heads, sizes.teacher_dim)}, or to 0 for the teacher's own {sizes.teacher_heads}"
        )
    if sizes.student_dim % heads:
        both = math.gcd(sizes.teacher_dim, sizes.student_dim)
        raise CompatibilityError(
            f"relation_heads is {heads}{'' if config.relation_heads else ', as many as the teacher has'}, but must "
            f"divide the student's width, {sizes.student_dim}, as well as the teacher's, {sizes.teacher_dim}: set it "
            f"to one of {', '.join(str(one) for one in range(1, both + 1) if both % one == 0)}"
        )


def near_divisors(number: int, of: int) -> str:
    """The divisors next to a number that is none, as text: "4 or 8"."""
    divisors = [one for one in range(1, of + 1) if of % one == 0]
    near = [max(one for one in divisors if one < number), *[one for one in divisors if one > number][:1]]
    return " or ".join(map(str, near))
