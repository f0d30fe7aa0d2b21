"""A study: arms at equal steps, runs that are found again, findings read from tables, a folder that holds them."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toyrun import toy_settings

from sage_kit.builtin.samplers import HardOptions, HighLossOptions
from sage_kit.errors import ConfigError, StudyError, UnknownComponentError
from sage_kit.evaluate import METRICS
from sage_kit.machine import describe_machine
from sage_kit.studies import Arm, Study
from sage_kit.studies.result import StudyResult, inconsistencies, read_tables
from sage_kit.studies.sizes import SIZES, size

pytest.importorskip("pandas")

PLAIN = Arm("plain", schedule="none")
SAGE = Arm("sage", "synthesis each round")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture
def make(place: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")

    def make_study(**changes: Any) -> Study:
        settings = toy_settings(place, tiny_bert, rounds=2, observers=["jsonl", "loss_profile"])
        del settings["task"], settings["runs_dir"]
        arguments = {"profile": "small", "task": "file", "seeds": 2, "dev_fraction": 0.3, **settings, **changes}
        return Study(
            "04_x", title="X", question="Is it?", runs_dir=str(place / "studies"),
            results_dir=str(tmp_path / "results"), **arguments,
        )  # fmt: skip

    return make_study


def test_arms_take_equal_steps_and_are_found_again(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study = make()
    runs = study.run([PLAIN, SAGE])
    table = runs.table()
    assert table["student_steps"].unique().tolist() == [study.steps("file")]
    assert set(table["arm"]) == {"plain", "sage"}
    # a round with as many synthetic examples as real ones is a round of twice the steps
    rows = len(study.store.data(study.config("file")).train)
    assert study.steps("file") == math.ceil(3 * rows / study.config("file").batch_size)
    sage = table[table["arm"] == "sage"]
    assert (sage["teacher_tokens"].to_numpy() > table[table["arm"] == "plain"]["teacher_tokens"].to_numpy()).all()
    compute = study.compute_table(runs).set_index("arm")
    assert compute["equal"].tolist() == [False, True]

    capsys.readouterr()
    again = make().run([Arm("other name", schedule="none")])
    assert capsys.readouterr().out.count("(found)") == 2
    assert [run.found for run in again] == [True, True]
    assert again.table()["dev"].tolist() == table[table["arm"] == "plain"]["dev"].tolist()


def test_every_arm_is_checked_before_the_first_run(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study = make(seeds=1)
    capsys.readouterr()
    with pytest.raises(UnknownComponentError, match="Unknown sampler 'high_los'"):
        study.run([PLAIN, Arm("mine", sampler="high_los")])
    assert len(study.all_runs) == 0
    assert capsys.readouterr().out == ""


def test_a_changed_setting_or_text_is_another_run(make: Any, place: Path) -> None:
    study = make()
    config = study.config("file", seed=0)
    key = study.store.key(config)
    assert study.store.key(study.config("file", seed=0, runs_dir="elsewhere", trace=True)) == key
    assert study.store.key(study.config("file", seed=1)) != key
    assert study.store.key(study.config("file", seed=0, sampler_options={"k": 9})) != key
    assert study.store.key(study.config("file", seed=0, lift="shift")) != key
    other = place / "other.jsonl"
    text = (place / "train.jsonl").read_text(encoding="utf-8")
    other.write_text(text, encoding="utf-8")
    assert study.store.key(study.config("file", seed=0, train_file=str(other))) == key
    other.write_text(text.replace("a", "e", 1), encoding="utf-8")
    assert make().store.key(study.config("file", seed=0, train_file=str(other))) != key


def test_only_what_a_run_uses_tells_it_apart(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make()

    def key(**settings: Any) -> str:
        return study.store.key(study.config("file", **settings))

    plain = key(schedule="none")
    assert key(schedule="none", lift="shift", sampler="random", synthetic_ratio=2.0) == plain
    assert key(schedule="none", losses_from="pass") != plain
    assert key(schedule="none", temperature=3.0) != plain
    # no map, so no reducer and no inverter
    assert key(sampler="smote", inverter="knn") == key(sampler="smote", inverter="anchored") != key()
    # an option that is spelled out is the same run, and a default that was changed is another
    assert key(sampler_options={"k": 8, "fraction": HardOptions().fraction}) == key()
    before = key()
    checked = study.plugins.options

    class Changed(HighLossOptions):
        fraction: float = 0.77

    def options(kind: str, name: str, given: Any) -> Any:
        return Changed(**given) if name == "high_loss" else checked(kind, name, given)

    monkeypatch.setattr(study.plugins, "options", options)
    assert key() != before


def test_what_is_not_kept_is_removed_and_made_again_when_asked_for(make: Any) -> None:
    study = make()
    (run,) = study.run([SAGE], seeds=[0])
    assert not (run.directory.path / "checkpoints").exists()
    assert not run.directory.student.exists()
    assert run.directory.rounds_with_synthetic() == []
    (kept,) = study.run([SAGE], seeds=[0], keep=["synthetic"])
    assert not kept.found
    assert kept.directory.rounds_with_synthetic() == [2]
    assert kept.row()["dev"] == run.row()["dev"]
    assert kept.directory.path != run.directory.path
    assert run.directory.path.is_dir()  # whoever reads it goes on reading
    (again,) = study.run([SAGE], seeds=[0], keep=["synthetic"])
    assert again.found
    shutil.rmtree(run.directory.path)
    (more,) = study.run([SAGE], seeds=[0])
    assert more.found
    assert more.directory.path == kept.directory.path


def test_an_interrupted_run_goes_on(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from sage_kit.distill import Loop

    study = make(seeds=1)
    arm = Arm("interrupted", temperature=3.0)
    finish = Loop.finish

    def killed(self: Loop, stopped: str) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        study.run([arm])
    monkeypatch.setattr(Loop, "finish", finish)
    (run,) = study.run([arm])
    assert not run.found
    reference = make(seeds=1, cache_dir=str(study.config("file").cache_dir))
    shutil.rmtree(run.directory.path)
    (whole,) = reference.run([arm])
    for split in ("dev", "validation"):
        np.testing.assert_array_equal(run.predictions[split]["student"], whole.predictions[split]["student"])


def test_comparison_is_that_of_the_runs_scores(make: Any) -> None:
    study = make()
    runs = study.run([PLAIN, SAGE])
    table = study.compare(runs, "plain").set_index("arm")
    labels = runs.labels("file")
    scores = {
        arm: [METRICS["accuracy"](labels, logits.argmax(-1)) for logits in runs.logits("file", arm)]
        for arm in ("plain", "sage")
    }
    frame = runs.table()
    assert scores["sage"] == pytest.approx(frame[frame["arm"] == "sage"]["dev"].tolist())
    assert table.loc["sage", "difference"] == pytest.approx(np.mean(scores["sage"]) - np.mean(scores["plain"]))
    agreement = study.compare(runs, "plain", metric="agreement", split="validation").set_index("arm")
    means = frame.groupby("arm")["validation_agreement"].mean()
    assert agreement.loc["sage", "difference"] == pytest.approx(means["sage"] - means["plain"])
    with pytest.raises(StudyError, match=r"no arm 'plian'. Did you mean 'plain'"):
        study.compare(runs, "plian")


def test_findings_and_files(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.figure import Figure

    study = make(more={"reducers": None})
    runs = study.run([PLAIN, SAGE])
    study.add_table("comparison", study.compare(runs, "plain"))
    figure = Figure()
    figure.subplots().plot([1, 2])
    study.add_figure("line", figure, "A line.")
    study.find(
        "gain", "Is SAGE ahead?", table="comparison", row={"task": study.overall, "arm": "sage"}, unit="accuracy",
        yes="ahead by {value}", no="behind", undecided="{arm}: {value} ({low} to {high}) {unit}",
    )  # fmt: skip
    study.add_table("one_seed", study.tables["comparison"].assign(n_seeds=1))
    words = {"yes": "ahead", "no": "behind", "undecided": "undecided"}
    fewer = study.find("fewer", "?", table="one_seed", row={"task": study.overall, "arm": "sage"}, **words)
    assert (fewer.seeds, study.findings[0].seeds) == (1, 2)
    study.add_table("no_ends", study.tables["comparison"].assign(difference=4.0, low=np.nan, high=np.nan))
    words["undecided"] = "{value} ({low} to {high})"
    endless = study.find("endless", "?", table="no_ends", row={"task": study.overall, "arm": "sage"}, **words)
    assert endless.sentence == "4 (? to ?)"
    with pytest.raises(StudyError, match=r"no table 'comparisn'. Did you mean"):
        study.find("x", "?", table="comparisn", row={}, yes="", no="", undecided="")
    study.finish()
    folder = study.result.folder
    assert {path.name for path in folder.iterdir()} == {
        "result.json", "runs.parquet", "comparison.parquet", "one_seed.parquet", "no_ends.parquet", "line.png",
    }  # fmt: skip
    loaded = StudyResult.load(folder)
    assert inconsistencies(loaded, read_tables(loaded)) == []
    assert len(read_tables(loaded)["runs"]) == 4
    assert loaded.parameters["reducers"] is None
    assert loaded.label.startswith("small-file-")  # settings that differ from the profile's mark it
    assert loaded.findings[0].sentence in capsys.readouterr().out


def test_results_of_the_profile_as_it_stands_have_no_mark(place: Path, tmp_path: Path) -> None:
    study = Study(
        "04_x", title="X", question="?", profile="smoke", runs_dir=str(place), results_dir=str(tmp_path), rounds=None,
        data_dir="somewhere", more={"reducers": None},
    )  # fmt: skip
    assert study._changed == {}
    other = Study("04_x", title="X", question="?", profile="smoke", runs_dir=str(place), more={"reducers": "pca"})
    assert other._changed == {"reducers": "pca"}


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"profile": "smal"}, StudyError, "Unknown profile 'smal'. Did you mean 'small'"),
        ({"seeds": 0}, StudyError, "seeds is 0"),
        ({"seeds": "five"}, StudyError, "parameter 'seeds' of study 04_x is 'five': expected int or None"),
        ({"seeds": True}, StudyError, "expected int or None, not bool"),
        ({"task": 5}, StudyError, "expected str or None, not int"),
        ({"reducer": "umpa"}, UnknownComponentError, "Unknown reducer 'umpa'"),
        ({"more": {"samplers": "smote,mixpu"}}, UnknownComponentError, "Unknown sampler 'mixpu'"),
        ({"more": {"decoders": ","}}, StudyError, "decoders is ',', which names no decoder"),
        ({"roundz": 3}, ConfigError, "Unknown setting 'roundz'. Did you mean 'rounds'"),
        ({"rounds": -1}, ConfigError, "rounds"),
        ({"task": "colla"}, ConfigError, "colla"),
    ],
)
def test_mistakes_are_one_line(make: Any, changes: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_arms_have_known_settings_and_names_of_their_own(make: Any) -> None:
    with pytest.raises(StudyError, match=r"there is no setting 'scedule'. Did you mean 'schedule'"):
        Arm("x", scedule="none")
    with pytest.raises(StudyError, match="two arms are called 'plain'"):
        make().run([PLAIN, Arm("plain", temperature=4.0)])


@pytest.mark.parametrize(
    ("instructions", "precision"), [(("avx2", "avx512_bf16", "amx_bf16"), "bf16"), (("avx2", "avx512_bf16"), "auto")]
)
def test_small_computes_in_bf16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, instructions: tuple[str, ...], precision: str
) -> None:
    machine = replace(describe_machine(), instructions=instructions)
    monkeypatch.setattr("sage_kit.machine.describe_machine", lambda: machine)
    assert size("small").settings["precision"] == precision
    assert {**size("small").settings, "precision": "bf16"} == SIZES["small"].settings
    assert size("smoke") == SIZES["smoke"]


def test_sizes_are_settings_that_a_run_takes() -> None:
    from sage_kit.config import load_config

    for name in SIZES:
        for task in size(name).tasks:
            load_config({**size(name).settings, "task": task})
