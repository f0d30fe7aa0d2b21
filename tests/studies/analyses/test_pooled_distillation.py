"""Distillation from a teacher of pooled vectors: an ordinary run whose records name the checkpoint it came from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from toyrun import ALL_ROWS, toy_config, toy_settings, without_times

from sage_kit.components import TaskSpec
from sage_kit.components.plugins import Plugins
from sage_kit.config import RunConfig, load_config
from sage_kit.data.splits import Split, TaskData, load_task
from sage_kit.data.tokens import Tokens, tokenize
from sage_kit.distill import run
from sage_kit.errors import ConfigError
from sage_kit.models.checkpoints import load_classifier, load_tokenizer
from sage_kit.models.families import family_of
from sage_kit.models.split import UpperLayers, split_model
from sage_kit.models.vectors import pool
from sage_kit.rundir import RunDirectory
from sage_kit.storage.cache import Cache
from sage_kit.studies import Arm, Study
from sage_kit.studies.analyses.input_layer import teacher_table
from sage_kit.studies.analyses.pooled_distillation import (
    NumberedExamples,
    PooledEmbeddings,
    pooled_teacher,
    run_frozen_pooled_teacher,
    run_pooled_teacher,
    untrained_teacher,
)
from sage_kit.studies.result import read_tables
from sage_kit.studies.run_store import RunStore
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


# ---- the teacher -----------------------------------------------------------------------------------------------------

CPU = torch.device("cpu")
ENCODERS = {"bert": "bert.encoder", "roberta": "roberta.encoder", "distilbert": "distilbert.transformer"}
"""Where transformers has the blocks of a classifier."""


class KilledError(Exception):
    """Stands for the end of a process."""


def make_data(rows: int = 400) -> TaskData:
    """The toy task: the teacher's rows, and as many held-out ones under "dev"."""
    parts = {}
    for seed, name in enumerate(("teacher", "dev")):
        found = tiny.toy_task_rows(rows, seed)
        parts[name] = Split(name, [row["text"] for row in found], None, np.array([row["label"] for row in found]))
    spec = TaskSpec(name="toy", summary="", text_columns=("text",), labels=("blame", "praise"))
    other = Split("train", ["a film", "a plot"], None, np.full(2, -1))
    return TaskData(spec, other, parts["dev"], {}, parts["teacher"])


def make(
    folder: Path,
    checkpoint: Path,
    data: TaskData | None = None,
    on_step: Callable[..., None] = lambda done, total, loss: None,
    *,
    freeze: bool = False,
    **settings: Any,
) -> tuple[Path, float]:
    config = load_config({"teacher": str(checkpoint), "max_length": 32, **tiny.TOY_TRAINING, **settings})
    cache = Cache(folder)
    return pooled_teacher(config, data or make_data(), cache, CPU, lambda text: None, on_step, freeze=freeze)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_classifier(str(folder)).model.state_dict())


def accuracy(folder: Path, data: TaskData) -> float:
    """Of a checkpoint that reads the held-out rows as pooled vectors."""
    front, upper = split_model(load_classifier(str(folder)).model, "embeddings")
    ids, types, mask = tokenize(data.dev, load_tokenizer(str(folder)), 32).pad(np.arange(len(data.dev)))
    with torch.no_grad():
        logits = upper(pool(front(ids, types, mask), mask, "mean")[:, None]).logits
    return float((logits.argmax(1).numpy() == data.dev.labels).mean())


