"""The process behind `sage_kit.training.map_ahead`: fits a map into the cache, and says how long that took.

It reads one line of JSON, and answers ``{"event": "fitted", "seconds": ...}`` or
``{"event": "failed", "reason": ...}``.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TextIO

import torch

from sage_kit.components import BuildContext
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import one_line
from sage_kit.models.vectors import Pooled
from sage_kit.recipe import resolve
from sage_kit.storage import tensorfile
from sage_kit.storage.cache import Cache
from sage_kit.synthesis.maps import fit_map
from sage_kit.system.child import on_standard_streams
from sage_kit.training.map_ahead import LABELS, VECTORS


def fit(setup: dict[str, object]) -> float:
    """Fit the map that a message of `MapAhead` describes; returns the seconds that it took."""
    settings, files, allow = setup["settings"], setup["files"], setup["allow"]
    assert isinstance(settings, dict)
    assert isinstance(files, list)
    config = load_config(settings)
    recipe = resolve(config, Plugins(files, None if allow is None else str(allow)))
    # the last bits of a sum depend on it
    torch.set_num_threads(int(str(setup["threads"])))
    vectors = tensorfile.open_mapped(Path(str(setup["vectors"])))[VECTORS]
    labels = tensorfile.open_mapped(Path(str(setup["labels"])))[LABELS] if setup["labels"] else None
    cache = Cache(Path(str(setup["cache"])))
    context = BuildContext(
        config=config,
        seed=config.reducer_seed,
        device=str(setup["device"]),
        n_components=config.n_components,
        cached=cache.arrays,
    )
    started = time.perf_counter()
    fit_map(Pooled(vectors, str(setup["key"])), recipe["reducer"], cache, context, needs_reducer=False, labels=labels)
    return time.perf_counter() - started


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer the one request that there is."""
    try:
        answer: dict[str, object] = {"event": "fitted", "seconds": fit(json.loads(requests.readline()))}
    except Exception as error:  # the run meets it again, and tells it
        answer = {"event": "failed", "reason": f"{type(error).__name__}: {one_line(error)}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    on_standard_streams(serve)
