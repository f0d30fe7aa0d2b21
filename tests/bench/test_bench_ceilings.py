"""Ceilings: the right products, counted rightly."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from sage_bench.ceilings import CEILING, SHARE, Copy, Gemm, beside, block_products, linear_products, stock_flops
from sage_bench.measure import Work
from sage_kit.components.task_kinds import Architecture
from sage_kit.models.architectures import auto_class
from sage_kit.system.machine import describe_machine, why_no_bf16

CPU = torch.device("cpu")


def test_products_are_those_of_a_linear_layers_training_step() -> None:
    forward, to_input, to_weight = linear_products(tokens=5, inputs=3, outputs=2)
    assert (forward.m, forward.k, forward.n) == (5, 3, 2)  # X W^T
    assert (to_input.m, to_input.k, to_input.n) == (5, 2, 3)  # G W
    assert (to_weight.m, to_weight.k, to_weight.n) == (2, 5, 3)  # G^T X
    assert {product.flops for product in (forward, to_input, to_weight)} == {2 * 5 * 3 * 2}


def test_a_blocks_products_are_its_linear_layers() -> None:
    config, tokens = tiny.make_config(layers=2, dim=32), 7
    head = 2 * (32 * 32 + 32 * 2)
    attention = 2 * 4 * 32 * tokens**2
    products = 2 * sum(product.flops for product in block_products(tokens, 32, 64))
    assert 3 * (stock_flops(config, np.array([tokens])) - head - attention) == products


def test_a_stock_model_has_the_flops_that_torch_counts() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model, tokens = tiny.make_model(layers=2, dim=32), 7
    # the counter knows no fused attention on a CPU
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(input_ids=torch.full((3, tokens), 6))
    assert stock_flops(model.config, np.array([tokens] * 3)) == counter.get_total_flops()


@pytest.mark.parametrize(("architecture", "labels"), [("token", 5), ("span", 2)])
def test_a_head_on_every_token_counts_so(architecture: Architecture, labels: int) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model, tokens = auto_class(architecture).from_config(tiny.make_config(layers=2, labels=labels)), 7
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(input_ids=torch.full((3, tokens), 6))
    assert stock_flops(model.config, np.array([tokens] * 3), per_token=True) == counter.get_total_flops()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gemm_reports_whole_rounds(dtype: torch.dtype) -> None:
    products = block_products(4, 8, 16)
    work = Gemm(products, CPU, dtype, seconds=0.0)()
    assert work.amounts["FLOP"] == sum(product.flops for product in products)
    assert work.seconds is not None
    assert work.seconds > 0


def test_copy_counts_what_is_read_and_written() -> None:
    assert Copy(CPU, megabytes=1, times=3)().amounts["bytes"] == 2 * 3 * 1_000_000


def test_a_share_is_taken_of_the_ceiling_before_and_after() -> None:
    answers = iter([Work({"FLOP": 100.0}, 1.0), Work({"FLOP": 100.0}, 3.0)])
    work = beside(lambda: Work({"FLOP": 30.0}, 2.0, {"padding": 0.1}), lambda: next(answers), "FLOP")()
    assert work.figures[CEILING] == 50.0
    assert work.figures[SHARE] == pytest.approx(0.3)
    assert work.figures["padding"] == 0.1
    assert work.seconds == 2.0


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine.torch == torch.__version__
    assert machine.cores >= 1
    assert f"torch {torch.__version__}" in str(machine)
    assert set(machine.to_json()) >= {"processor", "instructions", "threads", "load"}
    reason = why_no_bf16(CPU, machine)
    has_bf16 = {"avx512_bf16", "amx_bf16", "bf16"} & set(machine.instructions)
    assert bool(reason) != bool(has_bf16)
