"""Settings that a run would leave aside are told; a mistake in one of them is one."""

from __future__ import annotations

from typing import Any

import pytest

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.errors import ConfigError, UnknownComponentError
from sage_kit.recipe import resolve
from sage_kit.unused_settings import unused_settings


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins(allow="")


MAP_FREE = {"sampler": "random", "lift": "replace", "lift_options": {"source": "any", "temperature": "inf"}}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ""),
        (
            {"reducer": "pca", "n_components": 3},
            "not used by this run: reducer, n_components (sampler 'random' and lift 'replace' look at no map; "
            'lift_options source = "neighbors" takes tokens of neighbours in one)',
        ),
        ({"inverter": "knn"}, "not used by this run: inverter (sampler 'random'"),
        ({"reducer": "pca", "lift": "shift", "lift_options": {}}, ""),
        # the remedy is one
        ({"reducer": "pca", "n_components": 3, "lift_options": {"source": "neighbors"}}, ""),
        ({"reducer": "pca", "sampler": "smote"}, "not used by this run: reducer (sampler 'smote' works without a map)"),
        (
            {"vector_dtype": "float16"},
            "not used by this run: vector_dtype (token states that no block made are not stored)",
        ),
        ({"vector_dtype": "float16", "bypass": 1}, ""),
        (
            {"vector_dtype": "float16", "granularity": "pooled", "reducer": "pca", "lift": "shift", "lift_options": {}},
            "",
        ),
        (
            {"schedule": "none", "lift": "shift", "lift_options": {}},
            "not used by this run: sampler, lift, lift_options (schedule 'none' synthesises nothing)",
        ),
        (
            {"student_width_init": "prune"},
            "not used by this run: student_width_init (none of student_width, student_heads and student_ffn makes the "
            "student narrower)",
        ),
        ({"student_width_init": "prune", "student_width": 192}, ""),
        (
            {"inverter": "knn", "student_width_init": "prune", "student_width": 192, "student_init": "scratch"},
            "not used by this run: inverter (sampler 'random' and lift 'replace' look at no map; lift_options source = "
            "\"neighbors\" takes tokens of neighbours in one); student_width_init (student_init 'scratch' takes",
        ),
    ],
)
def test_what_is_not_used_is_told_with_the_reason(plugins: Plugins, settings: dict[str, Any], expected: str) -> None:
    config = load_config({**MAP_FREE, **settings})
    given = set(settings) | ({"sampler"} if settings.get("schedule") == "none" else set())
    told = unused_settings(resolve(config, plugins), given)
    assert told.startswith(expected) if expected else told == ""
    assert unused_settings(resolve(config, plugins), ()) == "", "what nobody gave is no one's mistake"


def test_a_mistake_in_what_is_not_used_is_told(plugins: Plugins) -> None:
    with pytest.raises(UnknownComponentError, match="Did you mean 'pca'"):
        unused_settings(resolve(load_config({**MAP_FREE, "reducer": "pcaa"}), plugins), {"reducer"})
    config = load_config({**MAP_FREE, "reducer": "pca", "reducer_options": {"whitten": True}})
    with pytest.raises(ConfigError, match="Did you mean 'whiten'"):
        unused_settings(resolve(config, plugins), {"reducer_options"})
    assert unused_settings(resolve(load_config({**MAP_FREE, "reducer": "pcaa"}), plugins), ()) == ""
