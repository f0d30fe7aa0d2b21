"""Which settings are paths, and what does not depend on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sage_kit.config.settings import RunConfig

PATHS = ("data_dir", "train_file", "validation_file", "evaluation_file", "transfer_file", "cache_dir")
"""Settings that are paths."""

PATHS_OR_NAMES = ("teacher", "tokenizer", "warmup_corpus")
"""Settings that are paths where there is something under them, and names of the hub's or a package's otherwise."""


PLACES = frozenset({"run_dir", "runs_dir", "cache_dir", "data_dir"})
"""Settings that say where things lie, and shape nothing."""


def default_settings() -> dict[str, Any]:
    """What settings are unless given, `PLACES` left out; ready for JSON."""
    return {name: value for name, value in RunConfig().model_dump(mode="json").items() if name not in PLACES}


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same settings with relative paths resolved from the current folder, so that they mean the same anywhere."""
    changes = {}
    for name in (*PATHS, *PATHS_OR_NAMES):
        value = getattr(config, name)
        path = Path(value).expanduser()
        if value and (name in PATHS or path.exists()):
            changes[name] = str(path.absolute())
    return config.model_copy(update=changes)
