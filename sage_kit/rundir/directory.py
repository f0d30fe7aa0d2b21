"""A run's directory: made, opened, locked, and the files in it written and read."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage_kit.components.records import Costs, RoundResult
from sage_kit.config import RunConfig, to_toml
from sage_kit.errors import DiskFullError, RunDirectoryError, RunInUseError
from sage_kit.rundir.checkpoint import MANIFEST, Checkpoint, read_history
from sage_kit.rundir.fields import CostFields, NameFields, OwnerFields, SummaryFields
from sage_kit.rundir.names import DISABLED, LOCK, OWNER, new_folder, numbered, require_empty
from sage_kit.rundir.run_record import (
    CONFIG,
    ENVIRONMENT,
    private_config,
    read_record,
    read_settings,
    run_record,
    settings_hash,
    trusted_plugins,
)
from sage_kit.storage.files import (
    atomic_directory,
    disk_errors,
    json_bytes,
    remove_temporaries,
    write_bytes,
    write_json,
    write_text,
)
from sage_kit.storage.manifest import fault, faults, write_manifest
from sage_kit.storage.privacy import revealed
from sage_kit.storage.reading import Record, read_arrays, read_json

if TYPE_CHECKING:
    import numpy as np
    from filelock import BaseFileLock
    from numpy.typing import NDArray

SUMMARY = "summary.json"
STUDENT = "student"
COSTS = "costs.json"
FINISHED = "manifest.json"
"""Size and checksum of the files of a finished run."""
PREDICTIONS = "predictions.safetensors"
COORDINATES = "coordinates"
"""What the map's file holds."""
CARD = "README.md"
"""In the student's folder, where people may change it."""
KEPT = "kept"
"""Marks a checkpoint that is never removed."""


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
    def create(
        cls,
        config: RunConfig,
        *,
        components: Mapping[str, str] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        plugin_files: Sequence[str] = (),
        device: str = "",
    ) -> RunDirectory:
        """Make the directory of a new run, hold it for this process, and write its settings and how it was begun.

        A directory becomes a run with config.toml, which is written last: one that a killed process left without it is
        none yet, and can be taken.

        Parameters
        ----------
        config, components, options, plugin_files, device
            What is recorded of how the run began (`sage_kit.rundir.run_record.run_record`).

        Raises
        ------
        RunDirectoryError
            When it holds something already, is held by another process or cannot be written.
        """
        path = Path(config.run_dir or config.runs_dir).expanduser()
        try:
            if config.run_dir:
                require_empty(path)
                path.mkdir(parents=True, exist_ok=True)
            else:
                stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
                path = new_folder(path / config.task, f"{stamp}-{settings_hash(config)}")
            directory = cls(path)
            directory.lock()
            try:
                require_empty(path)  # another process may have been faster
            except RunDirectoryError:
                directory.unlock()
                raise
            try:
                remove_temporaries(path)
                with disk_errors(f"the run directory {path}"):
                    record = run_record(config, components or {}, options or {}, plugin_files, device)
                    write_json(path / ENVIRONMENT, record)
                    write_text(path / CONFIG, to_toml(private_config(config)))
            except BaseException:
                directory.remove_if_unused()
                raise
        except OSError as error:
            raise RunDirectoryError(
                f"run directory {path} cannot be written ({error.strerror}): choose another with run_dir or runs_dir"
            ) from None
        return directory

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
            When config.toml cannot be read as settings of this version, or holds others than the run began with.
        """
        return read_settings(self.path)

    def lock(self) -> None:
        """Hold the directory for this process until it ends or `unlock` is called.

        Raises
        ------
        RunInUseError
            When another process holds it.
        RunDirectoryError
            When it cannot be written.
        """
        from filelock import FileLock, Timeout

        if self._lock is not None:
            return
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
            with disk_errors(f"the run directory {self.path}"):
                write_json(self.path / OWNER, {"process": os.getpid(), "host": platform.node()})
        except Timeout:
            raise RunInUseError(
                f"run directory {self.path} is in use by another process{self._owner()}: wait until that ends"
            ) from None
        except DiskFullError:
            lock.release()
            raise
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
            owner = read_json(self.path / OWNER, OwnerFields, RunDirectoryError, "")
            return f" ({owner['process']} on {owner['host']})"
        except RunDirectoryError:
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
        names = (CONFIG, ENVIRONMENT, COSTS, "costs.jsonl", "metrics.jsonl", "trackers.json", DISABLED)
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
        return self.path / STUDENT

    @property
    def is_finished(self) -> bool:
        """Whether there is a summary, readable or not."""
        return (self.path / SUMMARY).exists()

    @property
    def has_costs(self) -> bool:
        """Whether the run has written what it cost."""
        return (self.path / COSTS).exists()

    @property
    def map(self) -> Path:
        """Coordinates of the real examples."""
        return self.path / "map.safetensors"

    def coordinates(self) -> NDArray[np.float32]:
        """The coordinates of the real examples, of shape (n, n_components).

        Raises
        ------
        RunDirectoryError
            When there is no map, or its file is damaged.
        """
        arrays, _ = read_arrays(self.map, RunDirectoryError, self._remedy())
        found = arrays.get(COORDINATES)
        if found is None or found.ndim != 2 or found.dtype.kind != "f":
            raise RunDirectoryError(f"{self.map} holds no coordinates: {self._remedy()}")
        return found

    def synthetic(self, round: int) -> Path:
        """A round's synthetic examples."""
        return self._rounds / f"{round:03d}" / "synthetic.safetensors"

    def rounds_with_synthetic(self) -> list[int]:
        """The rounds whose synthetic examples are on disk, in order."""
        rounds = [int(path.name) for path in numbered(self._rounds) if path.name.isdecimal()]
        return [round for round in rounds if self.synthetic(round).is_file()]

    # ---- records

    def plugin_files(self) -> list[str]:
        """The one-file plugins that the run was started with. They are Python: load none without the user's consent.

        Raises
        ------
        RunDirectoryError
            When environment.json is not readable.
        """
        return [str(revealed(file)) for file in read_record(self.path).get("plugin_files", ())]

    def trusted_plugins(
        self, given: Sequence[str], *, trust: bool, announce: Callable[[str], None] = lambda text: None
    ) -> list[str]:
        """The one-file plugins to load: those that the user gives, and the run's own where the user trusts them.

        Raises
        ------
        TrustError
            Where the run names others, with their path and checksum.
        RunDirectoryError
            When environment.json is not readable.
        """
        record = read_record(self.path)
        return trusted_plugins(
            f"run {self.path}", record.get("plugin_files", ()), given, trust=trust,
            checksums=record.get("plugin_sha256", {}), announce=announce,
        )  # fmt: skip

    def environment(self) -> Record:
        """What environment.json holds; see `sage_kit.rundir.run_record`.

        Raises
        ------
        RunDirectoryError
            When it is not readable.
        """
        path = self.path / ENVIRONMENT
        if not path.exists():
            raise RunDirectoryError(f"{path} does not exist: name the directory of a whole run")
        return read_record(self.path)

    def write_costs(self, costs: Costs) -> None:
        """Write costs.json."""
        self._write_json(COSTS, costs.to_json())

    def costs(self, *, lenient: bool = False) -> Record:
        """What costs.json holds: seconds, tokens and FLOPs by activity.

        Raises
        ------
        RunDirectoryError
            When it is not there or not readable; with `lenient`, of a field that is not readable when it is taken.
        """
        return read_json(self.path / COSTS, CostFields, RunDirectoryError, self._remedy(), lenient=lenient)

    def record_disabled_observer(self, name: str, cause: str) -> None:
        """Write down that an observer failed and is disabled, so that it is known whatever becomes of the run."""
        self._write_json(DISABLED, {**self.disabled_observers(), name: cause})

    def disabled_observers(self) -> dict[str, str]:
        """The observers that failed, before or after a resume, and why; in a finished run as its summary says."""
        summary = self.summary(lenient=True)
        if summary is not None:
            return dict(summary.get("disabled_observers") or {})
        try:
            found = read_json(self.path / DISABLED, NameFields, RunDirectoryError, "")
        except RunDirectoryError:
            return {}
        return {name: str(cause) for name, cause in found.items()}

    def write_predictions(self, predictions: Mapping[str, Mapping[str, Any]]) -> None:
        """Write predictions.safetensors.

        Parameters
        ----------
        predictions : mapping of str to mapping of str to array
            By split: "student" and "teacher", logits of shape (n, n_outputs), and "labels" of shape (n,). Of labels
            that are neither classes nor numbers, logits of sequences or tokens, what aligns them, and what each row
            scores (`sage_kit.training.row_scores`).
        """
        from sage_kit.storage.tensorfile import dumps

        path = self.path / PREDICTIONS
        arrays = {f"{split}.{name}": array for split, of in predictions.items() for name, array in of.items()}
        with disk_errors(str(path), f"free some space and go on with `sage-kit resume {self.path}`"):
            write_bytes(path, dumps(arrays))

    def predictions(self) -> dict[str, dict[str, Any]]:
        """The last outputs by split, as `write_predictions` takes them.

        Raises
        ------
        RunDirectoryError
            When the run is not finished or the file is not readable.
        """
        path = self.path / PREDICTIONS
        if not path.exists():
            raise RunDirectoryError(f"{path} does not exist: finish the run with `sage-kit resume {self.path}`")
        arrays, _ = read_arrays(path, RunDirectoryError, self._remedy())
        found: dict[str, dict[str, Any]] = {}
        for key, array in arrays.items():
            split, _, name = key.rpartition(".")
            found.setdefault(split, {})[name] = array
        return found

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, which marks the run as finished; NaN becomes null. Before it a manifest of the run."""
        self._seal({SUMMARY: json_bytes(summary)})
        self._write_json(SUMMARY, summary)

    def seal(self) -> None:
        """Write the manifest of a finished run again, after a part of it was removed on purpose."""
        self._seal({})

    def _seal(self, coming: Mapping[str, bytes]) -> None:
        files = [self.path / name for name in (CONFIG, COSTS, PREDICTIONS, SUMMARY)] + [self.map]
        files += [path for path in self.student.rglob("*") if path.name != CARD]
        files += self.path.glob("rounds/*/synthetic.safetensors")
        with disk_errors(str(self.path / FINISHED), f"free some space and go on with `sage-kit resume {self.path}`"):
            write_manifest(self.path, FINISHED, {"run": self.path.name}, files=files, coming=coming)

    def damage(self) -> list[str]:
        """What is wrong with the files of a finished run, one line each; nothing for a run of an earlier version."""
        if not (self.path / FINISHED).exists() or not (self.path / SUMMARY).exists():
            return []
        return list(faults(self.path, FINISHED))

    def require_whole(self, part: str = "") -> None:
        """Raise RunDirectoryError where a file of a finished run is damaged, of those whose path begins with `part`."""
        found = [line for line in self.damage() if line.startswith(part)]
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise RunDirectoryError(f"run {self.path} is damaged: {found[0]}{more}: {self._remedy()}")

    def _remedy(self) -> str:
        """How what is damaged in a finished run is made again."""
        if not self._checkpoint_paths():
            return "restore the file, or start a new run"
        return f"restore the file, or remove {SUMMARY} and go on with `sage-kit resume {self.path}`"

    def _write_json(self, name: str, data: Mapping[str, Any]) -> None:
        path = self.path / name
        with disk_errors(str(path), f"free some space and go on with `sage-kit resume {self.path}`"):
            write_json(path, data)

    def summary(self, *, lenient: bool = False) -> Record | None:
        """The outcome, or None while the run is not finished.

        Raises
        ------
        RunDirectoryError
            When summary.json is not readable; with `lenient`, of a field that is not readable when it is taken.
        """
        path = self.path / SUMMARY
        if not path.exists():
            return None
        return read_json(path, SummaryFields, RunDirectoryError, self._remedy(), lenient=lenient)

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
        summary = self.summary(lenient=True)
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
        return numbered(self._checkpoints)
