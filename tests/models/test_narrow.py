from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode
from toyrun import go_back, toy_config, toy_run, without_times

from sage_kit.components import TaskSpec, TokenBatch
from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import RunConfig
from sage_kit.config.loss_weights import loss_choices
from sage_kit.distill import resume, run
from sage_kit.errors import CompatibilityError
from sage_kit.models.export import export_student
from sage_kit.models.families import family_of
from sage_kit.models.narrow import (
    Shape,
    build_narrow,
    narrow_config,
    projection_of,
    student_shape,
    trained_layers,
)
from sage_kit.models.narrowing import narrowing_of
from sage_kit.models.split import split_model
from sage_kit.models.student import build_student
from sage_kit.recipe import resolve
from sage_kit.system.devices import make_accelerator
from sage_kit.training.labelled_batches import LabelledBatch
from sage_kit.training.objective import Objective
from sage_kit.training.preparation import prepare
from sage_kit.training.prepared import Prepared
from sage_kit.training.steps import count_flops

SPEC = TaskSpec(name="toy", summary="", text_columns=("text",), labels=("blame", "praise"))
TEXTS = ["a good film", "this plot was dull and the music quite awful", "words unheard of"]
ABLE = pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert", "distilbert"])
SHAPE = Shape(16, 2, 24)


def settings(**given: Any) -> RunConfig:
    return RunConfig(**{"student_width": 16, **given})


def encoded(family: str, texts: list[str] = TEXTS) -> tuple[Any, torch.Tensor]:
    batch = tiny.make_tokenizer(family)(texts, padding=True, return_tensors="pt")
    return batch, batch["attention_mask"].bool()


def narrow(family: str = "bert", shape: Shape = SHAPE, init: Any = "pca", layers: int = 2, **others: Any) -> Any:
    """A teacher, its input layers, and a narrower student with what is trained of it."""
    teacher = tiny.make_model(family, **others)
    input_layers, upper = split_model(teacher, "embeddings")
    batch, mask = encoded(family)
    states = input_layers(batch["input_ids"], torch.zeros_like(batch["input_ids"]), mask)
    narrowing = narrowing_of(upper, lambda: [TokenBatch(states, mask)], shape.width, init)
    student = build_narrow(teacher, shape, layers=layers, seed=3, narrowing=narrowing)
    return teacher, input_layers, student, trained_layers(student, teacher, "embeddings")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"student_width": 0}, None),
        ({"student_width": 32}, None),
        ({"student_width": 0, "student_heads": 4, "student_ffn": 64}, None),
        ({"student_width": 16}, Shape(16, 2, 32)),
        ({"student_width": 16, "student_heads": 4, "student_ffn": 20}, Shape(16, 4, 20)),
        ({"student_width": 10, "student_heads": 5}, Shape(10, 5, 20)),
        ({"student_width": 0, "student_heads": 8}, Shape(32, 8, 64)),
        ({"student_width": 0, "student_ffn": 7}, Shape(32, 4, 7)),
    ],
)
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_what_is_not_given_follows_the_teacher(family: str, given: dict[str, int], expected: Shape | None) -> None:
    assert student_shape(settings(**given), tiny.make_config(family)) == expected


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("bert", {"student_width": 40}, "student_width is 40, but the teacher is 32 wide: set it to less, or to 0"),
        (
            "bert",
            {"student_width": 20},
            r"heads as wide as the teacher's \(8\) do not fill: set it to 16 or 24, or stud",
        ),
        ("bert", {"student_heads": 3}, "student_heads is 3, but must divide the student's width, 16: set it to 2 or 4"),
        ("bert", {"student_heads": 99}, "student_heads is 99, but must divide the student's width, 16: set it to 16, "),
        ("bert", {"bypass": 1}, "bypass is 1, .* set bypass to 'embeddings', or student_width to 0"),
        (
            "bert",
            {"bypass": 1, "student_width": 0, "student_ffn": 9},
            "set bypass to 'embeddings', or student_ffn to 0",
        ),
        (
            "mpnet",
            {},
            "family 'mpnet' fit no narrower checkpoint: set it to 0, or take a teacher of family bert, roberta or dist",
        ),
        ("electra", {}, "input layers of a teacher of family 'electra' fit no narrower checkpoint"),
        ("albert", {"student_width": 0, "student_ffn": 9}, "of family 'albert' are one and the same: set student_ffn"),
        ("modernbert", {"student_width": 0, "student_ffn": 9}, "'modernbert' are built otherwise than BERT's: set stu"),
        (
            "bert",
            {"warmup_epochs": 2, "warmup_corpus": "x.txt"},
            "warmup_epochs is 2, .* 16 wide .* the teacher's 32: set it to 0, or student_width to 0",
        ),
        (
            "mpnet",
            {"student_width": 0, "student_heads": 2},
            "relative positions of family .*, are those of 4 heads: set it to 4",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_what_works(family: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(CompatibilityError, match=message):
        student_shape(settings(**given), tiny.make_config(family))


@ABLE
@pytest.mark.parametrize("init", ["pca", "random"])
def test_plain_transformers_computes_the_same(family: str, init: str, tmp_path: Path) -> None:
    """Layers that are trained, on the teacher's token states, against the exported checkpoint on the texts."""
    teacher, input_layers, student, upper = narrow(family, init=init)
    batch, mask = encoded(family)
    types = torch.zeros_like(batch["input_ids"])
    if family == "bert":
        batch["token_type_ids"] = types = torch.arange(types.shape[1]).expand_as(types) % 2
    with torch.no_grad():
        wanted = upper(input_layers(batch["input_ids"], types, mask), mask).logits
    export_student(student, tiny.make_tokenizer(family), tmp_path, SPEC)

    from transformers import AutoModelForSequenceClassification

    model, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert type(model).__name__ == "ElectraForSequenceClassification"
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, wanted, rtol=1e-5, atol=1e-6)
    assert wanted.std(0).max() > 1e-3
    longest = torch.full((1, family_of(teacher.config).max_tokens(teacher.config)), 9)
    model(longest)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.cat([longest, longest[:, :1]], 1))


