"""`sage-kit study verify`: a result is made again by the code that is here, or it is found that it is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from studies.fakeresults import make_finding, save_result
from toyrun import ALL_ROWS, toy_settings

import sage_kit
from sage_kit.cli import main
from sage_kit.studies import Arm, Study
from sage_kit.studies.renewal import renew
from sage_kit.studies.result import StudyResult, read_tables
from sage_kit.studies.verification import verify_folder

pytest.importorskip("pandas")

PLUGIN = """
from sage_kit import hookimpl
from sage_kit.components import StopRuleSpec

class Never:
    def __init__(self, options, context):
        pass

    def reason_to_stop(self, history):
        return None

@hookimpl
def sage_stop_rules():
    yield StopRuleSpec(name="never", summary="Never.", factory=Never)
"""

FIND = """
from pathlib import Path
from sage_kit.studies.saved_runs import SavedRuns
saved = SavedRuns([Path({results!r})])
for key in {keys!r}:
    print(saved.restore("file", key, Path({to!r}) / key))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verify")


def make_result(place: Path, teacher: Path, name: str, **changes: Any) -> Path:
    """The folder of a small study of two arms."""
    settings = toy_settings(place, teacher, rounds=1, student_layers=1)
    del settings["task"], settings["runs_dir"]
    study = Study(
        name, title="X", question="Is it?", profile="small", task="file", seeds=2,
        runs_dir=str(place / "studies"), results_dir=str(place / "results"),
        **{**settings, **ALL_ROWS, "dev_fraction": 0.3, "precision": "fp32", **changes},
    )  # fmt: skip
    runs = study.run([Arm("plain", schedule="none"), Arm("warm", schedule="none", temperature=3.0)])
    study.add_table("comparison", study.compare(runs, "plain"))
    study.finish()
    assert study.result is not None
    assert study.result.folder is not None
    return study.result.folder


