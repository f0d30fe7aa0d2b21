"""A teacher fine-tuned on pooled input: what it reads, what it learns, and how it is found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from sage_kit.components import TaskSpec
from sage_kit.config import load_config
from sage_kit.data.splits import Split, TaskData
from sage_kit.data.tokens import Tokens, tokenize
from sage_kit.models.checkpoints import load_classifier, load_tokenizer
from sage_kit.models.families import family_of
from sage_kit.models.split import UpperLayers, split_model
from sage_kit.models.vectors import pool
from sage_kit.storage.cache import Cache
from sage_kit.studies.analyses.pooled_teacher import (
    NumberedExamples,
    PooledEmbeddings,
    pooled_teacher,
    untrained_teacher,
)

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

    pooled = PooledEmbeddings(embeddings, its, its.uses_token_types(model.config), tokens, pooling, False)
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
