"""A search of toy runs that takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from toyrun import toy_settings

from sage_kit.config import load_config, to_toml

NEED_OPTUNA = ("test_pruning.py", "test_search_command.py", "test_search_result.py", "test_search_trials.py")

collect_ignore = [] if find_spec("optuna") else list(NEED_OPTUNA)


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the data and the caches of all searches are."""
    return tmp_path_factory.mktemp("search")


@pytest.fixture
def config_file(folder: Path, tiny_bert: Path, tmp_path: Path) -> Callable[..., str]:
    """Write the settings of a toy run, some changed, into a file; a run takes twenty steps."""

    def write(**overrides: Any) -> str:
        settings = {"rounds": 2, "max_steps": 20, "train_rows": 200, **overrides}
        path = tmp_path / "toy.toml"
        path.write_text(to_toml(load_config({**toy_settings(folder, tiny_bert), **settings})))
        return str(path)

    return write
