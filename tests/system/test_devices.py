"""Devices and precision."""

from __future__ import annotations

import pytest
import torch

from sage_kit.config import load_config
from sage_kit.errors import CompatibilityError
from sage_kit.system.devices import autocast_for, make_accelerator, resolve_precision

CPU = torch.device("cpu")


def test_auto_precision_is_full_on_a_cpu() -> None:
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(CompatibilityError, match="fp16"):
        resolve_precision("fp16", CPU)


def test_one_process_can_change_its_precision_between_runs() -> None:
    first = make_accelerator(load_config({"device": "cpu"}))
    assert first.mixed_precision == "no"
    second = make_accelerator(load_config({"device": "cpu", "precision": "bf16"}))
    assert second.mixed_precision == "bf16"
    assert make_accelerator(load_config({"device": "cpu"})).mixed_precision == "no"


def test_a_process_keeps_its_precision_where_accelerate_cannot_be_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    make_accelerator(load_config({"device": "cpu"}))
    monkeypatch.delattr("accelerate.state.PartialState._reset_state")
    with pytest.raises(CompatibilityError, match=r"began: start another process for bf16 on cpu"):
        make_accelerator(load_config({"device": "cpu", "precision": "bf16"}))
    assert make_accelerator(load_config({"device": "cpu"})).mixed_precision == "no"


def test_autocast_changes_the_type_of_products() -> None:
    a = torch.ones(4, 4)
    with autocast_for(CPU, "bf16")():
        assert (a @ a).dtype == torch.bfloat16
    with autocast_for(CPU, "fp32")():
        assert (a @ a).dtype == torch.float32
