"""What a result was made with: versions and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any


def environment(*packages: str) -> dict[str, Any]:
    """Versions of some packages and of Python, the platform, and the number of processors; JSON-ready."""
    return {
        "packages": {name: _version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
