"""A run directory of tiny texts, of any size, that no training made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tiny

from sage_bench import generated_run as whole


def generated_run(folder: Path, *, examples: int, seed: int = 0, **more: Any) -> Path:
    """Write a finished run of so many training examples, and its data, as `sage_bench.generated_run` does."""
    words = np.array(tiny.WORDS)
    drawn = np.random.default_rng(seed).integers(0, len(words), (examples + whole.DEV, 10))
    texts = [" ".join(row) for row in words[drawn]]
    return whole.generated_run(folder, texts, tiny.make_tokenizer(), seed=seed, **more)
