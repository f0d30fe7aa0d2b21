"""What `sage-kit doctor` looks at: one function for each area, each of which changes nothing but a temporary file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sage_kit
from sage_kit.config import DATA_DIR_VARIABLE, load_config
from sage_kit.errors import SageError, one_line

State = Literal["ok", "note", "broken"]

LEAST_FREE = 5e9  # free disk space below which a run may not find room for its checkpoints [bytes]
SLOW_IMPORT = 15.0  # an import that takes longer points to a network folder or a scanner of viruses [s]
BF16_GAIN = 1.1  # how many times as fast as fp32 products in bf16 must be, to be worth it

IMPORTED = {"sage_kit.cli": "sage-kit", **{name: name for name in ("torch", "transformers", "datasets")}}
"""Modules whose import is timed, and the distributions that they come from."""

OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")

EXTRAS = {
    "notebooks": "studies, grids and their report",
    "onnx": "`sage-kit export --onnx`",
    "search": "`sage-kit search`",
    "trackers": "observer `tracker` with TensorBoard",
}
"""The optional packages of sage-kit, and what they enable."""

TRUE = {"1", "ON", "YES", "TRUE"}  # what the hub's library takes for true


@dataclass(frozen=True)
class Health:
    """One thing that was looked at.

    Attributes
    ----------
    area, name, found : str
        What was looked at, and what is there.
    state : str
        "ok", "note" (something to know, or to gain) or "broken".
    remedy : str
        What to do; "" where there is nothing to do.
    """

    area: str
    name: str
    found: str
    state: State = "ok"
    remedy: str = ""


def examine() -> Iterator[Health]:
    """Everything, area by area; an area whose look fails is broken, and the others are looked at all the same."""
    areas: dict[str, Callable[[], Iterable[Health]]] = {
        "python": python, "torch": torch_build, "device": device, "precision": precision, "network": offline_flags,
        "plugins": plugins, "packages": optional_packages, "disk": caches, "imports": import_times,
    }  # fmt: skip
    for area, look in areas.items():
        try:
            yield from look()
        except Exception as error:  # of torch, a driver, a file system: it is what the user wants to know
            remedy = "" if isinstance(error, SageError) else "see --traceback on the command that fails because of it"
            yield Health(area, "look", f"{type(error).__name__}: {one_line(error, 200)}", "broken", remedy)


# ---- interpreter and torch ------------------------------------------------------------------------------------------


def python() -> Iterator[Health]:
    """The interpreter, and whether this version of sage-kit is made for it."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    wanted = ""
    try:
        wanted = importlib.metadata.metadata("sage-kit")["Requires-Python"] or ""
    except importlib.metadata.PackageNotFoundError:
        yield Health(
            "python", "sage-kit", "not installed, but found on the path", "note",
            "commands of plugins need an installation: pip install -e . in a clone",
        )  # fmt: skip
    good = not wanted or SpecifierSet(wanted).contains(version, prereleases=True)
    remedy = "" if good else f"make an environment with Python {wanted}"
    found = f"{version} on {platform.system()} {platform.machine()}"
    yield Health("python", "Python", found, "ok" if good else "broken", remedy)
    yield Health("python", "sage_kit", f"{sage_kit.__version__} in {Path(sage_kit.__file__).parent}")


def torch_build() -> Iterator[Health]:
    """Which build of torch there is, and whether it suits the machine."""
    try:
        import torch
    except Exception as error:  # a shared library may be missing
        yield Health(
            "torch", "torch", f"cannot be imported: {type(error).__name__}: {one_line(error, 200)}", "broken",
            "install it again: pip install --force-reinstall torch",
        )  # fmt: skip
        return
    hip = getattr(torch.version, "hip", None)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {hip}" if hip else "CPU"
    found = f"{torch.__version__}, built for {build}"
    has_card = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if torch.version.cuda and not torch.cuda.is_available():
        what = "the driver does not work with it" if has_card else "no NVIDIA GPU is here"
        remedy = (
            "take a build for a CUDA version of the driver (pytorch.org/get-started/locally)" if has_card else
            "a CPU build is smaller: pip install torch --index-url https://download.pytorch.org/whl/cpu"
        )  # fmt: skip
        yield Health("torch", "torch", f"{found}, and {what}", "note", remedy)
    elif has_card and not torch.version.cuda and not hip:
        yield Health(
            "torch", "torch", f"{found}, and an NVIDIA GPU is here", "note",
            "take a build for CUDA, which computes on it (pytorch.org/get-started/locally)",
        )  # fmt: skip
    else:
        yield Health("torch", "torch", found)
    threads, cores = torch.get_num_threads(), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    few = cores > threads
    remedy = (
        f"unset OMP_NUM_THREADS, which is {os.environ['OMP_NUM_THREADS']}" if "OMP_NUM_THREADS" in os.environ else ""
    )
    yield Health("torch", "threads", f"{threads} of {cores or os.cpu_count()} cores", "note" if few else "ok",
                 remedy if few else "")  # fmt: skip


