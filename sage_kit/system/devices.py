"""Devices, precision and processes, through Accelerate."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import accelerate
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState, is_initialized
from accelerate.utils import InitProcessGroupKwargs

from sage_kit.config import RunConfig
from sage_kit.errors import CompatibilityError
from sage_kit.system.processes import TOGETHER
from sage_kit.system.product_caches import bound_product_caches


def make_accelerator(config: RunConfig) -> Accelerator:
    """An Accelerator for the settings' device and precision; under `accelerate launch`, one of its processes.

    Raises
    ------
    CompatibilityError
        When the device is not there or cannot compute in the precision.
    """
    bound_product_caches()
    device = _device(config.device)
    precision = resolve_precision(config.precision, device)
    _forget_other_settings(device, precision)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=TOGETHER)],
    )


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision's name with "auto" resolved: bf16 on a GPU that has it, fp32 elsewhere.

    Raises
    ------
    CompatibilityError
        For fp16 without a GPU.
    """
    if precision == "auto":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise CompatibilityError("precision 'fp16' needs a GPU: take 'bf16' or 'fp32' on a CPU")
    return precision


def device_of(config: RunConfig) -> torch.device:
    """The device that a run with these settings computes on here, if it is one process.

    Raises
    ------
    CompatibilityError
        When it is not there.
    """
    return _device(config.device)


def precision_of(config: RunConfig) -> str:
    """The precision that a run with these settings computes in on this machine.

    Raises
    ------
    CompatibilityError
        When the device is not there or cannot compute in the precision.
    """
    return resolve_precision(config.precision, device_of(config))


def autocast_for(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    """A function that gives the context in which a frozen model runs in that precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return lambda: torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read next is honest."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise CompatibilityError(f"device {name!r} is unknown: take auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CompatibilityError(
            f"device {name!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise CompatibilityError("device 'mps' is not there")
    if device.type not in ("cpu", "cuda", "mps"):
        raise CompatibilityError(f"device {name!r} is not supported: take auto, cpu, cuda, cuda:N or mps")
    return device


def _forget_other_settings(device: torch.device, precision: str) -> None:
    """Accelerate keeps one state per process; a run with another device or precision must begin with a new one.

    Accelerate has no public way to let go of it, so that a later one may lack this one.
    """
    if not is_initialized():
        return
    state = AcceleratorState()
    wanted = "no" if precision == "fp32" else precision
    if state.num_processes == 1 and (state.mixed_precision != wanted or state.device.type != device.type):
        resets: list[Any] = [
            getattr(kept, "_reset_state", None) for kept in (AcceleratorState, GradientState, PartialState)
        ]
        if None in resets:
            raise CompatibilityError(
                f"Accelerate {accelerate.__version__} holds this process to {state.mixed_precision} on "
                f"{state.device.type}, with which it began: start another process for {wanted} on {device.type}"
            )
        for reset in resets:
            reset()
