"""What a run directory holds of a run, read for the explorer: finished, interrupted, plain or without a map."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components.records import RoundResult
from sage_kit.config import RunConfig
from sage_kit.errors import RunDirectoryError, SageError, one_line
from sage_kit.rundir import RunDirectory
from sage_kit.rundir.checkpoint import MANIFEST
from sage_kit.rundir.loss_profiles import FILE_NAME, read_loss_profiles
from sage_kit.storage.manifest import fault
from sage_kit.synthesis.synthetic_set import SyntheticSet

PLANE = 2
"""Dimensions of a map that are drawn: the first two."""


@dataclass(eq=False)
class ExploredRun:
    """A run as its directory tells it.

    Attributes
    ----------
    directory : RunDirectory
    name : str
        What the page calls it: the directory's name.
    config : RunConfig
    summary : dict or None
        What summary.json holds; None while the run is not finished.
    history : list of RoundResult
        At least one.
    costs : dict
        What costs.json holds; empty without the file.
    loss_rounds : array of shape (r,), int64
        The rounds whose losses are known.
    losses : array of shape (r, n), float32
        Latest known loss of each training sequence; NaN for one not seen yet.
    logits : array of shape (n, n_outputs), float32, or None
        The student's outputs on these as they were when it last trained on them; None where a run keeps none.
    coordinates : array of shape (n, 2), float32, or None
        Their place in the map, first two dimensions; of a map of one dimension the second is 0.
    n_components : int
        Dimensions of the map; 0 without one.
    synthetic : dict of int to SyntheticSet
        By round.
    notes : list of str
        What a reader must know of the page, such as what is not there, and why.
    """

    directory: RunDirectory
    name: str
    config: RunConfig
    summary: dict[str, Any] | None
    history: list[RoundResult]
    costs: dict[str, Any]
    loss_rounds: NDArray[np.int64]
    losses: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None
    coordinates: NDArray[np.float32] | None = None
    n_components: int = 0
    synthetic: dict[int, SyntheticSet] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_plain(self) -> bool:
        """Whether the run is plain distillation."""
        return self.config.schedule == "none"

    @property
    def examples(self) -> int:
        """Training sequences; 0 where nothing tells."""
        return int(self.losses.shape[1])

    @property
    def primary_metric(self) -> str:
        """The task's primary metric."""
        return str(self.summary["primary_metric"]) if self.summary else next(iter(self.history[-1].dev))


def read_run(path: str | Path) -> ExploredRun:
    """Read a run directory.

    Parameters
    ----------
    path : path

    Returns
    -------
    ExploredRun

    Raises
    ------
    RunDirectoryError
        When there is no run, none of its rounds is finished, or a file of it is damaged.
    """
    directory = RunDirectory.open(path)
    config = directory.config()
    with _readable(directory.path):
        history = directory.history()
        summary = directory.summary()
        costs = _costs(directory.path)
    if not history:
        raise RunDirectoryError(
            f"{directory.path} has no finished round to look at yet: go on with `sage-kit resume {directory.path}`"
        )
    notes = [] if summary else ["This run is not finished: scores are those of its latest checkpoint, on dev."]
    rounds, losses, logits = _losses(directory, len(history), notes)
    run = ExploredRun(
        directory, directory.path.resolve().name, config, summary, history, costs, rounds, losses, logits, notes=notes
    )
    _read_map(run)
    _read_synthetic(run)
    if run.coordinates is None:
        # the map may be the only thing that a run lacks
        notes.append(_why_no_map(run))
    return run


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Around reading a file: whatever is wrong with its contents is one error that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except SageError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, SafetensorError) as error:
        raise RunDirectoryError(
            f"{path} is not readable ({one_line(error, 120)}): restore it, or make the run again"
        ) from None


def _costs(path: Path) -> dict[str, Any]:
    file = path / "costs.json"
    if not file.exists():
        return {}
    with _readable(file):
        costs = json.loads(file.read_text(encoding="utf-8"))
        return {name: dict(costs[name]) for name in ("seconds", "tokens", "flops")}


