"""The settings of a run: one flat name each, the same in TOML, on the command line and in a notebook's parameters."""

from __future__ import annotations

from sage_kit.config.data_settings import DATA_DIR_VARIABLE
from sage_kit.config.loading import load_config, to_toml
from sage_kit.config.paths import PATHS, PATHS_OR_NAMES, PLACES, default_settings, with_absolute_paths
from sage_kit.config.presets import PRESETS
from sage_kit.config.settings import CACHE_DIR_VARIABLE, GROUPS, RunConfig, field_extra
from sage_kit.config.validation import explain
from sage_kit.config.values import LARGEST_SEED, Table, toml_item
from sage_kit.storage.reading import toml_loads

__all__ = [
    "CACHE_DIR_VARIABLE",
    "DATA_DIR_VARIABLE",
    "GROUPS",
    "LARGEST_SEED",
    "PATHS",
    "PATHS_OR_NAMES",
    "PLACES",
    "PRESETS",
    "RunConfig",
    "Table",
    "default_settings",
    "explain",
    "field_extra",
    "load_config",
    "to_toml",
    "toml_item",
    "toml_loads",
    "with_absolute_paths",
]  # fmt: skip
