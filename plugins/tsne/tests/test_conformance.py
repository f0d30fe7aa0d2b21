"""The reducer goes through every check that sage-kit has for reducers."""

from __future__ import annotations

from typing import Any

import sage_kit_tsne
from sage_kit.testing import parametrize_with_checks


@parametrize_with_checks(
    sage_kit_tsne.sage_reducers(),
    options={"tsne": {"perplexity": 8, "early_exaggeration_iter": 60, "n_iter": 100, "transform_iter": 50}},
)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
