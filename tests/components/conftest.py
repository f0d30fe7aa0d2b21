"""Whatever SAGE_KIT_PLUGINS is outside, it is not set in these tests."""

from __future__ import annotations

import pytest

from sage_kit.components.loader import ALLOW_VARIABLE


@pytest.fixture(autouse=True)
def no_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW_VARIABLE, raising=False)
