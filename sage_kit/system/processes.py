"""What the processes of one run share: values, folders, and what the first of them computes for all."""

from __future__ import annotations

import contextlib
import datetime
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from sage_kit.errors import CompatibilityError, ProcessLostError, one_line
from sage_kit.storage.files import disk_errors, write_text

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

PATIENCE = datetime.timedelta(hours=12)
"""How long processes wait for what the first of them computes alone: a teacher, vectors, a map."""
TOGETHER = datetime.timedelta(minutes=10)
"""How long they wait for each other where all do the same, as in a step."""
SEEN_WITHIN = 20.0
"""Seconds until a file that one host has written must show on the others; network file systems cache listings."""

_patient: list[Any] = []
"""The group of processes that waits for `PATIENCE`, once it is made."""

_LOST = re.compile(r"gloo|nccl|process group|connection (was )?(closed|reset|refused)|broken pipe", re.IGNORECASE)


def from_main(value: T, accelerator: Accelerator) -> T:
    """The main process's value, in every process.

    Parameters
    ----------
    value : object
        Plain data, such as text, numbers, numpy arrays and dataclasses of these; of the other processes it is ignored.
    accelerator : Accelerator
    """
    if accelerator.num_processes == 1:
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0, group=_patient_group())
    return values[0]


def from_all(value: T, accelerator: Accelerator) -> list[T]:
    """The values of all processes, by their numbers, in every process; plain data as for `from_main`."""
    if accelerator.num_processes == 1:
        return [value]
    values: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(values, value, group=_patient_group())
    return values


@contextlib.contextmanager
def main_first(accelerator: Accelerator) -> Iterator[None]:
    """Around what the first process of a run computes and keeps in a folder, where the others then find it."""
    if not accelerator.is_main_process:
        from_main(None, accelerator)
    yield
    if accelerator.is_main_process:
        from_main(None, accelerator)


def check_shared(folders: Sequence[Path], accelerator: Accelerator) -> None:
    """Check that every process sees what the first one writes into these folders; to be called by all of them.

    Parameters
    ----------
    folders : sequence of Path
        As this process names them, in the same order in each.
    accelerator : Accelerator

    Raises
    ------
    CompatibilityError
        In every process alike, when one does not; it names the folder and the host.
    """
    if accelerator.num_processes == 1:
        return
    name = from_main(f".seen-{uuid.uuid4().hex}", accelerator)
    markers = [folder / name for folder in folders]
    try:
        if accelerator.is_main_process:
            for marker in markers:
                with disk_errors(str(marker.parent)):
                    marker.parent.mkdir(parents=True, exist_ok=True)
                    write_text(marker, "")
        from_main(None, accelerator)
        found = from_all((socket.gethostname(), [str(one.parent) for one in markers if not _shows(one)]), accelerator)
    finally:
        if accelerator.is_main_process:
            for marker in markers:
                marker.unlink(missing_ok=True)
    for number, (host, missing) in enumerate(found):
        for folder in missing:
            raise CompatibilityError(
                f"process {number} on host {host!r} does not see in {folder} what process 0 on host {found[0][0]!r} "
                "writes there: set run_dir (or runs_dir) and cache_dir to folders of a file system that all hosts share"
            )


@contextlib.contextmanager
def telling_of_lost(accelerator: Accelerator, remedy: Callable[[], str]) -> Iterator[None]:
    """Turn what the library for communication raises, when another process is gone, into one line.

    Parameters
    ----------
    accelerator : Accelerator
    remedy : callable
        Says what to do then.

    Raises
    ------
    ProcessLostError
    """
    try:
        yield
    except RuntimeError as error:  # gloo raises this class itself, nccl one below it
        if accelerator.num_processes == 1 or not _is_of_communication(error):
            raise
        raise ProcessLostError(
            f"process {accelerator.process_index} of {accelerator.num_processes} has lost the others "
            f"({one_line(error, 200)}); one of them has ended, and has said why if it could: {remedy()}"
        ) from error


def _is_of_communication(error: RuntimeError) -> bool:
    return isinstance(error, torch.distributed.DistError) or _LOST.search(str(error)) is not None


def _shows(path: Path) -> bool:
    """Whether a file that another host has written shows here, within `SEEN_WITHIN`."""
    deadline = time.monotonic() + SEEN_WITHIN
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
        with contextlib.suppress(OSError):
            list(path.parent.iterdir())  # makes a network file system look again
    return True


def _patient_group() -> Any:
    """The processes' group for what may take long. It is made on the processor, so that no card waits busily."""
    if not _patient:
        _patient.append(torch.distributed.new_group(backend="gloo", timeout=PATIENCE))
    return _patient[0]
