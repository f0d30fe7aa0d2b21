from __future__ import annotations

from pathlib import Path

import pytest
from badsettings import message

from sage_kit.config import (
    GROUPS,
    PRESETS,
    RunConfig,
    field_extra,
    load_config,
    to_toml,
    toml_loads,
)

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