def numbered(tokens: Tokens) -> NumberedExamples:
    return NumberedExamples(tokens.ids, tokens.types, tokens.offsets, tokens.special, tokens.second, tokens.pad_id)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_blocks_and_head_read_one_vector_and_embeddings_have_its_gradient(family: str, pooling: str) -> None:
    model = tiny.make_model(family).double()
    its = family_of(model.config)
    embeddings = model.get_submodule(its.embeddings)
    tokens = tokenize(make_data(6).teacher, tiny.make_tokenizer(family), 32)
    examples = np.array([4, 0, 3])
    ids, _, mask = tokens.pad(examples)
    assert not mask.all()
    # as transformers has it, example by example and without padding
    parts = []
    for row, real in zip(ids, mask, strict=True):
        states = embeddings(input_ids=row[real][None])
        parts.append(states[:, 0] if pooling == "cls" else states.mean(1))
    states = model.get_submodule(ENCODERS[family])(torch.stack(parts))[0]
    if family == "bert":
        reference = model.classifier(model.bert.pooler(states))
    elif family == "roberta":
        reference = model.classifier(states)
    else:
        reference = model.classifier(torch.relu(model.pre_classifier(states[:, 0])))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    theirs = torch.autograd.grad(reference.square().sum(), parameters, materialize_grads=True)

    pooled = PooledEmbeddings(model, tokens, pooling, False)
    model.set_submodule(its.embeddings, pooled.eval())
    given, kinds, real = numbered(tokens).pad(examples)
    assert given.tolist() == [[4], [0], [3]]
    assert real.all()
    logits = UpperLayers(model)(pooled(given, kinds)).logits
    torch.testing.assert_close(logits, reference, rtol=1e-10, atol=1e-10)
    ours = torch.autograd.grad(logits.square().sum(), parameters, materialize_grads=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_batches_are_planned_by_the_texts() -> None:
    tokens = tokenize(make_data(20).teacher, tiny.make_tokenizer(), 32)
    np.testing.assert_array_equal(numbered(tokens).lengths, tokens.lengths)
    assert len(set(tokens.lengths)) > 1


# embeddings that stay random say less of a word
@pytest.mark.parametrize(("freeze", "least"), [(False, 0.9), (True, 0.7)])
def test_it_learns_all_that_is_not_frozen(tmp_path: Path, tiny_bert: Path, freeze: bool, least: float) -> None:
    data = make_data()
    folder, seconds = make(tmp_path, tiny_bert, data, freeze=freeze)
    assert seconds > 0
    assert accuracy(folder, data) > least
    assert not load_classifier(str(folder)).missing
    config = load_config({"teacher": str(tiny_bert), "max_length": 32})
    start = untrained_teacher(config, data, CPU).model.state_dict()
    moved = {name for name, tensor in weights(folder).items() if not torch.equal(tensor, start[name])}
    words = "bert.embeddings.word_embeddings.weight"
    assert (words in moved) is not freeze
    assert any(".embeddings." in name for name in moved) is not freeze
    assert {"classifier.weight", "bert.encoder.layer.0.attention.self.value.weight"} <= moved
    assert weights(folder).keys() == start.keys()


def test_it_starts_from_the_head_of_the_usual_teacher(tmp_path: Path, tiny_bert: Path) -> None:
    from sage_kit.models.teacher import load_teacher

    data = make_data(32)
    config = load_config({"teacher": str(tiny_bert), "max_length": 32, "teacher_seed": 3, "teacher_epochs": 1,
                          "teacher_learning_rate": 1e-12})  # fmt: skip
    usual = load_teacher(config, data, Cache(tmp_path), CPU, lambda text: None, lambda *told: None).model
    start = untrained_teacher(config, data, CPU).model
    for name, tensor in usual.state_dict().items():
        torch.testing.assert_close(start.state_dict()[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.equal(
        start.state_dict()["classifier.weight"],
        untrained_teacher(config.model_copy(update={"teacher_seed": 4}), data, CPU).model.state_dict()[
            "classifier.weight"
        ],
    )


def test_it_is_found_again_by_what_it_depends_on(tmp_path: Path, tiny_bert: Path) -> None:
    data, quick = make_data(32), {"teacher_epochs": 1}
    folder, _ = make(tmp_path, tiny_bert, data, **quick)
    steps: list[int] = []
    again, seconds = make(
        tmp_path, tiny_bert, data, lambda done, total, loss: steps.append(done), **quick, learning_rate=0.5, seed=9
    )
    assert (again, seconds, steps) == (folder, 0.0, [])
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tiny_bert.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert make(tmp_path, copy, data, **quick)[0] == folder

    others = [
        make(tmp_path, tiny_bert, data, freeze=True, **quick)[0],
        make(tmp_path, tiny_bert, make_data(31), **quick)[0],
        make(tmp_path, tiny.make_checkpoint(tmp_path / "other", layers=4, seed=5), data, **quick)[0],
    ]
    changes: list[dict[str, Any]] = [
        {"pooling": "cls"}, {"teacher_seed": 1}, {"teacher_learning_rate": 1e-3}, {"batch_size": 8},
        {"batch_tokens": 128}, {"teacher_epochs": 2}, {"max_length": 16},
    ]  # fmt: skip
    others += [make(tmp_path, tiny_bert, data, **{**quick, **change})[0] for change in changes]
    assert len({folder, *others}) == len(others) + 1


@pytest.mark.parametrize("freeze", [False, True])
def test_one_that_was_killed_goes_on_to_the_same_bits(tmp_path: Path, tiny_bert: Path, freeze: bool) -> None:
    data, quick = make_data(32), {"teacher_epochs": 3, "batch_size": 8}

    def kill(done: int, total: int, loss: Any) -> None:
        if done == 6:
            raise KilledError

    whole, _ = make(tmp_path / "whole", tiny_bert, data, freeze=freeze, **quick)
    with pytest.raises(KilledError):
        make(tmp_path / "killed", tiny_bert, data, kill, freeze=freeze, **quick)
    steps: list[int] = []
    again, _ = make(
        tmp_path / "killed", tiny_bert, data, lambda done, total, loss: steps.append(done), freeze=freeze, **quick
    )
    assert steps[0] in (5, 6)
    found = weights(again)
    assert all(torch.equal(tensor, found[name]) for name, tensor in weights(whole).items())


def test_a_trained_head_keeps_its_meaning(tmp_path: Path) -> None:
    """The outputs of this one stand in another order than the task's classes."""
    checkpoint = tiny.make_checkpoint(tmp_path / "trained", labels=2, label_names=("praise", "blame"))
    data = make_data(400)
    folder, _ = make(tmp_path, checkpoint, data)
    assert load_classifier(str(folder)).model.config.id2label == {0: "blame", 1: "praise"}
    assert accuracy(folder, data) > 0.85
    start = untrained_teacher(load_config({"teacher": str(checkpoint), "max_length": 32}), data, CPU)
    assert not start.finetuned
    head = weights(checkpoint)["classifier.weight"]
    assert torch.equal(start.model.state_dict()["classifier.weight"], head.flip(0))
