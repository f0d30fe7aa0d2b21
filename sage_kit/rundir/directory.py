"""A run's directory: made, opened, locked, and the files in it written and read."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.components.records import Costs, RoundResult
from sage_kit.config import RunConfig, field_extra, load_config, to_toml
from sage_kit.errors import ConfigError, RunDirectoryError, RunInUseError
from sage_kit.rundir.checkpoint import MANIFEST, Checkpoint, read_history
from sage_kit.storage.environment import environment
from sage_kit.storage.files import (
    atomic_directory,
    disk_errors,
    remove_temporaries,
    write_bytes,
    write_json,
    write_text,
)
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.manifest import fault

if TYPE_CHECKING:
    from filelock import BaseFileLock

CONFIG = "config.toml"
SUMMARY = "summary.json"
DISABLED = "disabled_observers.json"
PREDICTIONS = "predictions.safetensors"
PACKAGES = ("sage-kit", "torch", "transformers", "datasets", "accelerate", "scikit-learn", "scipy", "numpy")
KEPT = "kept"
"""Marks a checkpoint that is never removed."""
LOCK = ".lock"
OWNER = ".owner.json"
"""Which process holds the directory; it says so only while the lock is held."""


class RunDirectory:
    """One run's directory.

    Parameters
    ----------
    path : Path
        An existing run directory; use `create` for a new one and `open` for one that a user names.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BaseFileLock | None = None

    @classmethod
    def create(cls, config: RunConfig) -> RunDirectory:
        """Make the directory of a new run and write its settings.

        Raises
        ------
        RunDirectoryError
            When it holds something already or cannot be written.
        """
        path = Path(config.run_dir or config.runs_dir).expanduser()
        try:
            if config.run_dir:
                _take(path)
            else:
                stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
                path = _new(path / config.task, f"{stamp}-{settings_hash(config)}")
            with disk_errors(f"the run directory {path}"):
                write_text(path / CONFIG, to_toml(config))
        except OSError as error:
            raise RunDirectoryError(
                f"run directory {path} cannot be written ({error.strerror}): choose another with run_dir or runs_dir"
            ) from None
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """An existing run directory.

        Raises
        ------
        RunDirectoryError
            When there is no run.
        """
        directory = Path(path)
        if not (directory / CONFIG).is_file():
            what = "does not exist" if not directory.exists() else f"is not a run (it has no {CONFIG})"
            raise RunDirectoryError(f"{directory} {what}: name a directory that `sage-kit run` made")
        return cls(directory)

    def config(self) -> RunConfig:
        """The run's settings.

        Raises
        ------
        RunDirectoryError
            When config.toml cannot be read as settings of this version.
        """
        try:
            return load_config(file=self.path / CONFIG)
        except ConfigError as error:
            raise RunDirectoryError(f"run directory {self.path} has unusable settings: {error}") from None

    def lock(self) -> None:
        """Hold the directory for this process until it ends.

        Raises
        ------
        RunInUseError
            When another process holds it.
        RunDirectoryError
            When it cannot be written.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
            write_json(self.path / OWNER, {"process": os.getpid(), "host": platform.node()})
        except Timeout:
            raise RunInUseError(
                f"run directory {self.path} is in use by another process{self._owner()}: wait until that ends"
            ) from None
        except OSError as error:
            lock.release()
            raise RunDirectoryError(f"run directory {self.path} cannot be written ({error.strerror})") from None
        self._lock = lock

    def unlock(self) -> None:
        """Let go of the directory."""
        if self._lock is not None:
            (self.path / OWNER).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def _owner(self) -> str:
        """The process that holds the directory, in words; "" where it does not say."""
        try:
            owner = json.loads((self.path / OWNER).read_text(encoding="utf-8"))
            return f" ({int(owner['process'])} on {owner['host']})"
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def remove_if_unused(self) -> None:
        """Remove the directory of a run that failed before it saved anything, so that the user can try again.

        One that another process holds is left as it is.
        """
        if not self.path.is_dir() or self._checkpoint_paths():
            return
        if self._lock is None:
            try:
                self.lock()
            except RunDirectoryError:
                return
        # while it is held, so that nobody goes on with a run whose files are being removed
        names = (CONFIG, "environment.json", "costs.json", "costs.jsonl", "metrics.jsonl", "trackers.json", DISABLED)
        for name in names:
            (self.path / name).unlink(missing_ok=True)
        for name in ("tensorboard", "wandb"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        self.unlock()
        (self.path / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies in it: leave it
            self._checkpoints.rmdir()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    # ---- paths

    @property
    def student(self) -> Path:
        """Where the exported student lies."""
        return self.path / "student"

    @property
    def map(self) -> Path:
        """Coordinates of the real examples."""
        return self.path / "map.safetensors"

    def synthetic(self, round: int) -> Path:
        """A round's synthetic examples."""
        return self._rounds / f"{round:03d}" / "synthetic.safetensors"

    def rounds_with_synthetic(self) -> list[int]:
        """The rounds whose synthetic examples are on disk, in order."""
        rounds = [int(path.name) for path in _numbered(self._rounds)]
        return [round for round in rounds if self.synthetic(round).is_file()]

    # ---- records

    def write_environment(
        self,
        components: Mapping[str, str],
        options: Mapping[str, Mapping[str, Any]],
        plugin_files: list[str],
        device: str,
    ) -> None:
        """Write versions, machine, where each component came from, and its options with their defaults."""
        self._write_json(
            "environment.json",
            {
                **environment(*PACKAGES),
                "device": device,
                "components": dict(components),
                "options": {kind: dict(values) for kind, values in options.items()},
                "plugin_files": plugin_files,
                "command": sys.argv,
            },
        )

    def plugin_files(self) -> list[str]:
        """The one-file plugins that the run was started with."""
        try:
            return list(json.loads((self.path / "environment.json").read_text(encoding="utf-8"))["plugin_files"])
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def write_costs(self, costs: Costs) -> None:
        """Write costs.json."""
        self._write_json("costs.json", costs.to_json())

    def record_disabled_observer(self, name: str, cause: str) -> None:
        """Write down that an observer failed and is disabled, so that it is known whatever becomes of the run."""
        self._write_json(DISABLED, {**self.disabled_observers(), name: cause})

    def disabled_observers(self) -> dict[str, str]:
        """The observers that failed, before or after a resume, and why; in a finished run as its summary says."""
        summary = self.summary()
        if summary is not None:
            return dict(summary.get("disabled_observers") or {})
        try:
            return dict(json.loads((self.path / DISABLED).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def write_predictions(self, predictions: Mapping[str, Mapping[str, Any]]) -> None:
        """Write predictions.safetensors.

        Parameters
        ----------
        predictions : mapping of str to mapping of str to array
            By split: "student" and "teacher", logits of shape (n, n_outputs), and "labels" of shape (n,). Of labels
            that are neither classes nor numbers, logits of sequences or tokens, what aligns them, and what each row
            scores (`sage_kit.training.row_scores`).
        """
        from safetensors.numpy import save

        path = self.path / PREDICTIONS
        with disk_errors(str(path), f"free some space and go on with `sage-kit resume {self.path}`"):
            arrays = {f"{split}.{name}": array for split, of in predictions.items() for name, array in of.items()}
            write_bytes(path, save({name: array.copy() for name, array in arrays.items()}))

    def predictions(self) -> dict[str, dict[str, Any]]:
        """The last outputs by split, as `write_predictions` takes them.

        Raises
        ------
        RunDirectoryError
            When the run is not finished or the file is not readable.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        path = self.path / PREDICTIONS
        try:
            arrays = load(path.read_bytes())
        except FileNotFoundError:
            raise RunDirectoryError(
                f"{path} does not exist: finish the run with `sage-kit resume {self.path}`"
            ) from None
        except (OSError, SafetensorError) as error:
            raise RunDirectoryError(
                f"{path} is not readable ({error}): remove {SUMMARY} and `sage-kit resume`"
            ) from None
        found: dict[str, dict[str, Any]] = {}
        for key, array in arrays.items():
            split, _, name = key.rpartition(".")
            found.setdefault(split, {})[name] = array
        return found

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, which marks the run as finished; NaN becomes null."""
        self._write_json(SUMMARY, summary)

    def _write_json(self, name: str, data: Mapping[str, Any]) -> None:
        path = self.path / name
        with disk_errors(str(path), f"free some space and go on with `sage-kit resume {self.path}`"):
            write_json(path, data)

    def summary(self) -> dict[str, Any] | None:
        """The outcome, or None while the run is not finished.

        Raises
        ------
        RunDirectoryError
            When summary.json is not readable.
        """
        path = self.path / SUMMARY
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RunDirectoryError(f"{path} is not readable ({error}): remove it and `sage-kit resume`") from None

    # ---- checkpoints

    def save_checkpoint(self, checkpoint: Checkpoint, keep: int, *, for_good: bool = False) -> Path:
        """Write a checkpoint; only when it is complete are older ones beyond `keep` removed (0 keeps all).

        One that is kept `for_good` is never removed.

        Raises
        ------
        DiskFullError
            When the disk is full; older checkpoints stay as they were.
        """
        path = self._checkpoints / f"round-{checkpoint.round:03d}"
        advice = "free some space and start again"
        if self._checkpoint_paths():
            advice = f"earlier checkpoints are intact; free some space and go on with `sage-kit resume {self.path}`"
        with disk_errors(f"checkpoint {path}", advice), atomic_directory(path) as temporary:
            checkpoint.write(temporary)
        if for_good:
            self.keep_checkpoint(checkpoint.round)
        if keep:
            for old in self._checkpoint_paths()[:-keep]:
                if not (old / KEPT).exists():
                    shutil.rmtree(old, ignore_errors=True)
        return path

    def keep_checkpoint(self, round: int) -> None:
        """Keep the checkpoint of a round for good, if it is there."""
        folder = self._checkpoints / f"round-{round:03d}"
        if folder.is_dir():
            with disk_errors(str(folder)):
                (folder / KEPT).touch()

    def latest_checkpoint(self, announce: Callable[[str], None] = lambda text: None) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None; damaged ones are named and passed over."""
        for directory in (self.path, self._checkpoints, self._rounds):
            remove_temporaries(directory)
        for path in reversed(self._checkpoint_paths()):
            damage = fault(path, MANIFEST)
            if damage is not None:
                announce(f"checkpoint {path} is damaged ({damage}); going back to the one before")
                continue
            return Checkpoint.read(path)
        return None

    def history(self) -> list[RoundResult]:
        """The rounds done so far, from the summary or the newest whole checkpoint."""
        summary = self.summary()
        if summary is not None:
            return [RoundResult.from_json(item) for item in summary["rounds"]]
        for path in reversed(self._checkpoint_paths()):
            if fault(path, MANIFEST) is None:
                return read_history(path)
        return []

    @property
    def _rounds(self) -> Path:
        return self.path / "rounds"

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def _checkpoint_paths(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return _numbered(self._checkpoints)


def settings_hash(config: RunConfig) -> str:
    """Eight hexadecimal digits for the settings that shape the result (all but machine and output)."""
    names = {name for name in RunConfig.model_fields if field_extra(name)["group"] not in ("machine", "output")}
    # as in JSON: a table of options may hold a date
    return fingerprint(config.model_dump(mode="json", include=names))[:8]


def _numbered(directory: Path) -> list[Path]:
    """What lies in a directory under a round's number, by that number: round-1000 stands before round-999 by name."""
    found = [(re.fullmatch(r"(?:round-)?(\d+)", path.name), path) for path in directory.glob("*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def _take(path: Path) -> None:
    """Make the directory that the user named, unless there is something in it."""
    if (path / CONFIG).exists():
        raise RunDirectoryError(
            f"run directory {path} holds a run already: choose another, or go on with `sage-kit resume {path}`"
        )
    if path.is_dir() and any(path.iterdir()):
        raise RunDirectoryError(f"run directory {path} is not empty: choose another")
    path.mkdir(parents=True, exist_ok=True)


def _new(parent: Path, name: str) -> Path:
    """Make a directory of that name, or of the first one with a number behind it that does not exist."""
    parent.mkdir(parents=True, exist_ok=True)
    path, number = parent / name, 1
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            path = parent / f"{name}-{number}"
        else:
            return path
