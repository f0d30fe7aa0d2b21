"""Broken losses fail the check that is about their fault."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sage_kit.components import LossLayers, LossSpec
from sage_kit.testing.registry import CheckFailure
from sage_kit.testing.run_checks import checks_for
from sage_kit.testing.subject import Subject

CHECKS = {check.name: check.function for check in checks_for("loss")}


def last(options: Any, sizes: Any) -> LossLayers:
    teacher, student = sizes.paired("last")
    return LossLayers(teacher_hidden=teacher, student_hidden=student)


class Sound:
    def __init__(self, options: Any, context: Any) -> None:
        self.seed = context.seed

    def per_example(self, batch: Any) -> Any:
        return batch.per_token(self.errors(batch).mean((2, 3)))

    def errors(self, batch: Any) -> Any:
        return (batch.student.hidden - batch.teacher.hidden).square()


class Mean(Sound):
    def per_example(self, batch: Any) -> Any:
        return super().per_example(batch).mean()


class Double(Sound):
    def per_example(self, batch: Any) -> Any:
        return super().per_example(batch).double()


class Detached(Sound):
    def per_example(self, batch: Any) -> Any:
        return super().per_example(batch).detach()


class Agreement(Sound):
    def per_example(self, batch: Any) -> Any:
        differ = batch.student.logits.argmax(-1) != batch.teacher.logits.argmax(-1)
        return differ.float() + 0 * batch.student.logits.sum(-1)


class OverPadding(Sound):
    def per_example(self, batch: Any) -> Any:
        return self.errors(batch).mean((1, 2, 3))


class OverBatch(Sound):
    def per_example(self, batch: Any) -> Any:
        losses = super().per_example(batch)
        return losses / losses.detach().mean()


class InPlace(Sound):
    def errors(self, batch: Any) -> Any:
        return batch.teacher.hidden.sub_(batch.student.hidden).square()


class Unseeded(Sound):
    def per_example(self, batch: Any) -> Any:
        return super().per_example(batch) * torch.rand(())


class Root(Sound):
    def per_example(self, batch: Any) -> Any:
        return super().per_example(batch).sqrt()


@pytest.mark.parametrize(
    ("factory", "fields", "name", "words"),
    [
        (Mean, {}, "loss_shapes", "per_example returns shape () instead of (64,): one value for each example"),
        (Double, {}, "loss_shapes", "per_example returns torch.float64 instead of torch.float32"),
        (Detached, {}, "loss_reaches_the_student", "no gradient flows from its values to the student's outputs"),
        (Agreement, {"layers": None}, "loss_reaches_the_student", "its gradient by the student's outputs is zero"),
        (OverPadding, {}, "loss_ignores_padding", "what stands at padding positions changes its values"),
        (OverBatch, {}, "loss_ignores_padding", "alone and"),
        (InPlace, {}, "loss_keeps_its_input", "it changes its input in place: teacher.hidden"),
        (Unseeded, {}, "loss_is_repeatable", "the same batch has different losses"),
        (Root, {}, "loss_takes_hard_data", "its gradient by hidden holds NaN or infinity"),
        (Sound, {"layers": lambda options, sizes: LossLayers(teacher_hidden=(2,), student_hidden=(1,))},
         "loss_layers_fit", "of 1 blocks, teacher_hidden names [2]"),
    ],
)  # fmt: skip
def test_a_broken_loss_fails(factory: Any, fields: dict[str, Any], name: str, words: str) -> None:
    given = {"layers": last, **fields}
    subject = Subject(LossSpec(name="broken", summary="Broken", factory=factory, **given))
    with pytest.raises(CheckFailure) as caught:
        CHECKS[name](subject)
    assert words in str(caught.value)


def test_a_sound_loss_passes_and_one_of_a_batch_may_depend_on_it() -> None:
    for factory, of_batch in ((Sound, False), (OverBatch, True)):
        subject = Subject(LossSpec(name="sound", summary="Sound", factory=factory, layers=last, of_batch=of_batch))
        for name, function in CHECKS.items():
            if name.startswith("loss_") and not (of_batch and name == "loss_takes_hard_data"):
                function(subject)
