"""The sum of a run's losses: weights, what losses see, their parameters, and what is counted."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from scipy.special import softmax
from torch.utils.flop_counter import FlopCounterMode
from toyrun import go_back, toy_config, toy_run, without_times

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config.loss_weights import LossWeight
from sage_kit.distill import resume, run
from sage_kit.errors import CompatibilityError, ConfigError, PluginError, UnknownComponentError
from sage_kit.models.checkpoints import load_classifier
from sage_kit.models.families import family_of
from sage_kit.models.loss_inputs import BatchInputs
from sage_kit.models.split import split_model
from sage_kit.recipe import resolve
from sage_kit.rundir import RunDirectory
from sage_kit.system.devices import make_accelerator
from sage_kit.training.labelled_batches import LabelledBatch, RealBatches
from sage_kit.training.objective import Objective
from sage_kit.training.preparation import prepare
from sage_kit.training.prepared import Prepared
from sage_kit.training.profile import Profile

CPU = torch.device("cpu")

EVERYTHING = {
    "kl": 1.0, "dist": 0.1, "hard_labels": 0.1, "hidden_cosine": 0.1, "hidden_mse": 0.1, "tinybert_attention": 0.1,
    "minilm_relations": 0.1, "pkd": 0.1, "rkd": 0.1, "embedding_cosine": 0.1, "contrastive": 0.1, "logits_mse": 0.1,
}  # fmt: skip

OWNER = '''
"""A loss with a parameter of its own: a learned map of the student's embeddings."""
import torch

from sage_kit import hookimpl
from sage_kit.components import LossSpec


class Mapped(torch.nn.Module):
    def __init__(self, options, context):
        super().__init__()
        generator = torch.Generator().manual_seed(context.seed)
        start = torch.randn(context.sizes.student_dim, context.sizes.teacher_dim, generator=generator)
        self.weight = torch.nn.Parameter(start / 10)
        self.register_buffer("seen", torch.zeros(()))

    def per_example(self, batch):
        self.seen += 1
        return (batch.student.embeddings @ self.weight - batch.teacher.embeddings).square().mean(1)


@hookimpl
def sage_losses():
    yield LossSpec(name="mapped", summary="Mapped embeddings", factory=Mapped, needs_embeddings=True)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objective")


def prepared_run(folder: Path, teacher: Path, **settings: Any) -> tuple[Any, Prepared]:
    config = toy_config(folder, teacher, schedule="none", **settings)
    return config, prepare(resolve(config, Plugins(allow="")), make_accelerator(config), Costs())


def first_batch(config: Any, prepared: Prepared) -> LabelledBatch:
    profile = Profile(len(prepared.train.store), prepared.data.spec.n_outputs, CPU)
    return RealBatches(prepared.train, profile, config, CPU, np.random.default_rng(0)).gather(0)()


# ---- weights


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 1.0), (0.25, 0.875), (1.0, 0.5), (1.5, 0.5), (-1.0, 1.0)])
def test_a_weight_goes_in_a_straight_line(progress: float, expected: float) -> None:
    assert LossWeight(1.0, 0.5).at(progress) == expected
    assert LossWeight(0.3, 0.3).at(progress) == 0.3


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({}, {"losses": {"kl": 1.0}}),
        ({"temperature": 2.0, "hard_label_weight": 0.25},
         {"losses": {"kl": 0.75, "hard_labels": 0.25}, "loss_options": {"kl": {"temperature": 2.0}}}),
        ({"hard_label_weight": 1.0}, {"losses": "hard_labels=1, kl=0"}),
        ({"hidden_weight": 0.5, "hidden_layers": "mapped", "hidden_loss": "mse", "relation_weight": 0.3,
          "relation_layer": 2, "relation_heads": 8},
         {"losses": {"kl": {"start": 1, "end": 1.0}, "hidden_mse": 0.5, "minilm_relations": 0.3},
          "loss_options": "hidden_mse = {layers = 'mapped'}, minilm_relations = {layer = 2, heads = 8}"}),
    ],
    ids=["kl", "labels", "labels-alone", "hidden"],
)  # fmt: skip
def test_short_forms_are_the_same_to_the_bit(
    folder: Path, tiny_bert: Path, short: dict[str, Any], long: dict[str, Any]
) -> None:
    students = []
    for settings in (short, long):
        directory, summary = toy_run(folder, tiny_bert, rounds=2, **settings)
        assert summary["rounds"][1]["synthetic"] > 0
        weights = load_classifier(str(directory.student)).model.state_dict()
        students.append((weights, [result["train_loss"] for result in summary["rounds"]]))
    assert students[0][1] == students[1][1]
    for name, value in students[0][0].items():
        assert torch.equal(value, students[1][0][name])


