"""A run with a teacher of each family, from a checkpoint without a head to a student that transformers loads."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from toyrun import toy_config, toy_run

from sage_kit.components.plugins import Plugins
from sage_kit.distill import run
from sage_kit.errors import ModelError, PluginError
from sage_kit.studies.run_store import RunStore

FAMILIES = ["electra", "ernie", "data2vec-text", "albert", "deberta-v2", "modernbert", "nomic_bert"]


def plain_logits(checkpoint: Path, texts: list[str]) -> torch.Tensor:
    """Logits of an exported student by plain transformers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    encoded = AutoTokenizer.from_pretrained(checkpoint)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**encoded).logits
    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run(tmp_path: Path, family: str) -> None:
    """Fine-tuning, synthesis, hidden states and relations, and the student's outputs by plain transformers."""
    from transformers import AutoModelForSequenceClassification

    teacher = tiny.make_checkpoint(tmp_path / "teacher", family)
    settings = {"hidden_weight": 0.3, "relation_weight": 0.2, "warmup_epochs": 0}
    directory, summary = toy_run(tmp_path, teacher, rounds=2, teacher_epochs=6, **settings)
    assert summary["rounds"][1]["synthetic"] > 0
    assert summary["rounds"][1]["train_loss"] < summary["rounds"][0]["train_loss"]
    model = AutoModelForSequenceClassification.from_pretrained(directory.student)
    assert type(model).__module__.startswith("transformers.")
    assert model.config.num_hidden_layers == 2
    rows = tiny.toy_task_rows(120, seed=2)
    logits = plain_logits(directory.student, [row["text"] for row in rows]).numpy()
    labels = np.array([row["label"] for row in rows])
    found = float(np.mean(logits.argmax(-1) == labels))
    assert found == pytest.approx(summary["validation"]["validation"]["accuracy"])
    assert found > 0.6
    # what the student bypasses is the teacher's still
    kept = next((tmp_path / "cache" / "teacher").glob("*/model.safetensors")).parent
    whole = AutoModelForSequenceClassification.from_pretrained(kept).state_dict()
    front = [name for name in model.state_dict() if "embedding" in name]
    assert front
    assert all(torch.equal(model.state_dict()[name], whole[name]) for name in front)


@pytest.mark.parametrize("family", ["electra", "deberta-v2", "modernbert", "nomic_bert"])
def test_blocks_in_the_input_layers(tmp_path: Path, family: str) -> None:
    teacher = tiny.make_checkpoint(tmp_path / "teacher", family, labels=2)
    directory, summary = toy_run(tmp_path, teacher, rounds=1, bypass=1, schedule="none", precision="bf16")
    rows = tiny.toy_task_rows(120, seed=2)
    labels = np.array([row["label"] for row in rows])
    logits = plain_logits(directory.student, [row["text"] for row in rows]).numpy()
    # in bf16 two outputs may change places where they are nearly the same
    assert np.mean(logits.argmax(-1) == labels) == pytest.approx(
        summary["validation"]["validation"]["accuracy"], abs=0.03
    )


def tutorial(name: str, folder: Path) -> Path:
    """A file of docs/writing-a-plugin.md."""
    text = (Path(__file__).parents[1] / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"<!-- file: {name} -->\n```python\n(.*?)```", text, flags=re.DOTALL)
    file = folder / name
    file.write_text(code, encoding="utf-8")
    return file


def make_teacher(folder: Path, model_type: str) -> Path:
    """A tiny checkpoint without a head of a type that is not built in."""
    from transformers import AutoConfig, AutoModel

    tokenizer = tiny.make_tokenizer("bert")
    config = AutoConfig.for_model(
        model_type, vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=66, pad_token_id=0, initializer_range=0.1, type_vocab_size=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("file", "model_type"), [("rembert.py", "rembert"), ("pre_norm.py", "roberta-prelayernorm")])
def test_a_run_with_the_family_of_a_file(tmp_path: Path, file: str, model_type: str) -> None:
    teacher = make_teacher(tmp_path / "teacher", model_type)
    config = toy_config(tmp_path, teacher, rounds=2, teacher_epochs=6)
    with pytest.raises(ModelError, match=rf"is of type '{model_type}': supported are .* the hook sage_families"):
        run(config, Plugins(allow=""))
    plugin = tutorial(file, tmp_path)
    directory, summary = run(config, Plugins([plugin], allow=""))
    rows = tiny.toy_task_rows(120, seed=2)
    labels = np.array([row["label"] for row in rows])
    logits = plain_logits(directory.student, [row["text"] for row in rows]).numpy()
    found = float(np.mean(logits.argmax(-1) == labels))
    assert found == pytest.approx(summary["validation"]["validation"]["accuracy"])
    assert found > 0.6
    # the code of the family is part of the keys: changed, the teacher is made anew
    kept = {path.name for path in (tmp_path / "cache" / "teacher").iterdir() if path.is_dir()}
    plugin.write_text(plugin.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
    run(config.model_copy(update={"teacher_epochs": 6, "rounds": 1}), Plugins([plugin], allow=""))
    assert len({path.name for path in (tmp_path / "cache" / "teacher").iterdir() if path.is_dir()} - kept) == 1
    store = RunStore(tmp_path / "store", Plugins([plugin], allow=""), [str(plugin)])
    before = store.code_digest(config)
    plugin.write_text(plugin.read_text(encoding="utf-8") + "\nCHANGED = 2\n", encoding="utf-8")
    assert RunStore(tmp_path / "store", Plugins([plugin], allow=""), [str(plugin)]).code_digest(config) != before
    Plugins(allow="")


def test_what_a_family_raises_is_told_in_one_line(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher", "roberta-prelayernorm")
    plugin = tutorial("pre_norm.py", tmp_path)
    text = plugin.read_text(encoding="utf-8")
    plugin.write_text(text.replace("return block(states", "return no_such(states"), encoding="utf-8")
    with pytest.raises(PluginError, match=r"family 'pre_norm' \(.*\.py\) failed in block: NameError: .*no_such"):
        run(toy_config(tmp_path, teacher), Plugins([plugin], allow=""))
    Plugins(allow="")
