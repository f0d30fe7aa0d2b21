"""The reducer goes through every check that sage-kit has for reducers."""

from __future__ import annotations

from typing import Any

import sage_kit_pacmap
from sage_kit.testing import parametrize_with_checks


@parametrize_with_checks(
    sage_kit_pacmap.sage_reducers(),
    options={"pacmap": {"n_iter_global": 20, "n_iter_middle": 20, "n_iter_local": 40}},
)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
