"""Studies on tasks whose labels are neither classes nor numbers: compared by what each row of the data scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import toyspans
import toytags
from toyrun import ALL_ROWS, toy_run, toy_settings

from sage_kit.errors import CompatibilityError, ConfigError, StudyError
from sage_kit.studies import Arm, Study
from sage_kit.studies.analyses.outcomes import add_outcomes, find_ahead
from sage_kit.studies.analyses.scores import other_split_gains, taught, teacher_over_constant, validation_scores
from sage_kit.studies.predictions import recomputed
from sage_kit.studies.result import StudyResult, read_tables
from sage_kit.studies.verification import verify_folder

pytest.importorskip("pandas")

ARMS = [Arm("plain", schedule="none"), Arm("sage", "synthesis each round")]


def pairs(folder: Path) -> dict[str, Any]:
    """Settings of a task of embeddings: pairs of texts with a number each."""
    rows = tiny.toy_task_rows(160, seed=1)
    made = [
        {"text": a["text"], "other": b["text"], "label": float(a["label"] == b["label"])}
        for a, b in zip(rows[::2], rows[1::2], strict=True)
    ]
    tiny.write_jsonl(folder / "pairs.jsonl", made[:60])
    tiny.write_jsonl(folder / "pairs_validation.jsonl", made[60:])
    return {
        "task_kind": "embeddings", "text_pair_column": "other", "train_file": str(folder / "pairs.jsonl"),
        "validation_file": str(folder / "pairs_validation.jsonl"),
    }  # fmt: skip


KINDS = {
    "tags": lambda folder: toytags.settings(folder, "tags"),
    "label_sets": lambda folder: toytags.settings(folder, "label_sets", teacher_epochs=20),
    "spans": toyspans.settings,
    "embeddings": pairs,
}


def study_of(folder: Path, teacher: Path, kind: str, **changes: Any) -> Study:
    settings = {**toy_settings(folder, teacher, rounds=2, observers=["jsonl"]), **ALL_ROWS, **KINDS[kind](folder)}
    del settings["task"], settings["runs_dir"]
    arguments = {"profile": "small", "task": "file", "seeds": 2, "structured": True, **settings, **changes}
    return Study(
        "08_x", title="X", question="Is it?", runs_dir=str(folder / "studies"), results_dir=str(folder / "results"),
        **arguments,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_arms_are_compared(tmp_path: Path, tiny_bert: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences are those of the runs' own scores, and they come out again from what is saved."""
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    study = study_of(tmp_path, tiny_bert, kind)
    runs = study.run(ARMS)
    add_outcomes(study, "over_plain", runs, "plain", split="validation")
    by_arm = {arm: [run.summary for run in runs.of(arm=arm)] for arm in ("plain", "sage")}
    metric = runs.of()[0].metric

    def mean(arm: str, name: str) -> float:
        return float(np.mean([summary["validation"]["validation"][name] for summary in by_arm[arm]]))

    for table, name in (("over_plain", metric), ("over_plain_agreement", "agreement")):
        (row,) = study.tables[table].to_dict("records")
        assert row["difference"] == pytest.approx(mean("sage", name) - mean("plain", name), abs=1e-6)
        assert row["baseline_mean"] == pytest.approx(mean("plain", name), abs=1e-6)
        if not (kind == "embeddings" and name == metric):  # of whose metric no row knows what it contributes
            assert row["low"] <= row["difference"] <= row["high"]
    (row,) = study.tables["over_plain_divergence"].to_dict("records")
    apart = {arm: np.array([run.divergence("validation") for run in runs.of(arm=arm)]) for arm in by_arm}
    assert row["difference"] == pytest.approx(np.log(apart["sage"]).mean() - np.log(apart["plain"]).mean(), abs=1e-6)
    assert all(run.divergence() > 0 for run in runs)

    scores = validation_scores(runs).set_index(["arm", "metric"])
    teacher = runs.of()[0].summary["teacher"]["validation"]["validation"]
    assert scores.loc[("teacher", metric), "mean"] == pytest.approx(teacher[metric])
    assert scores.loc[("plain", metric), "mean"] == pytest.approx(mean("plain", metric), abs=1e-6)
    lead = teacher_over_constant(study, runs)
    assert lead["teacher"].item() == pytest.approx(teacher[metric], abs=1e-6)
    if kind != "embeddings":  # of which the tiny teacher knows nothing
        assert lead["constant"].item() < lead["teacher"].item()
    assert taught(runs, lead).tasks in (["file"], [])
    assert not len(other_split_gains(runs, "sage", "plain"))

    find_ahead(study, "gain", "over_plain", "sage", what="SAGE", other="plain distillation")
    study.finish()
    folder = next((tmp_path / "results" / "08_x").iterdir())
    result = StudyResult.load(folder)
    again = recomputed(result, read_tables(result))
    assert set(again) == {"gain", "gain_agreement", "gain_divergence"}
    for finding in result.findings:
        for name, number in (("value", finding.value), ("low", finding.low), ("high", finding.high)):
            assert again[finding.name][name] == pytest.approx(number, nan_ok=True, abs=1e-12)
    checks = verify_folder(folder)
    assert [check.state for check in checks] == ["equal", "equal"], [check.note for check in checks]