def _losses(
    directory: RunDirectory, rounds: int, notes: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32] | None]:
    """The losses of each round, from the observer's files or else the newest whole checkpoint, and its outputs."""
    from safetensors.numpy import load_file

    kept, logits = np.zeros((0, 0), np.float32), None
    for folder in sorted((directory.path / "checkpoints").glob("round-*"), key=_number, reverse=True):
        if fault(folder, MANIFEST) is None:
            with _readable(folder):
                profile = load_file(folder / "profile.safetensors")
                kept = profile["history"]
                logits = profile["logits"] if profile["logits"].shape[1] else None
            break
    if any(directory.path.glob(f"rounds/*/{FILE_NAME}")):
        numbers, losses = read_loss_profiles(directory.path)
        done = numbers <= rounds
        return numbers[done], losses[done], logits if logits is not None and len(logits) == losses.shape[1] else None
    if not len(kept):
        notes.append(
            "No losses are kept: the checkpoints are gone and the run had no observer loss_profile, so the map has no "
            "colours."
        )
    return np.arange(1, len(kept) + 1), kept, logits


def _number(path: Path) -> int:
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else -1


def _read_map(run: ExploredRun) -> None:
    """The first two dimensions of the map, where the run has one."""
    path = run.directory.map
    if not path.exists():
        return
    from safetensors.numpy import load_file

    with _readable(path):
        coordinates = load_file(path)["coordinates"]
        if coordinates.ndim != PLANE or not np.isfinite(coordinates).all():
            raise ValueError(f"coordinates of shape {coordinates.shape}, or not finite")
    if run.examples and len(coordinates) != run.examples:
        raise RunDirectoryError(
            f"{path} holds {len(coordinates):,} places, but the run has losses of {run.examples:,} training examples: "
            "they are not of one run"
        )
    run.n_components = coordinates.shape[1]
    run.coordinates = plane(coordinates)
    if run.n_components > PLANE:
        run.notes.append(f"The map has {run.n_components} dimensions, of which the first two are drawn.")
    elif run.n_components < PLANE:
        run.notes.append("The map has one dimension, which is drawn from left to right.")


def plane(coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first two dimensions, the second 0 where there is one only: (n, n_components) to (n, 2), float32."""
    missing = max(0, PLANE - coordinates.shape[1])
    found: NDArray[np.float32] = np.pad(coordinates[:, :PLANE], ((0, 0), (0, missing))).astype(np.float32)
    return found


def _read_synthetic(run: ExploredRun) -> None:
    """The synthetic examples of each finished round that were trained on, as many as the run knows."""
    known = run.examples or (len(run.coordinates) if run.coordinates is not None else 0)
    for number in run.directory.rounds_with_synthetic():
        if number > run.history[-1].round:  # of a round that was not finished
            continue
        path = run.directory.synthetic(number)
        with _readable(path):
            found = SyntheticSet.load(path)
            kept = np.flatnonzero(found.kept)
            found = found.take(kept)
            anchors = found.anchors
            if len(anchors) and (anchors.min() < 0 or (known and anchors.max() >= known)):
                raise ValueError("its anchors are not of this run")
        run.synthetic[number] = found
    last = max(run.synthetic, default=0)
    if run.config.refit == "every_round" and len(run.synthetic) > 1:
        run.notes.append(
            f"The map was fitted again in each round, and the run keeps that of round {last}: only its synthetic "
            "points are drawn."
        )
        for number, found in run.synthetic.items():
            if number != last:
                found.coordinates = None
    if run.config.schedule == "static" and run.synthetic:
        run.notes.append("The synthetic examples were made once and are the same in every later round.")


def _why_no_map(run: ExploredRun) -> str:
    if run.is_plain:
        return "Plain distillation makes no map; beside a run that has one it is shown on that."
    if not run.synthetic:
        return "No map yet: it is made in the first round with synthetic examples."
    return (
        f"This run has no map: neither sampler {run.config.sampler!r} nor lift {run.config.lift!r} needs one. Texts "
        "and synthetic examples stand in the table."
    )


def read_runs(paths: Sequence[str | Path], most: int, announce: Callable[[str], None]) -> list[ExploredRun]:
    """Read several run directories, each once.

    Raises
    ------
    RunDirectoryError
        When there are none, more than `most`, or one cannot be read.
    """
    unique = list({Path(path).expanduser().resolve(): path for path in paths}.values())
    if not unique:
        raise RunDirectoryError("no run directory is named: name one that `sage-kit run` made")
    if len(unique) > most:
        raise RunDirectoryError(f"{len(unique)} runs are more than a page compares: name at most {most}")
    runs = []
    for path in unique:
        announce(f"reading {path}")
        runs.append(read_run(path))
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = "/".join(run.directory.path.resolve().parts[-2:])
    return runs
