"""The map, fitted by a process of its own while the student trains in the rounds before it is needed.

It fills the cache, in which the run then finds the map as it would find one of an earlier run. So the map is the same
to the bit, and where that process fails, the run fits the map itself and tells what is wrong. A thread would not do:
numba holds the interpreter while it fits, and reducers may seed torch's generator, which dropout draws from.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from sage_kit.components import ReducerSpec
from sage_kit.recipe import Recipe
from sage_kit.storage import tensorfile
from sage_kit.system.child import Child, ChildEnded
from sage_kit.training.prepared import Prepared

if TYPE_CHECKING:
    from sage_kit.synthesis.synthesizer import Synthesizer

VECTORS, LABELS = "pooled", "labels"
"""Names of the arrays that the process reads."""


def fits_ahead(device: torch.device) -> bool:
    """Whether the map is fitted while the student trains: a CPU is busy with the student."""
    return device.type == "cuda"


def may_fit_ahead(recipe: Recipe, prepared: Prepared, synthesizer: Synthesizer) -> bool:
    """Whether a process of its own can fit the map of a run, and the run cannot have it yet."""
    if not recipe.uses_map or recipe.config.schedule == "none" or recipe.config.refit != "never":
        return False
    spec = cast(ReducerSpec, recipe["reducer"].spec)
    is_stored = spec.has_state or not recipe.needs_inverse
    # the process maps the file
    in_a_file = isinstance(prepared.mapped.vectors, np.memmap)
    return is_stored and in_a_file and not spec.uses_gpu and not synthesizer.has_map


class MapAhead:
    """The process that fits the map.

    Parameters
    ----------
    recipe : Recipe
    prepared : Prepared
    synthesizer : Synthesizer
        Whose map it is.
    """

    def __init__(self, recipe: Recipe, prepared: Prepared, synthesizer: Synthesizer) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sage-kit-map-")
        self._child: Child | None = None
        vectors: Any = prepared.mapped.vectors
        message = {
            "settings": recipe.config.model_dump(mode="json"),
            "files": recipe.plugins.files,
            "allow": recipe.plugins.allow,
            "vectors": str(vectors.filename),
            "key": prepared.mapped.key,
            "cache": str(prepared.cache.directory),
            "device": str(prepared.device),
            "threads": torch.get_num_threads(),
            "labels": "",
        }
        labels = synthesizer.labels
        if labels is not None:
            path = Path(self._folder.name) / "labels.safetensors"
            tensorfile.write(path, {LABELS: np.ascontiguousarray(labels)})
            message["labels"] = str(path)
        with contextlib.suppress(OSError):  # no further process can be started: the run fits it
            self._child = Child([sys.executable, "-m", "sage_kit.training.map_worker"])
            self._child.send(message)

    def wait(self) -> float:
        """The seconds that fitting took, once it is done; 0 where the process failed. It is ended then."""
        try:
            return 0.0 if self._child is None else float(self._child.receive().get("seconds", 0.0))
        except ChildEnded:
            return 0.0
        finally:
            self.end()

    def end(self) -> None:
        """End the process, whatever it is at; further calls do nothing."""
        if self._child is not None:
            self._child.end()
            self._child = None
        self._folder.cleanup()
