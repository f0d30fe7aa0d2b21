from __future__ import annotations

import json
from typing import Any

import pytest
from badsettings import message
from pydantic import ValidationError

from sage_kit.config import (
    CACHE_DIR_VARIABLE,
    DATA_DIR_VARIABLE,
    GROUPS,
    RunConfig,
    field_extra,
    load_config,
)


@pytest.mark.parametrize("name", RunConfig.model_fields)
def test_every_setting_has_help_a_group_and_a_unit_in_the_comment(name: str) -> None:
    field, extra = RunConfig.model_fields[name], field_extra(name)
    assert field.description
    assert field.description.endswith(".")
    assert extra["group"] in GROUPS
    assert set(extra) == {"group", "unit", "shown_default"}


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config().rounds = 3  # type: ignore[misc]


def test_json_schema_describes_every_setting() -> None:
    schema = json.loads(json.dumps(RunConfig.model_json_schema()))
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["rounds"]["minimum"] == 1
    assert schema["properties"]["rounds"]["unit"] == "rounds"


def test_folders_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_DIR_VARIABLE, "/data")
    monkeypatch.setenv(CACHE_DIR_VARIABLE, "/cache")
    assert (load_config().data_dir, load_config().cache_dir) == ("/data", "/cache")
    monkeypatch.delenv(DATA_DIR_VARIABLE)
    monkeypatch.delenv(CACHE_DIR_VARIABLE)
    assert load_config().data_dir == ""
    assert load_config().cache_dir.endswith("sage_kit")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"mix": "replace", "synthetic_ratio": 1.5}, "synthetic_ratio is 1.5, but with mix='replace'"),
        ({"warmup_epochs": 1}, "warmup_epochs is set, but warmup_corpus names no text"),
        ({"student_init": [0, 1]}, "student_init lists 2 blocks, but student_layers is 6"),
        ({"hidden_layers": [1]}, "hidden_layers lists 1 blocks, but student_layers is 6"),
        ({"granularity": "pooled", "hidden_layers": "mapped"}, "needs granularity='token'"),
        (
            {"granularity": "pooled", "relation_weight": 0.5},
            "relation_weight is 0.5, but one pooled vector relates to itself alone: set it to 0, or granularity to",
        ),
    ],
)
def test_settings_that_do_not_go_together(overrides: dict[str, Any], words: str) -> None:
    assert words in message(overrides)


def test_component_choice() -> None:
    config = load_config({"reducer": "pca", "reducer_options": {"whiten": True}})
    assert config.component_choice("reducer") == ("pca", {"whiten": True})
    assert config.component_choice("stop_rule") == ("agreement", {})


def test_component_kinds_have_their_settings() -> None:
    from sage_kit.recipe import CHOSEN_KINDS

    for kind in CHOSEN_KINDS:
        assert {kind, f"{kind}_options"} <= set(RunConfig.model_fields)


def test_config_exports_what_it_documents() -> None:
    assert DATA_DIR_VARIABLE in (RunConfig.model_fields["data_dir"].description or "")
    assert CACHE_DIR_VARIABLE in (RunConfig.model_fields["cache_dir"].description or "")
