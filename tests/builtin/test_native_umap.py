"""Inverter `native` over the inverse that made its budget necessary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage_kit.components import BuildContext
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.errors import BudgetError

pytestmark = pytest.mark.plugins
pytest.importorskip("sage_kit_umap", reason="needs plugins/umap")


@pytest.fixture(scope="module")
def external() -> Plugins:
    return Plugins(allow="umap")


@pytest.fixture(scope="module")
def fitted(external: Plugins) -> Any:
    """Vectors, their map, and the reducer that made it."""
    vectors = np.random.default_rng(0).standard_normal((120, 10)).astype(np.float32)
    context = BuildContext(config=RunConfig(), n_components=2)
    reducer = external.build("reducer", "umap", {"n_neighbors": 8, "n_epochs": 30}, context)
    return vectors, reducer.fit_transform(vectors), reducer


def inverter(external: Plugins, fitted: Any, said: list[str], **options: Any) -> Any:
    vectors, coordinates, reducer = fitted
    context = BuildContext(config=RunConfig(), announce=said.append)
    return external.build("inverter", "native", options, context).fit(coordinates, vectors, reducer)


def test_the_time_is_announced_and_the_result_is_the_librarys(external: Plugins, fitted: Any) -> None:
    said: list[str] = []
    places = fitted[1][:40] + np.float32(0.05)
    result = inverter(external, fitted, said).invert(places, np.arange(40))
    assert result.shape == (40, 10)
    assert result.dtype == np.float32
    assert len(said) == 1
    assert said[0].startswith("native inverse of 40 points: about ")
    np.testing.assert_array_equal(result[19:], fitted[2].inverse_transform(places[19:]))


def test_a_budget_that_is_too_small_stops_the_run(external: Plugins, fitted: Any) -> None:
    said: list[str] = []
    with pytest.raises(BudgetError, match=r"native inverse of 100 points would take about .* inverter 'knn'"):
        inverter(external, fitted, said, budget_seconds=1e-3).invert(fitted[1][:100], np.arange(100))
    assert len(said) == 1
