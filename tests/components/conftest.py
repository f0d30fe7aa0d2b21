"""Plugins that a test installs or writes as one file."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from pluginsources import HEAD, Install, counter

from sage_kit.components.loader import ALLOW_VARIABLE


@pytest.fixture(autouse=True)
def no_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_VARIABLE, raising=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with one entry point on the path: a module and the dist-info that an installer would write."""

    def install_one(
        source: str, *, plugin: str = "acme", distribution: str = "acme-sage", version: str = "1.2", attribute: str = ""
    ) -> str:
        folder = tmp_path / f"site{next(counter)}"
        module = f"sage_kit_test_plugin_{next(counter)}"
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(HEAD + textwrap.dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[sage_kit]\n{plugin} = {module}{attribute and ':'}{attribute}\n")
        monkeypatch.syspath_prepend(str(folder))
        return module

    return install_one


@pytest.fixture
def plugin_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write a one-file plugin."""

    def write(source: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(HEAD + textwrap.dedent(source))
        return path

    return write
