"""Runs whose student is a checkpoint of its own, with its own tokenizer, input layers and head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import toyspans
import toytags
from toyrun import check_resumed, toy_config, toy_run

from sage_kit.components.plugins import Plugins
from sage_kit.components.records import Costs
from sage_kit.config import load_config
from sage_kit.data.encoding import encode
from sage_kit.data.token_matching import match_tokens
from sage_kit.distill import run
from sage_kit.errors import SageError
from sage_kit.models.split import split_model
from sage_kit.recipe import resolve
from sage_kit.system.devices import make_accelerator
from sage_kit.training.preparation import prepare
from sage_kit.training.prepared import Prepared
from sage_kit.unused_settings import unused_settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("students")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Path:
    return tiny.make_checkpoint(folder / "teacher", "bert")


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    """A narrower encoder of another family, with the same tokenizer."""
    return tiny.make_checkpoint(folder / "small", "electra", layers=2, dim=16, heads=2, seed=5)


def prepared_of(folder: Path, teacher: Path, **settings: Any) -> Prepared:
    config = load_config(toy_config(folder, teacher, **settings).model_dump())
    return prepare(resolve(config, Plugins(allow="").use()), make_accelerator(config), Costs())


def plain_outputs(checkpoint: Path, texts: list[str], max_length: int = 32) -> np.ndarray:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval().double()
    batch = AutoTokenizer.from_pretrained(checkpoint)(
        texts, return_tensors="pt", padding=True, truncation=True, max_length=max_length
    )
    with torch.no_grad():
        return np.asarray(model(**batch).logits)


@pytest.mark.parametrize(
    ("family", "schedule"),
    [
        ("electra", "adaptive"),
        ("distilbert", "adaptive"),
        ("albert", "adaptive"),
        ("roberta", "none"),
        ("mpnet", "none"),
        ("deberta-v2", "none"),
    ],
)
def test_the_student_is_a_plain_checkpoint(folder: Path, teacher: Path, family: str, schedule: str) -> None:
    """Plain transformers gives the run's own outputs; the input layers are those of the checkpoint, the rest learns."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    start = tiny.make_checkpoint(folder / f"{family}-student", family, layers=2, dim=16, heads=2, seed=3)
    directory, summary = toy_run(folder, teacher, student=str(start), schedule=schedule, rounds=3)
    first, *_, last = summary["rounds"]
    assert last["train_loss"] < first["train_loss"]
    assert (last["synthetic"] > 0) == (schedule == "adaptive")
    texts = [row["text"] for row in tiny.toy_task_rows(120, seed=2)]
    saved = directory.predictions()["validation"]
    np.testing.assert_allclose(saved["student"], plain_outputs(directory.student, texts), atol=2e-5)
    ended = AutoModelForSequenceClassification.from_pretrained(directory.student)
    began = AutoModelForSequenceClassification.from_pretrained(start)
    front = dict(split_model(ended, "embeddings")[0].state_dict())
    for name, tensor in split_model(began, "embeddings")[0].state_dict().items():
        assert torch.equal(front[name], tensor), name
    blocks = [name for name, _ in ended.base_model.named_parameters() if "layer" in name and name.endswith("weight")]
    moved = [not torch.equal(dict(ended.base_model.named_parameters())[n], dict(began.base_model.named_parameters())[n])
             for n in blocks if n in dict(began.base_model.named_parameters())]  # fmt: skip
    assert any(moved)
    own, saved_tokenizer = (AutoTokenizer.from_pretrained(path) for path in (start, directory.student))
    assert own.get_vocab() == saved_tokenizer.get_vocab()
    assert summary["parameters"]["student"] < summary["parameters"]["teacher"]