def test_a_weight_that_ends_at_zero_has_no_say_at_the_end(folder: Path, tiny_bert: Path) -> None:
    config, prepared = prepared_run(
        folder, tiny_bert, losses={"kl": {"start": 1.0, "end": 0.0}, "logits_mse": {"start": 0.0, "end": 2.0}}
    )
    _, student = split_model(prepared.student, "embeddings")
    objective, batch = Objective(config, prepared.loss_inputs, student, CPU), first_batch(config, prepared)
    assert objective.asks == {"hidden": False, "projections": ()}
    output = student(batch.states, batch.mask)
    mse = 2 * (output.logits - batch.logits).square().mean(-1)
    start, middle, end = (objective(output, batch, share, contextlib.nullcontext)[0] for share in (0.0, 0.5, 1.0))
    torch.testing.assert_close(end, mse)
    torch.testing.assert_close(middle, (start + end) / 2)
    assert not torch.allclose(start, end)


def test_a_schedule_runs_over_the_steps_of_the_run(folder: Path, tiny_bert: Path) -> None:
    settings: dict[str, Any] = {"losses": {"kl": 1.0, "logits_mse": {"start": 1.0, "end": 0.0}}, "rounds": 2}
    directory, expected = toy_run(folder, tiny_bert, keep_checkpoints=0, **settings)
    _, constant = toy_run(folder, tiny_bert, **{**settings, "losses": {"kl": 1.0, "logits_mse": 1.0}})
    assert expected["rounds"][0]["train_loss"] < constant["rounds"][0]["train_loss"]
    go_back(directory, to_round=1)
    assert without_times(resume(RunDirectory.open(directory.path), Plugins(allow=""))) == without_times(expected)


