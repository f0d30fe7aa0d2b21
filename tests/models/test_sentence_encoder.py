"""Sentence encoders: their parts, their vectors against float64 by hand, their students and their export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sentences import by_hand, make_folder

from sage_kit.components.plugins import Plugins
from sage_kit.errors import ModelError
from sage_kit.models.architectures import architecture_of
from sage_kit.models.checkpoints import load_classifier
from sage_kit.models.export import export_student
from sage_kit.models.heads import EmbeddingHead
from sage_kit.models.narrow import Shape, build_narrow
from sage_kit.models.sentence_folders import SentenceSettings
from sage_kit.models.split import split_model
from sage_kit.models.student import build_student
from sage_kit.training.losses import squared_error

FAMILIES = [
    "bert", "roberta", "distilbert", "mpnet", "electra", "ernie", "data2vec-text", "albert", "deberta-v2", "modernbert",
    "nomic_bert",
]  # fmt: skip
TEXTS = ["a good film", "this plot was dull and the music quite awful", "words unheard of", "film"]
SPEC = Plugins(allow="").task("tatoeba")


def load(folder: Path, pooling: Any = "mean") -> Any:
    return load_classifier(str(folder), "embedding", SentenceSettings(pooling)).model


def vectors(model: Any, tokenizer: Any, bypass: Any = "embeddings") -> torch.Tensor:
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    types = encoded.get("token_type_ids", torch.zeros_like(encoded["input_ids"]))
    mask = encoded["attention_mask"].bool()
    input_layers, upper = split_model(model, bypass)
    with torch.no_grad():
        found: torch.Tensor = upper(input_layers(encoded["input_ids"], types, mask), mask).logits
    return found


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_the_pooled_states_of_the_stock_encoder(tmp_path: Path, family: str, pooling: str) -> None:
    folder = make_folder(tmp_path, family, pooling, prompts={}, default=None)
    model = load(folder, pooling)
    assert architecture_of(model) == "embedding"
    assert not any("pooler" in name or "classifier" in name for name in model.state_dict())
    found = vectors(model, tiny.make_tokenizer(family))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy() / np.sqrt(32 / 2), by_hand(folder, TEXTS), atol=3e-6)


def test_the_squared_error_of_two_vectors_is_one_minus_their_cosine() -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 7, 5, 24, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([5, 1, 2, 3, 4, 5, 5])[:, None]
    head = EmbeddingHead(24, "mean")
    found = squared_error(head(one, mask), head(two, mask))
    means = [(states * mask[..., None]).sum(1) / mask.sum(1)[:, None] for states in (one, two)]
    cosine = (means[0] * means[1]).sum(1) / means[0].norm(dim=1) / means[1].norm(dim=1)
    torch.testing.assert_close(found.double(), 1 - cosine, atol=1e-6, rtol=1e-5)
    assert squared_error(head(one), head(3 * one)).abs().max() < 1e-6
    first = EmbeddingHead(24, "cls")
    torch.testing.assert_close(first(one), first(one[:, :1]))
    assert (head.reads_all, first.reads_all, head.flops(3, 9)) == (True, False, 0)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("bypass", ["embeddings", 1])
def test_a_student_and_its_export(tmp_path: Path, bypass: Any, pooling: Any) -> None:
    teacher = load(tiny.make_checkpoint(tmp_path / "teacher"), pooling)
    student: Any = build_student(teacher, bypass=bypass, layers=2)
    assert student.settings is teacher.settings
    weights = teacher.state_dict()
    source = 2 if bypass == "embeddings" else 1 + 3 // 2
    own = f"bert.encoder.layer.{1 if bypass == 'embeddings' else 2}."
    of_teacher = {
        name.replace(own, f"bert.encoder.layer.{source}."): value
        for name, value in student.state_dict().items()
        if name.startswith(own)
    }
    assert all(torch.equal(value, weights[name]) for name, value in of_teacher.items())
    assert len(of_teacher) == 16
    tokenizer = tiny.make_tokenizer()
    export_student(student, tokenizer, tmp_path / "student", SPEC)
    found = vectors(student, tokenizer, bypass)
    np.testing.assert_allclose(found.numpy() / 4, by_hand(tmp_path / "student", TEXTS), atol=3e-6)
    again = load(tmp_path / "student", pooling)
    assert torch.equal(vectors(again, tokenizer, bypass), found)
    assert {path.name for path in (tmp_path / "student").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling",
        "2_Normalize", "config_sentence_transformers.json", "sentence_bert_config.json",
    }  # fmt: skip


def test_a_student_with_fewer_heads_and_neurons() -> None:
    with torch.random.fork_rng(devices=[]):
        teacher = tiny.make_model()
    from sage_kit.models.sentence_encoder import SentenceEncoder

    encoder: Any = SentenceEncoder(teacher.base_model, SentenceSettings())
    student: Any = build_narrow(encoder, Shape(32, 2, 16), layers=2)
    assert architecture_of(student) == "embedding"
    assert vectors(student, tiny.make_tokenizer()).shape == (4, 32)
    assert student.encoder.encoder.layer[0].intermediate.dense.out_features == 16


def test_two_loads_are_the_same(tmp_path: Path) -> None:
    # nothing of it is random, though the checkpoint has no head
    folder = tiny.make_checkpoint(tmp_path)
    one, two = (load(folder).state_dict() for _ in range(2))
    assert list(one) == list(two)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_checkpoint_that_lacks_a_block_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.make_checkpoint(tmp_path)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.3." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 16 parameters of the encoder, among them encoder.layer.3"):
        load(folder)
