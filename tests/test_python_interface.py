"""What `sage_kit` itself offers to Python: five names, imported when they are first asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import sage_kit
from sage_kit.storage.source_digest import module_targets, text_source


@pytest.mark.parametrize("name", sorted(sage_kit.PUBLIC))
def test_a_public_name_is_that_of_its_module(name: str) -> None:
    assert name in sage_kit.__all__
    assert getattr(sage_kit, name) is getattr(importlib.import_module(sage_kit.PUBLIC[name]), name)


def test_another_name_is_told_as_usual() -> None:
    with pytest.raises(AttributeError, match="module 'sage_kit' has no attribute 'distil'"):
        _ = sage_kit.distil


def test_the_package_itself_brings_nothing_heavy() -> None:
    program = "import sys, sage_kit; from sage_kit import Plugins, load_config; print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"


def test_what_imports_a_public_name_depends_on_its_module() -> None:
    targets = set(module_targets(text_source("from sage_kit import Study, hookimpl, run")))
    assert targets == {"sage_kit", "sage_kit.distill", "sage_kit.studies.study"}
