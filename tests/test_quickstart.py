"""SAGE and plain distillation at equal steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from toyrun import toy_config

from sage_kit.cli import main
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.distill import run
from sage_kit.quickstart import (
    PLAIN_SETTINGS,
    SETTINGS,
    SMOKE_NOTE,
    SMOKE_SETTINGS,
    compare_with_plain,
    quickstart_config,
)


def test_both_arms_share_teacher_and_steps(tmp_path: Path, tiny_bert: Path) -> None:
    arms = compare_with_plain(toy_config(tmp_path, tiny_bert), Plugins(allow=""))
    assert list(arms) == ["plain distillation", "SAGE"]
    (plain_directory, plain), (sage_directory, sage) = arms.values()
    assert plain["student_steps"] == sage["student_steps"]
    for score in ("name", "finetuned_here", "dev", "validation"):
        assert plain["teacher"][score] == sage["teacher"][score]
    assert plain_directory.path != sage_directory.path
    assert plain_directory.config().schedule == "none"
    assert plain["rounds"][0]["synthetic"] == plain["rounds"][-1]["synthetic"] == 0
    # the first round is the same for both: they differ in what comes after it
    assert plain["rounds"][0]["steps"] == sage["rounds"][0]["steps"]


def test_where_sage_stops_early_the_control_anneals_as_it_did(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[list[float]] = []
    step = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW, *arguments: Any, **named: Any) -> Any:
        rates[-1].append(self.param_groups[0]["lr"])
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    monkeypatch.setattr("sage_kit.quickstart.run", lambda *given: (rates.append([]), run(*given))[1])
    arms = compare_with_plain(toy_config(tmp_path, tiny_bert, stop_agreement=0.01), Plugins(allow=""))
    steps = arms["SAGE"][1]["student_steps"]
    assert steps < arms["SAGE"][1]["planned_steps"]
    sage, plain = (taken[-steps:] for taken in rates)  # before the student's the first run takes the teacher's
    assert plain == sage
    assert plain[-1] > 0.5 * max(plain)


def test_plain_distillation_takes_settings_of_its_own(tmp_path: Path, tiny_bert: Path) -> None:
    config = toy_config(tmp_path, tiny_bert, rounds=1, learning_rate=2e-3)
    arms = compare_with_plain(config, Plugins(allow=""), plain={"learning_rate": 1e-3})
    rates = {name: directory.config().learning_rate for name, (directory, _) in arms.items()}
    assert rates == {"SAGE": 2e-3, "plain distillation": 1e-3}


def test_settings_are_known_and_can_be_changed() -> None:
    assert set(PLAIN_SETTINGS) <= set(RunConfig.model_fields)
    assert set(SETTINGS) <= set(RunConfig.model_fields)
    assert quickstart_config({"rounds": 2}).rounds == 2
    assert quickstart_config({}).task == "movie_reviews"
    smoke = quickstart_config({"seed": 3}, smoke=True)
    assert {name: getattr(smoke, name) for name in SMOKE_SETTINGS} == SMOKE_SETTINGS
    assert smoke.seed == 3


def test_a_smoke_run_is_the_same_path_but_short() -> None:
    changed = {name for name in SMOKE_SETTINGS if SMOKE_SETTINGS[name] != SETTINGS.get(name)}
    rows = {"teacher_rows", "transfer_rows", "transfer_pool", "evaluation_rows", "dev_rows", "validation_rows"}
    assert changed == rows | {"teacher_epochs", "rounds", "stop_agreement"}
    assert sum(SMOKE_SETTINGS[name] for name in rows) < 800


def test_the_teacher_knows_more_than_the_student_is_shown() -> None:
    assert SETTINGS["teacher_rows"] >= 4 * SETTINGS["transfer_rows"]
    assert SETTINGS["evaluation_rows"] >= SETTINGS["transfer_rows"]


def test_a_smoke_run_has_synthetic_examples() -> None:
    assert SMOKE_SETTINGS["rounds"] >= 2  # the first round has nothing synthetic yet
    assert SMOKE_SETTINGS["stop_agreement"] > 1


@pytest.mark.parametrize("smoke", [False, True])
def test_the_command_says_whether_its_result_means_anything(
    smoke: bool, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []

    def toy_config_instead(overrides: Mapping[str, Any], *, smoke: bool = False) -> RunConfig:
        given.append((dict(overrides), smoke))
        return toy_config(tmp_path, tiny_bert, rounds=2, seed=overrides["seed"])

    # the real model and reviews are not everywhere; names are looked at before torch is imported, and not here
    monkeypatch.setattr("sage_kit.recipe.resolve", lambda *arguments: None)
    monkeypatch.setattr("sage_kit.quickstart.quickstart_config", toy_config_instead)
    with pytest.raises(SystemExit) as exit_info:
        main(["quickstart", "--seed", "5", "--runs-dir", "here", *(["--smoke"] if smoke else [])])
    assert exit_info.value.code == 0
    assert given == [({"runs_dir": "here", "seed": 5}, smoke)]
    out = capsys.readouterr().out
    assert " ".join(out.split()).count(SMOKE_NOTE) == (2 if smoke else 0)
    assert "plain distillation" in out
