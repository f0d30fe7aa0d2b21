from __future__ import annotations

import copy
import json

import pytest
import tiny
import torch

from sage_kit.components import TaskSpec
from sage_kit.models.export import export_student
from sage_kit.models.split import split_model
from sage_kit.models.student import build_student

SPEC = TaskSpec(name="toy", summary="", text_columns=("text",), labels=("blame", "praise"))
NUMBER = TaskSpec(name="number", summary="", text_columns=("text",))
TEXTS = ["a good film", "this plot was dull and the music quite awful", "words unheard of"]


def load(directory):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, info = AutoModelForSequenceClassification.from_pretrained(directory, output_loading_info=True)
    return model, AutoTokenizer.from_pretrained(directory), info


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "mpnet"])
@pytest.mark.parametrize("bypass", ["embeddings", 1])
def test_plain_transformers_loads_it_with_the_same_logits(family, bypass, tmp_path):
    tokenizer = tiny.make_tokenizer(family)
    student = build_student(tiny.make_model(family), bypass=bypass, layers=2)
    input_layers, upper = split_model(student, bypass)
    export_student(student, tokenizer, tmp_path / "new" / "student", SPEC)
    model, again, info = load(tmp_path / "new" / "student")
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    encoded = again(TEXTS, padding=True, return_tensors="pt")
    assert encoded["input_ids"].tolist() == tokenizer(TEXTS, padding=True)["input_ids"]
    mask = encoded["attention_mask"].bool()
    with torch.no_grad():
        logits = model(**encoded).logits
        states = input_layers(encoded["input_ids"], torch.zeros_like(encoded["input_ids"]), mask)
        torch.testing.assert_close(logits, upper(states, mask).logits, rtol=1e-5, atol=1e-6)
    assert logits.std(0).max() > 1e-3
    assert model.config.id2label == {0: "blame", 1: "praise"}
    assert model.config.label2id == {"blame": 0, "praise": 1}
    assert model.config.problem_type == "single_label_classification"
    assert model.config.num_hidden_layers == (2 if bypass == "embeddings" else 3)


def test_regression(tmp_path):
    export_student(tiny.make_model("bert", labels=1), tiny.make_tokenizer(), tmp_path, NUMBER)
    model, tokenizer, info = load(tmp_path)
    assert not info["missing_keys"]
    assert (model.config.num_labels, model.config.problem_type) == (1, "regression")
    assert model(**tokenizer("good", return_tensors="pt"), labels=torch.tensor([1.0])).loss.ndim == 0


def test_files_are_safetensors_and_json(tmp_path):
    export_student(tiny.make_model("bert"), tiny.make_tokenizer(), tmp_path, SPEC)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]


def test_live_model_is_left_as_it_was(tmp_path, capfd):
    model = tiny.make_model("bert").bfloat16().train()
    weights, settings, random = copy.deepcopy(model.state_dict()), model.config.to_dict(), torch.get_rng_state()
    export_student(model, tiny.make_tokenizer(), tmp_path, SPEC)
    assert model.training
    assert model.config.to_dict() == settings
    assert torch.equal(torch.get_rng_state(), random)
    assert capfd.readouterr() == ("", "")
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == weights[name].dtype
        assert torch.equal(tensor, weights[name])
    exported, _, _ = load(tmp_path)
    assert exported.dtype == torch.float32
    for name, tensor in exported.state_dict().items():
        assert torch.equal(tensor, weights[name].to(tensor.dtype))


def test_same_model_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        export_student(tiny.make_model("roberta"), tiny.make_tokenizer("roberta"), tmp_path / name, SPEC)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
