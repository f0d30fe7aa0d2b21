"""Every component of the core goes through every check of its kind."""

from __future__ import annotations

from typing import Any

from sage_kit.components.plugins import Plugins
from sage_kit.testing import parametrize_with_checks

# All of them: a component that is added cannot be left out. The expected failures are strict.
SPECS = [item.spec for item in Plugins(allow="").components()]


# `hybrid` ends in a reducer of another distribution unless told otherwise
OPTIONS = {"hybrid": {"steps": [{"reducer": "pca", "n_components": 8}, {"reducer": "pca"}]}}


@parametrize_with_checks(SPECS, options=OPTIONS)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
