"""What only a card can show: its kernel, its precisions, and that a step does not wait for it.

`benchmarks/on_a_card.sh` runs these tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from stockmodel import LENGTHS, distance, make_batch, reference, scalar, without_dropout
from toyrun import toy_config, toy_run
from varlenreference import Reference

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.models import split
from sage_kit.models.narrow import trained_layers
from sage_kit.models.split import split_model
from sage_kit.models.varlen import flash_attention, varlen_attention
from sage_kit.recipe import resolve
from sage_kit.system.devices import make_accelerator
from sage_kit.system.transfer import prefetched
from sage_kit.training.labelled_batches import RealBatches
from sage_kit.training.objective import Objective
from sage_kit.training.optimizer import make_optimizer
from sage_kit.training.preparation import prepare
from sage_kit.training.profile import Profile
from sage_kit.training.steps import predict, train_pass

pytestmark = [
    pytest.mark.card,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
]
CUDA = torch.device("cuda")
BATCHES = pytest.mark.parametrize("lengths", list(LENGTHS.values()), ids=list(LENGTHS))
HIDDEN = pytest.mark.parametrize("hidden", [False, True], ids=["logits", "hidden"])
TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])


@TYPES
def test_the_card_takes_flash_attention_in_half_precision_alone(dtype: torch.dtype) -> None:
    states = torch.zeros(1, 1, 64, device=CUDA)
    assert varlen_attention(states, 64) is None
    with torch.autocast("cuda", dtype=dtype):
        assert varlen_attention(states, 64) is flash_attention


@TYPES
@pytest.mark.parametrize("one_query", [False, True], ids=["all", "first"])
@pytest.mark.parametrize("width", [8, 32, 64, 128])
def test_the_kernel_computes_what_plain_torch_does(dtype: torch.dtype, one_query: bool, width: int) -> None:
    """Outputs and gradients, against double precision on the same rounded numbers."""
    lengths = torch.tensor([17, 1, 130, 6], device=CUDA)
    total, heads = int(lengths.sum()), 3
    bounds = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    each = torch.arange(5, device=CUDA, dtype=torch.int32)
    generator = torch.Generator(CUDA).manual_seed(0)
    packed = torch.randn(total, 3 * heads * width, device=CUDA, generator=generator).to(dtype)
    found = []
    for kernel, exact in ((flash_attention, dtype), (Reference(), torch.float64)):
        rows = packed.to(exact, copy=True).requires_grad_()
        query, key, value = rows.view(total, 3, heads, width).unbind(1)
        if one_query:
            query = query[bounds[:-1].long()]
        asking, most = (each, 1) if one_query else (bounds, 130)
        output = kernel(query, key, value, asking, bounds, most, 130, 0.0, width**-0.5)
        (output.double() * torch.linspace(-1, 2, width, device=CUDA, dtype=torch.float64)).sin().sum().backward()
        found.append((output, rows.grad))
    assert found[0][0].dtype == dtype
    for ours, theirs in zip(*found, strict=True):
        assert distance(ours, theirs.double()) < 0.01


def test_the_kernels_dropout_keeps_the_mean() -> None:
    """Of 4,000 draws, each of 64 keys alike: the deviation of the mean is far below the bound."""
    value = torch.ones(64, 1, 8, device=CUDA, dtype=torch.bfloat16)
    bounds = torch.tensor([0, 64], device=CUDA, dtype=torch.int32)
    nothing = torch.zeros_like(value)
    drawn = torch.stack(
        [flash_attention(nothing, nothing, value, bounds, bounds, 64, 64, 0.25, 1.0)[:, 0, 0] for _ in range(64)]
    ).float()
    assert float(drawn.std()) > 0.03
    assert abs(float(drawn.mean()) - 1) < 0.01


@BATCHES
@HIDDEN
@pytest.mark.parametrize("family", ["bert", "distilbert", "mpnet"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.02), (torch.float16, 0.01), (None, 1e-4)])
def test_upper_layers_compute_what_the_stock_model_does(
    family: str, lengths: list[int], hidden: bool, dtype: torch.dtype | None, bound: float
) -> None:
    model = without_dropout(tiny.make_model(family, layers=3, labels=3))
    given, mask = make_batch(lengths)
    logits, kept, gradients, by_state = reference(model, 1, given, lengths, hidden)
    _, upper = split_model(model.float().to(CUDA), 1)
    upper.requires_grad_(True).train()
    states, mask = given.float().to(CUDA).requires_grad_(), mask.to(CUDA)
    with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
        output = upper(states, mask, hidden=hidden, lengths=np.array(lengths, np.int64))
    assert distance(output.logits.cpu(), logits) < bound
    for layer, found in enumerate(output.hidden):
        for row, n in enumerate(lengths):
            assert distance(found[row, :n].cpu(), kept[row][layer]) < bound
    scalar(output.logits.cpu(), [found.cpu()[mask.cpu()] for found in output.hidden]).backward()
    assert distance(states.grad.cpu(), by_state) < 2 * bound
    pairs = [
        (model.get_parameter(name).grad.cpu(), gradient)
        for name, gradient in gradients.items()
        if model.get_parameter(name).grad is not None
    ]
    found, expected = (torch.cat([tensor.flatten() for tensor in tensors]) for tensors in zip(*pairs, strict=True))
    assert distance(found, expected) < 2 * bound


@pytest.fixture
def waits_are_errors() -> Iterator[Any]:
    """A function from whose call on whatever waits for the card raises."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_step_does_not_wait(tmp_path: Path, tiny_bert: Path, precision: str, waits_are_errors: Any) -> None:
    config = toy_config(tmp_path, tiny_bert, schedule="none", device="cuda", precision=precision)
    accelerator = make_accelerator(config)
    prepared = prepare(resolve(config, Plugins(allow="")), accelerator, Costs())
    part = trained_layers(prepared.student.to(CUDA), prepared.teacher.model, config.bypass)
    optimizer = make_optimizer(part, config.learning_rate, config.weight_decay)
    upper, optimizer = accelerator.prepare(part, optimizer)
    profile = Profile(len(prepared.train.store), prepared.teacher_upper.n_outputs, CUDA)
    done: list[int] = []

    class EnoughSteps(Exception):
        """Ends the pass before what may wait."""

    def on_step(number: int, total: int, loss: torch.Tensor) -> None:
        done.append(number)
        if number == 2:  # the kernel has been tried, and memory pinned
            waits_are_errors()
        if number == 6:
            torch.cuda.set_sync_debug_mode("default")
            raise EnoughSteps

    with pytest.raises(EnoughSteps):
        train_pass(
            upper, optimizer, [RealBatches(prepared.train, profile, config, CUDA, np.random.default_rng(0))],
            accelerator=accelerator, objective=Objective(config, prepared.loss_inputs, part, CUDA),
            progress=lambda step: 0.0, learning_rate=lambda step: 1e-3, max_grad_norm=1.0, max_steps=None,
            rng=np.random.default_rng(0), on_step=on_step,
        )  # fmt: skip
    assert done == list(range(1, 7))