def device() -> Iterator[Health]:
    """What a run computes on, by a product that is computed there."""
    import torch

    from sage_kit.system.devices import device_of
    from sage_kit.system.machine import describe_machine

    chosen, machine = device_of(load_config()), describe_machine()
    name = machine.card if chosen.type == "cuda" else machine.processor
    product = torch.ones(64, 64, device=chosen) @ torch.ones(64, 64, device=chosen)
    works = float(product.sum()) == 64.0**3
    remedy = "" if works else "choose another with --device cpu"
    what = "" if works else ", which gives wrong products"
    yield Health("device", "device", f"{chosen.type} ({name}){what}", "ok" if works else "broken", remedy)
    if chosen.type == "cuda":
        free, total = torch.cuda.mem_get_info(chosen)
        yield Health("device", "memory", f"{free / 1e9:,.1f} of {total / 1e9:,.1f} GB free")
    elif chosen.type == "cpu":
        yield Health("device", "instructions", " ".join(machine.instructions))


def precision() -> Iterator[Health]:
    """What precision "auto" means here, and whether bf16 is faster, measured."""
    from sage_kit.studies.effort import product_rate
    from sage_kit.system.devices import device_of, precision_of
    from sage_kit.system.machine import describe_machine, why_no_bf16

    chosen = device_of(load_config())
    yield Health("precision", "auto", f"precision 'auto' computes in {precision_of(load_config())}")
    if lacking := why_no_bf16(chosen, describe_machine()):
        yield Health("precision", "bf16", lacking)
    elif chosen.type == "cpu":
        gain = product_rate("bf16") / product_rate("fp32")
        has_amx = "amx_bf16" in describe_machine().instructions
        found = f"by {'AMX' if has_amx else 'AVX512-BF16'}, products {gain:.1f} times as fast as in fp32 (measured)"
        worth = gain >= BF16_GAIN
        yield Health("precision", "bf16", found, "note" if worth else "ok",
                     "runs gain by `--precision bf16`; 'auto' stays with fp32 on a CPU" if worth else "")  # fmt: skip
    else:
        yield Health("precision", "bf16", f"{describe_machine().card} multiplies it")


# ---- network, plugins, packages -------------------------------------------------------------------------------------


def offline_flags() -> Iterator[Health]:
    """Which variables keep the hub away, and where data is read from instead."""
    given = {name: os.environ[name] for name in OFFLINE_FLAGS if os.environ.get(name)}
    is_off = [name for name, value in given.items() if value.upper() in TRUE]
    if is_off:
        yield Health(
            "network", "offline", ", ".join(f"{name}={given[name]}" for name in is_off), "note",
            "hub names are found in the cache only; unset it to download",
        )  # fmt: skip
    else:
        yield Health("network", "offline", "off: what is not in the cache is fetched from the hub")
    folder = os.environ.get(DATA_DIR_VARIABLE, "")
    if not folder:
        yield Health("network", DATA_DIR_VARIABLE, "not set: tasks are read from the hub")
    elif not Path(folder).expanduser().is_dir():
        yield Health("network", DATA_DIR_VARIABLE, f"{folder} is no folder", "broken",
                     f"unset {DATA_DIR_VARIABLE}, or let it name the folder of parquet files")  # fmt: skip
    else:
        files = sum(1 for _ in Path(folder).expanduser().rglob("*.parquet"))
        remedy = "" if files else "it holds no parquet file: tasks of the hub are not found there"
        yield Health(
            "network", DATA_DIR_VARIABLE, f"{folder}, {files:,} parquet files", "ok" if files else "note", remedy
        )


def plugins() -> Iterator[Health]:
    """Every installed plugin: whether it imports, for which sage-kit it says it is made, and what its parts lack."""
    from sage_kit.components.loader import ALLOW_VARIABLE, find_installed
    from sage_kit.components.plugins import Plugins
    from sage_kit.components.spec_checks import title_of, unmet

    allow = os.environ.get(ALLOW_VARIABLE)
    started = time.perf_counter()
    loaded = Plugins(allow=allow)
    yield Health("plugins", "components", f"{len(loaded.components())} in {time.perf_counter() - started:.1f} s")
    points, left_out, _ = find_installed(allow)
    bad = {item.origin.plugin: item for item in loaded.quarantined}
    for point, origin in points:
        if origin.plugin in bad:
            continue
        api = _api_of(origin.distribution)
        lacking = [text for text in api if unmet([text])]
        declared = f"made for {', '.join(api)}" if api else "does not say for which sage-kit it is made"
        state: State = "broken" if lacking else "ok" if api else "note"
        remedy = f"pip install --upgrade {origin.distribution}" if lacking else ""
        if not api:
            remedy = "let its dependencies say so, as `sage-kit>=0.1,<0.2`"
        yield Health("plugins", point.name, f"{origin}, imports; {declared}", state, remedy)
    for item in loaded.quarantined:
        yield Health(
            "plugins", item.origin.plugin, f"{item}: {one_line(Exception(item.cause), 300)}", "broken",
            f"mend or upgrade it, uninstall it (pip uninstall {item.origin.distribution}), or leave it out with "
            f"{ALLOW_VARIABLE}=-{item.origin.plugin}",
        )  # fmt: skip
    if left_out:
        names = ", ".join(origin.plugin for origin in left_out)
        yield Health("plugins", ALLOW_VARIABLE, f"leaves out {names}", "note", "unset it to load them")
    for registered in loaded.components():
        missing = unmet(getattr(registered.spec, "requires", ()))
        if missing:
            names = ", ".join(f"{text}{note}" for text, note in missing.items())
            install = getattr(registered.spec, "install", "") or f"pip install {' '.join(map(repr, missing))}"
            yield Health("plugins", title_of(registered.spec), f"needs {names}", "note", install)


