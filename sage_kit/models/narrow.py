"""A narrower student: the teacher's input layers, a trained projection, narrower blocks and a head.

Its architecture is ELECTRA's, which projects its embeddings to the width of its blocks (Clark et al. 2020, arXiv
2003.10555, section 3.1), so what is exported is a plain ``ElectraForSequenceClassification`` checkpoint. ELECTRA's
embeddings are BERT's. Those of RoBERTa count positions from the padding index on, and those of DistilBERT know no token
types: both become the same embeddings exactly, by leaving out the positions that no token has, and by a token type of
zeros.

A student that has the teacher's width and only other heads or feed-forward layers is of the teacher's own family.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from sage_kit.components import TokenBatch
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError
from sage_kit.models.architectures import architecture_of, new_model
from sage_kit.models.block_parts import parts_of
from sage_kit.models.encoder_parts import blocks_of, front_modules
from sage_kit.models.families import family_of
from sage_kit.models.heads import head_of
from sage_kit.models.narrowing import (
    EXAMPLES,
    Narrowing,
    WidthInit,
    narrow_block,
    narrow_head,
    narrow_projection,
    narrowing_of,
)
from sage_kit.models.split import Bypass, UpperLayers, split_model
from sage_kit.models.student import layer_map, let_family_fit, student_config
from sage_kit.models.vectors import VectorStore, forward_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components import FamilySpec
    from sage_kit.models.student import Init

ABLE = ("bert", "roberta", "distilbert")
"""Families of teachers whose embeddings ELECTRA's can be, exactly."""

SETTINGS = ("student_width", "student_heads", "student_ffn")
"""Settings that give a student another shape than the teacher's."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a student's blocks: their width, their attention heads, and the width of their feed-forward layer."""

    width: int
    heads: int
    inner: int


def inner_width(config: Any) -> int:
    """Width of the feed-forward layer of a model, by its transformers configuration."""
    return int(getattr(config, "intermediate_size", None) or config.hidden_dim)


