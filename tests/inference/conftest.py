"""A finished run, whose student is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toyrun import toy_run

from sage_kit.rundir import RunDirectory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs of a test file lie."""
    return tmp_path_factory.mktemp("inference")


@pytest.fixture(scope="module")
def classes(folder: Path, tiny_bert: Path) -> tuple[RunDirectory, dict[str, Any], Path]:
    """A run on classes, its summary, and its validation file."""
    directory, summary = toy_run(folder, tiny_bert, rounds=1)
    return directory, summary, folder / "validation.jsonl"
