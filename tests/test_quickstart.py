"""SAGE and plain distillation at equal steps."""

from __future__ import annotations

from pathlib import Path

from toyrun import toy_config

from sage_kit.config import RunConfig
from sage_kit.plugins import Plugins
from sage_kit.quickstart import SETTINGS, compare_with_plain, quickstart_config


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


def test_settings_are_known_and_can_be_changed() -> None:
    assert set(SETTINGS) <= set(RunConfig.model_fields)
    assert quickstart_config({"rounds": 2}).rounds == 2
    assert quickstart_config({}).task == "movie_reviews"
