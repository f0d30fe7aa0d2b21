"""Runs benches one after the other and writes what they found."""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import sage_bench as bench
from sage_bench.measure import Session
from sage_bench.records import Result
from sage_bench.report import draw_result
from sage_kit.storage import tensorfile
from sage_kit.storage.files import disk_errors, write_json
from sage_kit.system.machine import Machine, describe_machine

FORMAT = 1
"""Version of the JSON layout."""


@dataclass(frozen=True)
class BenchRun:
    """A bench that ran.

    Attributes
    ----------
    result : Result
    machine : Machine
    quick : bool
    seconds : float
        Wall time of all of it [s].
    time : str
        When it began, UTC, ISO 8601.
    files : tuple of Path
        JSON and PNG, and safetensors where the result has arrays.
    """

    result: Result
    machine: Machine
    quick: bool
    seconds: float
    time: str
    files: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What the JSON file holds."""
        return {
            "format": FORMAT,
            "time": self.time,
            "quick": self.quick,
            "seconds": self.seconds,
            "machine": self.machine.to_json(),
            **self.result.to_json(),
        }


def run_benches(
    names: Sequence[str],
    *,
    quick: bool,
    out: Path,
    data_dir: str = "",
    announce: Callable[[str], None] = lambda text: None,
    finished: Callable[[BenchRun], None] = lambda run: None,
) -> list[BenchRun]:
    """Run benches and save each as soon as it is done: ``<name>.json`` and ``<name>.png``, with ``-quick`` if it was.

    Parameters
    ----------
    names : sequence of str
        Keys of `sage_bench.BENCHES`.
    quick : bool
    out : Path
        Folder for the files; made if absent.
    data_dir : str
        Folder of real data, as in the setting of that name; "" without.
    announce : callable
        Shows one line of progress.
    finished : callable
        Told each run as soon as its files are written.

    Returns
    -------
    list of BenchRun
    """
    runs = []
    for name in names:
        run_bench = importlib.import_module(bench.BENCHES[name]).run
        machine = describe_machine()
        began, started = datetime.now(timezone.utc), time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="sage-kit-bench-") as scratch:
            session = Session(
                quick=quick,
                scratch=Path(scratch),
                announce=partial(_under, name, announce),
                data_dir=data_dir,
            )
            result = run_bench(session)
        seconds = time.perf_counter() - started
        stem = f"{name}-quick" if quick else name
        endings = ("json", "png", "safetensors") if result.arrays else ("json", "png")
        files = tuple(out / f"{stem}.{ending}" for ending in endings)
        run = BenchRun(result, machine, quick, seconds, began.isoformat(timespec="seconds"), files)
        with disk_errors(str(files[0])):
            write_json(files[0], run.to_json())
        draw_result(result, machine, files[1])
        if result.arrays:
            with disk_errors(str(files[2])):
                tensorfile.write(files[2], result.arrays)
        runs.append(run)
        finished(run)
    return runs


def _under(name: str, announce: Callable[[str], None], text: str) -> None:
    announce(f"{name}: {text}")


def as_json(runs: Sequence[BenchRun]) -> str:
    """All runs as one JSON text."""
    return json.dumps({"benches": [run.to_json() for run in runs]}, indent=2)
