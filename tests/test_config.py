from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from sage_kit import config as config_module
from sage_kit.components import Options
from sage_kit.config import (
    CACHE_DIR_VARIABLE,
    DATA_DIR_VARIABLE,
    GROUPS,
    PRESETS,
    RunConfig,
    explain,
    field_extra,
    load_config,
    to_toml,
    toml_loads,
)
from sage_kit.errors import ConfigError
from sage_kit.storage.frozen import freeze


def message(overrides: dict[str, Any] | None = None, **arguments: Any) -> str:
    """The one line that bad settings give."""
    with pytest.raises(ConfigError) as caught:
        load_config(overrides, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- fields


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


# ---- values, also as the text of a flag


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("bypass", "embeddings", "embeddings"),
        ("bypass", "3", 3),
        ("bypass", 2, 2),
        ("rounds", "7", 7),
        ("learning_rate", "3e-4", 3e-4),
        ("compile", "true", True),
        ("student_init", "last", "last"),
        ("student_init", "0,2,4,6,8,10", [0, 2, 4, 6, 8, 10]),
        ("student_init", "[0, 1, 2, 3, 4, 5]", [0, 1, 2, 3, 4, 5]),
        ("hidden_layers", "mapped", "mapped"),
        ("observers", "jsonl, progress", ["jsonl", "progress"]),
        ("observers", "", []),
        ("label_names", ["no", "yes"], ["no", "yes"]),
        ("label_names", "no, yes", ["no", "yes"]),
        ("label_names", '["pos", "pos ", "a, b", "caf\\u00e9"]', ["pos", "pos ", "a, b", "caf\xe9"]),
        ("label_names", [-1, 0, 1.5, True], ["-1", "0", "1.5", "true"]),
        ("label_names", "-1,0,1", ["-1", "0", "1"]),
        ("delimiter", ";", ";"),
        ("delimiter", "tab", "\t"),
        ("delimiter", "\\t", "\t"),
        ("quote", "", ""),
        ("reducer_options", "", {}),
        ("reducer_options", "{}", {}),
        ("reducer_options", {"n_neighbors": 5}, {"n_neighbors": 5}),
        ("reducer_options", {"a": (1, 2), "b": {"c": True}}, {"a": [1, 2], "b": {"c": True}}),
        ("reducer_options", "n_neighbors=5, metric=cosine", {"n_neighbors": 5, "metric": "cosine"}),
        ("reducer_options", 'a="x, y", b=[1, 2], c={d = 1}', {"a": "x, y", "b": [1, 2], "c": {"d": 1}}),
        ("reducer_options", "a.b=1, a.c=two words", {"a": {"b": 1, "c": "two words"}}),
        ("reducer_options", "a=C:\\data, b=", {"a": "C:\\data", "b": ""}),
        ("observer_options", "jsonl={flush = true}", {"jsonl": {"flush": True}}),
    ],
)
def test_values(name: str, given: Any, expected: Any) -> None:
    value = getattr(load_config({name: given}), name)
    assert value == expected
    assert type(value) is type(freeze(expected))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"bypass": "foo"}, "setting 'bypass' is 'foo': input should be 'embeddings' or a valid integer"),
        ({"bypass": "--5"}, "setting 'bypass' is '--5': input should be 'embeddings' or a valid integer"),
        (
            {"label_names": '["a", "b"'},
            """setting 'label_names' is '["a", "b"': a list is written like ["one", "two"]""",
        ),
        ({"label_names": ["a", ""]}, "setting 'label_names', item 2, is '': String should have at least 1 character"),
        ({"delimiter": ";;"}, "setting 'delimiter' is ';;': expected one character, 'tab', or nothing"),
        ({"delimiter": '"'}, "delimiter and quote are both '\"': set one of them to another character"),
        ({"missing_labels": "keep"}, "setting 'missing_labels' is 'keep': input should be 'refuse' or 'drop'"),
        ({"bypass": 0}, "setting 'bypass' is 0: input should be 'embeddings' or greater than or equal to 1"),
        ({"schedule": "adaptve"}, "setting 'schedule' is 'adaptve': input should be 'adaptive', 'static' or 'none'"),
        (
            {"student_init": "foo"},
            "setting 'student_init' is 'foo': input should be 'uniform', 'spread', 'last' or 'scratch' or a valid list",
        ),
        (
            {"student_init": [1, "x"]},
            "setting 'student_init', item 2, is 'x': input should be a valid integer, unable to parse string as an "
            "integer",
        ),
        ({"student_init": [-1]}, "setting 'student_init', item 1, is -1: input should be greater than or equal to 0"),
        ({"observers": [1]}, "setting 'observers', item 1, is 1: input should be a valid string"),
        ({"rounds": 0}, "setting 'rounds' is 0: input should be greater than or equal to 1"),
        ({"rounds": True}, "setting 'rounds' is True: true and false do not belong here"),
        ({"bypass": True}, "setting 'bypass' is True: true and false do not belong here"),
        ({"learning_rate": float("inf")}, "setting 'learning_rate' is inf: input should be a finite number"),
        ({"temperature": float("nan")}, "setting 'temperature' is nan: input should be a finite number"),
        ({"seed": 2**32}, "setting 'seed' is 4294967296: input should be less than or equal to 4294967295"),
        ({"task": 3}, "setting 'task' is 3: input should be a valid string"),
        ({"reducer_options": 3}, "setting 'reducer_options' is 3: input should be a valid dictionary"),
        ({"reducer_options": "k"}, "setting 'reducer_options' is 'k': expected name=value pairs separated by commas"),
        (
            {"reducer_options": "a=[1"},
            "setting 'reducer_options' is 'a=[1': 'a=[1' is not a name=value pair; put text in quotes",
        ),
        (
            {"reducer_options": {"a": {"b": None}}},
            "setting 'reducer_options' is {'a': {'b': None}}: 'a.b' is None, which is neither text, number, boolean, "
            "list nor table",
        ),
        ({"lift_options": {1: 2}}, "setting 'lift_options' is {1: 2}: the name 1 is not text"),
    ],
)
def test_bad_value_gives_one_message(overrides: dict[str, Any], expected: str) -> None:
    assert message(overrides) == expected