@pytest.fixture(scope="module")
def made(place: Path, tiny_bert: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGE_KIT_PLUGINS", "")
        return make_result(place, tiny_bert, "20_toy")


@pytest.fixture
def result(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the result's folder."""
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    folder = tmp_path / "results" / "20_toy" / made.name
    shutil.copytree(made, folder)
    return folder


def change_json(folder: Path, change: Any) -> None:
    data = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    change(data)
    (folder / "result.json").write_text(json.dumps(data), encoding="utf-8")


def change_predictions(folder: Path, by: float) -> None:
    """Move the saved logits of every run a little."""
    path = folder / "predictions.safetensors"
    arrays = load(path.read_bytes())
    rng = np.random.default_rng(0)
    for name, logits in arrays.items():
        if name.startswith("student/"):
            arrays[name] = (logits + rng.normal(0, by, logits.shape)).astype(logits.dtype)
    path.write_bytes(save(arrays))


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str, str]:
    with pytest.raises(SystemExit) as exit_info:
        main(["study", "verify", *arguments])
    captured = capsys.readouterr()
    return exit_info.value.code, captured.out, captured.err


def test_a_result_names_precision_commit_and_digest(made: Path) -> None:
    data = json.loads((made / "result.json").read_text(encoding="utf-8"))
    assert made.name.startswith("small-file-fp32-")
    assert data["precision"] == "fp32"
    assert len(data["code"]) == 32
    assert set(data["commit"]) <= set("0123456789abcdef+")


def test_a_result_that_stands(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "toy", "--results", str(result.parents[1]), "--json")
    assert code == 0
    checks = json.loads(out)
    assert [(check["arm"], check["seed"], check["state"], check["code"]) for check in checks] == [
        ("plain", 0, "equal", "same"),
        ("warm", 0, "equal", "same"),
    ]
    assert err.splitlines()[0] == f"20_toy {result.name}, 1 of 2: file, plain, seed 0"
    # nothing is left of the runs, and the result is as it was
    assert sorted(path.name for path in result.iterdir()) == [
        "comparison.parquet", "predictions.safetensors", "result.json", "run_records.parquet", "runs.parquet",
    ]  # fmt: skip


def test_another_seed_and_all_seeds(result: Path) -> None:
    assert [(check.arm, check.seed) for check in verify_folder(result, seed=1)] == [("plain", 1), ("warm", 1)]
    (check,) = verify_folder(result, seed=7)
    assert (check.state, check.note) == ("impossible", "it has no runs of seed 7, so it cannot be verified")
    checks = verify_folder(result, every_seed=True)
    assert len(checks) == 4
    assert {check.state for check in checks} == {"equal"}


def test_predictions_that_are_not_made_again(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_predictions(result, by=0.01)
    code, out, _ = call(capsys, "20", "--results-dir", str(result.parents[1]))
    assert code == 1
    assert "differs" in out
    assert "on the same kind of machine" in " ".join(out.replace("│", " ").split())
    assert out.splitlines()[-1] == "2 differs"


def test_another_kind_of_machine_may_round_otherwise(result: Path) -> None:
    def elsewhere(data: dict[str, Any]) -> None:
        for run in data["runs"]:
            run["environment"]["processor"] = "Another CPU"

    change_json(result, elsewhere)
    assert {check.state for check in verify_folder(result)} == {"equal"}
    change_predictions(result, by=0.01)
    checks = verify_folder(result)
    assert {check.state for check in checks} == {"within"}
    assert "processor Another CPU there and" in checks[0].note
    assert 0 < checks[0].difference < 0.1
    change_predictions(result, by=5.0)
    assert {check.state for check in verify_folder(result)} == {"differs"}


def test_results_without_predictions_cannot_be_verified(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def earlier(data: dict[str, Any]) -> None:
        data["format"] = 1
        del data["runs"]

    change_json(result, earlier)
    (result / "predictions.safetensors").unlink()
    (check,) = verify_folder(result)
    again = "its predictions and the digest of its code are not saved, so it cannot be verified: make it again"
    assert (check.state, check.note) == ("impossible", again)
    save_result(tmp_path / "fake", "04_x", make_finding("gain", 0.1, 0.2))
    code, out, _ = call(capsys, "--results", str(tmp_path / "fake"))
    assert code == 1
    assert "cannot be executed" in out


def test_a_run_without_a_digest_cannot_be_verified(result: Path) -> None:
    change_json(result, lambda data: data["runs"][0]["environment"].update(code=None))
    first, second = verify_folder(result)
    assert (first.state, first.note) == ("impossible", "the digest of its code is not saved: make the result again")
    assert second.state == "equal"


def test_data_that_has_changed_is_told(result: Path, made: Path, place: Path) -> None:
    train = place / "train.jsonl"
    kept = train.read_text(encoding="utf-8")
    try:
        train.write_text("".join(kept.splitlines(keepends=True)[:-60]), encoding="utf-8")
        checks = verify_folder(result)
    finally:
        train.write_text(kept, encoding="utf-8")
    assert {check.state for check in checks} == {"impossible"}
    assert checks[0].note.startswith("its data has changed: split 'dev' has other rows")


def test_a_loop_or_a_teacher_that_is_gone_is_told(result: Path) -> None:
    change_json(result, lambda data: data["runs"][0].update(loop="sage_kit.no_such_module:run"))
    change_json(result, lambda data: data["runs"][2]["settings"].update(teacher="gone/nowhere/teacher"))
    first, second = verify_folder(result)
    assert first.note == "what made the run, sage_kit.no_such_module:run, is not there any more: make the result again"
    assert second.state == "impossible"
    assert "gone/nowhere/teacher" in second.note


def test_a_run_is_executed_under_the_defaults_that_it_was_made_under(result: Path) -> None:
    change_json(result, lambda data: data["defaults"].update(temperature=9.0, gone_since=True))
    plain, warm = verify_folder(result)
    assert (plain.state, warm.state) == ("differs", "equal"), "arm warm sets a temperature, and plain leaves it open"


def test_a_plugin_that_is_gone_is_told(
    place: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    monkeypatch.chdir(tmp_path)
    plugin = tmp_path / "never.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    folder = make_result(place, tiny_bert, "21_plugin", plugin=str(plugin), stop_rule="never")
    assert {check.state for check in verify_folder(folder, plugin_files=[str(plugin)])} == {"equal"}
    checks = verify_folder(folder)
    assert {check.state for check in checks} == {"impossible"}
    assert checks[0].note == "its one-file plugin never.py is not here: name it with --plugin"
    plugin.write_text(PLUGIN.replace('"never"', '"seldom"'), encoding="utf-8")
    checks = verify_folder(folder, plugin_files=[str(plugin)])
    assert checks[0].note.startswith("Unknown stop rule 'never'")


@pytest.mark.parametrize(
    ("sign", "state"),
    [("-", "differs"), ("", "equal")],  # the other way round, and a function more that computes the same
    ids=["mutation", "refactoring"],
)
def test_code_that_has_changed(result: Path, tmp_path: Path, sign: str, state: str) -> None:
    old = "def kl_divergence("
    new = f"def kl_divergence(*arguments):\n    return {sign}_kl(*arguments)\n\n\ndef _kl("
    copy = tmp_path / "copy"
    shutil.copytree(Path(sage_kit.__file__).parent, copy / "sage_kit", ignore=shutil.ignore_patterns("__pycache__"))
    losses = copy / "sage_kit" / "training" / "losses.py"
    text = losses.read_text(encoding="utf-8")
    assert text.count(old) == 1
    losses.write_text(text.replace(old, new), encoding="utf-8")
    verify = ["verify", "--results", str(result.parents[1]), "--json", "--renew"]
    before = {path.name: path.read_bytes() for path in result.iterdir()}

    def call_changed() -> Any:
        return subprocess.run(
            [sys.executable, "-m", "sage_kit", "study", *verify],
            capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(copy)}, check=False,
        )  # fmt: skip

    done = call_changed()
    checks = json.loads(done.stdout)
    assert {check["state"] for check in checks} == {state}, done.stderr
    assert {check["code"] for check in checks} == {"changed"}
    assert done.returncode == (1 if state == "differs" else 0)
    told = done.stderr.splitlines()[-1]
    if state == "differs":
        assert told.startswith(f"sage-kit: 20_toy {result.name} is not renewed, since not all predictions are equal (")
        assert {path.name: path.read_bytes() for path in result.iterdir()} == before
        return
    assert told == f"20_toy {result.name}: 4 runs renewed"
    again = call_changed()
    assert {check["code"] for check in json.loads(again.stdout)} == {"same"}
    assert again.stderr.splitlines()[-1] == f"20_toy {result.name}: 0 runs renewed"
    old, renewed = json.loads(before["result.json"]), StudyResult.load(result)
    for run, was in zip(renewed.runs, old["runs"], strict=True):
        assert run["environment"]["renewed"]["code"] == was["environment"]["code"] != run["environment"]["code"]
        assert run["key"] == run["run"] != was["run"]
    # the changed code finds its runs there, and the result stands as it did
    finder = FIND.format(results=str(result.parents[1]), keys=[run["key"] for run in renewed.runs], to=str(tmp_path))
    found = subprocess.run([sys.executable, "-c", finder], capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["20_toy", result.name] * 4, found.stderr
    assert read_tables(renewed)["runs"]["run"].tolist() == [run["run"] for run in renewed.runs]
    # by the code that is here, which makes the same again: the result still says what made it
    assert renew(result, verify_folder(result)) == 4
    for run, was in zip(StudyResult.load(result).runs, old["runs"], strict=True):
        assert run["environment"]["renewed"]["code"] == was["environment"]["code"] == run["environment"]["code"]
        assert run["key"] == was["key"]


def test_names_are_looked_up(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = str(result.parents[1])
    code, _, err = call(capsys, "tour", "--results", results)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "Unknown study 'tour'" in err
    code, _, err = call(capsys, "toy", "--label", "smal", "--results", results)
    assert code == 2
    assert "there is no result 'smal'." in err
    assert f"Results: {result.name}." in err
    code, _, err = call(capsys, "--results", str(result))
    assert code == 2
    assert "there are no results in" in err
    code, _, err = call(capsys, "--all", "--seed", "1", "--results", results)
    assert "both --all and --seed are given" in err