def test_batches_that_are_gathered_ahead_are_the_same(tmp_path: Path, tiny_bert: Path, monkeypatch: Any) -> None:
    config = toy_config(tmp_path, tiny_bert, device="cuda", precision="bf16")
    accelerator = make_accelerator(config)
    prepared = prepare(resolve(config, Plugins(allow="")), accelerator, Costs())
    upper: Any = accelerator.prepare(prepared.teacher_upper)
    found = []
    for ahead in (False, True):
        monkeypatch.setattr(
            "sage_kit.training.steps.prefetched",
            lambda gathers, given, ahead=ahead: prefetched(gathers, ahead),
        )
        found.append(predict(upper, prepared.train.store, prepared.teacher_upper.n_outputs, accelerator))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"lift": "shift", "bypass": 1}, {"hidden_weight": 0.5, "relation_weight": 0.5, "filter": "choose"}],
)
def test_a_run_ends_with_a_student(
    tmp_path: Path, tiny_bert: Path, precision: str, settings: dict[str, Any], monkeypatch: Any
) -> None:
    calls = []

    def noted(states: Any, width: int) -> Any:
        calls.append(varlen_attention(states, width))
        return calls[-1]

    monkeypatch.setattr(split, "varlen_attention", noted)
    directory, summary = toy_run(tmp_path, tiny_bert, rounds=2, device="cuda", precision=precision, **settings)
    assert summary["rounds"][-1]["synthetic"] > 0
    assert np.isfinite([one["train_loss"] for one in summary["rounds"]]).all()
    assert summary["rounds"][-1]["dev"]["agreement"] > 0.7
    assert (directory.student / "model.safetensors").exists()
    assert set(calls) == ({None} if precision == "fp32" else {flash_attention})
