"""Which settings are paths, and what does not depend on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sage_kit.config.settings import RunConfig
from sage_kit.config.values import usable
from sage_kit.errors import ConfigError
from sage_kit.storage.frozen import FrozenList

PATHS = ("data_dir", "train_file", "validation_file", "evaluation_file", "transfer_file", "cache_dir")
"""Settings that are paths."""

PATHS_OR_NAMES = ("teacher", "tokenizer", "student", "warmup_corpus")
"""Settings that are paths where there is something under them, and names of the hub's or a package's otherwise."""


PLACES = frozenset({"run_dir", "runs_dir", "cache_dir", "data_dir"})
"""Settings that say where things lie, and shape nothing."""


def default_settings() -> dict[str, Any]:
    """What settings are unless given, `PLACES` left out; ready for JSON."""
    return {name: value for name, value in RunConfig().model_dump(mode="json").items() if name not in PLACES}


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same settings with relative paths resolved from the current folder, so that they mean the same anywhere."""

    def absolute(value: str, is_path: bool = False) -> str:
        path = Path(value).expanduser()
        return str(path.absolute()) if value and (is_path or path.exists()) else value

    names = (*PATHS, *PATHS_OR_NAMES)
    changes: dict[str, Any] = {name: absolute(getattr(config, name), name in PATHS) for name in names}
    changes["other_teachers"] = FrozenList(absolute(name) for name in config.other_teachers)
    for name, value in changes.items():
        try:
            usable(value)
        except ValueError as error:  # of the current folder
            raise ConfigError(f"setting {name!r}: {error}") from None
    return config.model_copy(update=changes)
