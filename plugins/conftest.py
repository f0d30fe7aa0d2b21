"""Every test of a plugin distribution carries the marker `plugins`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests below this folder before those without the marker are left out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("plugins")