# ---- what losses see


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
def test_scores_are_those_of_the_stock_attention(family: str, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.make_model(family, layers=3).eval()
    input_layers, upper = split_model(model, 1)
    ids = torch.randint(10, 60, (2, 7))
    with torch.no_grad():
        states = input_layers(ids, torch.zeros_like(ids), None)
        if not packed:
            monkeypatch.setattr("sage_kit.models.split.runs_packed", lambda states: False)
        found = upper(states, None, projections=(2, 1)).projections
        scores = [upper.scores(layer, one) for layer, one in zip((2, 1), found, strict=True)]
        model.set_attn_implementation("eager")
        expected = model(ids, output_attentions=True).attentions
    assert family_of(model.config).name
    for layer, one in zip((2, 1), scores, strict=True):
        np.testing.assert_allclose(softmax(one.numpy(), -1), expected[layer].numpy(), rtol=1e-4, atol=1e-6)


def test_losses_see_what_the_models_make_of_the_batch(folder: Path, tiny_bert: Path) -> None:
    config, prepared = prepared_run(folder, tiny_bert, student_init="scratch", losses=EVERYTHING, pooling="cls")
    inputs = prepared.loss_inputs
    # the last for embeddings and more, then every one that a loss compares, and what enters one whose scores are
    assert set(inputs.kept) == {1, 2, 3, 4}
    assert len(inputs.kept) == 4
    _, student = split_model(prepared.student.eval(), "embeddings")
    batch = first_batch(config, prepared)
    with torch.no_grad():
        output = student(batch.states, batch.mask, hidden=inputs.hidden, projections=inputs.projections)
        whole = prepared.teacher_upper(batch.states, batch.mask, hidden=True, projections=(2, 4))
    seen = BatchInputs(
        inputs,
        student,
        output,
        batch.states,
        batch.mask,
        batch.logits,
        batch.positions,
        batch.hidden,
        batch.labels,
        contextlib.nullcontext,
    )

    def same(one: Any, two: torch.Tensor) -> None:  # what is kept in half precision
        torch.testing.assert_close(one, two, rtol=5e-3, atol=5e-3)

    attention, relations, cosine, rkd = (
        seen.of(name) for name in ("tinybert_attention", "minilm_relations", "hidden_cosine", "rkd")
    )
    theirs = torch.stack(
        [prepared.teacher_upper.scores(n, p) for n, p in zip((2, 4), whole.projections, strict=True)], 1
    )
    real = (batch.mask[:, :, None] & batch.mask[:, None, :])[:, None, None].expand_as(theirs)
    same(attention.teacher.scores[real], theirs[real])
    same(relations.teacher.projections[batch.mask][:, 0], whole.projections[1][batch.mask])
    same(cosine.teacher.hidden[batch.mask][:, 0], whole.hidden[3][batch.mask])
    same(rkd.teacher.embeddings, whole.hidden[3][:, 0])
    torch.testing.assert_close(rkd.student.embeddings, output.hidden[1][:, 0])
    assert (rkd.teacher.hidden, rkd.student.scores, cosine.student.embeddings) == (None, None, None)
    # made once for all that look at it
    assert seen.of("contrastive").student.embeddings is rkd.student.embeddings


def test_flops_are_those_that_torch_counts(folder: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # the counter knows none of oneDNN's products
    losses = {"kl": 1.0, "tinybert_attention": 1.0, "minilm_relations": 1.0}
    config, prepared = prepared_run(folder, tiny_bert, losses=losses, loss_options={"minilm_relations": {"layer": 1}})
    _, student = split_model(prepared.student, "embeddings")
    objective = Objective(config, prepared.loss_inputs, student, CPU)
    tokens, dim = 6, student.dim
    batch = LabelledBatch(
        torch.randn(4, tokens, dim), torch.ones(4, tokens, dtype=torch.bool), torch.randn(4, 2),
        torch.zeros(4, dtype=torch.int64), torch.randn(4, tokens, len(prepared.teacher_layers), dim),
        torch.arange(4), padded=False,
    )  # fmt: skip
    lengths = np.full(4, tokens)
    with FlopCounterMode(display=False) as counter:
        output = student(batch.states, None, **objective.asks)
        objective(output, batch, 0.0, contextlib.nullcontext)[0].mean().backward()
    counted = student.training_flops(lengths, False, objective.inputs.projections) + objective.flops(lengths)
    assert counted == counter.get_total_flops()


REPLACED = {"schedule": "static", "mix": "replace", "synthetic_ratio": 0.5}


@pytest.mark.parametrize(
    "settings", [{}, {"schedule": "none"}, REPLACED, {"precision": "bf16"}, {"bypass": 2}], ids=str
)
def test_all_losses_together(folder: Path, tiny_bert: Path, settings: dict[str, Any]) -> None:
    _, summary = toy_run(folder, tiny_bert, rounds=2, student_init="scratch", losses=EVERYTHING, **settings)
    first, second = summary["rounds"]
    assert second["train_loss"] < first["train_loss"]


def test_regression(folder: Path, tiny_bert: Path) -> None:
    rows = [{"text": row["text"], "label": float(len(row["text"].split()))} for row in tiny.toy_task_rows(120, seed=1)]
    train = tiny.write_jsonl(folder / "numbers.jsonl", rows)
    losses = {name: weight for name, weight in EVERYTHING.items() if name != "dist"}
    given: dict[str, Any] = {"task_kind": "regression", "train_file": str(train), "validation_file": ""}
    _, summary = toy_run(folder, tiny_bert, rounds=2, losses=losses, **given)
    assert np.isfinite(summary["rounds"][1]["train_loss"])
    with pytest.raises(CompatibilityError, match="loss 'dist' looks at classes, and task 'file' is a regression task"):
        toy_run(folder, tiny_bert, losses={"dist": 1.0}, **given)


def test_a_pass_for_the_profile_goes_by_outputs_alone(folder: Path, tiny_bert: Path) -> None:
    losses = {"kl": 0.5, "dist": 0.5, "hidden_mse": 9.0}
    config, prepared = prepared_run(folder, tiny_bert, losses=losses)
    _, student = split_model(prepared.student, "embeddings")
    objective = Objective(config, prepared.loss_inputs, student, CPU)
    logits, teacher = torch.randn(70, 2), torch.randn(70, 2)
    labels = torch.zeros(70, dtype=torch.int64)
    found = objective.of_outputs(logits, teacher, labels, 0.0)
    # a property of the batch is that of batches as they are trained on
    rows = slice(config.batch_size, 2 * config.batch_size)
    torch.testing.assert_close(objective.of_outputs(logits[rows], teacher[rows], labels[rows], 0.0), found[rows])
    _, summary = toy_run(folder, tiny_bert, rounds=2, losses=losses, losses_from="pass")
    assert summary["rounds"][1]["synthetic"] > 0
    with pytest.raises(CompatibilityError, match="add kl to losses"):
        toy_run(folder, tiny_bert, losses={"rkd": 1.0}, losses_from="pass")


# ---- parameters of losses


def owner(folder: Path) -> Plugins:
    file = folder / "owner.py"
    file.write_text(OWNER, encoding="utf-8")
    return Plugins([file], allow="")


def test_parameters_of_losses_are_trained_kept_and_given_back(folder: Path, tiny_bert: Path) -> None:
    plugins = owner(folder)
    config = toy_config(folder, tiny_bert, losses={"kl": 1.0, "mapped": 1.0}, keep_checkpoints=0)
    directory, expected = run(config, plugins)
    kept = [load_file(path / "components.safetensors") for path in sorted((directory.path / "checkpoints").glob("r*"))]
    assert [float(one["loss.mapped.seen"]) for one in kept] == [
        result["total_steps"] if result["round"] else 0 for result in [{"round": 0}, *expected["rounds"]]
    ]
    moved = [float((one["loss.mapped.weight"] - kept[0]["loss.mapped.weight"]).abs().max()) for one in kept]
    assert 0 == moved[0] < moved[1] < moved[2]
    assert not any("mapped" in name for name in load_classifier(str(directory.student)).model.state_dict())
    before = load_classifier(str(directory.student)).model.state_dict()
    go_back(directory, to_round=1)
    assert without_times(resume(RunDirectory.open(directory.path), owner(folder))) == without_times(expected)
    for name, value in load_classifier(str(directory.student)).model.state_dict().items():
        assert torch.equal(value, before[name])


# ---- mistakes


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"losses": {"kl": -1}}, ConfigError, "of 'kl' it is -1: a weight is a number of at least 0, or a table like"),
        ({"losses": {"kl": {"begin": 1}}}, ConfigError, "a weight is a number of at least 0, or a table like"),
        ({"losses": {"kl": True}}, ConfigError, "a weight is a number of at least 0, or a table like"),
        ({"losses": {"kl": 0}}, ConfigError, "every weight is 0"),
        ({"losses": {"kl": 1}, "hidden_weight": 0.5}, ConfigError, "set hidden_weight to 0 and add hidden_cosine = "),
        ({"losses": {"kl": 1}, "hard_label_weight": 0.5}, ConfigError, "add hard_labels = 0.5 to losses"),
        ({"losses": {"kll": 1}}, UnknownComponentError, "Unknown loss 'kll'. Did you mean 'kl'?"),
        ({"losses": {"kl": 1, "kll": 0}}, UnknownComponentError, "Unknown loss 'kll'. Did you mean 'kl'?"),
        ({"losses": {"kl": 1}, "loss_options": {"rkd": {}}}, ConfigError, "loss_options names 'rkd', which losses"),
        ({"loss_options": {"rkd": {}}}, ConfigError, "loss_options names 'rkd', but losses is empty: set losses to"),
        ({"losses": {"kl": 1}, "loss_options": {"kl": {"heat": 2}}}, ConfigError, "loss 'kl': Unknown option 'heat'"),
        ({"losses": {"minilm_relations": 1}, "granularity": "pooled", "lift": "shift"}, CompatibilityError,
         "loss 'minilm_relations' compares the tokens of an example with each other, and granularity 'pooled'"),
        ({"losses": {"hidden_mse": 1}, "loss_options": {"hidden_mse": {"layers": [1, 9]}}}, CompatibilityError,
         "loss 'hidden_mse' looks at block 9 of the teacher, which has 4 behind the input layers"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(
    folder: Path, tiny_bert: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        toy_run(folder, tiny_bert, **settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "batch.student.logits",
            "returned float32 of shape (10, 2), not one float32 value for each of the 10 examples",
        ),
        ("batch.student.logits.mean()", "returned float32 of shape (), not one float32 value"),
        ("batch.student.logits.double()[:, 0]", "returned float64 of shape (10,), not one float32 value"),
        ("1.0", "returned float, not a tensor of one value for each example"),
        ("batch.student.hidden[0]", "(mine.py) failed: TypeError: 'NoneType' object is not subscriptable"),
    ],
)
def test_a_loss_that_returns_no_losses_is_named(tmp_path: Path, tiny_bert: Path, value: str, words: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from sage_kit import hookimpl\nfrom sage_kit.components import LossSpec\n\n\nclass Mine:\n"
        f"    def per_example(self, batch):\n        return {value}\n\n\n@hookimpl\ndef sage_losses():\n"
        "    yield LossSpec(name='mine', summary='Mine', factory=lambda options, context: Mine())\n",
        encoding="utf-8",
    )
    config = toy_config(tmp_path, tiny_bert, losses={"mine": 1.0}, batch_size=10)
    with pytest.raises(PluginError) as caught:
        run(config, Plugins([file], allow=""))
    assert words in str(caught.value).replace(str(file), "mine.py")
    assert "'mine'" in str(caught.value)


def test_the_costs_of_losses_are_in_the_costs_of_a_run(folder: Path, tiny_bert: Path) -> None:
    flops = []
    for losses in ({"kl": 1.0}, {"kl": 1.0, "tinybert_attention": 1.0}):
        directory, _ = toy_run(folder, tiny_bert, rounds=1, schedule="none", losses=losses)
        flops.append(json.loads((directory.path / "costs.json").read_text())["flops"]["student"])
    assert flops[1] > flops[0]