def optional_packages() -> Iterator[Health]:
    """Of each extra of sage-kit, whether its packages are here, and what it enables."""
    from sage_kit.components.spec_checks import unmet

    try:
        required = importlib.metadata.requires("sage-kit") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for extra, enables in EXTRAS.items():
        own = [text.partition(";")[0].strip() for text in required if re.search(rf"extra == ['\"]{extra}['\"]", text)]
        missing = list(unmet(own))
        found = f"for {enables}: " + ("installed" if not missing else f"without {', '.join(missing)}")
        yield Health("packages", extra, found, "note" if missing else "ok",
                     f"pip install 'sage-kit[{extra}]'" if missing else "")  # fmt: skip


def _api_of(distribution: str) -> list[str]:
    """What a plugin's distribution says of the sage-kit it is made for."""
    from packaging.requirements import Requirement

    try:
        required = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    ours = [text for text in required if Requirement(text).name.replace("_", "-").lower() == "sage-kit"]
    return [text for text in ours if Requirement(text).specifier]


# ---- disk and time --------------------------------------------------------------------------------------------------


def caches() -> Iterator[Health]:
    """How large the caches are, whether they can be written, and how much room is left."""
    from huggingface_hub import constants

    own = Path(load_config().cache_dir).expanduser()
    yield _folder("cache of sage-kit", own, "`sage-kit cache` lists what is in it, `sage-kit cache --clear` empties it")
    yield _folder("cache of the hub", Path(constants.HF_HUB_CACHE), "`hf cache rm` frees some of it")
    here = Path.cwd()
    yield _room("runs", here)


def _folder(name: str, folder: Path, remedy: str) -> Health:
    """Size and state of a folder that need not be there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        return Health("disk", name, f"{there} is no folder", "broken", f"remove it, or let {name} lie elsewhere")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Health("disk", name, f"{there} cannot be written ({error.strerror})", "broken",
                      "set SAGE_KIT_CACHE_DIR, or HF_HOME for that of the hub, to a folder of yours")  # fmt: skip
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()] if folder.is_dir() else []
    size = sum(path.stat().st_size for path in files)
    free = shutil.disk_usage(there).free
    found = f"{folder}: {size / 1e9:,.2f} GB, {free / 1e9:,.0f} GB free"
    is_full = free < LEAST_FREE
    return Health("disk", name, found, "note" if is_full else "ok", remedy if is_full or size > free else "")


def _room(name: str, folder: Path) -> Health:
    free = shutil.disk_usage(folder).free
    is_full = free < LEAST_FREE
    writable = os.access(folder, os.W_OK)
    found = f"{free / 1e9:,.0f} GB free in {folder}" + ("" if writable else ", which cannot be written")
    remedy = "free some space, or name another folder with --runs-dir" if is_full or not writable else ""
    return Health("disk", name, found, "note" if remedy else "ok", remedy)


def import_times() -> Iterator[Health]:
    """How long modules take to be imported, those of plugins with their libraries too, each in a process of its own."""
    for module, distribution in {**IMPORTED, **_modules_of_plugins()}.items():
        code = f"import time; s = time.perf_counter(); import {module}; print(time.perf_counter() - s)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            remedy = f"install it again: pip install --force-reinstall {distribution}"
            yield Health("imports", module, f"cannot be imported: {last[:300]}", "broken", remedy)
            continue
        seconds = float(done.stdout.split()[-1])
        is_slow = seconds > SLOW_IMPORT
        remedy = "a second look may be faster; else install the environment on a local disk" if is_slow else ""
        yield Health("imports", module, f"{seconds:.1f} s", "note" if is_slow else "ok", remedy)


def _modules_of_plugins() -> dict[str, str]:
    """The modules of installed plugins that their components come from, and the distribution of each."""
    from sage_kit.components.plugins import Plugins
    from sage_kit.components.spec_checks import unmet

    found = {}
    for registered in Plugins().components():
        if registered.origin.distribution == "sage-kit" or unmet(getattr(registered.spec, "requires", ())):
            continue
        module, colon, _ = getattr(registered.code, "__name__", "").partition(":")  # as `lazy` names its factories
        if colon:
            found[module] = registered.origin.distribution
    return found


def summary(found: Iterable[Health]) -> dict[str, Any]:
    """The look as JSON-ready data."""
    items = list(found)
    return {"is_fine": not any(item.state == "broken" for item in items), "found": [vars(item) for item in items]}
