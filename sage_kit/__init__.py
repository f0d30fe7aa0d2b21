"""sage_kit: an experiment toolkit for SAGE knowledge distillation (arXiv 2508.14783).

>>> from sage_kit import Plugins, load_config, run
>>> config = load_config({"task": "sst2", "rounds": 3}, preset="default")  # doctest: +SKIP
>>> directory, summary = run(config, Plugins())  # doctest: +SKIP

`run`, `resume`, `explore`, `load_config`, `load_student`, `write_model_card`, `Plugins` and `Study` are imported when
they are first asked for: this package itself is light and brings pluggy and nothing heavier. A plugin needs `hookimpl`
from here and the specs of :mod:`sage_kit.components`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from sage_kit.components.plugins import Plugins
    from sage_kit.config import load_config
    from sage_kit.distill import resume, run
    from sage_kit.explorer.notebook_widget import explore
    from sage_kit.inference.model_card import write_model_card
    from sage_kit.inference.predictor import load_student
    from sage_kit.studies.study import Study

__version__ = "0.1.0"

PROJECT = "sage_kit"

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's function or method as the implementation of a hook of the same name."""

PUBLIC: Mapping[str, str] = {
    "Plugins": "sage_kit.components.plugins",
    "Study": "sage_kit.studies.study",
    "explore": "sage_kit.explorer.notebook_widget",
    "load_config": "sage_kit.config",
    "load_student": "sage_kit.inference.predictor",
    "resume": "sage_kit.distill",
    "run": "sage_kit.distill",
    "write_model_card": "sage_kit.inference.model_card",
}
"""The modules that the names of the Python interface come from."""

__all__ = [
    "PROJECT",
    "Plugins",
    "Study",
    "__version__",
    "explore",
    "hookimpl",
    "load_config",
    "load_student",
    "resume",
    "run",
    "write_model_card",
]


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(importlib.import_module(PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