@ABLE
def test_the_last_position_is_the_teachers(family: str) -> None:
    _, input_layers, student, _ = narrow(family)
    ids = torch.full((1, tiny.MAX_POSITIONS), 9)
    with torch.no_grad():
        states = student.electra.embeddings(ids)
        torch.testing.assert_close(states, input_layers(ids, torch.zeros_like(ids), None), rtol=0, atol=1e-6)


LOADER = """
import sys
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
try:
    import sage_kit
except ImportError:
    pass
else:
    raise SystemExit("sage_kit can be imported")
folder, out, *texts = sys.argv[1:]
model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    logits = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
torch.save(logits, out)
"""


def test_an_exported_student_needs_nothing_of_this_package(tmp_path: Path, tiny_bert: Path) -> None:
    """A run with synthesis; its student, loaded where sage_kit is not there, gives the run's own outputs."""
    directory, summary = toy_run(
        tmp_path, tiny_bert, student_width=16, student_ffn=24, rounds=2, evaluate_validation="end"
    )
    assert summary["checkpoint_equals_student"]
    assert summary["rounds"][-1]["synthetic"] > 0
    assert "narrowing" in (directory.path / "costs.json").read_text(encoding="utf-8")
    texts = [row["text"] for row in tiny.toy_task_rows(120, seed=2)]
    out = tmp_path / "logits.pt"
    script = tmp_path / "load.py"
    script.write_text(LOADER, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    blocked = tmp_path / "blocked" / "sage_kit"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError", encoding="utf-8")
    environment["PYTHONPATH"] = str(blocked.parent)
    done = subprocess.run(
        [sys.executable, str(script), str(directory.student), str(out), *texts],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    logits = torch.load(out)
    from safetensors.torch import load_file

    stored = load_file(directory.path / "predictions.safetensors")
    (name,) = [key for key in stored if key.startswith("validation") and key.endswith("student")]
    torch.testing.assert_close(logits, stored[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("init", ["pca", "prune", "random"])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("projections", [(), (2,), (1, 2)])
def test_packed_and_padded_passes_agree(init: str, hidden: bool, projections: tuple[int, ...]) -> None:
    _, input_layers, _, upper = narrow(init=init)
    upper.double()
    batch, mask = encoded("bert")
    states = input_layers(batch["input_ids"], torch.zeros_like(batch["input_ids"]), mask).double()
    asked = {"hidden": hidden, "projections": projections}
    packed = upper(states, mask, **asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sage_kit.models.split.runs_packed", lambda states: False)
        padded = upper(states, mask, **asked)
    torch.testing.assert_close(packed.logits, padded.logits)
    assert len(packed.hidden) == 2 * hidden
    for one, other in zip(packed.hidden, padded.hidden, strict=True):
        assert one.shape == (*mask.shape, 16)
        torch.testing.assert_close(one[mask], other[mask])
    assert len(packed.projections) == len(projections)
    for one, other in zip(packed.projections, padded.projections, strict=True):
        assert one.shape == (*mask.shape, 3, 16)
        torch.testing.assert_close(one[mask], other[mask])


@pytest.mark.parametrize("projections", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_flops_are_those_that_torch_counts(layers: int, hidden: bool, projections: bool) -> None:
    _, _, _, upper = narrow(layers=layers)
    lengths = np.full(4, 6)
    asked = {"hidden": hidden, "projections": tuple(range(1, layers + projections))}
    with FlopCounterMode(display=False) as forward:
        output = upper(torch.randn(4, 6, 32), None, **asked)
    assert count_flops(upper, lengths, training=False, **asked) == forward.get_total_flops()
    with FlopCounterMode(display=False) as backward:
        total = output.logits.sum() + sum(states.sum() for states in output.hidden)
        (total + sum(one.sum() for one in output.projections)).backward()
    counted = forward.get_total_flops() + backward.get_total_flops()
    assert count_flops(upper, lengths, training=True, **asked) == counted


@pytest.mark.parametrize("projections", [(), (2,), (1,), (1, 2)])
@pytest.mark.parametrize("hidden", [False, True])
def test_flops_of_blocks_that_are_computed_twice_are_those_that_torch_counts(
    monkeypatch: pytest.MonkeyPatch, hidden: bool, projections: tuple[int, ...]
) -> None:
    # torch's counter knows nothing of the products of packed rows in training
    monkeypatch.setattr("sage_kit.models.split.runs_packed", lambda states: False)
    _, _, _, upper = narrow()
    upper.train()
    upper.recomputes = True
    states, mask = torch.randn(4, 6, 32), torch.ones(4, 6, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        output = upper(states, mask, hidden=hidden, projections=projections)
        total = output.logits.sum() + sum(one.square().sum() for one in output.hidden)
        (total + sum(one.square().sum() for one in output.projections)).backward()
    asked = {"hidden": hidden, "projections": projections}
    assert count_flops(upper, np.full(4, 6), training=True, **asked) == counter.get_total_flops()


def prepared_run(folder: Path, teacher: Path, **given: Any) -> Prepared:
    config = toy_config(folder, teacher, schedule="none", student_width=16, **given)
    return prepare(resolve(config, Plugins(allow="")), make_accelerator(config), Costs())


@pytest.mark.parametrize("given", [{"relation_weight": 1.0}, {"losses": {"kl": 1, "minilm_relations": 1}}])
def test_flops_of_relations_across_widths_are_those_that_torch_counts(
    tmp_path: Path, tiny_bert: Path, given: dict[str, Any]
) -> None:
    prepared = prepared_run(tmp_path, tiny_bert, **given)
    inputs = prepared.loss_inputs
    upper = trained_layers(prepared.student, prepared.teacher.model, "embeddings")
    objective = Objective(RunConfig(), inputs, upper, torch.device("cpu"))
    states, mask, kept = torch.randn(4, 6, 32), torch.ones(4, 6, dtype=torch.bool), len(inputs.kept)
    labels, hidden = torch.zeros(4, dtype=torch.int64), torch.randn(4, 6, kept, 32)
    batch = LabelledBatch(states, mask, torch.zeros(4, 2), labels, hidden, torch.arange(4), padded=False)
    with FlopCounterMode(display=False) as counter:
        output = upper(states, None, **objective.asks)
        objective(output, batch, 0.0, contextlib.nullcontext)[0].sum().backward()
    lengths = np.full(4, 6)
    counted = count_flops(upper, lengths, training=True, **objective.asks) + objective.flops(lengths)
    assert counted == counter.get_total_flops()


def test_everything_behind_the_input_layers_trains() -> None:
    teacher, _, student, upper = narrow()
    assert not any(parameter.requires_grad for parameter in student.electra.embeddings.parameters())
    trained = {id(parameter) for parameter in upper.parameters()}
    assert trained == {id(parameter) for parameter in student.parameters() if parameter.requires_grad}
    assert any(one is projection_of(student, teacher) for one in upper.modules())
    assert not any(parameter is other for parameter in teacher.parameters() for other in student.parameters())


def test_same_seed_gives_the_same_student_whatever_the_global_state() -> None:
    teacher = tiny.make_model("bert")
    before = torch.get_rng_state()
    first = build_narrow(teacher, SHAPE, layers=2, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = (build_narrow(teacher, SHAPE, layers=2, seed=seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.dense.weight"], other["classifier.dense.weight"])


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "electra", "ernie", "data2vec-text"])
def test_other_neurons_at_the_teachers_width_stay_in_its_family(family: str, tmp_path: Path) -> None:
    teacher, input_layers, student, upper = narrow(family, Shape(32, 4, 20))
    assert student.config.model_type == teacher.config.model_type
    assert projection_of(student, teacher) is None
    batch, mask = encoded(family)
    types = torch.zeros_like(batch["input_ids"])
    with torch.no_grad():
        wanted = upper(input_layers(batch["input_ids"], types, mask), mask).logits
    export_student(student, tiny.make_tokenizer(family), tmp_path, SPEC)

    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet", "electra", "ernie", "data2vec-text"])
def test_all_heads_and_neurons_give_the_usual_student(family: str) -> None:
    teacher, _, student, _ = narrow(family, Shape(32, 4, 64))
    usual = build_student(teacher, bypass="embeddings", layers=2)
    mine, theirs = student.state_dict(), usual.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_configuration_names_the_teachers_dropouts_and_labels() -> None:
    teacher = tiny.make_config("distilbert", labels=3)
    teacher.seq_classif_dropout, teacher.attention_dropout, teacher.dropout = 0.3, 0.2, 0.05
    config = narrow_config(teacher, SHAPE, 2)
    assert (config.classifier_dropout, config.attention_probs_dropout_prob, config.hidden_dropout_prob) == (
        0.3,
        0.2,
        0.05,
    )
    assert (config.num_labels, config.type_vocab_size, config.embedding_size, config.hidden_size) == (3, 1, 32, 16)
    assert (config.num_attention_heads, config.intermediate_size, config.num_hidden_layers) == (2, 24, 2)


def test_resume_gives_the_same_end(tmp_path: Path, tiny_bert: Path) -> None:
    given: dict[str, Any] = {"student_width": 16, "relation_weight": 0.5, "relation_heads": 2, "keep_checkpoints": 0}
    directory, whole = toy_run(tmp_path, tiny_bert, **given)
    weights = (directory.student / "model.safetensors").read_bytes()
    assert whole["parameters"]["student_trained"] < whole["parameters"]["student"] < whole["parameters"]["teacher"]
    go_back(directory, 1)
    again = resume(directory, Plugins(allow=""))
    assert without_times(again) == without_times(whole)
    assert (directory.student / "model.safetensors").read_bytes() == weights


def test_relations_across_widths_need_common_heads(tmp_path: Path, tiny_bert: Path) -> None:
    config = toy_config(tmp_path, tiny_bert, student_width=24, relation_weight=1.0, relation_heads=16, rounds=1)
    with pytest.raises(CompatibilityError, match=r"student's width, 24, .* teacher's, 32: set it to one of 1, 2, 4, 8"):
        run(config, Plugins(allow=""))
    config = toy_config(
        tmp_path, tiny_bert, student_width=24, losses={"kl": 1, "minilm_relations": 1}, rounds=1,
        loss_options={"minilm_relations": {"heads": 16}},
    )  # fmt: skip
    with pytest.raises(CompatibilityError, match=r"heads is 16, .* student's states, 24: set it to one of 1, 2, 4, 8$"):
        run(config, Plugins(allow=""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs share their data and the teacher that is fine-tuned on it."""
    return tmp_path_factory.mktemp("narrow")


@pytest.fixture(scope="module")
def plain_loss(folder: Path, tiny_bert: Path) -> Callable[..., float]:
    """The last training loss of a run without other losses, by its settings."""

    @functools.cache
    def last_loss(**given: Any) -> float:
        _, summary = toy_run(folder, tiny_bert, student_width=16, rounds=3, schedule="none", **given)
        loss: float = summary["rounds"][-1]["train_loss"]
        return loss

    return last_loss


@pytest.mark.parametrize(
    ("given", "losses"),
    [
        ({"relation_weight": 0.5}, {"kl", "minilm_relations"}),
        ({"hidden_weight": 0.5}, {"kl", "hidden_cosine"}),
        ({"losses": {"kl": 1, "minilm_relations": 1}}, {"kl", "minilm_relations"}),
        ({"losses": {"kl": 1, "hidden_mse": 1}}, {"kl", "hidden_mse"}),
        ({"losses": {"kl": 1, "tinybert_attention": 0.1}, "student_heads": 4}, {"kl", "tinybert_attention"}),
    ],
)
def test_losses_across_widths_are_learned(
    given: dict[str, Any], losses: set[str], folder: Path, tiny_bert: Path, plain_loss: Callable[..., float]
) -> None:
    directory, summary = toy_run(folder, tiny_bert, student_width=16, rounds=3, schedule="none", **given)
    assert losses == loss_choices(directory.config()).keys()
    rounds = [one["train_loss"] for one in summary["rounds"]]
    assert rounds[-1] < rounds[0]
    plain = {name: value for name, value in given.items() if name == "student_heads"}
    assert plain_loss(**plain) != rounds[-1]


def test_an_electra_teacher_keeps_its_projection_among_the_input_layers(tmp_path: Path) -> None:
    """And so does the exported student, which is one, when it is a teacher."""
    teacher = tiny.make_model("electra")
    student = build_student(teacher, bypass="embeddings", layers=2)
    assert projection_of(student, teacher) is None
    upper = trained_layers(student, teacher, "embeddings")
    assert upper.projection is None
    assert not any(one.requires_grad for one in student.electra.embeddings_project.parameters())
    _, input_layers, narrowed, own = narrow()
    assert own.projection is narrowed.electra.embeddings_project
    as_teacher, behind = split_model(narrowed, "embeddings")
    assert behind.projection is None
    batch, mask = encoded("bert")
    types = torch.zeros_like(batch["input_ids"])
    with torch.no_grad():
        wanted = own(input_layers(batch["input_ids"], types, mask), mask).logits
        torch.testing.assert_close(behind(as_teacher(batch["input_ids"], types, mask), mask).logits, wanted)


@pytest.mark.parametrize(
    "given",
    [
        {"granularity": "pooled", "lift": "shift"},
        {"sampler": "adversarial", "sampler_options": {}, "lift": "shift"},
        {"student_init": "scratch"},
        {"student_width": 0, "student_ffn": 20, "hidden_weight": 0.3},
        {"gradient_checkpointing": True, "relation_weight": 0.5},
        {"student_width_init": "prune", "compile": False, "precision": "bf16"},
    ],
)
def test_runs_to_the_end_with(given: dict[str, Any], folder: Path, tiny_bert: Path) -> None:
    _, summary = toy_run(folder, tiny_bert, **{"student_width": 16, "rounds": 2, **given})
    assert np.isfinite(summary["rounds"][-1]["train_loss"])
    assert summary["rounds"][-1]["synthetic"] > 0
