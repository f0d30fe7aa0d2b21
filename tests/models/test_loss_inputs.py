"""What losses look at, in a run: against the whole models in float64, one example at a time, and from end to end."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy
from toyrun import go_back, toy_config, toy_run, without_times

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.distill import resume
from sage_kit.errors import CompatibilityError, ConfigError
from sage_kit.models.block_parts import parts_of
from sage_kit.models.checkpoints import load_classifier
from sage_kit.models.families import family_of
from sage_kit.models.loss_inputs import BatchInputs
from sage_kit.models.split import split_model
from sage_kit.recipe import resolve
from sage_kit.rundir import RunDirectory
from sage_kit.studies.analyses.whole_student import run_whole_student
from sage_kit.system.devices import make_accelerator
from sage_kit.training.labelled_batches import RealBatches
from sage_kit.training.losses import relation_loss
from sage_kit.training.preparation import prepare
from sage_kit.training.prepared import Prepared
from sage_kit.training.profile import Profile

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("relations")


def prepared_run(folder: Path, teacher: Path, **settings: Any) -> tuple[Any, Prepared]:
    config = toy_config(folder, teacher, schedule="none", **settings)
    return config, prepare(resolve(config, Plugins(allow="")), make_accelerator(config), Costs())


def relations_of(model: Any, block: int, ids: NDArray[np.int64], heads: int) -> list[NDArray[np.float64]]:
    """What the whole model's stock layers of a block (from 0) make of one text, as relations by kind and head."""
    parts = parts_of(model.get_submodule(family_of(model.config).blocks)[block])
    kept: list[NDArray[np.float64]] = []
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: kept.append(output[0].detach().numpy()))
        for layer in (parts.query, parts.key, parts.value)
    ]
    with torch.no_grad():
        model(torch.from_numpy(ids)[None])
    for handle in handles:
        handle.remove()
    relations = []
    for states in kept:
        for head in np.split(states, heads, axis=1):
            relations.append(softmax(head @ head.T / np.sqrt(head.shape[1]), axis=-1))
    return relations


def whole_loss(teacher: Any, block: int, student: Any, ids: NDArray[np.int64], heads: int) -> float:
    """The loss of one text by two whole models."""
    theirs = relations_of(teacher, block, ids, heads)
    ours = relations_of(student, student.config.num_hidden_layers - 1, ids, heads)
    return float(np.mean([entropy(p, q, axis=-1) for p, q in zip(theirs, ours, strict=True)]))


@pytest.mark.parametrize("hidden_weight", [0.0, 1.0])
@pytest.mark.parametrize(
    ("family", "bypass", "layer", "heads"),
    [
        ("bert", "embeddings", 0, 0), ("bert", "embeddings", 1, 8), ("bert", 1, 2, 2), ("bert", 2, 1, 0),
        ("roberta", "embeddings", 3, 4), ("distilbert", 1, 0, 1), ("mpnet", "embeddings", 0, 0),
    ],
)  # fmt: skip
def test_losses_of_a_batch_are_those_of_the_whole_models(
    tmp_path: Path, family: str, bypass: Any, layer: int, heads: int, hidden_weight: float
) -> None:
    """From the cached states in half precision, on padded batches, within a thousandth of what float64 gives."""
    checkpoint = tiny.make_checkpoint(tmp_path / family, family)
    config, prepared = prepared_run(
        tmp_path, checkpoint, bypass=bypass, teacher_epochs=1, student_init="scratch", relation_weight=0.5,
        relation_layer=layer, relation_heads=heads, hidden_weight=hidden_weight, hidden_layers="mapped",
    )  # fmt: skip
    inputs = prepared.loss_inputs
    front = 0 if bypass == "embeddings" else bypass
    block = (front + layer if layer else 4) - 1
    assert inputs.teacher_projections == (block + 1 - front,)
    # nothing is kept twice, nor the token states, which are there already
    entering = block - front
    paired = list(inputs.layers["hidden_cosine"].teacher_hidden) if hidden_weight else []
    assert len(paired) == (2 if hidden_weight else 0)
    assert prepared.teacher_layers == paired + ([entering] if entering and entering not in paired else [])

    teacher, student = prepared.teacher.model.eval(), prepared.student.eval()
    _, upper = split_model(student, bypass)
    train = prepared.train
    batches = RealBatches(train, Profile(len(train.store), 2, CPU), config, CPU, np.random.default_rng(0))
    found, expected = [], []
    for number in range(3):
        batch = batches.gather(number)()
        with torch.no_grad():
            output = upper(batch.states, batch.mask, hidden=inputs.hidden, projections=inputs.projections)
        seen = BatchInputs(
            inputs,
            upper,
            output,
            batch.states,
            batch.mask,
            batch.logits,
            batch.positions,
            batch.hidden,
            batch.labels,
            contextlib.nullcontext,
        ).of("minilm_relations")
        ours, theirs = seen.student.projections, seen.teacher.projections
        assert ours is not None
        assert theirs is not None
        found.append(relation_loss(ours[:, :, 0], theirs[:, :, 0], batch.mask, heads or 4).numpy())
    teacher.double(), student.double()
    for number in range(3):
        for row in batches.gather(number)().rows.numpy():
            ids = train.tokens.ids[train.tokens.offsets[row] : train.tokens.offsets[row + 1]].astype(np.int64)
            expected.append(whole_loss(teacher, block, student, ids, heads or 4))
    assert min(expected) > 1e-3
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-3)


