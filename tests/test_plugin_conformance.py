"""No component of a first-party plugin goes without its checks."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sage_kit.components.plugins import FIRST_PARTY, Plugins
from sage_kit.components.scaffold import distribution_name

FOLDERS = sorted(path.parent for path in (Path(__file__).parents[1] / "plugins").glob("*/pyproject.toml"))


def checked_names(file: Path) -> set[str]:
    """Names of the components in the parameters of a file of conformance tests."""
    spec = importlib.util.spec_from_file_location(f"conformance_of_{file.parents[1].name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    marks = [mark for function in vars(module).values() for mark in getattr(function, "pytestmark", [])]
    return {parameter.values[0].name for mark in marks if mark.name == "parametrize" for parameter in mark.args[1]}


@pytest.mark.plugins
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_component_of_a_plugin_has_a_conformance_run(folder: Path) -> None:
    items = [i for i in Plugins().components() if i.origin.distribution == distribution_name(folder.name)]
    assert items, f"plugins/{folder.name} is not installed or contributes nothing"
    assert checked_names(folder / "tests" / "test_conformance.py") == {item.spec.name for item in items}
    # so that whoever names one without having installed it is told how
    known = {FIRST_PARTY.get((item.spec.kind, item.spec.name)) for item in items}
    assert known == {folder.name}, (
        f"sage_kit/components/plugins.py: FIRST_PARTY lacks a component of plugins/{folder.name}"
    )
