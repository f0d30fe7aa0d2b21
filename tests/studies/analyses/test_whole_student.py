"""A student with an input layer of its own, held against the bypass and against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode
from toyrun import toy_config

from sage_kit.components.plugins import Plugins
from sage_kit.distill import run
from sage_kit.errors import ConfigError
from sage_kit.models.checkpoints import load_classifier
from sage_kit.models.student import build_student
from sage_kit.rundir.loss_profiles import read_loss_profiles
from sage_kit.studies.analyses.whole_student import WholeStudent, run_whole_student
from sage_kit.studies.run_store import RunStore

SETTINGS: dict[str, Any] = {"schedule": "none", "rounds": 2, "observers": ["loss_profile"]}


def tokens_of(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random token ids and types of shape (batch, tokens, 2), and the mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.stack([ids * mask, torch.zeros_like(ids)], dim=-1), mask


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_it_is_the_model_and_has_its_gradients(family: str) -> None:
    teacher = tiny.make_model(family).double()
    student = build_student(teacher, bypass="embeddings", layers=2).double()
    whole = WholeStudent(student)
    tokens, mask = tokens_of([7, 4, 5])
    ids = tokens[..., 0]
    if tiny.is_roberta(family):
        ids = torch.where(mask, ids, 1)  # the padding id, from which positions are counted
        tokens = torch.stack([ids, tokens[..., 1]], dim=-1)
    logits = whole(tokens, mask).logits
    reference = student(input_ids=ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(logits, reference, rtol=1e-10, atol=1e-10)

    names = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    assert any("word_embeddings" in name for name in names)
    ours = torch.autograd.grad(logits.square().sum(), parameters)
    theirs = torch.autograd.grad(reference.square().sum(), parameters)
    for name, one, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, msg=name)


def test_embeddings_train_with_dropout_unless_frozen() -> None:
    student = build_student(tiny.make_model(), bypass="embeddings", layers=2)
    whole = WholeStudent(student).train()
    assert whole.embeddings.training
    assert all(parameter.requires_grad for parameter in whole.parameters())
    frozen = WholeStudent(student, freeze=True).train()
    assert frozen.upper.training
    assert not frozen.embeddings.training
    assert not any(parameter.requires_grad for parameter in frozen.embeddings.parameters())


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_flops_are_those_that_torch_counts(layers: int, freeze: bool) -> None:
    whole = WholeStudent(build_student(tiny.make_model(), bypass="embeddings", layers=layers), freeze=freeze)
    tokens, _ = tokens_of([6, 6, 6, 6])
    with FlopCounterMode(display=False) as forward:
        output = whole(tokens)
    assert whole.flops(np.full(4, 6)) == forward.get_total_flops()
    with FlopCounterMode(display=False) as backward:
        output.logits.sum().backward()
    assert whole.training_flops(np.full(4, 6)) == forward.get_total_flops() + backward.get_total_flops()


@pytest.fixture(scope="module")
def bypassed(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tuple[Path, Any, Any]:
    """A folder, and in it a run of the distillation loop."""
    folder = tmp_path_factory.mktemp("whole")
    directory, summary = run(toy_config(folder, tiny_bert, **SETTINGS), Plugins(allow=""))
    return folder, directory, summary


def test_with_frozen_embeddings_it_is_the_bypass(bypassed: tuple[Path, Any, Any], tiny_bert: Path) -> None:
    folder, other, its = bypassed
    directory, ours = run_whole_student(toy_config(folder, tiny_bert, **SETTINGS), Plugins(allow=""), freeze=True)
    np.testing.assert_array_equal(read_loss_profiles(directory.path)[1], read_loss_profiles(other.path)[1])
    for split, arrays in other.predictions().items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(directory.predictions()[split][name], array)
    assert set(ours) == set(its)
    wall = ("seconds", "teacher", "rounds")
    assert {name: ours[name] for name in ours if name not in wall} == {n: its[n] for n in its if n not in wall}
    for one, two in zip(ours["rounds"], its["rounds"], strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}


def test_own_embeddings_learn_and_cost_more(bypassed: tuple[Path, Any, Any], tiny_bert: Path) -> None:
    folder, other, its = bypassed
    store = RunStore(folder / "store", Plugins(allow=""))
    config = toy_config(folder, tiny_bert, **SETTINGS)
    assert store.key(config) != store.key(config, run_whole_student)
    quiet = lambda text: None  # noqa: E731
    made = store.run("own", config, announce=quiet, loop=run_whole_student, keep=["student"])
    row = made.row()
    assert not made.found
    assert store.run("own", config, announce=quiet, loop=run_whole_student, keep=["student"]).found
    words = "bert.embeddings.word_embeddings.weight"
    exported, teachers = (load_classifier(str(path)).model for path in (made.directory.student, tiny_bert))
    assert not torch.equal(exported.state_dict()[words], teachers.state_dict()[words])
    assert row["student_steps"] == its["student_steps"]
    assert row["teacher_tokens"] == its["teacher_tokens"]
    assert row["parameters"] == its["parameters"]["student"] == row["trained_parameters"]
    assert row["trained_parameters"] > its["parameters"]["student_trained"]
    assert row["student_flops"] > made.costs["flops"]["evaluate"] > 0
    assert row["dev"] > 0.6
    assert not np.array_equal(made.predictions["dev"]["student"], other.predictions()["dev"]["student"])


def test_a_try_for_a_choice_reads_dev_alone(tmp_path: Path, tiny_bert: Path) -> None:
    """As in the distillation loop, a run that shall not look at other splits predicts dev and nothing else."""
    settings = {**SETTINGS, "evaluation_rows": 40}
    seen = {}
    for when in ("end", "never"):
        config = toy_config(tmp_path, tiny_bert, **settings, evaluate_validation=when)
        directory, summary = run_whole_student(config, Plugins(allow=""))
        seen[when] = directory.predictions(), summary
    assert set(seen["end"][0]) == {"dev", "validation", "evaluation"}
    assert seen["end"][1]["validation"]["validation"].keys() >= {"accuracy", "agreement"}
    assert set(seen["never"][0]) == {"dev"}
    assert seen["never"][1]["validation"] == seen["never"][1]["evaluation"] == {}
    np.testing.assert_array_equal(seen["never"][0]["dev"]["student"], seen["end"][0]["dev"]["student"])


@pytest.mark.parametrize(("name", "value"), [("schedule", "adaptive"), ("bypass", 1), ("granularity", "pooled")])
def test_settings_without_a_use_are_told(tmp_path: Path, tiny_bert: Path, name: str, value: Any) -> None:
    config = toy_config(tmp_path, tiny_bert, **{**SETTINGS, name: value})
    with pytest.raises(ConfigError, match=f"{name} is {value!r}, but a student with an input layer needs"):
        run_whole_student(config, Plugins(allow=""))
