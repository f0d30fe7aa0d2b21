"""Every component of the core goes through every check of its kind."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from sage_kit.components.plugins import Plugins
from sage_kit.testing import parametrize_with_checks

# All of them: a component that is added cannot be left out. The expected failures are strict.
SPECS = [item.spec for item in Plugins(allow="").components()]


# `hybrid` ends in a reducer of another distribution unless told otherwise
OPTIONS = {
    "hybrid": {"steps": [{"reducer": "pca", "n_components": 8}, {"reducer": "pca"}]},
    # real runs train them for as long as they are set to: test_components_run.py
    **{name: {"epochs": 20} for name in ("autoencoder", "vae", "decoder")},
}


@pytest.fixture(scope="module", autouse=True)
def each_module_is_discovered_once() -> Iterator[None]:
    """In a process of its own, whose answer holds for all components of the module: none changes while tests run."""
    # not above: checks run in the order in which their modules were imported
    from sage_kit.testing.checks import discovery

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discovery, "discovered", functools.cache(discovery.discovered))
        yield


@parametrize_with_checks(SPECS, options=OPTIONS)
def test_conformance(spec: Any, check: Any) -> None:
    check(spec)