def test_synthetic_examples_are_read_by_both(folder: Path, teacher: Path, small: Path) -> None:
    """The teacher's labels are of the text that the student is trained on, each by input layers of its own."""
    from sage_kit.synthesis.labelling import label_synthetic
    from sage_kit.training.labelled_batches import SyntheticBatches

    settings: dict[str, Any] = {
        "student": str(small), "sampler": "random", "sampler_options": {}, "lift": "replace_random", "lift_options": {},
    }  # fmt: skip
    prepared = prepared_of(folder, teacher, **settings)
    assert prepared.ready is not None
    recipe = resolve(toy_config(folder, teacher, **settings), Plugins(allow="").use())
    synthesizer = prepared.synthesizer(recipe, print, Costs())
    n = len(prepared.anchors.store)
    made = synthesizer.create(1, 40, np.zeros(n, np.float32), np.zeros((n, 2), np.float32))
    upper = prepared.ready.reader.upper
    label_synthetic(
        synthesizer, made, prepared.teacher_upper, student_input=prepared.own_input, student=upper,
        hidden_layers=[0, 1], device=prepared.device, autocast=torch.no_grad, on_step=lambda *_: None,
    )  # fmt: skip
    batches = SyntheticBatches(synthesizer, made, prepared.device, prepared.anchors, prepared.own_input)
    assert made.tokens is not None
    assert made.student_logits is not None
    for number in range(len(batches)):
        batch = batches.gather(number)()
        rows = batch.rows.numpy()
        ids, types, mask = made.tokens.pad(rows)
        for model, states in ((prepared.ready.model, batch.states), (prepared.teacher.model, None)):
            front, _ = split_model(model, "embeddings")
            with torch.no_grad():
                expected = front(ids, types, mask)
            assert batch.hidden is not None
            found = batch.hidden[:, :, 0] if states is None else states
            torch.testing.assert_close(found * mask[..., None], expected, atol=1e-3 if states is None else 0, rtol=1e-3)
        with torch.no_grad():
            own = upper(batch.states, batch.mask).logits
        torch.testing.assert_close(torch.from_numpy(made.student_logits[rows]), own)


def test_inner_states_are_matched_by_characters(folder: Path, teacher: Path) -> None:
    other = tiny.make_checkpoint(folder / "cutting", "roberta", layers=2, dim=16, heads=2)
    cutting(other)
    settings = {"student": str(other), "schedule": "none", "losses": {"kl": 1.0, "hidden_cosine": 0.5}}
    prepared = prepared_of(folder, teacher, **settings)
    assert prepared.ready is not None
    assert prepared.taught is not None
    assert prepared.taught.outputs.hidden is not None
    assert prepared.train.outputs.hidden is not None
    split, spec = prepared.data.train, prepared.data.spec
    mine, theirs = (
        encode(split, spec, tokenizer, 32, places=True)
        for tokenizer in (prepared.student_tokenizer, prepared.teacher.tokenizer)
    )
    assert len(mine.tokens.ids) > len(theirs.tokens.ids)
    match = match_tokens(mine, theirs)
    wanted = [
        prepared.taught.outputs.hidden[a:b].astype(np.float64).mean(0)
        for a, b in zip(match.first, match.last, strict=True)
    ]
    np.testing.assert_allclose(prepared.train.outputs.hidden, wanted, atol=2e-3)
    _, summary = toy_run(folder, teacher, **settings)
    assert summary["rounds"][-1]["train_loss"] < summary["rounds"][0]["train_loss"]


