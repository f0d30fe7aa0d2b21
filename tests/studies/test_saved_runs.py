"""Runs that a result keeps: found again without being made, with the same numbers, by a study over more tasks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from toyrun import ALL_ROWS, toy_settings
from toyspans import settings as span_settings

from sage_kit import distill
from sage_kit.errors import StudyError
from sage_kit.studies import Arm, Study
from sage_kit.studies.analyses.loss_regions import profiles
from sage_kit.studies.predictions import recomputed
from sage_kit.studies.result import read_tables

pandas = pytest.importorskip("pandas")

PLAIN, WARM = Arm("plain", schedule="none"), Arm("warm", schedule="none", temperature=3.0)


TASKS = """
import json
from pathlib import Path
from sage_kit import hookimpl
from sage_kit.components import TaskSpec

def load(config):
    half = config.task == "second"
    found = {{}}
    for split in ("train", "validation"):
        text = (Path({folder!r}) / f"{{split}}.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()][half::2]
        found[split] = {{name: [row[name] for row in rows] for name in ("text", "label")}}
    return found

@hookimpl
def sage_tasks():
    for name in ("first", "second"):
        yield TaskSpec(name=name, summary="", text_columns=("text",), labels=("0", "1"), loader=load)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved")


@pytest.fixture
def study(place: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """A study with a folder for runs of its own, whose results lie together."""
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.chdir(tmp_path)

    def make(runs: str, **changes: Any) -> Study:
        settings = toy_settings(place, tiny_bert, rounds=1, student_layers=1)
        del settings["task"], settings["runs_dir"], settings["observers"]  # those of every study
        return Study(
            "20_toy", title="X", question="Is it?", profile="small", runs_dir=str(tmp_path / runs),
            results_dir=str(tmp_path / "results"),
            **{**settings, **ALL_ROWS, "task": "file", "seeds": 2, "dev_fraction": 0.3, **changes},
        )  # fmt: skip

    return make


def finish(study: Study, *arms: Arm) -> Any:
    runs = study.run(arms or [PLAIN, WARM])
    study.add_table("comparison", study.compare(runs, "plain", metric="divergence"))
    row = {"task": study.overall, "arm": "warm"}
    study.find("gain", "Is it ahead?", table="comparison", row=row, yes="Ahead", no="Behind")
    study.finish()
    return runs


def forbid_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: Any) -> None:
        raise AssertionError("a run was made")

    monkeypatch.setattr(distill, "run", run)


def test_what_a_result_holds_is_not_made_again(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = study("one")
    made = finish(first)
    records = [run.record(first.plugins) for run in made]
    forbid_runs(monkeypatch)
    shutil.rmtree(tmp_path / "one")
    capsys.readouterr()
    again = study("two")
    assert again.store.has(again.config("file", schedule="none", max_steps=again.steps("file")))
    found = finish(again)
    assert capsys.readouterr().out.count("(found in 20_toy small-file-") == 4
    pandas.testing.assert_frame_equal(found.table(), made.table())
    for one, other in zip(found, made, strict=True):
        assert one.costs == other.costs
    assert [run.record(again.plugins) for run in found] == records
    before, after = first.result, again.result
    assert after.findings == before.findings
    assert recomputed(after, read_tables(after))["gain"]["value"] == after.findings[0].value
    assert load_file(after.folder / "predictions.safetensors").keys() == {
        *(f"{name}/file/{split}" for name in ("labels", "teacher") for split in ("dev", "validation")),
        *(f"student/file/{split}/{run.directory.path.name}" for split in ("dev", "validation") for run in found),
    }


def test_results_on_one_task_each_become_one_over_both(
    study: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "two_tasks.py"
    plugin.write_text(TASKS.format(folder=str(place)), encoding="utf-8")
    for task in ("first", "second"):
        finish(study(f"of_{task}", task=task, plugin=str(plugin)))
    forbid_runs(monkeypatch)
    both = study("both", task="first,second", plugin=str(plugin))
    finish(both)
    table = both.tables["comparison"]
    assert table["task"].tolist() == ["first", "second", "average"]
    for task in ("first", "second"):
        (folder,) = (tmp_path / "results" / "20_toy").glob(f"small-{task}-*")
        (alone,) = pandas.read_parquet(folder / "comparison.parquet").to_dict("records")
        assert table[table["task"] == task]["difference"].tolist() == [alone["difference"]] != [0]
    assert table["difference"].iloc[2] == pytest.approx(table["difference"].iloc[:2].mean())


def test_tries_of_the_tuning_are_kept_too(study: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = [1e-3, 3e-3]
    first = study("one", seeds=1, rates=rates)
    finish(first, *first.tune([PLAIN, WARM]))
    assert len(first.result.tries) == 2 * 2 * first.size.tuning_seeds
    forbid_runs(monkeypatch)
    again = study("two", seeds=1, rates=rates)
    finish(again, *again.tune([PLAIN, WARM]))
    assert again.result.tries == first.result.tries


def test_a_teacher_of_its_own_is_kept_with_the_run(
    study: Any, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Arm("warm", schedule="none", bypass=2, teacher_epochs=2)
    made = finish(study("one", seeds=1), PLAIN, other)
    forbid_runs(monkeypatch)
    found = finish(study("two", seeds=1), PLAIN, other)
    outputs = [[run.predictions["dev"]["teacher"] for run in runs] for runs in (made, found)]
    assert not np.array_equal(*outputs[0])
    for one, again in zip(*outputs, strict=True):
        assert np.allclose(one, again, rtol=1e-3)


def test_answers_are_kept_by_row(study: Any, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = span_settings(tmp_path)
    settings |= {"rounds": 1, "seeds": 1, "structured": True}
    made = finish(study("one", **settings))
    forbid_runs(monkeypatch)
    found = finish(study("two", **settings))
    for one, other in zip(found, made, strict=True):
        for split, outputs in other.predictions.items():
            assert one.predictions[split].keys() == outputs.keys() == {"student", "teacher", "constant", "labels"}
            for name, array in outputs.items():
                assert np.array_equal(one.predictions[split][name], array, equal_nan=name != "labels")


WRITES = """
from sage_kit import hookimpl
from sage_kit.components import ObserverSpec

class Diary:
    @hookimpl
    def sage_run_finished(self, run):
        (run.directory / "diary.txt").write_text("done", encoding="utf-8")

@hookimpl
def sage_observers():
    yield ObserverSpec(name="diary", summary="Writes a file", factory=lambda options, context: Diary())
"""


def test_what_a_result_does_not_keep_is_made(study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "diary.py").write_text(WRITES, encoding="utf-8")
    plugin = str(tmp_path / "diary.py")
    finish(study("one", seeds=1, plugin=plugin, observers=["jsonl", "diary"]))
    finish(study("two", seeds=1))
    capsys.readouterr()
    study("three", seeds=1, plugin=plugin, observers=["jsonl", "diary"]).run([PLAIN])
    study("four", seeds=1).run([PLAIN], keep=["student"])
    study("five", seeds=1, learning_rate=3e-3).run([PLAIN])
    assert "(found" not in capsys.readouterr().out


def test_a_run_of_a_result_has_no_loss_profiles(study: Any) -> None:
    finish(study("one", seeds=1))
    (found,), (kept,) = study("two", seeds=1).run([PLAIN]), study("three", seeds=1).run([PLAIN], keep=["synthetic"])
    assert found.found
    with pytest.raises(StudyError, match=r"arm 'plain' cannot be read: run it with keep=\['synthetic'\]"):
        profiles(found)
    assert profiles(kept)


@pytest.mark.parametrize("damage", ["run_records.parquet", "predictions.safetensors", "result.json"])
def test_a_damaged_result_holds_no_runs(study: Any, damage: str) -> None:
    first = study("one", seeds=1)
    finish(first)
    (first.result.folder / damage).write_bytes(b"none")
    (run,) = study("two", seeds=1).run([PLAIN])
    assert not run.found
