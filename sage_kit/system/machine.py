"""The machine that something was measured on, from what the system and torch say."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sage_kit.storage.files import only_finite

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")
"""Instruction sets that decide how fast matrix products are, as Linux calls them."""


@dataclass(frozen=True)
class Machine:
    """Where something ran.

    Attributes
    ----------
    processor : str
        Name of the processor.
    cores : int
        Cores that this process may use.
    instructions : tuple of str
        Those of the vector instruction sets that matter here and are there.
    card : str
        Name of the GPU; "" without one.
    torch, transformers, python, system : str
        Versions.
    threads : int
        Threads that torch computes with.
    load : float
        Load average of the last minute before the run, NaN where the system does not say: others' work on a busy
        machine is in every figure.
    """

    processor: str
    cores: int
    instructions: tuple[str, ...]
    card: str
    torch: str
    transformers: str
    python: str
    system: str
    threads: int
    load: float

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        data: dict[str, Any] = only_finite(dataclasses.asdict(self))
        return data

    def __str__(self) -> str:
        parts = [
            self.card or f"{self.processor}, {self.cores} cores",
            "" if self.card else " ".join(self.instructions),
            f"torch {self.torch}, {self.threads} threads",
            f"transformers {self.transformers}",
            f"Python {self.python}",
            "" if math.isnan(self.load) else f"load {self.load:.1f} before the run",
        ]
        return "; ".join(part for part in parts if part)


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