def test_long_values_are_shortened() -> None:
    assert len(message({"schedule": "x" * 1000})) < 200


def test_unknown_setting_gives_the_closest_name_and_no_long_list() -> None:
    assert message({"rouns": 3}) == (
        "Unknown setting 'rouns'. Did you mean 'rounds'? `sage-kit config` lists all settings."
    )


def test_all_mistakes_are_told_at_once() -> None:
    text = message({"rouns": 3, "bypass": "foo", "rounds": 0})
    assert text.count("; ") == 2
    assert all(word in text for word in ("'rouns'", "'bypass'", "'rounds' is 0"))


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


# ---- presets and files


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset: str) -> None:
    config = load_config(preset=preset)
    assert {name: getattr(config, name) for name in PRESETS[preset]} == PRESETS[preset]


def test_later_ones_win(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('preset = "paper"\nrounds = 4\nseed = 1\n')
    config = load_config({"seed": 2}, file=file)
    assert (config.inverter, config.rounds, config.seed) == (PRESETS["paper"]["inverter"], 4, 2)
    assert PRESETS["paper"]["inverter"] != load_config(preset="default", file=file).inverter


def test_options_of_a_preset_leave_with_the_component_that_they_belong_to(tmp_path: Path) -> None:
    assert load_config(preset="paper").sampler_options == {"fraction": 0.3}
    assert load_config({"sampler": "high_loss"}, preset="paper").sampler_options == {"fraction": 0.3}
    assert load_config({"sampler_options": {"k": 5}}, preset="paper").sampler_options == {"k": 5}
    assert load_config({"sampler": "random"}, preset="paper").sampler_options == {}
    assert load_config({"sampler": "random", "sampler_options": {"k": 5}}, preset="paper").sampler_options == {"k": 5}
    file = tmp_path / "run.toml"
    file.write_text('preset = "paper"\nsampler = "random"\n')
    assert load_config(file=file).sampler_options == {}


def test_the_default_lift_is_one_that_the_granularity_has_tokens_for() -> None:
    assert load_config().lift == "replace"
    assert load_config({"granularity": "pooled"}).lift == "shift"
    assert load_config({"granularity": "pooled", "lift": "pooled"}).lift == "pooled"
    assert RunConfig(granularity="pooled").lift == "shift"


def test_unknown_preset(tmp_path: Path) -> None:
    assert message(preset="papr") == "Unknown preset 'papr'. Did you mean 'paper'? Available: default, paper."
    file = tmp_path / "run.toml"
    file.write_text('preset = "papr"\n')
    assert message(file=file).startswith(f"Unknown preset 'papr' in {file}.")
    file.write_text("preset = 3\n")
    assert message(file=file).startswith(f"Unknown preset 3 in {file}.")


def test_mistake_in_a_file_names_the_file_and_one_elsewhere_does_not(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("rounds = 0\nrouns = 1\n")
    text = message({"bypass": "foo"}, file=file)
    assert f"setting 'rounds' in {file} is 0:" in text
    assert f"Unknown setting 'rouns' in {file}. Did you mean" in text
    assert "setting 'bypass' is 'foo':" in text
    assert message({"rounds": -1, "rouns": 1}, file=file).count(str(file)) == 0


def test_contradiction_in_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("warmup_epochs = 1\n")
    assert message(file=file).endswith(f"(in {file})")


def test_missing_and_malformed_files(tmp_path: Path) -> None:
    assert message(file=tmp_path / "no.toml") == f"configuration file {tmp_path / 'no.toml'}: No such file or directory"
    assert "Is a directory" in message(file=tmp_path)
    file = tmp_path / "bad.toml"
    file.write_text("rounds = \n")
    assert message(file=file).startswith(f"configuration file {file} is not valid TOML: Invalid value (at line 1")
    file.write_bytes(b"\xff\xfe")
    assert "is not valid TOML" in message(file=file)


# ---- writing


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("comments", [True, False])
def test_toml_loads_back_identically(tmp_path: Path, preset: str, comments: bool) -> None:
    config = load_config(
        {
            "student_init": [0, 2, 4],
            "student_layers": 3,
            "bypass": 2,
            "label_names": ["no", 'a "quoted", one'],
            "reducer_options": {"metric": "cosine", "table": {"deep": {"x": [1, {"y": 2.5}]}}, "odd name": "a\nb\\"},
            "learning_rate": 1e-7,
            "data_dir": "C:\\Daten",
        },
        preset=preset,
    )
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config, comments=comments), encoding="utf-8")
    assert load_config(file=file) == config
    assert list(toml_loads(file.read_text())) == sorted(
        RunConfig.model_fields, key=lambda name: GROUPS.index(field_extra(name)["group"])
    )


