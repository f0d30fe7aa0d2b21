"""Built-in losses: of logits, of labels, of hidden states, of attention and relations, and of embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sage_kit import hookimpl
from sage_kit.components import LossLayers, LossSpec, ModelSizes, Options, lazy
from sage_kit.errors import CompatibilityError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Layers = Literal["last", "mapped"] | tuple[Annotated[int, Field(ge=1)], ...]

LAYERS = (
    "Blocks of the teacher that the student's learn: the `last` one only, `mapped` for one per block of the student at "
    "uniform distance, or a list of blocks (from 1, behind the input layers), one per block of the student."
)


class KlOptions(Options):
    """Options of `kl`."""

    temperature: float | None = Field(
        default=None, gt=0, description="Softens both distributions; without it the setting `temperature` does."
    )


class DistOptions(Options):
    """Options of `dist`."""

    inter: float = Field(default=1.0, ge=0, description="Weight of the correlation over the classes of an example.")
    intra: float = Field(default=1.0, ge=0, description="Weight of the correlation over the examples of a batch.")
    temperature: float = Field(default=1.0, gt=0, description="Softens both distributions.")


class HiddenOptions(Options):
    """Options of `hidden_cosine` and `hidden_mse`."""

    layers: Layers = Field(default="last", description=LAYERS)


class AttentionOptions(Options):
    """Options of `tinybert_attention`."""

    layers: Layers = Field(default="mapped", description=LAYERS)


class RelationOptions(Options):
    """Options of `minilm_relations`."""

    layer: int = Field(
        default=0, ge=0, description="Block of the teacher, from 1 behind the input layers; 0 is the last [blocks]."
    )
    heads: int = Field(
        default=0,
        ge=0,
        description="Heads into which queries, keys and values are split; a divisor of their width. 0 takes as many as "
        "the teacher's attention has [heads].",
    )


class PkdOptions(Options):
    """Options of `pkd`."""

    strategy: Literal["skip", "last"] = Field(
        default="skip",
        description="The teacher's blocks that the student's, the last left out, learn: at uniform distance, or the "
        "last ones before its last.",
    )


class RkdOptions(Options):
    """Options of `rkd`."""

    distance: float = Field(default=1.0, ge=0, description="Weight of the distances of pairs.")
    angle: float = Field(default=2.0, ge=0, description="Weight of the angles of triplets.")


class ContrastiveOptions(Options):
    """Options of `contrastive`."""

    temperature: float = Field(default=0.05, gt=0, description="Of the softmax over the cosines of a batch.")


def hidden_layers(options: HiddenOptions, sizes: ModelSizes) -> LossLayers:
    """The blocks that `hidden_cosine` and `hidden_mse` compare."""
    teacher, student = sizes.paired(options.layers)
    return LossLayers(teacher_hidden=teacher, student_hidden=student)


def attention_layers(options: AttentionOptions, sizes: ModelSizes) -> LossLayers:
    """The blocks that `tinybert_attention` compares."""
    if sizes.teacher_heads != sizes.student_heads:
        raise CompatibilityError(
            f"loss 'tinybert_attention' compares attention head by head, but the teacher has {sizes.teacher_heads} and "
            f"the student {sizes.student_heads}: take loss 'minilm_relations'"
        )
    teacher, student = sizes.paired(options.layers)
    return LossLayers(teacher_scores=teacher, student_scores=student)


def relation_layers(options: RelationOptions, sizes: ModelSizes) -> LossLayers:
    """The blocks that `minilm_relations` compares."""
    heads = options.heads or sizes.teacher_heads
    both = math.gcd(sizes.teacher_dim, sizes.student_dim)
    for whose, dim in (("teacher", sizes.teacher_dim), ("student", sizes.student_dim)):
        if dim % heads:
            divisors = [one for one in range(1, both + 1) if both % one == 0]
            raise CompatibilityError(
                f"loss 'minilm_relations': heads is {heads}, but must divide the width of the {whose}'s states, {dim}: "
                f"set it to one of {', '.join(map(str, divisors))}"
            )
    layer = options.layer or sizes.teacher_blocks
    return LossLayers(teacher_projections=(layer,), student_projections=(sizes.student_blocks,))


def relation_flops(options: RelationOptions, sizes: ModelSizes, lengths: NDArray[np.integer]) -> int:
    """FLOPs of the relations: ``6 d n^2`` per example of n tokens, thrice for the student, whose gradient is asked."""
    wide = lengths.astype("int64")
    return 6 * (sizes.teacher_dim + 3 * sizes.student_dim) * int((wide * wide).sum())


def pkd_layers(options: PkdOptions, sizes: ModelSizes) -> LossLayers:
    """The blocks that `pkd` compares: all of the student but the last."""
    student, blocks = sizes.student_blocks - 1, sizes.teacher_blocks
    if not 1 <= student < blocks:
        raise CompatibilityError(
            f"loss 'pkd' compares blocks before the last, and the student has {sizes.student_blocks}, the teacher "
            f"{blocks}: set student_layers to 2 or more, and no more than the teacher has"
        )
    last = tuple(range(blocks - student, blocks))
    teacher = last if options.strategy == "last" else sizes.paired("mapped")[0][:-1]
    return LossLayers(teacher_hidden=teacher, student_hidden=tuple(range(1, student + 1)))


def _loss(name: str, summary: str, target: str, **fields: Any) -> LossSpec:
    return LossSpec(name=name, summary=summary, factory=lazy(f"sage_kit.builtin.losses.{target}"), **fields)


@hookimpl
def sage_losses() -> Iterable[LossSpec]:
    yield _loss("kl", "KL divergence of the logits; for regression their squared error", "kl:Kl", options=KlOptions)
    yield _loss("logits_mse", "Squared error of the logits", "logits_mse:LogitsMse")
    yield _loss(
        "dist",
        "Correlation of the probabilities, over classes and over the batch (DIST)",
        "dist:Dist",
        options=DistOptions,
        needs_classes=True,
        of_batch=True,
    )
    yield _loss(
        "hard_labels",
        "Cross-entropy to the gold labels; for regression the squared error",
        "hard_labels:HardLabels",
        needs_labels=True,
    )
    yield _loss(
        "hidden_cosine",
        "One minus the cosine of hidden states",
        "hidden:HiddenCosine",
        options=HiddenOptions,
        layers=hidden_layers,
    )
    yield _loss(
        "hidden_mse", "Squared error of hidden states", "hidden:HiddenMse", options=HiddenOptions, layers=hidden_layers
    )
    yield _loss(
        "tinybert_attention",
        "Squared error of attention scores (TinyBERT)",
        "tinybert_attention:TinybertAttention",
        options=AttentionOptions,
        layers=attention_layers,
        needs_tokens=True,
    )
    yield _loss(
        "minilm_relations",
        "Relations among queries, among keys and among values (MiniLMv2)",
        "minilm_relations:MinilmRelations",
        options=RelationOptions,
        layers=relation_layers,
        needs_tokens=True,
        flops=relation_flops,
    )
    yield _loss(
        "pkd",
        "Normalised states of the first token in the blocks before the last (patient distillation)",
        "pkd:Pkd",
        options=PkdOptions,
        layers=pkd_layers,
    )
    yield _loss(
        "rkd",
        "Distances and angles among the embeddings of a batch (relational distillation)",
        "rkd:Rkd",
        options=RkdOptions,
        needs_embeddings=True,
        of_batch=True,
    )
    yield _loss(
        "embedding_cosine", "One minus the cosine of embeddings", "embedding_cosine:EmbeddingCosine",
        needs_embeddings=True,
    )  # fmt: skip
    yield _loss(
        "contrastive",
        "Each embedding of the student finds the teacher's own among those of the batch (InfoNCE)",
        "contrastive:Contrastive",
        options=ContrastiveOptions,
        needs_embeddings=True,
        of_batch=True,
    )
