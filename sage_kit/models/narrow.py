"""A narrower student: the teacher's input layers, a trained projection, narrower blocks and a head.

Its architecture is ELECTRA's, which projects its embeddings to the width of its blocks (Clark et al. 2020, arXiv
2003.10555, section 3.1), so what is exported is a plain ``ElectraForSequenceClassification`` checkpoint. ELECTRA's
embeddings are BERT's. Those of RoBERTa count positions from the padding index on, and those of DistilBERT know no token
types: both become the same embeddings exactly, by leaving out the positions that no token has, and by a token type of
zeros.

A student that has the teacher's width and only other heads or feed-forward layers is of the teacher's own family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError
from sage_kit.models.block_parts import parts_of
from sage_kit.models.families import Family, family_of
from sage_kit.models.narrowing import Narrowing, narrow_block, narrow_head, narrow_projection
from sage_kit.models.split import Bypass, Head, UpperLayers, split_model
from sage_kit.models.student import layer_map, student_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.models.student import Init

NARROW = Family(
    name="ELECTRA",
    model_types=("electra",),
    embeddings="electra.embeddings",
    blocks="electra.encoder.layer",
    head_dense="classifier.dense",
    head_output="classifier.out_proj",
    head_dropout="classifier.dropout",
    activation="gelu",
    dropout_first=True,
)
"""What a narrower student is; its projection is ``electra.embeddings_project``."""

ABLE = ("BERT", "RoBERTa", "DistilBERT")
"""Families of teachers whose embeddings ELECTRA's can be."""

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


def check_losses(config: RunConfig, shape: Shape | None, dim: int) -> None:
    """Refuse what compares hidden states of student and teacher, where the student is narrower.

    Parameters
    ----------
    config : RunConfig
    shape : Shape or None
        The student's; None where it is the teacher's.
    dim : int
        The teacher's width.

    Raises
    ------
    CompatibilityError
        For a hidden-state loss, and for a warm-up.
    """
    if shape is None or shape.width == dim:
        return
    what = "hidden_weight" if config.hidden_weight else "warmup_epochs" if config.warmup_epochs else ""
    if what:
        instead = "use relation_weight, which compares no dimensions, or " if what == "hidden_weight" else ""
        raise CompatibilityError(
            f"{what} is {getattr(config, what):g}, but hidden states of a student that is {shape.width} wide are not "
            f"comparable with the teacher's {dim}: set it to 0 ({instead}set student_width to 0)"
        )


def _check_layout(config: RunConfig, shape: Shape, teacher: Any) -> None:
    """Refuse what no plain checkpoint can express."""
    family, dim = family_of(teacher), int(teacher.hidden_size)
    given = " and ".join(name for name in SETTINGS if getattr(config, name))
    if config.bypass != "embeddings":
        raise CompatibilityError(
            f"bypass is {config.bypass}, but a checkpoint has blocks of one shape, and {given} gives the student's "
            f"another than those of the input layers: set bypass to 'embeddings', or {given} to 0"
        )
    if shape.width != dim and family.name not in ABLE:
        raise CompatibilityError(
            f"student_width is {shape.width}, but the input layers of a teacher of family {family.name} fit no "
            f"narrower checkpoint: set it to 0, or take a teacher of {', '.join(ABLE[:-1])} or {ABLE[-1]}"
        )
    if family.relative_positions and shape.heads != int(teacher.num_attention_heads):
        raise CompatibilityError(
            f"student_heads is {shape.heads}, but {family.name}'s relative positions, which belong to the input "
            f"layers, are those of {teacher.num_attention_heads} heads: set it to {teacher.num_attention_heads}"
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
    from transformers import AutoModelForSequenceClassification

    theirs = family_of(teacher.config)
    config = narrow_config(teacher.config, shape, layers)
    own = NARROW if config.model_type in NARROW.model_types else theirs
    blocks = cast(nn.ModuleList, teacher.get_submodule(theirs.blocks))
    sources = layer_map(init, len(blocks), layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = AutoModelForSequenceClassification.from_config(
            config, attn_implementation=own.attention, dtype=torch.float32
        )
    _take_embeddings(student, own, teacher, theirs)
    if narrowing is not None and sources:
        with torch.no_grad():
            if (projection := projection_of(student)) is not None:
                narrow_projection(projection, narrowing)
            for block, source in zip(student.get_submodule(own.blocks), sources, strict=True):
                narrow_block(parts_of(block), parts_of(blocks[source]), narrowing, source)
            narrow_head(Head(student, own), Head(teacher, theirs), narrowing)
    student.requires_grad_(True)
    student.get_submodule(own.embeddings).requires_grad_(False)
    if own.relative_positions:
        student.get_submodule(f"{own.relative_positions}.relative_attention_bias").requires_grad_(False)
    return cast("PreTrainedModel", student.to(teacher.device).eval())


def _take_embeddings(student: PreTrainedModel, own: Family, teacher: PreTrainedModel, theirs: Family) -> None:
    """Give a student the teacher's embeddings, in the layout of its own."""
    state = dict(teacher.get_submodule(theirs.embeddings).state_dict())
    if own is not theirs:
        if theirs.positions_from_padding:
            first = int(teacher.config.pad_token_id) + 1
            state["position_embeddings.weight"] = state["position_embeddings.weight"][first:]
        if not theirs.token_types:
            state["token_type_embeddings.weight"] = torch.zeros(1, int(teacher.config.hidden_size))
    student.get_submodule(own.embeddings).load_state_dict(state)
    if own.relative_positions:
        path = f"{own.relative_positions}.relative_attention_bias"
        student.get_submodule(path).load_state_dict(teacher.get_submodule(path).state_dict())


def projection_of(student: PreTrainedModel) -> nn.Linear | None:
    """What narrows the token states of a student; None where it is as wide as they are."""
    return cast("nn.Linear | None", getattr(getattr(student, "electra", None), "embeddings_project", None))


def trained_layers(student: PreTrainedModel, teacher: PreTrainedModel, bypass: Bypass) -> UpperLayers:
    """What of a student is trained, as a view: all behind the input layers, the projection included.

    Parameters
    ----------
    student, teacher : PreTrainedModel
    bypass : "embeddings" or int
        Where the input layers end.
    """
    if student.config.model_type == teacher.config.model_type:
        return split_model(student, bypass)[1]
    return UpperLayers(student, family=NARROW, projection=projection_of(student))


def family_of_student(config: Any) -> Family:
    """The family of a student, by its transformers configuration."""
    return NARROW if config.model_type in NARROW.model_types else family_of(config)
