"""Checks of losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sage_kit.components import LossBatch, LossLayers, LossSpec, ModelOutputs
from sage_kit.errors import CompatibilityError
from sage_kit.testing import toy
from sage_kit.testing.exercises import EXERCISES, Exercise, Inputs, Outputs
from sage_kit.testing.registry import NotApplicable, check, require
from sage_kit.testing.subject import Subject, unchanged, works_or_explains
from sage_kit.testing.surroundings import disturbed

if TYPE_CHECKING:
    import torch

TOKENS = 6
PARTS = ("hidden", "projections", "scores", "embeddings")
FEW, MANY = 8, 64
"""Examples of a batch."""


def _spec(subject: Subject) -> LossSpec:
    return cast(LossSpec, subject.spec)


def _layers(subject: Subject) -> LossLayers:
    spec = _spec(subject)
    return LossLayers() if spec.layers is None else spec.layers(subject.options, toy.LOSS_SIZES)


def _outputs(subject: Subject, whose: str, rows: int, n_outputs: int, rng: np.random.Generator) -> ModelOutputs:
    """Random outputs of one model, what the loss does not ask for left out."""
    import torch

    layers, sizes = _layers(subject), toy.LOSS_SIZES
    dim, heads = getattr(sizes, f"{whose}_dim"), getattr(sizes, f"{whose}_heads")
    hidden, projections, scores = (len(getattr(layers, f"{whose}_{part}")) for part in PARTS[:3])

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    return ModelOutputs(
        logits=draw(rows, n_outputs),
        hidden=draw(rows, TOKENS, hidden, dim) if hidden else None,
        projections=draw(rows, TOKENS, projections, 3, dim) if projections else None,
        scores=draw(rows, scores, heads, TOKENS, TOKENS) if scores else None,
        embeddings=draw(rows, dim) if _spec(subject).needs_embeddings else None,
    )


def _batch(subject: Subject, rows: int = FEW, seed: int = 0, regression: bool = False) -> LossBatch:
    """A random batch; of its examples the first has one token, the second all of them."""
    import torch

    rng = np.random.default_rng(seed)
    n_outputs = 1 if regression else toy.LOSS_SIZES.n_outputs
    lengths = np.concatenate([[1, TOKENS], rng.integers(1, TOKENS + 1, rows)])[:rows]
    labels = rng.standard_normal(rows).astype(np.float32) if regression else rng.integers(0, n_outputs, rows)
    return LossBatch(
        student=_outputs(subject, "student", rows, n_outputs, rng),
        teacher=_outputs(subject, "teacher", rows, n_outputs, rng),
        labels=torch.from_numpy(labels),
        mask=None if _spec(subject).of_outputs else torch.from_numpy(np.arange(TOKENS) < lengths[:, None]),
        regression=regression,
    )


def _tensors(outputs: ModelOutputs) -> Iterator[tuple[str, torch.Tensor]]:
    for name in ("logits", *PARTS):
        values = getattr(outputs, name)
        if values is not None:
            yield name, values


def _losses(subject: Subject, batch: LossBatch, loss: Any = None) -> torch.Tensor:
    import torch

    found: Any = (loss or subject.build()).per_example(batch)
    rows = len(batch.labels)
    require(isinstance(found, torch.Tensor), f"per_example returns {type(found).__name__} instead of a tensor")
    require(found.dtype == torch.float32, f"per_example returns {found.dtype} instead of torch.float32")
    require(
        found.shape == (rows,),
        f"per_example returns shape {tuple(found.shape)} instead of ({rows},): one value for each example",
    )
    require(bool(found.isfinite().all()), "per_example returns NaN or infinity")
    return cast("torch.Tensor", found)


def _make(subject: Subject, rows: int, round: int) -> Inputs:
    return {"batch": _batch(subject, rows, seed=round)}


def _use(subject: Subject, loss: Any, inputs: Inputs) -> Outputs:
    return {"losses": _losses(subject, inputs["batch"], loss).detach()}


EXERCISES["loss"] = Exercise(_make, _use, few=FEW, many=MANY, unit="examples")


@check("loss")
def loss_shapes(subject: Subject) -> None:
    """One finite float32 value for each example, for one and for many, and for regression where the spec takes it.

    To fix: reduce over everything but the first axis; ``batch.per_token`` and ``batch.per_example`` do so. Set
    `needs_classes` if the loss makes no sense for numbers.
    """
    for rows in (MANY, FEW, 1):
        _losses(subject, _batch(subject, rows))
    if not _spec(subject).needs_classes:
        _losses(subject, _batch(subject, regression=True))


@check("loss")
def loss_layers_fit(subject: Subject) -> None:
    """`layers` names blocks that small models have, too, or says with a CompatibilityError what does not fit.

    To fix: make the blocks from ``sizes.teacher_blocks`` and ``sizes.student_blocks``, e.g. by ``sizes.paired``.
    """
    spec = _spec(subject)
    if spec.layers is None:
        raise NotApplicable("it looks at no layers")
    for teacher, student in ((1, 1), (2, 1), (12, 6), (6, 6)):
        sizes = dataclasses.replace(toy.LOSS_SIZES, teacher_blocks=teacher, student_blocks=student)
        try:
            found = spec.layers(subject.options, sizes)
        except CompatibilityError:
            continue
        require(isinstance(found, LossLayers), f"layers gives a {type(found).__name__}, not a LossLayers")
        for field in dataclasses.fields(found):
            most = teacher if field.name.startswith("teacher") else student
            wrong = [layer for layer in getattr(found, field.name) if not 1 <= layer <= most]
            require(not wrong, f"of {most} blocks, {field.name} names {wrong}")


@check("loss")
def loss_reaches_the_student(subject: Subject) -> None:
    """A finite gradient reaches the student's outputs, and none the teacher's part in a run.

    To fix: compute in torch from ``batch.student``, without ``detach()``, ``item()``, numpy or an argmax.
    """
    batch = _batch(subject)
    given = dict(_tensors(batch.student))
    leaves = {name: values.clone().requires_grad_() for name, values in given.items()}
    learned = dataclasses.replace(batch, student=ModelOutputs(**leaves))
    losses = _losses(subject, learned)
    require(losses.requires_grad, "no gradient flows from its values to the student's outputs")
    losses.mean().backward()
    found = [leaf.grad for leaf in leaves.values() if leaf.grad is not None]
    require(any(bool(gradient.abs().sum() > 0) for gradient in found), "its gradient by the student's outputs is zero")
    require(all(bool(gradient.isfinite().all()) for gradient in found), "its gradient holds NaN or infinity")


@check("loss")
def loss_keeps_its_input(subject: Subject) -> None:
    """The batch's tensors are left as they were: other losses look at them, too.

    To fix: use no operation whose name ends in an underscore on what the batch holds.
    """
    batch = _batch(subject)
    arrays = {f"{whose}.{name}": values for whose in ("student", "teacher")
              for name, values in _tensors(getattr(batch, whose))}  # fmt: skip
    with unchanged(labels=batch.labels, mask=batch.mask, **arrays):
        subject.build().per_example(batch)


@check("loss")
def loss_is_repeatable(subject: Subject) -> None:
    """The same batch has the same losses, whatever the state of the global random generators.

    To fix: draw everything random from a generator that is made from ``context.seed``, parameters too.
    """
    loss = subject.build()
    with disturbed(61):
        first = _losses(subject, _batch(subject), loss)
    with disturbed(62):
        for found in (_losses(subject, _batch(subject), loss), _losses(subject, _batch(subject))):
            require(bool((first == found).all()), "the same batch has different losses")


@check("loss")
def loss_ignores_padding(subject: Subject) -> None:
    """What stands at padding does not count, nor, but for a property of the batch, which examples stand beside one.

    To fix: weigh tokens by ``batch.mask``, keys and queries both; set `of_batch` where the loss compares examples.
    """
    import torch

    batch = _batch(subject)
    whole = _losses(subject, batch)
    if batch.mask is not None:
        other = dataclasses.replace(
            batch, student=_over_padding(batch.student, batch.mask), teacher=_over_padding(batch.teacher, batch.mask)
        )
        close = torch.allclose(_losses(subject, other), whole, rtol=1e-4, atol=1e-5)
        require(close, "what stands at padding positions changes its values")
    if _spec(subject).of_batch:
        return
    for row in range(len(whole)):
        length = TOKENS if batch.mask is None else int(batch.mask[row].sum())
        alone = dataclasses.replace(
            batch,
            student=_row(batch.student, row, length),
            teacher=_row(batch.teacher, row, length),
            labels=batch.labels[row : row + 1],
            mask=None if batch.mask is None else batch.mask[row : row + 1, :length],
        )
        found = float(_losses(subject, alone).detach())
        expected = float(whole[row].detach())
        require(
            abs(found - expected) <= 1e-5 + 1e-4 * abs(expected),
            f"an example has {found:.6g} alone and {expected:.6g} in a padded batch: set of_batch=True if it is meant",
        )


def _over_padding(outputs: ModelOutputs, mask: torch.Tensor) -> ModelOutputs:
    """The same outputs with other numbers at padding positions."""
    import torch

    changes: dict[str, Any] = {}
    for name in ("hidden", "projections"):
        values = getattr(outputs, name)
        if values is not None:
            shape = (*mask.shape, *(1 for _ in values.shape[2:]))
            changes[name] = torch.where(mask.view(shape), values, 7 - 3 * values)
    if outputs.scores is not None:
        real = (mask[:, :, None] & mask[:, None, :])[:, None, None]
        changes["scores"] = torch.where(real, outputs.scores, 7 - 3 * outputs.scores)
    return dataclasses.replace(outputs, **changes)


def _row(outputs: ModelOutputs, row: int, length: int) -> ModelOutputs:
    """The outputs of one example alone, without padding."""
    cut = {name: values[row : row + 1] for name, values in _tensors(outputs)}
    for name in ("hidden", "projections"):
        if name in cut:
            cut[name] = cut[name][:, :length]
    if "scores" in cut:
        cut["scores"] = cut["scores"][..., :length, :length]
    return ModelOutputs(**cut)


@check("loss")
def loss_takes_hard_data(subject: Subject) -> None:
    """Outputs that are all alike, all zero or large, and one example, work with finite gradients, or give a SageError.

    To fix: guard divisions by a norm, a variance or a count that may be zero (``torch.nn.functional.normalize``,
    ``clamp(min=...)``), and take ``log_softmax`` instead of the logarithm of a softmax.
    """
    import torch

    batch = _batch(subject)
    cases: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "a student that equals the teacher": lambda values, teacher: (
            teacher.clone() if values.shape == teacher.shape else values.clone()
        ),
        "outputs of zero": lambda values, teacher: torch.zeros_like(values),
        "large outputs": lambda values, teacher: 1e3 * values,
    }

    def learn(student: dict[str, torch.Tensor], rows: int) -> None:
        leaves = {name: values[:rows].clone().requires_grad_() for name, values in student.items()}
        part = dataclasses.replace(
            batch,
            student=ModelOutputs(**leaves),
            teacher=ModelOutputs(**{name: values[:rows] for name, values in _tensors(batch.teacher)}),
            labels=batch.labels[:rows],
            mask=None if batch.mask is None else batch.mask[:rows],
        )
        losses = _losses(subject, part)
        if losses.requires_grad:
            losses.mean().backward()
        for name, leaf in leaves.items():
            finite = leaf.grad is None or bool(leaf.grad.isfinite().all())
            require(finite, f"its gradient by {name} holds NaN or infinity")

    teacher = dict(_tensors(batch.teacher))
    for what, change in cases.items():
        student = {name: change(values, teacher[name]) for name, values in _tensors(batch.student)}
        for rows in (FEW, 1):
            words = f"{what}, {rows} example{'s' * (rows > 1)}"
            works_or_explains(words, lambda student=student, rows=rows: learn(student, rows))  # type: ignore[misc]
