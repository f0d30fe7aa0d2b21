"""The head that a checkpoint gets for a task: its own, put into the task's order, or a new one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from sage_kit.components import TaskSpec, handling_of
from sage_kit.errors import CompatibilityError, ModelError
from sage_kit.models.architectures import auto_class
from sage_kit.models.checkpoints import Checkpoint
from sage_kit.models.export import set_task

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def new_head(checkpoint: Checkpoint, spec: TaskSpec, seed: int) -> PreTrainedModel:
    """The checkpoint's encoder, and whatever it has of a head, under a new output layer for the task."""
    architecture = handling_of(spec).spec.architecture
    config = copy.deepcopy(checkpoint.model.config)
    set_task(config, spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto_class(architecture).from_config(
            config, attn_implementation=checkpoint.family.attention, dtype=torch.float32
        )
    output = f"{checkpoint.family.head_for(architecture).output}."
    kept = {
        name: tensor
        for name, tensor in checkpoint.model.state_dict().items()
        if name not in checkpoint.missing and not name.startswith(output)
    }
    model.load_state_dict(kept, strict=False)
    return cast("PreTrainedModel", model)


def _outputs(checkpoint: Checkpoint, spec: TaskSpec) -> tuple[nn.Linear, list[str]]:
    """The output layer of a checkpoint, and the names of its outputs."""
    model = checkpoint.model
    path = checkpoint.family.head_for(handling_of(spec).spec.architecture).output
    output = cast(nn.Linear, model.get_submodule(path))
    id2label: dict[Any, Any] = model.config.id2label or {}
    return output, [str(id2label.get(index, "")) for index in range(output.out_features)]


def why_unfit(checkpoint: Checkpoint, spec: TaskSpec) -> tuple[str, str] | None:
    """What speaks against a trained head for a task, and what to do; None where it fits."""
    kind, its = handling_of(spec).spec, checkpoint.model.config.problem_type
    has_sets, wants_sets = (which == "multi_label_classification" for which in (its, kind.problem_type))
    if has_sets and not wants_sets:
        return "has a head for several labels at once", "choose one for a single label"
    if wants_sets and its and not has_sets:
        return "has a head for a single label", "choose one for several labels at once"
    output, names = _outputs(checkpoint, spec)
    if output.out_features == spec.n_outputs:
        return None
    meaning_of = ", ".join(spec.labels) or ("a number" if spec.is_regression else kind.summary.lower())
    return (
        f"has a trained head of {output.out_features} outputs ({', '.join(names)}), but task {spec.name!r} needs "
        f"{spec.n_outputs} ({meaning_of})",
        "choose a model trained for the task, or one without a head",
    )


def adopt_head(
    checkpoint: Checkpoint,
    name: str,
    spec: TaskSpec,
    meaning: Sequence[str],
    announce: Callable[[str], None],
    role: str = "teacher",
) -> tuple[int, ...] | None:
    """Check that a trained head fits the task, and bring its outputs into the task's order.

    Parameters
    ----------
    meaning : sequence of str
        What the setting `teacher_labels` says that they mean; empty goes by the names in the checkpoint.
    role : str
        What the model is in the run, for messages.

    Returns
    -------
    tuple of int or None
        For each class of the task, the output's number in the checkpoint; None where labels have no names.
    """
    model, kind = checkpoint.model, handling_of(spec).spec
    if problem := why_unfit(checkpoint, spec):
        raise ModelError(f"model {name!r} {': '.join(problem)}")
    output, names = _outputs(checkpoint, spec)
    if not kind.needs_names:
        if meaning:
            raise CompatibilityError(
                f"teacher_labels names classes, but the labels of task {spec.name!r} are {spec.label_kind}: leave it "
                "empty"
            )
        set_task(model.config, spec)
        return None
    order = _order_by_setting(meaning, spec) if meaning else label_order(names, spec.labels)
    if meaning:
        announce(f"{role} {name!r}: its outputs mean {', '.join(meaning)}, as teacher_labels says")
    elif order is None:
        if not all(label.upper() == f"LABEL_{index}" for index, label in enumerate(names)):
            announce(
                f"{role} {name!r} calls its outputs {', '.join(names)}; they are taken to mean "
                f"{', '.join(spec.labels)}, in this order"
            )
    elif order != sorted(order):
        announce(
            f"{role} {name!r}: its outputs ({', '.join(names)}) are put into the task's order "
            f"({', '.join(spec.labels)})"
        )
    order = order or list(range(len(spec.labels)))
    with torch.no_grad():
        output.weight.copy_(output.weight[order])
        if output.bias is not None:
            output.bias.copy_(output.bias[order])
    set_task(model.config, spec)
    return tuple(order)


def _order_by_setting(meaning: Sequence[str], spec: TaskSpec) -> list[int]:
    """For each class of the task, the output that it stands for by the setting `teacher_labels`."""
    if sorted(meaning) == sorted(spec.labels):
        return [list(meaning).index(label) for label in spec.labels]
    order = label_order(list(meaning), spec.labels)
    if order is None:
        raise CompatibilityError(
            f"teacher_labels is {', '.join(meaning)}, but must name each class of task {spec.name!r} "
            f"({', '.join(spec.labels)}) once, in the order of the teacher's outputs"
        )
    return order


def label_order(names: list[str], labels: tuple[str, ...]) -> list[int] | None:
    """For each label of the task, the output that bears its name; None unless that pairs all of them.

    Case, spaces and punctuation do not count.
    """
    plain = ["".join(character for character in name.casefold() if character.isalnum()) for name in names]
    wanted = ["".join(character for character in label.casefold() if character.isalnum()) for label in labels]
    if len(set(plain)) != len(plain) or set(plain) != set(wanted):
        return None
    return [plain.index(label) for label in wanted]