def test_half_precision_of_the_kept_states_moves_the_gradient_little(folder: Path, tiny_bert: Path) -> None:
    _, prepared = prepared_run(folder, tiny_bert, relation_weight=1.0, student_init="scratch")
    teacher = prepared.teacher_upper
    rows = np.argsort(prepared.train.store.lengths)[-16:]
    batch = prepared.train.store.batch(rows, CPU)
    exact = teacher.double()(batch.states.double(), batch.mask, hidden=True).hidden[-2].detach()
    _, student = split_model(prepared.student.eval(), "embeddings")
    gradients = []
    for kept in (exact, exact.half().float()):
        student.zero_grad()
        (ours,) = student(batch.states, batch.mask, projections=(student.n_blocks,)).projections
        theirs = teacher.to(kept.dtype).project(teacher.n_blocks, kept).detach()
        relation_loss(ours, theirs, batch.mask, 4).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in student.blocks.parameters() if p.grad is not None]))
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-3


# ---- from end to end


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The mean relations loss of each training step, filled as a run goes on."""
    kept: list[float] = []

    def recording(*arguments: Any) -> torch.Tensor:
        losses = relation_loss(*arguments)
        assert losses.shape == (len(arguments[0]),)
        kept.append(float(losses.detach().mean()))
        return losses

    monkeypatch.setattr("sage_kit.builtin.losses.minilm_relations.relation_loss", recording)
    return kept


@pytest.mark.parametrize("mix", ["add", "replace"])
def test_relations_are_learnt_on_real_and_synthetic_examples(
    folder: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, mix: str
) -> None:
    settings: dict[str, Any] = {"student_init": "scratch", "hard_label_weight": 0.3, "mix": mix}
    last = []
    for weight in (1e-9, 5.0):
        kept = recorded(monkeypatch)
        _, summary = toy_run(folder, tiny_bert, relation_weight=weight, **settings)
        assert len(kept) == summary["student_steps"]
        assert summary["rounds"][1]["synthetic"] > 0
        last.append(np.mean(kept[-5:]))
    # from where it stood at the start, and compared with a run that does not learn them
    assert last[1] < 0.6 * np.mean(kept[:3])
    assert last[1] < 0.8 * last[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_weight": 0.5, "relation_layer": 1},
        {"hidden_weight": 0.5, "hidden_layers": "mapped", "relation_layer": 3, "relation_heads": 8},
        {"bypass": 2, "student_layers": 1, "precision": "bf16"},
        {"losses_from": "pass", "schedule": "static", "lift": "shift"},
    ],
    ids=["first-block", "mapped", "cut-bf16", "static"],
)
def test_goes_together_with_other_settings(folder: Path, tiny_bert: Path, settings: dict[str, Any]) -> None:
    _, summary = toy_run(folder, tiny_bert, relation_weight=1.0, rounds=2, **settings)
    first, second = summary["rounds"]
    assert second["train_loss"] < first["train_loss"]
    assert second["synthetic"] > 0


def test_a_run_is_resumed_to_the_same_bits(folder: Path, tiny_bert: Path) -> None:
    settings: dict[str, Any] = {"relation_weight": 1.0, "relation_layer": 2, "hidden_weight": 0.5}
    directory, expected = toy_run(folder, tiny_bert, keep_checkpoints=0, **settings)
    before = load_classifier(str(directory.student)).model.state_dict()
    go_back(directory, to_round=1)
    assert without_times(resume(RunDirectory.open(directory.path), Plugins(allow=""))) == without_times(expected)
    for name, value in load_classifier(str(directory.student)).model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def flops_of_student(directory: RunDirectory) -> int:
    return int(json.loads((directory.path / "costs.json").read_text())["flops"]["student"])


def test_flops_of_the_loss_are_counted(folder: Path, tiny_bert: Path) -> None:
    settings: dict[str, Any] = {"schedule": "none", "rounds": 1}
    plain, with_relations = (
        flops_of_student(toy_run(folder, tiny_bert, relation_weight=weight, **settings)[0]) for weight in (0.0, 1.0)
    )
    _, prepared = prepared_run(folder, tiny_bert, relation_weight=1.0)
    lengths = prepared.train.store.lengths
    _, student = split_model(prepared.student, "embeddings")
    added = student.training_flops(lengths, projections=(student.n_blocks,)) - student.training_flops(lengths)
    added += prepared.loss_inputs.flops(lengths)
    assert with_relations - plain == added


def test_without_weight_nothing_is_asked_for(folder: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> torch.Tensor:
        raise AssertionError("computed though it is off")

    for name in ("project", "project_padded"):
        monkeypatch.setattr(f"sage_kit.models.split.{name}", refused)
    monkeypatch.setattr("sage_kit.builtin.losses.minilm_relations.relation_loss", refused)
    _, prepared = prepared_run(folder, tiny_bert, relation_layer=9, relation_heads=5)
    assert list(prepared.loss_inputs.losses) == ["kl"]
    assert prepared.teacher_layers == []
    assert prepared.train.outputs.hidden is None
    toy_run(folder, tiny_bert, rounds=2)


# ---- a student with an input layer of its own


def test_a_student_with_an_input_layer_learns_them_too(folder: Path, tiny_bert: Path) -> None:
    config = toy_config(folder, tiny_bert, schedule="none", rounds=2, relation_weight=1.0)
    directory, summary = run_whole_student(config, Plugins(allow=""), freeze=True)
    other, its = toy_run(folder, tiny_bert, schedule="none", rounds=2, relation_weight=1.0)
    for one, two in zip(summary["rounds"], its["rounds"], strict=True):
        assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert flops_of_student(directory) == flops_of_student(other)


def test_a_student_with_an_input_layer_has_no_relations_of_token_states(folder: Path, tiny_bert: Path) -> None:
    config = toy_config(folder, tiny_bert, schedule="none", relation_weight=1.0, relation_layer=1)
    with pytest.raises(ConfigError, match="set relation_layer to a later block, or relation_weight to 0"):
        run_whole_student(config, Plugins(allow=""))


# ---- what does not fit


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"relation_layer": 5}, "relation_layer names block 5, but the teacher has 4 behind the input layers"),
        ({"relation_layer": 4, "bypass": 1}, "relation_layer names block 4, but the teacher has 3 behind"),
        ({"relation_heads": 5}, "relation_heads is 5, but must divide the width of the teacher's states, 32: set it to "
         "4 or 8, or to 0 for the teacher's own 4"),
        ({"relation_heads": 100}, "set it to 32, or to 0"),
    ],
)  # fmt: skip
def test_blocks_and_heads_that_the_teacher_does_not_have(
    folder: Path, tiny_bert: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(CompatibilityError) as caught:
        prepared_run(folder, tiny_bert, relation_weight=1.0, **settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
