"""sage_kit: an experiment toolkit for SAGE knowledge distillation (arXiv 2508.14783).

Importing this package is light: it brings pluggy and nothing heavier. A plugin needs `hookimpl` from here and the
spec classes from :mod:`sage_kit.components`.
"""

import pluggy

__version__ = "0.1.0"

PROJECT = "sage_kit"

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's function or method as the implementation of a hook of the same name."""

__all__ = ["PROJECT", "__version__", "hookimpl"]