def test_runs_are_found_again_and_tuned_by_their_divergence(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    study = study_of(tmp_path, tiny_bert, "tags", seeds=1, rates=[1e-4, 2e-3], tuning_seeds=1)
    tuned = study.tune(ARMS)
    tries = study.tables["tuning"]
    assert set(tries["arm"]) == {"plain", "sage"}
    best = tries.loc[tries.groupby("arm")["dev_divergence"].idxmin()].set_index("arm")["learning_rate"]
    assert {arm.name: arm.by_task["file"]["learning_rate"] for arm in tuned} == best.to_dict()
    capsys.readouterr()
    study_of(tmp_path, tiny_bert, "tags", seeds=1, rates=[1e-4, 2e-3], tuning_seeds=1).tune(ARMS)
    assert "(found)" in capsys.readouterr().out


def test_the_tables_of_a_run(tmp_path: Path, tiny_bert: Path) -> None:
    """Beside the outputs of tokens: a row for each row of the data, windows and pairs counted once."""
    directory, summary = toy_run(tmp_path, tiny_bert, **toyspans.settings(tmp_path, rounds=1, teacher_epochs=1))
    saved = directory.predictions()["validation"]
    rows = summary["examples"]["validation"]
    names = ["agreement", "divergence", *summary["metrics"]]
    for whose in ("student", "teacher", "constant"):
        assert saved[f"{whose}_rows"].shape == (rows, len(names))
    assert len(saved["row_of"]) > rows
    told = summary["validation"]["validation"]
    for name, column in zip(names, saved["student_rows"].T, strict=True):
        if name != "divergence":
            assert column.mean() == pytest.approx(told[name], abs=1e-6)
    assert (saved["teacher_rows"][:, 0] == 1).all()
    assert (saved["teacher_rows"][:, 1] == 0).all()


def test_other_studies_refuse_such_tasks(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    with pytest.raises(CompatibilityError, match="this study looks at classes and numbers, and task 'file' has tags"):
        study_of(tmp_path, tiny_bert, "tags", structured=False).run(ARMS)


def test_a_metric_that_the_task_is_not_scored_by(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    study = study_of(tmp_path, tiny_bert, "tags", seeds=1)
    runs = study.run(ARMS)
    with pytest.raises(ConfigError, match=r"tag_acuracy.*Did you mean 'tag_accuracy'"):
        study.compare(runs, "plain", metric="tag_acuracy")
    with pytest.raises(StudyError, match="task 'file' is not scored by 'accuracy'"):
        study.compare(runs, "plain", metric="accuracy")
