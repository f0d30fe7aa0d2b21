"""A run with a teacher of each family, from a checkpoint without a head to a student that transformers loads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from toyrun import toy_run

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
