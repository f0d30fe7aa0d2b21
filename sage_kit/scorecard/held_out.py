"""The vectors that a scorecard looks at: those of train to learn from, and those of the dev split, held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.storage import tensorfile
from sage_kit.storage.files import atomic_directory, disk_errors, write_json
from sage_kit.storage.fingerprint import fingerprint
from sage_kit.storage.reading import json_loads
from sage_kit.system.devices import make_accelerator
from sage_kit.training.preparation import prepare_vectors

POINTS = 1000  # most held-out vectors, synthetic vectors and sampled real ones that figures are computed from
ARRAYS = "vectors.safetensors"
ABOUT = "vectors.json"


@dataclass(frozen=True, eq=False)
class TaskVectors:
    """Pooled vectors of a task.

    Attributes
    ----------
    task, teacher, bypass, pooling : str
        The settings that they depend on.
    input_layers : str
        Whose input layers computed them, as a phrase.
    train : array of shape (n, dim), float32
        Of the training split; a memory map. Reducers and inverters are fitted on these alone.
    held_out : array of shape (m, dim), float32
        Of the dev split, or of `points` rows of it.
    held_out_rows : array of shape (m,), int64
        Which rows of the dev split they are.
    train_key, key : str
        Fingerprints of what `train` alone, and everything here, was computed from.
    """

    task: str
    teacher: str
    bypass: str
    pooling: str
    input_layers: str
    train: NDArray[np.float32]
    held_out: NDArray[np.float32]
    held_out_rows: NDArray[np.int64]
    train_key: str
    key: str

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.train.shape[1])

    def about(self) -> dict[str, Any]:
        """Everything but the arrays, JSON-ready."""
        names = ("task", "teacher", "bypass", "pooling", "input_layers", "train_key", "key")
        return {name: getattr(self, name) for name in names}

    def save(self, out: Path) -> Path:
        """Write ``<out>/<task>-vectors-<key>/`` unless it is there, and return it.

        It holds ``vectors.safetensors`` (train, held_out, held_out_rows) and ``vectors.json``.

        Raises
        ------
        DiskFullError
            When the disk is full.
        """
        path = out / f"{self.task}-vectors-{self.key[:8]}"
        if path.is_dir():
            return path
        with disk_errors(str(path)), atomic_directory(path) as temporary:
            arrays: dict[str, NDArray[Any]] = {
                "train": self.train,
                "held_out": self.held_out,
                "held_out_rows": self.held_out_rows,
            }
            tensorfile.write(temporary / ARRAYS, arrays)
            write_json(temporary / ABOUT, self.about())
        return path

    @classmethod
    def load(cls, path: Path) -> TaskVectors:
        """Read what `save` wrote; `train` stays a memory map."""
        about = json_loads((path / ABOUT).read_bytes())
        arrays = tensorfile.open_mapped(path / ARRAYS)
        held_out, rows = np.array(arrays["held_out"]), np.array(arrays["held_out_rows"])
        return cls(train=arrays["train"], held_out=held_out, held_out_rows=rows, **about)


def load_vectors(config: RunConfig, plugins: Plugins, *, fine_tune: bool = False, points: int = POINTS) -> TaskVectors:
    """The vectors of the settings' task, computed or found in the cache.

    Parameters
    ----------
    config : RunConfig
        Task, teacher, bypass, pooling and machine count. The official validation splits are not looked at.
    plugins : Plugins
    fine_tune : bool
        Whether a teacher without a trained head is fine-tuned on the task first, as in a run. If not, its input layers
        are that of the checkpoint.
    points : int
        Most held-out vectors; of more, so many are drawn, by `split_seed`.

    Returns
    -------
    TaskVectors

    Raises
    ------
    SageError
        Of the kind that fits what is wrong with the data, the teacher or the directories.
    """
    prepared = prepare_vectors(config, plugins, make_accelerator(config), Costs(), fine_tune=fine_tune)
    dev = prepared.dev.pooled
    rows = np.arange(len(dev), dtype=np.int64)
    if len(rows) > points:
        rows = np.sort(np.random.default_rng([config.split_seed, points]).choice(rows, points, replace=False))
    return TaskVectors(
        task=config.task,
        teacher=config.teacher,
        bypass=str(config.bypass),
        pooling=config.pooling,
        input_layers=prepared.input_layers,
        train=prepared.train.pooled,
        held_out=np.array(dev[rows]),
        held_out_rows=rows,
        train_key=prepared.train.key,
        key=fingerprint("scorecard-vectors-1", prepared.train.key, prepared.dev.key, rows, prepared.input_layers),
    )