def cutting(checkpoint: Path) -> None:
    """Let the tokenizer of a checkpoint cut words in two, in its own vocabulary of whole words: many are unknown."""
    import json

    file = checkpoint / "tokenizer.json"
    rules = json.loads(file.read_text())
    cut = {"type": "Split", "pattern": {"Regex": "\\w{1,3}"}, "behavior": "Isolated", "invert": False}
    rules["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [rules["pre_tokenizer"], cut]}
    vocabulary = rules["model"]["vocab"]
    for word in tiny.WORDS:
        for start in range(0, len(word), 3):
            vocabulary.setdefault(word[start : start + 3], len(vocabulary))
    file.write_text(json.dumps(rules))
    from transformers import AutoModel

    model = AutoModel.from_pretrained(checkpoint)
    model.resize_token_embeddings(len(vocabulary))
    model.save_pretrained(checkpoint)


def test_tags_of_a_student_with_other_tokens(tmp_path: Path, teacher: Path) -> None:
    """Learned and scored word by word, and exported as a plain checkpoint."""
    other = tiny.make_checkpoint(tmp_path / "cutting", "roberta", layers=2)
    cutting(other)
    settings = toytags.settings(tmp_path, "tags", schedule="none", teacher_epochs=20, student=str(other), max_length=60)
    directory, summary = toy_run(tmp_path, teacher, **settings)
    scores = summary["validation"]["validation"]
    words = sum(len(row["tokens"]) for row in toytags.tagged(100, 2))
    saved = directory.predictions()["validation"]
    assert int(saved["positions"].sum()) == words
    assert summary["teacher"]["validation"]["validation"]["tag_accuracy"] > 0.7
    assert scores["agreement"] > 0.5


def test_words_that_the_teacher_does_not_reach_are_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    teacher = tiny.make_checkpoint(tmp_path / "cutting", "roberta")
    cutting(teacher)
    whole = tiny.make_checkpoint(tmp_path / "whole", "bert", layers=1)
    settings = toytags.settings(tmp_path, "tags", schedule="none", teacher_epochs=1, rounds=1, max_length=14)
    toy_run(tmp_path, teacher, **settings, student=str(whole), observers=["jsonl", "progress"])
    assert "words have no output of" in capfd.readouterr().err


def test_the_head_of_the_checkpoint(folder: Path, teacher: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One that fits is kept, in the task's order; one of another task gives way to a new one."""
    names = ("positive", "negative")
    fits = tiny.make_checkpoint(folder / "fits", "bert", layers=1, labels=2, label_names=names)
    texts = [row["text"] for row in tiny.toy_task_rows(300, seed=1)][:5]
    prepared = prepared_of(folder, teacher, student=str(fits), observers=["progress"])
    assert prepared.ready is not None
    labels = list(prepared.data.spec.labels)
    found = prepared.ready.model.eval().double()(
        **prepared.student_tokenizer(texts, return_tensors="pt", padding=True)
    ).logits.detach().numpy()  # fmt: skip
    expected = plain_outputs(fits, texts)
    if sorted(labels) == sorted(names):
        expected = expected[:, [names.index(label) for label in labels]]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    other = tiny.make_checkpoint(folder / "three", "bert", layers=1, labels=3)
    toy_run(folder, teacher, student=str(other), rounds=1, observers=["jsonl", "progress"])
    assert "has a trained head of 3 outputs" in capfd.readouterr().err


def test_a_resumed_run_ends_the_same(tmp_path: Path, teacher: Path, small: Path) -> None:
    check_resumed(tmp_path, teacher, student=str(small), filter="choose", losses={"kl": 1.0, "hidden_mse": 0.5})


@pytest.mark.parametrize(
    "settings",
    [
        {"losses": {"kl": 1.0, "minilm_relations": 0.5}, "loss_options": {"minilm_relations": {"layer": 1}}},
        {"losses": {"tinybert_attention": 1.0, "kl": 1.0}},
        {"keep_best": "agreement", "schedule": "static"},
        {"bypass": 1, "reducer": "pca", "map_layer": 2},
        {"precision": "bf16", "gradient_checkpointing": True},
        {"sampler": "high_loss", "filter": "agreement_with_anchor"},
    ],
    ids="-".join,
)
def test_other_ways_to_train(folder: Path, teacher: Path, small: Path, settings: dict[str, Any]) -> None:
    start = small
    if "tinybert_attention" in settings.get("losses", {}):  # as many heads as the teacher
        start = tiny.make_checkpoint(folder / "same-heads", "bert", layers=2, dim=16, heads=4)
    _, summary = toy_run(folder, teacher, student=str(start), **settings)
    assert summary["rounds"][-1]["train_loss"] < summary["rounds"][0]["train_loss"]


def test_answers_of_a_ready_student(tmp_path: Path, teacher: Path) -> None:
    start = tiny.make_checkpoint(tmp_path / "start", "distilbert", layers=2)
    settings = toyspans.settings(tmp_path, rounds=2)
    _, summary = toy_run(tmp_path, teacher, **settings, student=str(start))
    assert summary["rounds"][-1]["train_loss"] < summary["rounds"][0]["train_loss"]


def test_what_is_not_used_is_told(folder: Path, teacher: Path, small: Path) -> None:
    recipe = resolve(toy_config(folder, teacher, student=str(small)), Plugins(allow="").use())
    told = unused_settings(recipe, ["student_layers", "student_width_init", "rounds"])
    assert (
        told
        == "not used by this run: student_layers, student_width_init (student names a checkpoint, which has its own)"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lift": "shift"}, "student names a checkpoint, which can read text alone, and lift 'shift'"),
        ({"sampler": "adversarial"}, "sampler 'adversarial' follows the gradient"),
        ({"warmup_epochs": 1, "warmup_corpus": "x.txt"}, "warmup_epochs is 1, but .*: set one of them only"),
        ({"granularity": "pooled"}, "granularity is 'pooled'.* set granularity to 'token'"),
        ({"student": "no/such"}, "model 'no/such'"),
        ({"student": "no/such", "schedule": "none"}, "model 'no/such'"),
        ({"student": "/"}, "has no config.json"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_go_together(
    folder: Path, teacher: Path, small: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SageError, match=message) as caught:
        toy_run(folder, teacher, **{"student": str(small), **settings})
    assert "\n" not in str(caught.value)


def test_its_own_tokenizer_must_do(folder: Path, teacher: Path, tmp_path: Path) -> None:
    """There is no setting for it, so the remedy is another checkpoint."""
    import json

    start = tiny.make_checkpoint(tmp_path / "unpadded", "bert", layers=1)
    file = start / "tokenizer_config.json"
    told = json.loads(file.read_text())
    del told["pad_token"]
    file.write_text(json.dumps(told))
    with pytest.raises(SageError, match="unpadded' has no padding token: choose another checkpoint"):
        toy_run(folder, teacher, student=str(start))


def test_other_tokens(tmp_path: Path, teacher: Path, tiny_roberta: Path) -> None:
    """Synthesis is refused before a teacher is fine-tuned; so are losses that compare tokens, and answers."""
    for settings, message in (
        ({}, "knows other tokens than teacher .*: set schedule to 'none'"),
        (
            {"schedule": "none", "losses": {"minilm_relations": 1.0}},
            "loss 'minilm_relations' compares how tokens relate",
        ),
        (toyspans.settings(tmp_path, schedule="none"), "read different tokens, and answers are places among these"),
    ):
        with pytest.raises(SageError, match=message):
            run(toy_config(tmp_path, teacher, student=str(tiny_roberta), **settings), Plugins(allow=""))


def test_every_model_with_other_tokens_is_looked_at(tmp_path: Path, teacher: Path, tiny_roberta: Path) -> None:
    """Another teacher, found first, does not hide the student."""
    other = tiny.make_checkpoint(tmp_path / "other", "roberta", seed=4)
    config = toy_config(
        tmp_path, teacher, student=str(tiny_roberta), other_teachers=[str(other)], schedule="none",
        losses={"minilm_relations": 1.0},
    )  # fmt: skip
    with pytest.raises(SageError, match=r"student .* reads other tokens .* loss 'minilm_relations' compares"):
        run(config, Plugins(allow=""))


def test_embeddings_are_as_wide_as_the_teachers(tmp_path: Path, teacher: Path, small: Path) -> None:
    rows = [{"text": f"{row['text']}"} for row in tiny.toy_task_rows(60, seed=1)]
    tiny.write_jsonl(tmp_path / "texts.jsonl", rows)
    settings = {
        "task_kind": "embeddings", "label_column": "", "train_file": str(tmp_path / "texts.jsonl"),
        "validation_file": "", "schedule": "none", "rounds": 1,
    }  # fmt: skip
    with pytest.raises(SageError, match=r"are 16 wide, and those of teacher .* 32: take a student that is as wide"):
        toy_run(tmp_path, teacher, **settings, student=str(small))
    wide = tiny.make_checkpoint(tmp_path / "wide", "roberta", layers=2)
    _, summary = toy_run(tmp_path, teacher, **{**settings, "rounds": 3}, student=str(wide))
    assert summary["rounds"][-1]["train_loss"] < summary["rounds"][0]["train_loss"]