def student_shape(config: RunConfig, teacher: Any) -> Shape | None:
    """The student's sizes; None where they are the teacher's.

    Parameters
    ----------
    config : RunConfig
    teacher : PreTrainedConfig
        The teacher's transformers configuration.

    Raises
    ------
    CompatibilityError
        For a width above the teacher's, heads that do not divide it, and a teacher or bypass that leaves no way to
        express the student as a plain checkpoint.
    """
    dim, heads, inner = int(teacher.hidden_size), int(teacher.num_attention_heads), inner_width(teacher)
    width = config.student_width or dim
    if width > dim:
        raise CompatibilityError(
            f"student_width is {width}, but the teacher is {dim} wide: set it to less, or to 0 for the teacher's"
        )
    head = dim // heads
    if not config.student_heads and width % head:
        near = " or ".join(str(n) for n in (width // head * head, (width // head + 1) * head) if n)
        raise CompatibilityError(
            f"student_width is {width}, which heads as wide as the teacher's ({head}) do not fill: set it to {near}, "
            "or student_heads to one of its divisors"
        )
    asked = config.student_heads or width // head
    if width % asked:
        divisors = [number for number in range(1, width + 1) if width % number == 0]
        below, above = [n for n in divisors if n < asked][-1:], [n for n in divisors if n > asked][:1]
        near = " or ".join(str(number) for number in [*below, *above])
        raise CompatibilityError(
            f"student_heads is {asked}, but must divide the student's width, {width}: set it to {near}, or to 0 for "
            f"heads as wide as the teacher's"
        )
    shape = Shape(width, asked, config.student_ffn or max(1, inner * width // dim))
    if shape == Shape(dim, heads, inner):
        return None
    _check_layout(config, shape, teacher)
    return shape


def _check_layout(config: RunConfig, shape: Shape, teacher: Any) -> None:
    """Refuse what no plain checkpoint can express, and a warm-up on hidden states of another width."""
    family, dim = family_of(teacher), int(teacher.hidden_size)
    given = " and ".join(name for name in SETTINGS if getattr(config, name))
    if config.bypass != "embeddings":
        raise CompatibilityError(
            f"bypass is {config.bypass}, but a checkpoint has blocks of one shape, and {given} gives the student's "
            f"another than those of the input layers: set bypass to 'embeddings', or {given} to 0"
        )
    if shape.width != dim and family.name not in ABLE:
        raise CompatibilityError(
            f"student_width is {shape.width}, but the input layers of a teacher of family {family.name!r} fit no "
            f"narrower checkpoint: set it to 0, or take a teacher of family {', '.join(ABLE[:-1])} or {ABLE[-1]}"
        )
    if shape.width != dim and config.warmup_epochs:
        raise CompatibilityError(
            f"warmup_epochs is {config.warmup_epochs}, but hidden states of a student that is {shape.width} wide are "
            f"not comparable with the teacher's {dim}: set it to 0, or student_width to 0"
        )
    if family.own_blocks or family.one_block:
        reason = "are built otherwise than BERT's" if family.own_blocks else "are one and the same"
        raise CompatibilityError(
            f"{given} gives the student's blocks another shape than the teacher's, but those of family {family.name!r} "
            f"{reason}: set {given} to 0"
        )
    heads = int(teacher.num_attention_heads)
    if family.relative_positions and shape.heads != heads:
        raise CompatibilityError(
            f"student_heads is {shape.heads}, but the relative positions of family {family.name!r}, which belong to "
            f"the input layers, are those of {heads} heads: set it to {heads}"
        )


def narrow_config(teacher: Any, shape: Shape, layers: int) -> Any:
    """The transformers configuration of a student of that shape.

    Parameters
    ----------
    teacher : PreTrainedConfig
        Of the teacher.
    shape : Shape
    layers : int
        Blocks.

    Returns
    -------
    PreTrainedConfig
        ELECTRA's for another width than the teacher's, else of the teacher's family.
    """
    from transformers import ElectraConfig

    if shape.width == int(teacher.hidden_size):
        config = student_config(teacher, bypass="embeddings", layers=layers)
        config.num_attention_heads = shape.heads
        setattr(config, "intermediate_size" if hasattr(config, "intermediate_size") else "hidden_dim", shape.inner)
        return config
    family = family_of(teacher)

    def of_teacher(*names: str) -> Any:
        return next((getattr(teacher, name) for name in names if getattr(teacher, name, None) is not None), None)

    return ElectraConfig(
        vocab_size=teacher.vocab_size,
        embedding_size=teacher.hidden_size,
        hidden_size=shape.width,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        hidden_act=of_teacher("hidden_act", "activation"),
        hidden_dropout_prob=of_teacher("hidden_dropout_prob", "dropout"),
        attention_probs_dropout_prob=of_teacher("attention_probs_dropout_prob", "attention_dropout"),
        classifier_dropout=of_teacher("classifier_dropout", "seq_classif_dropout"),
        max_position_embeddings=family.max_tokens(teacher),
        type_vocab_size=teacher.type_vocab_size if family.token_types else 1,
        initializer_range=teacher.initializer_range,
        layer_norm_eps=of_teacher("layer_norm_eps") or 1e-12,
        pad_token_id=teacher.pad_token_id,
        bos_token_id=of_teacher("bos_token_id"),
        eos_token_id=of_teacher("eos_token_id"),
        id2label=dict(teacher.id2label),
        label2id=dict(teacher.label2id),
        problem_type=teacher.problem_type,
    )


def build_narrow(
    teacher: PreTrainedModel,
    shape: Shape,
    *,
    layers: int,
    init: Init = "uniform",
    seed: int = 0,
    narrowing: Narrowing | None = None,
) -> PreTrainedModel:
    """A student of another shape than the teacher's, on the teacher's device.

    Parameters
    ----------
    teacher : PreTrainedModel
        A sequence classifier for which `student_shape` gives this shape; not changed.
    shape : Shape
    layers : int
        Blocks.
    init : "uniform", "spread", "last", "scratch" or list of int
        Which of the teacher's blocks the student's start as, as in `sage_kit.models.student.build_student`.
    seed : int
        Seed of what is random. The global random state is left as it was.
    narrowing : Narrowing or None
        How they become narrower; None leaves all behind the input layers random, as "scratch" does.

    Returns
    -------
    PreTrainedModel
        In eval mode; everything behind the input layers, the projection included, is trainable.

    Raises
    ------
    CompatibilityError
        When layers and init do not fit the teacher.
    """
    architecture = architecture_of(teacher)
    theirs = family_of(teacher.config)
    config = narrow_config(teacher.config, shape, layers)
    own = family_of(config)
    blocks = blocks_of(teacher, theirs)
    sources = layer_map(init, len(blocks), layers)
    if own is theirs:
        let_family_fit(own, config, sources or [None] * layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = new_model(config, teacher, own.attention)
    projection = projection_of(student, teacher)
    student.requires_grad_(True)
    if projection is None:
        front = front_modules(student, own)
        for module, its in zip(front, front_modules(teacher, theirs), strict=True):
            module.load_state_dict(its.state_dict())
    else:
        front = [student.get_submodule(own.embeddings)]
        front[0].load_state_dict(_embeddings(teacher, theirs))
    for module in front:
        module.requires_grad_(False)
    if narrowing is not None and sources:
        with torch.no_grad():
            for block, source in zip(blocks_of(student, own), sources, strict=True):
                narrow_block(parts_of(block), parts_of(blocks[source]), narrowing, source)
            if projection is None:
                for path in [*[theirs.final_norm] * bool(theirs.final_norm), *theirs.head_for(architecture).modules]:
                    student.get_submodule(path).load_state_dict(teacher.get_submodule(path).state_dict())
            else:
                narrow_projection(projection, narrowing)
                narrow_head(head_of(student, own), head_of(teacher, theirs), narrowing)
    return cast("PreTrainedModel", student.to(teacher.device).eval())


def narrow_student(
    config: RunConfig, teacher: PreTrainedModel, upper: UpperLayers, store: VectorStore, shape: Shape,
    device: torch.device,
) -> PreTrainedModel:  # fmt: skip
    """A student of another shape, made by looking at the teacher on some real examples, the same in every run.

    Parameters
    ----------
    config : RunConfig
    teacher : PreTrainedModel
    upper : UpperLayers
        All of its blocks.
    store : VectorStore
        Token states of the real examples.
    shape : Shape
        What `student_shape` gives.
    device : torch.device
        Where the teacher is.
    """
    init: WidthInit = "random" if config.student_init == "scratch" else config.student_width_init
    chosen = np.linspace(0, len(store) - 1, min(len(store), EXAMPLES)).astype(np.int64)

    def batches() -> Iterator[TokenBatch]:
        for rows in forward_batches(store.lengths[chosen], device):
            yield store.batch(chosen[rows], device)

    return build_narrow(
        teacher,
        shape,
        layers=config.student_layers,
        init=config.student_init,
        seed=config.seed,
        narrowing=narrowing_of(upper, batches, shape.width, init),
    )


def _embeddings(teacher: PreTrainedModel, family: FamilySpec) -> dict[str, Any]:
    """The weights of a teacher's embeddings, in the layout of ELECTRA's."""
    state = dict(teacher.get_submodule(family.embeddings).state_dict())
    first = family.first_position(teacher.config)
    state["position_embeddings.weight"] = state["position_embeddings.weight"][first:]
    if not family.token_types:
        state["token_type_embeddings.weight"] = torch.zeros(1, int(teacher.config.hidden_size))
    return state


def projection_of(student: PreTrainedModel, teacher: PreTrainedModel) -> nn.Linear | None:
    """What narrows the token states of a student; None where it is as wide as its teacher, whose family it then has."""
    if student.config.model_type == teacher.config.model_type:
        return None
    return cast(nn.Linear, student.get_submodule(family_of(student.config).projection))


def trained_layers(student: PreTrainedModel, teacher: PreTrainedModel, bypass: Bypass) -> UpperLayers:
    """What of a student is trained, as a view: all behind the input layers, which are the teacher's.

    A projection belongs to them where the teacher is an ELECTRA model with one, and to what is trained where it narrows
    the student.

    Parameters
    ----------
    student, teacher : PreTrainedModel
    bypass : "embeddings" or int
        Where the input layers end.
    """
    projection = projection_of(student, teacher)
    return split_model(student, bypass)[1] if projection is None else UpperLayers(student, projection=projection)
