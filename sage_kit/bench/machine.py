"""The machine that a bench runs on, from what the system and torch say."""

from __future__ import annotations

import math
import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from sage_kit.bench.records import Machine

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")
"""Instruction sets that decide how fast matrix products are, as Linux calls them."""


def describe_machine() -> Machine:
    """The machine, the versions and the threads of this process."""
    cpu = _cpu_information()
    names = ("model name", "Model", "Hardware")
    processor = next((cpu[name] for name in names if cpu.get(name)), "") or platform.processor() or platform.machine()
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    has_affinity = hasattr(os, "sched_getaffinity")
    return Machine(
        processor=processor,
        cores=len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1,
        instructions=tuple(name for name in INSTRUCTIONS if name in flags) or (_capability(),),
        card=torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        torch=torch.__version__,
        transformers=metadata.version("transformers"),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan,
    )


def why_no_bf16(device: torch.device, machine: Machine) -> str:
    """Why bf16 is not measured; "" where the hardware multiplies it."""
    if device.type == "cuda":
        return "" if torch.cuda.is_bf16_supported(including_emulation=False) else f"{machine.card} has no bf16"
    if {"avx512_bf16", "amx_bf16", "bf16"} & set(machine.instructions):
        return ""
    return "the processor has neither avx512_bf16 nor amx_bf16"


def _cpu_information() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first, _, _ = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _capability() -> str:
    return torch.backends.cpu.get_cpu_capability().lower()
