"""A student that is a checkpoint: a smaller encoder with tokenizer, input layers and blocks of its own.

Its input layers are frozen, as those of every student here; its blocks and its head are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from sage_kit.components import TaskSpec, handling_of
from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError
from sage_kit.models.checkpoints import load_classifier, load_tokenizer
from sage_kit.models.families import family_parts
from sage_kit.models.readers import Reader
from sage_kit.models.split import split_model
from sage_kit.models.task_heads import adopt_head, new_head, why_unfit
from sage_kit.models.teacher import fit_tokenizer, sentence_settings
from sage_kit.storage.fingerprint import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, eq=False)
class ReadyStudent:
    """A student that is a checkpoint.

    Attributes
    ----------
    model : PreTrainedModel
        The whole model, on the run's device, in eval mode; all but its input layers is trainable.
    reader : Reader
        The same as what reads text.
    """

    model: PreTrainedModel
    reader: Reader


def load_ready_student(
    config: RunConfig, spec: TaskSpec, teacher: Reader, device: torch.device, announce: Callable[[str], None]
) -> ReadyStudent:
    """Load the student that the settings name; a head that is trained for the task is kept, else it gets a new one.

    Parameters
    ----------
    config : RunConfig
        With `student`.
    spec : TaskSpec
    teacher : Reader
        The first teacher.
    device : torch.device
    announce : callable
        Shows one line to the user.

    Raises
    ------
    ModelError
        When model or tokenizer cannot be loaded or do not fit each other.
    CompatibilityError
        When `max_length` exceeds the model's positions, and for embeddings of another width than the teacher's.
    """
    name, kind = config.student, handling_of(spec).spec
    sentence = sentence_settings(config, kind.architecture, name)
    folder = name if sentence is None else sentence.encoder
    checkpoint = load_classifier(folder, kind.architecture, sentence)
    tokenizer = load_tokenizer(folder)
    fit_tokenizer(tokenizer, checkpoint, config, name)
    model, problem = checkpoint.model, None
    if sentence is not None:
        about = sentence.describe()
    elif checkpoint.missing or (problem := why_unfit(checkpoint, spec)):
        about = f"it {problem[0]}, so its head is new" if problem else "its head is new"
        model = new_head(checkpoint, spec, config.seed)
    else:
        adopt_head(checkpoint, name, spec, (), announce, "student")
        about = "its head is that of the checkpoint"
    whole: Any = model
    model = cast("PreTrainedModel", whole.to(device).eval())
    model.requires_grad_(True)
    input_layers, upper = split_model(model, "embeddings")
    if kind.has_vectors and upper.dim != teacher.upper.dim:
        raise CompatibilityError(
            f"the embeddings of student {name!r} are {upper.dim} wide, and those of teacher {teacher.name!r} "
            f"{teacher.upper.dim}: take a student that is as wide"
        )
    announce(f"student {name!r}: {upper.n_blocks} blocks of {upper.dim}; {about}")
    family = family_parts(checkpoint.family)
    mark = fingerprint("student-1", family, dict(model.state_dict()))
    key = fingerprint("input-layer-2", family, dict(input_layers.state_dict()))
    prefix = "" if sentence is None else sentence.prompt
    return ReadyStudent(model, Reader(name, tokenizer, prefix, input_layers, upper, mark, key))
