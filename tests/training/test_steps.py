"""The FLOPs of a student's steps are those that torch counts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from toyrun import toy_run

from sage_kit.models.split import UpperLayers, split_model
from sage_kit.training.labelled_batches import LabelledBatch
from sage_kit.training.losses import kl_divergence
from sage_kit.training.profile import Profile
from sage_kit.training.steps import Pass, count_flops, train_pass


@pytest.mark.parametrize("projections", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_flops_are_those_that_torch_counts(layers: int, hidden: bool, projections: bool) -> None:
    _, upper = split_model(tiny.make_model(layers=layers), "embeddings")
    lengths = np.full(4, 6)
    states = torch.randn(4, 6, upper.dim)
    asked: dict[str, Any] = {"hidden": hidden, "projections": tuple(range(1, layers + projections))}
    with FlopCounterMode(display=False) as forward:
        # those of the blocks before the last cost nothing
        output = upper(states, None, **asked)
    assert count_flops(upper, lengths, training=False, **asked) == forward.get_total_flops()
    with FlopCounterMode(display=False) as backward:
        total = output.logits.sum() + sum(states.sum() for states in output.hidden)
        total = total + sum(one.sum() for one in output.projections)
        total.backward()
    counted = forward.get_total_flops() + backward.get_total_flops()
    assert count_flops(upper, lengths, training=True, **asked) == counted
    # blocks that are computed twice: all of the forward pass but the head, and what is asked for
    upper.recomputes = True
    once = 2 * 4 * (32 * 32 + 32 * 2) + 2 * 4 * 6 * 3 * 32 * 32 * len(asked["projections"])
    assert count_flops(upper, lengths, training=True, **asked) == counted + forward.get_total_flops() - once


def test_flops_of_attention_grow_with_the_square_of_a_length() -> None:
    _, upper = split_model(tiny.make_model(layers=2), "embeddings")
    uneven, even = np.array([2, 10]), np.array([6, 6])
    more = count_flops(upper, uneven, training=False, hidden=True) - count_flops(
        upper, even, training=False, hidden=True
    )
    assert more == 2 * 4 * upper.dim * (4 + 100 - 72)


# ---- several batches a step


class Given:
    """Batches of given sizes, of the same examples whatever the sizes."""

    def __init__(self, sizes: Sequence[int], dim: int) -> None:
        generator = torch.Generator().manual_seed(3)
        total = sum(sizes)
        self.states = torch.randn(total, 6, dim, generator=generator)
        self.logits = torch.randn(total, 2, generator=generator)
        self.profile = Profile(total, 2, torch.device("cpu"))
        self.bounds = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def examples(self, number: int) -> int:
        return int(self.bounds[number + 1] - self.bounds[number])

    def gather(self, number: int, part: slice = slice(None)) -> Callable[[], LabelledBatch]:
        rows = slice(self.bounds[number], self.bounds[number + 1])
        states, logits = self.states[rows], self.logits[rows]
        mask = torch.ones(states.shape[:2], dtype=torch.bool)
        index = torch.arange(len(self.states))[rows]
        return lambda: LabelledBatch(states, mask, logits, logits.argmax(-1), None, index, padded=False)


def without_dropout(model: Any) -> Any:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


class Unshuffled:
    def permutation(self, n: int) -> Any:
        return np.arange(n)


class Divergence:
    """The loss of plain distillation, as `train_pass` takes it."""

    uses_logits = True

    def __init__(self) -> None:
        self.asks: dict[str, Any] = {}

    def __call__(self, output: Any, batch: LabelledBatch, progress: float, autocast: Any) -> tuple[Any, Any]:
        return kl_divergence(output.logits, batch.logits), output.logits

    def parameters(self) -> list[Any]:
        return []

    def average_gradients(self, accelerator: Accelerator) -> None:
        pass


def trained(upper: UpperLayers, sizes: Sequence[int], accumulation: int, **settings: Any) -> tuple[Any, Pass, Any]:
    """A copy of a student after a pass, what the pass did, and the steps that it told of."""
    student, accelerator, told = copy.deepcopy(upper), Accelerator(cpu=True), []
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    given: dict[str, Any] = {"max_steps": None, "max_grad_norm": 0.05, **settings}
    did = train_pass(
        student, accelerator.prepare_optimizer(optimizer), [Given(sizes, upper.dim)], accelerator=accelerator,
        objective=Divergence(), progress=lambda step: 0.0, learning_rate=lambda step: 0.1,
        rng=Unshuffled(), on_step=lambda done, total, loss: told.append((done, total, float(loss))),
        accumulation=accumulation, **given,
    )  # fmt: skip
    return student, did, told


@pytest.fixture(scope="module")
def upper() -> UpperLayers:
    _, made = split_model(without_dropout(tiny.make_model(layers=2)), "embeddings")
    return made


def test_several_batches_a_step_are_one_large_batch(upper: UpperLayers) -> None:
    # of unlike sizes: a mean of the batches' means would be another number
    several, did, told = trained(upper, (5, 1, 3, 4, 2), accumulation=3)
    large, expected, wanted = trained(upper, (9, 6), accumulation=1)
    assert did.steps == expected.steps == 2
    assert did.tokens == expected.tokens
    assert [(done, total) for done, total, _ in told] == [(1, 2), (2, 2)]
    assert [loss for *_, loss in told] == pytest.approx([loss for *_, loss in wanted], rel=1e-5)
    moved: list[bool] = []
    for one, other, before in zip(several.parameters(), large.parameters(), upper.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-7)
        moved.append(bool((other != before).any()))
    assert sum(moved) > 20


def test_one_batch_a_step_is_as_it_was_and_a_limit_counts_steps(upper: UpperLayers) -> None:
    _, did, _ = trained(upper, (4, 4, 4, 4), accumulation=1, max_steps=3)
    assert did.steps == 3
    _, did, told = trained(upper, (4, 4, 4, 4, 4), accumulation=2, max_steps=2)
    assert (did.steps, did.tokens) == (2, 4 * 4 * 6)
    assert [done for done, *_ in told] == [1, 2]


def test_a_run_takes_steps_of_several_batches_over_a_schedule_as_long(tmp_path: Path, tiny_bert: Path) -> None:
    _, one = toy_run(tmp_path, tiny_bert, rounds=2)
    _, three = toy_run(tmp_path, tiny_bert, rounds=2, gradient_accumulation=3)
    for ours, theirs in zip(three["rounds"], one["rounds"], strict=True):
        assert ours["steps"] == -(-theirs["steps"] // 3)
        assert np.isfinite(ours["train_loss"])
    assert three["planned_steps"] == pytest.approx(one["planned_steps"] / 3, abs=1)
    assert three["student_steps"] == pytest.approx(three["planned_steps"], abs=1)


def test_a_run_that_computes_blocks_twice_makes_the_same_student(tmp_path: Path, tiny_bert: Path) -> None:
    once, told = toy_run(tmp_path, tiny_bert, rounds=2, hidden_weight=0.5)
    twice, again = toy_run(tmp_path, tiny_bert, rounds=2, hidden_weight=0.5, gradient_checkpointing=True)
    ours, theirs = (load_file(each.student / "model.safetensors") for each in (twice, once))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0)
    assert again["dev"] == told["dev"]
    costs = [json.loads((each.path / "costs.json").read_text())["flops"]["student"] for each in (once, twice)]
    assert 1.2 < costs[1] / costs[0] < 1.4