def test_comments_hold_help_and_unit() -> None:
    text = to_toml(load_config())
    assert "# Longest text; longer ones are cut. [tokens]\nmax_length = 128\n" in text
    assert "# ---- losses\n" in text
    assert "#" not in to_toml(load_config(), comments=False)


def test_component_choice() -> None:
    config = load_config({"reducer": "pca", "reducer_options": {"whiten": True}})
    assert config.component_choice("reducer") == ("pca", {"whiten": True})
    assert config.component_choice("stop_rule") == ("agreement", {})


def test_component_kinds_have_their_settings() -> None:
    from sage_kit.recipe import CHOSEN_KINDS

    for kind in CHOSEN_KINDS:
        assert {kind, f"{kind}_options"} <= set(RunConfig.model_fields)


# ---- explain, for options of any component


class Inner(Options):
    depth: int = 1


class Example(Options):
    k: int = Field(default=3, ge=1)
    metric: Literal["cosine", "euclidean"] = "cosine"
    limit: int | None = None
    size: int | Literal["auto"] | None = None
    inner: Inner = Inner()
    shares: dict[str, float] = Field(default_factory=dict)
    needed: str


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"k": 0}, "option 'k' is 0: input should be greater than or equal to 1"),
        (
            {"kk": 1},
            "Unknown option 'kk'. Did you mean 'k'? Available: inner, k, limit, metric, needed, shares, size.",
        ),
        (
            {"limit": "x"},
            "option 'limit' is 'x': input should be a valid integer, unable to parse string as an integer",
        ),
        ({"size": "x"}, "option 'size' is 'x': input should be a valid integer or 'auto'"),
        ({"inner": {"depth": "x"}}, "option 'inner', 'depth', is 'x': input should be a valid integer, unable to "),
        ({"shares": {"a": "x"}}, "option 'shares', 'a', is 'x': input should be a valid number, unable to "),
        ({"needed": None}, "option 'needed' is None: input should be a valid string"),
    ],
)
def test_explain(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate({"needed": "", **values})
    assert explain(caught.value, Example, "option").startswith(expected)


def test_explain_missing_option() -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate({})
    assert explain(caught.value, Example, "option") == "option 'needed' is required"


def test_config_exports_what_it_documents() -> None:
    assert config_module.DATA_DIR_VARIABLE in (RunConfig.model_fields["data_dir"].description or "")
    assert config_module.CACHE_DIR_VARIABLE in (RunConfig.model_fields["cache_dir"].description or "")
