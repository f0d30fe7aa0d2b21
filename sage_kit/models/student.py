"""The student: a copy of the teacher's input layers, fewer blocks, and the teacher's head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from sage_kit.components.plugins import Plugins
from sage_kit.errors import CompatibilityError
from sage_kit.models.architectures import architecture_of, new_model
from sage_kit.models.encoder_parts import blocks_of, front_modules
from sage_kit.models.families import family_of
from sage_kit.models.split import Bypass, input_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sage_kit.components import FamilySpec

Init = Literal["uniform", "spread", "last", "scratch"] | Sequence[int]


def layer_map(init: Init, teacher_blocks: int, student_blocks: int) -> list[int]:
    """The teacher's block that each of the student's starts as.

    Parameters
    ----------
    init : "uniform", "spread", "last", "scratch" or list of int
        Blocks at uniform distance from the first one on, the same with the last one among them, the last ones, none, or
        those listed.
    teacher_blocks, student_blocks : int
        Blocks behind the input layers.

    Returns
    -------
    list of int
        Numbers from 0 behind the input layers, one per student block; empty for "scratch".

    Raises
    ------
    CompatibilityError
        When the student would have more blocks than the teacher, or the list names one that the teacher does not have
        or is not as long as the student is deep.
    """
    if init == "scratch":
        return []
    if student_blocks > teacher_blocks:
        raise CompatibilityError(
            f"student_layers is {student_blocks}, but the teacher has {teacher_blocks} blocks behind the input layers: "
            "lower student_layers or bypass, or set student_init to 'scratch'"
        )
    if init == "uniform":
        return [index * teacher_blocks // student_blocks for index in range(student_blocks)]
    if init == "spread":
        last, gaps = teacher_blocks - 1, student_blocks - 1
        return [round_half_up(index * last, gaps) for index in range(student_blocks)] if gaps else [last]
    if init == "last":
        return list(range(teacher_blocks - student_blocks, teacher_blocks))
    blocks = [int(block) for block in init]
    if len(blocks) != student_blocks:
        raise CompatibilityError(f"student_init lists {len(blocks)} blocks, but student_layers is {student_blocks}")
    for block in blocks:
        if not 0 <= block < teacher_blocks:
            raise CompatibilityError(
                f"student_init names block {block}, but the teacher's blocks behind the input layers are numbered 0 to "
                f"{teacher_blocks - 1}"
            )
    return blocks


def round_half_up(numerator: int, denominator: int) -> int:
    """A quotient of whole numbers, rounded; a half upwards."""
    return (2 * numerator + denominator) // (2 * denominator)


def student_config(teacher_config: Any, *, bypass: Bypass, layers: int) -> Any:
    """The student's configuration: the teacher's, with the input layers' blocks and `layers` more.

    Raises
    ------
    CompatibilityError
        When the bypass leaves the teacher no block behind the input layers.
    """
    config = copy.deepcopy(teacher_config)
    config.num_hidden_layers = input_blocks(bypass, int(teacher_config.num_hidden_layers)) + layers
    return config


def let_family_fit(family: FamilySpec, config: Any, blocks: Sequence[int | None]) -> None:
    """Let a family make the configuration of a student fit its blocks (see `FamilySpec.student_config`)."""
    if family.student_config is not None:
        Plugins.in_use().call("family", family.name, family.student_config, config, blocks, step="student_config")


def require_own_weights(family: FamilySpec, bypass: Bypass) -> None:
    """Raise CompatibilityError where blocks that are to be frozen share their weights with those that are to learn."""
    if family.one_block and bypass not in ("embeddings", 0):
        raise CompatibilityError(
            f"bypass is {bypass}, but all blocks of family {family.name!r} share their weights, so none of them can be "
            "frozen while others learn: set bypass to 'embeddings'"
        )


def build_student(
    teacher_model: PreTrainedModel, *, bypass: Bypass, layers: int, init: Init = "uniform", seed: int = 0
) -> PreTrainedModel:
    """A student of the teacher's width, on the teacher's device.

    Parameters
    ----------
    teacher_model : PreTrainedModel
        A sequence classifier of a supported family; not changed.
    bypass : "embeddings" or int
        Where the input layers end; it is copied and frozen.
    layers : int
        Blocks behind the input layers.
    init : "uniform", "spread", "last", "scratch" or list of int
        Which of the teacher's blocks the student's start as (see `layer_map`). The head is the teacher's, too, except
        from scratch, where blocks and head are random.
    seed : int
        Seed of "scratch". The global random state is left as it was.

    Returns
    -------
    PreTrainedModel
        In eval mode; everything behind the input layers are trainable.

    Raises
    ------
    CompatibilityError
        When bypass, layers and init do not fit the teacher.
    """
    family, architecture = family_of(teacher_model.config), architecture_of(teacher_model)
    require_own_weights(family, bypass)
    teacher_blocks = blocks_of(teacher_model, family)
    n_input = input_blocks(bypass, len(teacher_blocks))
    sources = layer_map(init, len(teacher_blocks) - n_input, layers)
    config = student_config(teacher_model.config, bypass=bypass, layers=layers)
    kept: list[int | None] = list(range(n_input))
    kept += [n_input + source for source in sources] if sources else [None] * layers
    let_family_fit(family, config, kept)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = new_model(config, teacher_model, family.attention)
    blocks = blocks_of(student, family)

    front = list(zip(front_modules(student, family), front_modules(teacher_model, family), strict=True))
    front += [(blocks[index], teacher_blocks[index]) for index in range(n_input)]
    behind = [(blocks[n_input + index], teacher_blocks[n_input + source]) for index, source in enumerate(sources)]
    if sources:
        paths = [family.final_norm] * bool(family.final_norm) + list(family.head_for(architecture).modules)
        behind += [(student.get_submodule(path), teacher_model.get_submodule(path)) for path in paths]
    for module, source in [*front, *behind]:
        module.load_state_dict(source.state_dict())
    student.requires_grad_(True)
    for module, _ in front:
        module.requires_grad_(False)
    return cast("PreTrainedModel", student.to(teacher_model.device).eval())
