"""What the tests of built-in components share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sage_kit.components import BuildContext
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    """The built-ins alone."""
    return Plugins(allow="")


@pytest.fixture
def build(plugins: Plugins) -> Callable[..., Any]:
    """``build(kind, name, options, **context)`` builds a component as the core does."""

    def build(kind: str, name: str, options: dict[str, Any] | None = None, **context: Any) -> Any:
        context.setdefault("config", RunConfig())
        return plugins.build(kind, name, options or {}, BuildContext(**context))

    return build


@pytest.fixture
def vectors() -> NDArray[np.float32]:
    """300 vectors of 24 dimensions with a decaying spectrum and a mean that is not zero; not writable."""
    rng = np.random.default_rng(7)
    values = rng.standard_normal((300, 24)) * 0.8 ** np.arange(24) @ np.linalg.qr(rng.standard_normal((24, 24)))[0]
    array: NDArray[np.float32] = (values + rng.standard_normal(24)).astype(np.float32)
    array.flags.writeable = False
    return array
