"""The reducer goes through every check that sage-kit has for reducers."""

from __future__ import annotations

from typing import Any

import sage_kit_umap
from sage_kit.testing import parametrize_with_checks


@parametrize_with_checks(
    sage_kit_umap.sage_reducers(),
    {"reducer_batch_invariance": "umap-learn places the new vectors of a batch together, by random moves"},
    options={"umap": {"n_neighbors": 8, "n_epochs": 50}},
)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
