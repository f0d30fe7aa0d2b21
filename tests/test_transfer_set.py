"""Runs whose student learns from other texts than the teacher, with or without labels, and the evaluation set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from toyrun import go_back, toy_config, toy_run, toy_settings, without_times

from sage_kit import hookimpl
from sage_kit.builtin.samplers.high_loss import HighLossSampler
from sage_kit.components import ReducerSpec, SampleRequest
from sage_kit.components.plugins import Origin, Plugins
from sage_kit.config import load_config
from sage_kit.data.metrics import divergence
from sage_kit.distill import resume, run
from sage_kit.errors import CompatibilityError, RunDirectoryError
from sage_kit.reports.tables import evaluation_table
from sage_kit.rundir import RunDirectory
from sage_kit.studies.run_store import RunStore
from sage_kit.studies.runs import Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    transfer, evaluation = tiny.toy_task_rows(90, seed=11), tiny.toy_task_rows(70, seed=12)
    tiny.write_jsonl(folder / "transfer.jsonl", [{"text": row["text"]} for row in transfer])
    tiny.write_jsonl(folder / "evaluation.jsonl", [{"text": row["text"], "label": None} for row in evaluation])
    return folder


def unlabelled(folder: Path, **settings: Any) -> dict[str, Any]:
    files = {"transfer_file": "transfer.jsonl", "evaluation_file": "evaluation.jsonl"}
    return {**{name: str(folder / file) for name, file in files.items()}, **settings}


@pytest.fixture(scope="module")
def done(folder: Path, tiny_bert: Path) -> tuple[RunDirectory, dict[str, Any]]:
    return toy_run(folder, tiny_bert, **unlabelled(folder, transfer_rows=80, keep_checkpoints=0))


def test_texts_without_labels_are_learnt_from_and_compared_on(done) -> None:
    directory, summary = done
    assert summary["examples"] == {"train": 80, "dev": 30, "validation": 120, "teacher": 270, "evaluation": 70}
    assert set(summary["evaluation"]) == {"agreement", "divergence"}
    assert summary["teacher"]["evaluation"] == {}
    assert [result["synthetic"] for result in summary["rounds"]] == [0, 80, 80]
    saved = directory.predictions()["evaluation"]
    assert saved["labels"].tolist() == [-1] * 70
    alike = saved["teacher"].argmax(1) == saved["student"].argmax(1)
    assert summary["evaluation"]["agreement"] == alike.mean()
    assert summary["evaluation"]["divergence"] == pytest.approx(
        divergence(saved["teacher"], saved["student"]).mean(), rel=1e-6
    )
    counts = summary["labels"]["classes"]
    assert {name: set(count) for name, count in counts.items()} == {"0": {"teacher", "dev"}, "1": {"teacher", "dev"}}
    assert sum(count["teacher"] for count in counts.values()) == 270


def test_the_teacher_does_not_depend_on_the_transfer_set(done, folder: Path, tiny_bert: Path) -> None:
    directory, _ = done
    other, summary = toy_run(
        folder, tiny_bert, **unlabelled(folder, transfer_rows=80, transfer_seed=1, rounds=1, schedule="none")
    )
    before, after = directory.predictions(), other.predictions()
    for split in ("dev", "validation", "evaluation"):
        np.testing.assert_array_equal(before[split]["teacher"], after[split]["teacher"])
    assert not np.array_equal(before["dev"]["student"], after["dev"]["student"])
    assert summary["teacher"]["dev"] == done[1]["teacher"]["dev"]


def test_a_labelled_evaluation_set_is_scored_for_student_and_teacher(folder: Path, tiny_bert: Path) -> None:
    directory, summary = toy_run(
        folder, tiny_bert, evaluation_rows=60, transfer_pool=90, transfer_rows=50, dev_rows=30, rounds=1
    )
    saved = directory.predictions()["evaluation"]
    labels = saved["labels"]
    assert set(labels.tolist()) == {0, 1}
    assert summary["evaluation"]["accuracy"] == (saved["student"].argmax(1) == labels).mean()
    assert summary["teacher"]["evaluation"]["accuracy"] == (saved["teacher"].argmax(1) == labels).mean()
    assert {"f1", "agreement", "divergence", "calibration_error"} < set(summary["evaluation"])
    table = evaluation_table({"SAGE": summary})
    assert table is not None
    assert table.title == "evaluation set: 60 rows"
    assert [str(column.header) for column in table.columns] == [
        "model", "accuracy", "f1", "agreement with teacher", "divergence from teacher",
    ]  # fmt: skip


def test_a_run_without_an_evaluation_set_has_none(folder: Path, tiny_bert: Path) -> None:
    directory, summary = toy_run(folder, tiny_bert, rounds=1)
    assert summary["evaluation"] == {}
    assert "evaluation" not in directory.predictions()
    assert evaluation_table({"SAGE": summary}) is None


def test_a_run_that_was_killed_ends_with_the_same_evaluation(done, folder: Path, tiny_bert: Path) -> None:
    directory, summary = done
    predictions = directory.predictions()
    go_back(directory, 2)
    again = resume(RunDirectory.open(directory.path), Plugins(allow=""))
    assert without_times(again) == without_times(summary)
    np.testing.assert_array_equal(
        directory.predictions()["evaluation"]["student"], predictions["evaluation"]["student"]
    )


def test_a_resume_with_another_evaluation_set_is_refused(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.jsonl"
    rows = tiny.toy_task_rows(40, seed=13)
    tiny.write_jsonl(path, rows)
    directory, _ = toy_run(
        folder, tiny_bert, **unlabelled(folder, evaluation_file=str(path), rounds=2, keep_checkpoints=0)
    )
    go_back(directory, 1)
    tiny.write_jsonl(path, rows[:-1])
    with pytest.raises(RunDirectoryError, match="the data or the teacher has changed"):
        resume(RunDirectory.open(directory.path), Plugins(allow=""))


# ---- costs ----------------------------------------------------------------------------------------------------------


def test_fine_tuning_is_a_cost_of_the_run_that_does_it(folder: Path, tiny_bert: Path) -> None:
    settings = unlabelled(folder, rounds=1, schedule="none", cache_dir=str(folder / "costs"))
    seconds = []
    for _ in range(2):
        directory, summary = toy_run(folder, tiny_bert, **settings)
        costs = json.loads((directory.path / "costs.json").read_text(encoding="utf-8"))["seconds"]
        seconds.append(summary["teacher"]["seconds"])
        assert costs.get("fine-tune teacher", 0.0) == seconds[-1]
        assert summary["teacher"]["finetuned_here"]
    assert seconds[0] > 0
    assert seconds[1] == 0
    assert "fine-tune teacher" not in costs


# ---- what needs labels ----------------------------------------------------------------------------------------------


def test_a_weight_of_the_gold_label_is_refused_before_anything_is_computed(folder: Path, tiny_bert: Path) -> None:
    settings = unlabelled(folder, hard_label_weight=0.5, cache_dir=str(folder / "fresh"))
    with pytest.raises(CompatibilityError) as caught:
        toy_run(folder, tiny_bert, **settings)
    assert str(caught.value) == (
        "hard_label_weight is 0.5, but 90 of the 90 rows that the student learns from have no label: set it to 0, or "
        "give all labels"
    )
    assert not (folder / "fresh").exists()


class _Supervised:
    """A reducer that learns from labels."""

    def fit_transform(self, vectors: Any, labels: Any) -> Any:
        return np.array(vectors[:, :2])


class _SupervisedPlugin:
    @hookimpl
    def sage_reducers(self) -> Any:
        yield ReducerSpec(
            name="supervised", summary="", factory=lambda options, context: _Supervised(), needs_labels=True,
            has_transform=False,
        )  # fmt: skip


def test_a_reducer_that_learns_from_labels_is_refused_before_anything_is_computed(
    folder: Path, tiny_bert: Path
) -> None:
    plugins = Plugins(allow="")
    plugins._register(_SupervisedPlugin(), Origin("test", "test", "1"))
    settings = unlabelled(folder, reducer="supervised", cache_dir=str(folder / "fresh"))
    with pytest.raises(CompatibilityError) as caught:
        run(toy_config(folder, tiny_bert, **settings), plugins)
    assert str(caught.value) == (
        "reducer 'supervised' learns from labels, but 90 of the 90 rows that the student learns from have no label: "
        "take another reducer, or give all labels"
    )
    assert not (folder / "fresh").exists()


def test_samplers_get_no_labels_where_any_is_missing(
    folder: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    sample = HighLossSampler.sample

    def spy(self: HighLossSampler, request: SampleRequest) -> Any:
        seen.append(request.labels)
        return sample(self, request)

    monkeypatch.setattr(HighLossSampler, "sample", spy)
    toy_run(folder, tiny_bert, **unlabelled(folder, rounds=2))
    toy_run(folder, tiny_bert, transfer_rows=50, rounds=2)
    assert seen[0] is None
    assert set(seen[1].tolist()) == {0, 1}
    assert len(seen[1]) == 50


# ---- studies --------------------------------------------------------------------------------------------------------


def test_a_study_finds_runs_by_their_transfer_set_and_compares_on_the_evaluation_set(
    folder: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    store = RunStore(tmp_path, Plugins(allow=""))
    settings = unlabelled(folder, transfer_rows=60, schedule="none", rounds=1)
    config = toy_config(folder, tiny_bert, **settings)
    found = store.run("plain", config, announce=lambda text: None)
    row = found.row()
    assert np.isnan(row["evaluation"])
    assert row["evaluation_agreement"] == found.summary["evaluation"]["agreement"]
    assert row["evaluation_divergence"] == found.summary["evaluation"]["divergence"]
    assert (row["evaluation_examples"], row["train_examples"], row["teacher_examples"]) == (70, 60, 270)
    runs = Runs([found])
    assert runs.splits("file") == ["validation", "evaluation"]
    assert runs.labels("file", "evaluation").tolist() == [-1] * 70
    key = store.key(config)
    moved = {
        name: store.key(toy_config(folder, tiny_bert, **{**settings, **change}))
        for name, change in {
            "rows": {"transfer_rows": 61}, "seed": {"transfer_seed": 1}, "teacher": {"teacher_rows": 100},
            "dev": {"dev_rows": 20}, "evaluation": {"evaluation_file": "", "evaluation_rows": 10},
        }.items()
    }  # fmt: skip
    assert len({key, *moved.values()}) == 6


def test_the_key_is_that_of_the_texts_and_not_of_the_path(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    store = RunStore(tmp_path, Plugins(allow=""))
    settings = unlabelled(folder, schedule="none")
    key = store.key(toy_config(folder, tiny_bert, **settings))
    other = tmp_path / "moved.jsonl"
    other.write_bytes((folder / "transfer.jsonl").read_bytes())
    assert store.key(toy_config(folder, tiny_bert, **{**settings, "transfer_file": str(other)})) == key
    lines = other.read_text(encoding="utf-8").splitlines()
    other.write_text("\n".join([*lines[1:], json.dumps({"text": "quite another film"})]), encoding="utf-8")
    other_store = RunStore(tmp_path, Plugins(allow=""))
    assert other_store.key(toy_config(folder, tiny_bert, **{**settings, "transfer_file": str(other)})) != key


def test_relative_paths_of_these_files_are_recorded_as_absolute(
    folder: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    settings = toy_settings(
        folder, tiny_bert, transfer_file="transfer.jsonl", evaluation_file="evaluation.jsonl", rounds=1
    )
    directory, _ = run(load_config(settings), Plugins(allow=""))
    config = directory.config()
    assert config.transfer_file == str(folder / "transfer.jsonl")
    assert config.evaluation_file == str(folder / "evaluation.jsonl")
