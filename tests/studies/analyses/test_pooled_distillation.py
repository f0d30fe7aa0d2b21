"""Distillation from a teacher of pooled vectors: an ordinary run whose records name the checkpoint it came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toyrun import ALL_ROWS, toy_config, toy_settings, without_times

from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig
from sage_kit.data.splits import load_task
from sage_kit.distill import run
from sage_kit.errors import ConfigError
from sage_kit.rundir import RunDirectory
from sage_kit.storage.cache import Cache
from sage_kit.studies import Arm, Study
from sage_kit.studies.analyses.input_layer import teacher_table
from sage_kit.studies.analyses.pooled_distillation import run_frozen_pooled_teacher, run_pooled_teacher
from sage_kit.studies.analyses.pooled_teacher import pooled_teacher
from sage_kit.studies.result import read_tables
from sage_kit.studies.runs import RunStore
from sage_kit.studies.verification import verify_folder
from sage_kit.system.devices import make_accelerator

SETTINGS: dict[str, Any] = {"schedule": "none", "granularity": "pooled", "rounds": 2, "evaluation_rows": 40}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pooled")


@pytest.fixture(scope="module")
def made(place: Path, tiny_bert: Path) -> tuple[RunConfig, RunDirectory, dict[str, Any]]:
    config = toy_config(place, tiny_bert, **SETTINGS)
    directory, summary = run_pooled_teacher(config, Plugins(allow=""))
    return config, directory, summary


def test_its_records_name_the_checkpoint(
    made: tuple[RunConfig, RunDirectory, dict[str, Any]], tiny_bert: Path, place: Path
) -> None:
    config, directory, summary = made
    assert directory.config() == config
    teacher = summary["teacher"]
    costs = json.loads((directory.path / "costs.json").read_text(encoding="utf-8"))
    assert teacher["name"] == str(tiny_bert)
    assert teacher["finetuned_here"]
    assert teacher["seconds"] == costs["seconds"]["fine-tune teacher"] > 0
    assert summary["seconds"] == pytest.approx(sum(costs["seconds"].values()) - teacher["seconds"])
    assert directory.summary() == summary
    # nothing that is kept tells where the cache lies, but the settings
    for path in directory.path.glob("*.json"):
        assert str(place / "cache") not in path.read_text(encoding="utf-8")
    assert not (directory.path / "checkpoints").exists()


def test_it_is_an_ordinary_run_of_that_teacher(
    made: tuple[RunConfig, RunDirectory, dict[str, Any]], place: Path
) -> None:
    config, directory, summary = made
    plugins = Plugins(allow="")
    data = load_task(plugins.task(config.task), config, lambda text: None)
    cache, device = Cache(place / "cache"), make_accelerator(config).device
    folder, seconds = pooled_teacher(config, data, cache, device, lambda text: None, lambda *told: None)
    assert seconds == 0
    other, its = run(config.model_copy(update={"teacher": str(folder)}), plugins)
    assert set(summary) == set(its)
    apart = ("teacher", "disabled_observers")
    ours, theirs = without_times(summary), without_times(its)
    assert {n: v for n, v in ours.items() if n not in apart} == {n: v for n, v in theirs.items() if n not in apart}
    for split, arrays in other.predictions().items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(directory.predictions()[split][name], array)
    assert set(other.predictions()) == {"dev", "validation", "evaluation"}


def test_teacher_and_student_know_the_task_and_frozen_ones_are_others(
    made: tuple[RunConfig, RunDirectory, dict[str, Any]], place: Path, tiny_bert: Path
) -> None:
    config, _, summary = made
    plugins = Plugins(allow="")
    _, usual = run(config, plugins)
    _, frozen = run_frozen_pooled_teacher(config, plugins)
    scores = {name: each["teacher"]["validation"]["validation"]["accuracy"] for name, each in
              {"pooled": summary, "usual": usual, "frozen": frozen}.items()}  # fmt: skip
    # what was fine-tuned on sequences reads pooled vectors too on this task, whose words say all
    assert scores["pooled"] > 0.85
    assert len(set(scores.values())) == 3
    assert summary["validation"]["validation"]["accuracy"] > 0.8
    store = RunStore(place / "store", plugins)
    keys = {store.key(config, loop) for loop in (None, run_pooled_teacher, run_frozen_pooled_teacher)}
    assert len(keys) == 3


def test_a_try_for_a_choice_reads_dev_alone(place: Path, tiny_bert: Path) -> None:
    config = toy_config(place, tiny_bert, **SETTINGS, evaluate_validation="never")
    directory, summary = run_pooled_teacher(config, Plugins(allow=""))
    assert set(directory.predictions()) == {"dev"}
    assert summary["validation"] == summary["evaluation"] == {}
    assert summary["dev"]["accuracy"] > 0.7


@pytest.mark.parametrize(
    ("name", "value"), [("schedule", "adaptive"), ("bypass", 1), ("granularity", "token"), ("warmup_epochs", 1)]
)
def test_settings_without_a_use_are_told(tmp_path: Path, tiny_bert: Path, name: str, value: Any) -> None:
    config = toy_config(tmp_path, tiny_bert, **SETTINGS).model_copy(update={name: value})
    with pytest.raises(ConfigError, match=f"{name} is {value!r}, but a student of a pooled teacher needs"):
        run_pooled_teacher(config, Plugins(allow=""))
    assert not (tmp_path / "runs").exists()


def test_a_study_can_be_verified(place: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    cache = tmp_path / "cache"
    settings = toy_settings(place, tiny_bert, rounds=2, student_layers=1, cache_dir=str(cache))
    del settings["task"], settings["runs_dir"]
    study = Study(
        "20_toy", title="X", question="Is it?", profile="small", task="file", seeds=2, rates=[1e-3],
        runs_dir=str(tmp_path / "studies"), results_dir=str(tmp_path / "results"),
        **{**settings, **ALL_ROWS, "dev_fraction": 0.3, "precision": "fp32"},
    )  # fmt: skip
    arms = [
        Arm("sequences", schedule="none"),
        Arm("usual", schedule="none", granularity="pooled"),
        Arm("pooled", schedule="none", granularity="pooled", loop=run_pooled_teacher),
    ]
    runs = study.run(study.tune(arms))
    study.add_table("comparison", study.compare(runs, "sequences"))
    study.add_table("teachers", teacher_table(study, runs, {"pooled": "pooled vectors"}))
    study.finish()
    assert study.result is not None
    assert study.result.folder is not None
    (told, _) = (each for each in study.result.runs if each["arm"] == "pooled")
    assert told["loop"] == "sage_kit.studies.analyses.pooled_distillation:run_pooled_teacher"
    assert told["settings"]["teacher"] == str(tiny_bert)
    shutil.rmtree(cache)  # elsewhere the teachers are fine-tuned again
    checks = verify_folder(study.result.folder)
    assert [(check.arm, check.state, check.code) for check in checks] == [(arm.name, "equal", "same") for arm in arms]

    table = read_tables(study.result)["teachers"].set_index("arm")
    assert list(table["learnt_from"]) == ["sequences", "sequences", "pooled vectors"]
    assert list(table["reads"]) == ["sequences", "pooled vectors", "pooled vectors"]
    for arm, row in table.iterrows():
        its = runs.of(arm=str(arm))
        assert row["teacher"] == pytest.approx(its[0].summary["teacher"]["dev"]["accuracy"])
        assert row["student"] == pytest.approx(np.mean([run.summary["dev"]["accuracy"] for run in its]))
        assert row["agreement"] == pytest.approx(np.mean([run.summary["dev"]["agreement"] for run in its]))
        n, p = row["n_examples"], row["teacher"]
        # Student's interval over examples
        half = 1.99 * np.sqrt(p * (1 - p) / (n - 1))
        np.testing.assert_allclose([row["low"], row["high"]], [p - half, p + half], atol=0.01)
        labels = its[0].predictions["dev"]["labels"]
        assert row["constant"] == pytest.approx(np.bincount(labels).max() / n)
        assert (row["split"], n, row["n_seeds"]) == ("dev", len(labels), 2)
