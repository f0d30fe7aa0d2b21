"""The controls: each a run that goes through, and parts that are left out only where the default has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toyrun import ALL_ROWS, toy_settings

from sage_kit.config import PRESETS
from sage_kit.errors import StudyError
from sage_kit.recipe import resolve
from sage_kit.studies import Study
from sage_kit.studies.analyses import controls
from sage_kit.studies.analyses.controls import (
    CONTROLS,
    CORPUS,
    control,
    more_rows,
    paper_settings,
    parts_left_out,
    warmup_text,
)


def make_study(folder: Path, teacher: Path, **changes: Any) -> Study:
    settings = toy_settings(folder, teacher, rounds=2)
    for name in ("task", "runs_dir", "observers", "sampler_options"):
        del settings[name]
    arguments = {"profile": "small", **settings, **ALL_ROWS, **changes}
    return Study(
        "16_x", title="X", question="?", task="file", seeds=1, runs_dir=str(folder / "runs"),
        results_dir=str(folder / "results"), **arguments,
    )  # fmt: skip


@pytest.fixture
def study(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.delenv("SAGE_KIT_DATA_DIR", raising=False)
    return make_study(tmp_path, tiny_bert, transfer_rows=40, transfer_pool=100)


def test_every_control_is_a_run_that_goes_through(study: Study) -> None:
    for name in CONTROLS:
        resolve(study.config("file", **control(name).settings), study.plugins)
    runs = study.run([control(name) for name in CONTROLS])
    assert runs.table()["student_steps"].nunique() == 1
    with pytest.raises(StudyError, match=r"there is no control 'mixp'. Did you mean 'mixup'"):
        control("mixp")


def test_controls_of_synthesis_look_at_no_map(study: Study) -> None:
    for name in ("random tokens", "text augmentation", "mixup"):
        assert "reducer" not in resolve(study.config("file", **control(name).settings), study.plugins)


def test_more_rows_go_as_far_as_the_pool(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    two, four = more_rows(study, 2), more_rows(study, 4)
    assert two.on("file") == {"schedule": "none", "transfer_rows": 80}
    assert four.on("file")["transfer_rows"] == 100
    assert "file: its pool holds 2.5 times the transfer rows only, not 4" in capsys.readouterr().out
    (run,) = study.run([two])
    assert len(study.store.data(run.config).train) == 80
    assert run.summary["student_steps"] == study.steps("file")  # of the usual transfer set


def test_more_rows_need_a_draw(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(StudyError, match="task 'file' draws no transfer set: set transfer_rows"):
        more_rows(make_study(tmp_path, tiny_bert), 2)


def test_parts_are_left_out_one_at_a_time(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(controls.PRESETS, "default", {})  # type: ignore[index]
    arms = {arm.name: arm.settings for arm in parts_left_out(study)}
    assert list(arms) == ["SAGE without the map", "SAGE without guidance", "SAGE without losses"]
    usual = resolve(study.config("file"), study.plugins).options["lift"]
    assert arms["SAGE without the map"]["lift_options"] == {**usual, "temperature": "inf", "source": "any"}
    assert arms["SAGE without guidance"]["lift_options"] == {**usual, "temperature": "inf"}
    assert arms["SAGE without losses"]["sampler"] == "random"
    kinds = {name: resolve(study.config("file", **settings), study.plugins) for name, settings in arms.items()}
    assert "reducer" not in kinds["SAGE without the map"]
    assert "reducer" in kinds["SAGE without guidance"]


def test_what_the_default_does_not_have_is_told(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free = {"lift": "replace", "lift_options": {"source": "any", "temperature": "inf"}, "sampler": "random"}
    monkeypatch.setitem(controls.PRESETS, "default", free)  # type: ignore[index]
    assert parts_left_out(study) == []
    told = capsys.readouterr().out
    assert told.count("the same as an arm that is there, so it has none of its own") == 3


def test_the_paper_warms_up_on_the_text_at_hand(
    tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cold = paper_settings(make_study(tmp_path, tiny_bert))
    assert "warmup_corpus" not in cold
    assert "SAGE paper: no warm-up, since no text for it is at hand" in capsys.readouterr().out
    corpus = tmp_path / CORPUS
    corpus.parent.mkdir()
    corpus.write_bytes(b"")
    study = make_study(tmp_path, tiny_bert, data_dir=str(tmp_path))
    warm = paper_settings(study)
    assert (warm["warmup_corpus"], warm["warmup_epochs"], warm["warmup_rows"]) == (CORPUS, 1, 4000)
    assert {name: warm[name] for name in ("mix", "lift", "refit")} == {
        name: PRESETS["paper"][name] for name in ("mix", "lift", "refit")
    }
    assert warmup_text(study) == CORPUS
    assert warmup_text(study, "mine.txt") == "mine.txt"


def test_a_warm_up_without_text_is_refused_and_smoke_has_its_own(study: Study, tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(StudyError, match="no text for the warm-up: name one with warmup_corpus, or put corpus/train"):
        warmup_text(study)
    smoke = make_study(tmp_path, tiny_bert, profile="smoke")
    texts = Path(warmup_text(smoke)).read_text(encoding="utf-8").splitlines()
    assert len(texts) == len(smoke.store.data(smoke.config("file")).teacher)
