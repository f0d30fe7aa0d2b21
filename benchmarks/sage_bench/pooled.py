"""Pooled vectors of real text to measure with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sage_bench.distill import MINILM
from sage_bench.measure import Session
from sage_bench.real_texts import task_settings
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.scorecard.held_out import TaskVectors, load_vectors

Floats = NDArray[np.float32]


def real_vectors(session: Session, rows: int, *, bypass: str | int = "embeddings") -> tuple[str, TaskVectors]:
    """What the texts are called, and the pooled vectors of at most so many of them by MiniLM's input layers.

    Parameters
    ----------
    session : Session
    rows : int
        Most texts, those held out included.
    bypass : "embeddings" or int
        As in the setting of that name.

    Raises
    ------
    MissingPackageError
        When there is no text.
    """
    name, settings = task_settings(session, "sentences")
    config = load_config(
        {**settings, "teacher": MINILM, "bypass": bypass, "train_rows": rows, "data_dir": session.data_dir,
         "cache_dir": str(session.scratch / "cache")}
    )  # fmt: skip
    return name, load_vectors(config, Plugins())


def side_by_side(first: Floats, second: Floats) -> Floats:
    """Two vectors of each text as one of twice the width."""
    return np.concatenate([first, second], axis=1)
