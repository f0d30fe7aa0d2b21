"""A study: arms at equal steps, runs that are found again, findings read from tables, a folder that holds them."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toyrun import ALL_ROWS, toy_settings

from sage_kit.builtin.samplers import HardOptions, HighLossOptions
from sage_kit.config import PRESETS
from sage_kit.data.metrics import METRICS
from sage_kit.errors import ConfigError, RunHeldError, StudyError, UnknownComponentError
from sage_kit.studies import Arm, Study
from sage_kit.studies.analyses.scores import validation_scores
from sage_kit.studies.predictions import SavedOutputs, recomputed
from sage_kit.studies.result import StudyResult, contradiction, inconsistencies, read_tables
from sage_kit.studies.sizes import SIZES, size
from sage_kit.studies.verdicts import Margin
from sage_kit.system.machine import describe_machine

pandas = pytest.importorskip("pandas")
DataFrame = pandas.DataFrame

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
        arguments = {
            "profile": "small",
            "task": "file",
            "seeds": 2,
            **settings,
            **ALL_ROWS,
            "dev_fraction": 0.3,
            **changes,
        }
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


def test_a_preset_lies_below_the_size_and_what_is_given(make: Any) -> None:
    usual, paper = make(), make(preset="paper")
    assert usual.config("file") == make(preset="default").config("file")
    config = paper.config("file")
    given = set(usual.settings)
    for name, value in PRESETS["paper"].items():
        if name not in given and not name.startswith("warmup_"):
            assert getattr(config, name) == value, name
    assert config.warmup_epochs == 0  # the corpus is fetched at full alone
    assert paper.parameters["preset"] == "paper"
    with pytest.raises(ConfigError, match=r"Unknown preset 'papr'\. Did you mean 'paper'"):
        make(preset="papr")


def test_every_arm_is_checked_before_the_first_run(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study = make(seeds=1)
    capsys.readouterr()
    with pytest.raises(UnknownComponentError, match="Unknown sampler 'high_los'"):
        study.run([PLAIN, Arm("mine", sampler="high_los")])
    assert len(study.all_runs) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("second", "names"), [(-0.3, ["gain_a", "gain_b"]), (-0.05, ["gain"]), (0.2, ["gain"])])
def test_where_tasks_say_opposite_things_the_verdict_is_by_task(make: Any, second: float, names: list[str]) -> None:
    from pandas import DataFrame

    study = make()
    rows = [("a", "sage", 0.2), ("b", "sage", second), ("average", "sage", (0.2 + second) / 2), ("a", "other", -0.9)]
    table = DataFrame(rows, columns=["task", "arm", "difference"])
    study.add_table(
        "over_plain", table.assign(low=table["difference"] - 0.1, high=table["difference"] + 0.1, n_seeds=5)
    )
    study.tasks, tasks = ("a", "b"), study.tasks
    study.find("gain", "Is it?", table="over_plain", row={"task": study.overall, "arm": "sage"}, yes="It is", no="Not",
               claim="adaptive")  # fmt: skip
    study.tasks = tasks
    study.finish()
    found = study.result.findings
    assert [finding.name for finding in found] == names
    assert {finding.claim for finding in found} == {"adaptive"}
    if len(names) > 1:
        assert [finding.row["task"] for finding in found] == ["a", "b"]
        assert found[0].question == "Is it? (a)"
        assert [finding.sentence.partition(": ")[0] for finding in found] == ["a", "b"]


def test_runs_that_another_process_makes_are_left_for_later(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(seeds=2)
    asked: list[tuple[str, str, int]] = []
    # plain, seed 0, is held at first; sage, seed 1, until it is waited for
    held = {("plain", 0): 1, ("sage", 1): 99}

    def run(arm: str, config: Any, *, wait: bool, **others: Any) -> Any:
        asked.append(("wait" if wait else "try", arm, config.seed))
        held[arm, config.seed] = held.get((arm, config.seed), 0) - 1
        if held[arm, config.seed] >= 0 and not wait:
            raise RunHeldError("held")
        return SimpleNamespace(task=config.task, arm=arm, seed=config.seed, found=True)

    monkeypatch.setattr(study.store, "run", run)
    runs = study.run([Arm("plain", schedule="none"), Arm("sage")])
    assert [(one.arm, one.seed) for one in runs] == [("plain", 0), ("plain", 1), ("sage", 0), ("sage", 1)]
    assert asked == [
        ("try", "plain", 0), ("try", "plain", 1), ("try", "sage", 0), ("try", "sage", 1),
        ("try", "plain", 0), ("try", "sage", 1),
        ("try", "sage", 1), ("wait", "sage", 1),
    ]  # fmt: skip


def test_a_changed_setting_or_text_is_another_run(make: Any, place: Path) -> None:
    study = make()
    config = study.config("file", seed=0)
    key = study.store.key(config)
    assert study.store.key(study.config("file", seed=0, runs_dir="elsewhere", trace=True)) == key
    assert study.store.key(study.config("file", seed=1)) != key
    assert study.store.key(study.config("file", seed=0, sampler_options={"k": 9})) != key
    assert study.store.key(study.config("file", seed=0, lift="shift", lift_options={})) != key
    assert study.store.key(study.config("file", seed=0, missing_labels="drop")) != key
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
        return Changed(**dict(given)) if name == "high_loss" else checked(kind, name, given)

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


def ask(study: Study, name: str, table: str, **changes: Any) -> None:
    """Ask whether an arm is ahead, on the average over tasks."""
    row = {"task": study.overall, "arm": changes.pop("arm", "sage")}
    study.find(name, "Is it ahead?", table=table, row=row, **{"yes": "Ahead", "no": "Behind", **changes})


def test_findings_and_files(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from matplotlib.figure import Figure

    study = make(more={"reducers": None})
    runs = study.run([PLAIN, SAGE])
    study.add_table("comparison", study.compare(runs, "plain"))
    figure = Figure()
    figure.subplots().plot([1, 2])
    study.add_figure("line", figure, "A line.")
    ask(study, "gain", "comparison", undecided="{arm} and {baseline} do not differ on {n_examples} examples.")
    study.add_table("one_seed", study.tables["comparison"].assign(n_seeds=1))
    ask(study, "fewer", "one_seed")
    numbers = {"difference": 0.04, "low": np.nan, "high": np.nan, "df": 4.0, "n_seeds": 5}
    study.add_table("no_ends", study.tables["comparison"].assign(**numbers))
    ask(study, "endless", "no_ends")
    study.add_table("clear", study.tables["comparison"].assign(**{**numbers, "low": 0.03, "high": 0.05}))
    ask(study, "clear", "clear")
    with pytest.raises(StudyError, match=r"no table 'comparisn'. Did you mean"):
        ask(study, "x", "comparisn")
    study.finish()
    folder = study.result.folder
    assert {path.name for path in folder.iterdir()} == {
        "result.json", "predictions.safetensors", "run_records.parquet", "runs.parquet", "comparison.parquet",
        "one_seed.parquet", "no_ends.parquet", "clear.parquet", "line.png",
    }  # fmt: skip
    loaded = StudyResult.load(folder)
    assert inconsistencies(loaded, read_tables(loaded)) == []
    assert contradiction(loaded) == ""
    gain, fewer, endless, clear = loaded.findings
    assert gain.sentence.startswith("sage and plain do not differ on 90 examples: ")
    assert "; 2 seeds, and a decision needs 5; detectable: " in gain.sentence
    assert (gain.seeds, gain.examples, gain.unit) == (2, 90, "points")
    assert "; 1 seed, and a decision needs 5" in fewer.sentence
    assert endless.sentence == "No significant difference: +4.00 points (no interval)."
    assert (clear.state, clear.family) == ("yes", 1)
    assert clear.sentence == "Ahead: +4.00 points (95 % CI +3.00 to +5.00)."
    assert len(read_tables(loaded)["runs"]) == 4
    assert loaded.parameters["reducers"] is None
    assert loaded.label.startswith("small-file-")  # settings that differ from the profile's mark it
    assert loaded.findings[0].sentence in capsys.readouterr().out


def test_a_margin_stands_for_a_threshold(make: Any) -> None:
    study = make()
    study.add_table(
        "comparison",
        DataFrame([{"task": "file", "arm": "sage", "difference": -0.002, "low": -0.004, "high": 0.0, "n_seeds": 5}]),
    )
    margin = Margin(0.005, "half of what synthesis gains", 0.01)
    ask(study, "keeps", "comparison", margin=margin, unit="points", yes="It keeps the score")
    ask(study, "more", "comparison", margin=margin, unit="points", direction="below", no="It costs more")
    with pytest.raises(StudyError, match="'both' has a threshold and a margin: give one of them"):
        ask(study, "both", "comparison", margin=margin, threshold=0.1)
    study.finish()
    keeps, more = study.result.findings
    assert (keeps.threshold, keeps.margin_effect, more.threshold) == (-0.005, 0.01, 0.005)
    assert keeps.sentence == (
        "It keeps the score: -0.20 points (95 % CI -0.40 to +0.00; margin 0.50: half of what synthesis gains)."
    )
    for value, reason, effect, words in (
        (0.005, " ", 0.01, "a margin of 0.005 has no reason"),
        (0.01, "why", 0.01, "must be above 0 and below the smallest effect under study, 0.01"),
        (0.0, "why", 0.01, "must be above 0"),
    ):
        with pytest.raises(StudyError, match=words):
            Margin(value, reason, effect)


def test_degrees_of_freedom_are_the_tables(make: Any) -> None:
    study = make()
    row = {"task": "file", "arm": "sage", "difference": 1.0, "low": 0.5, "high": 1.5}
    study.add_table("with_df", DataFrame([{**row, "n_seeds": 6, "df": 9.5}]))
    study.add_table("student", DataFrame([{**row, "n_seeds": 6}]))
    study.add_table("normal", DataFrame([{**row, "n_seeds": 0}]))
    study.add_table("counts", DataFrame([{**row, "n_seeds": 10, "k": 9, "n": 10, "low": 0.555, "high": 0.998}]))
    for name in study.tables:
        ask(study, name, name, threshold=0.5 if name == "counts" else 0.0)
    study.finish()
    assert [one.df for one in study.result.findings][:3] == [9.5, 5, math.inf]
    assert study.result.findings[3].counts == (9, 10)
    assert study.result.findings[3].p == pytest.approx(22 / 1024)


def test_intervals_come_back_from_the_folder_alone(make: Any) -> None:
    study = make()
    runs = study.run([PLAIN, SAGE, Arm("hot", temperature=9.0)])
    for metric in ("", "agreement", "divergence"):
        for split in ("dev", "validation"):
            name = f"{metric or 'score'}_{split}"
            study.add_table(name, study.compare(runs, "plain", metric=metric, split=split))
            ask(study, name, name)
    study.add_table("over_hot", study.compare(runs, "hot", arms=["sage"]))
    ask(study, "over_hot", "over_hot")
    study.add_table("scores", validation_scores(runs))
    scored = {"task": "file", "arm": "sage", "metric": "accuracy"}
    study.find("score", "?", table="scores", row=scored, columns=("mean", "low", "high"), yes="", no="", threshold=0.5)
    study.add_table("other", DataFrame([{"task": "file", "arm": "sage", "difference": 1.0, "low": 0.0, "high": 2.0}]))
    ask(study, "other", "other")
    study.finish()
    loaded = StudyResult.load(study.result.folder)
    again = recomputed(loaded, read_tables(loaded))
    assert list(again) == [one.name for one in loaded.findings if one.name != "other"]
    for one in loaded.findings[:-1]:
        expected = {"value": one.value, "low": one.low, "high": one.high, "df": one.df}
        assert again[one.name] == expected  # to the last bit
    assert any(one.value for one in loaded.findings[:-1])
    assert loaded.findings[2].unit == "points"
    assert "percent change" in {one.unit for one in loaded.findings}
    outputs = SavedOutputs(loaded)
    assert outputs.arms == ["plain", "sage", "hot"]
    for run in runs:
        saved = outputs.logits("file", run.arm, "validation")[run.seed]
        assert saved.dtype == np.float16
        student = run.predictions["validation"]["student"]
        np.testing.assert_array_equal(saved.argmax(1), student.argmax(1))
        np.testing.assert_allclose(saved, student, rtol=2e-3, atol=1e-6)
    (study.result.folder / "predictions.safetensors").write_bytes(b"none")
    with pytest.raises(StudyError, match=r"predictions\.safetensors is not readable .* run the study again$"):
        SavedOutputs(loaded)


def test_a_result_tells_how_to_execute_its_runs_again(make: Any) -> None:
    study = make(seeds=1)
    study.compare(study.run([PLAIN, Arm("sage", temperature=3.0)]), "plain")
    study.finish()
    plain, sage = StudyResult.load(study.result.folder).runs
    assert (plain["task"], plain["arm"], plain["seed"], plain["splits"]) == ("file", "plain", 0, ["dev"])
    assert plain["settings"]["schedule"] == "none"
    assert sage["settings"]["temperature"] == 3.0
    assert "runs_dir" not in sage["settings"]
    config = study.config("file", **{name: value for name, value in sage["settings"].items() if name != "task"})
    assert study.store.key(config) == sage["key"]
    assert sage["environment"]["device"] == "cpu"
    assert (sage["loop"], sage["plugin_files"]) == ("", [])


def test_the_design_is_printed_before_the_first_run(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study = make()
    study.run([PLAIN])
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("Design: 2 seeds; differences that it finds with 80 % chance: ")
    assert "points on file (90 examples); assuming that one arm is right" in first
    assert first.endswith("A decision needs 5 seeds, so every finding will be undecided.")
    study.run([SAGE])
    assert "Design" not in capsys.readouterr().out
    # an earlier result of the same size tells how much such differences vary
    runs = study.run([PLAIN, SAGE])
    study.add_table("comparison", study.compare(runs, "plain"))
    study.finish()
    (expected,) = make().plan().to_dict("records")
    assert expected["source"] == "as differences varied in earlier results"
    assert expected["se"] == study.tables["comparison"]["se"].iloc[0]
    (other,) = make().plan(split="validation").to_dict("records")
    assert other["source"] != expected["source"]


def test_an_arm_can_take_the_steps_that_cost_as_many_flops(make: Any) -> None:
    study = make()
    runs = study.run([PLAIN, SAGE])
    steps = study.equal_flops_steps(runs, "plain", "sage")
    assert steps["file"] > study.steps("file")
    more = study.run([Arm("plain, equal FLOPs", schedule="none")], steps=steps)
    table = study.all_runs.table().groupby("arm")[["student_steps", "student_flops", "teacher_flops"]].mean()
    assert table.loc["plain, equal FLOPs", "student_steps"] == steps["file"]
    spent = table["student_flops"] + table["teacher_flops"]
    assert spent["plain, equal FLOPs"] == pytest.approx(spent["sage"], rel=1.5 / steps["file"] + 0.02)
    assert len(more) == 2
    with pytest.raises(StudyError, match=r"has no run of arm 'sag'\. Did you mean 'sage'"):
        study.equal_flops_steps(runs, "plain", "sag")


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
        ({"seeds": "five"}, StudyError, "parameter 'seeds' of study 04_x is 'five': input should be a valid integer"),
        ({"seeds": True}, StudyError, "is True: input should be a valid integer"),
        ({"task": 5}, StudyError, "is 5: input should be a valid string"),
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
    ("instructions", "precision"),
    [(("avx2", "avx512_bf16"), "bf16"), (("avx2", "amx_bf16"), "bf16"), (("avx2", "avx512f"), "auto")],
)
def test_small_computes_in_bf16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, instructions: tuple[str, ...], precision: str
) -> None:
    machine = replace(describe_machine(), instructions=instructions)
    monkeypatch.setattr("sage_kit.system.machine.describe_machine", lambda: machine)
    assert size("small").settings["precision"] == precision
    assert {**size("small").settings, "precision": "bf16"} == SIZES["small"].settings
    assert size("smoke") == SIZES["smoke"]


def test_sizes_are_settings_that_a_run_takes() -> None:
    from sage_kit.config import load_config

    for name in SIZES:
        for task in size(name).tasks:
            load_config({**size(name).settings, "task": task})
