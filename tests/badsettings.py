"""What bad settings say."""

from __future__ import annotations

from typing import Any

import pytest

from sage_kit.config import load_config
from sage_kit.errors import ConfigError


def message(overrides: dict[str, Any] | None = None, **arguments: Any) -> str:
    """The one line that bad settings give."""
    with pytest.raises(ConfigError) as caught:
        load_config(overrides, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)
