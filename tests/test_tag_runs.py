"""Runs on tags of words and on sets of labels: from a file to a student that plain transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import toytags
from toyrun import check_resumed, toy_run

from sage_kit.components.plugins import Plugins
from sage_kit.data.entities import entities
from sage_kit.errors import DataError, SageError
from sage_kit.reports.decoding import decode_run


def plain_tags(checkpoint: Path, rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """What plain transformers makes of words, one text at a time, by the first token of each word."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, add_prefix_space=True)
    found = []
    for row in rows:
        encoded = tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            best = model(**encoded).logits[0].argmax(-1).tolist()
        word_ids = encoded.word_ids()
        first = [word_ids.index(word) for word in range(len(row["tokens"]))]
        found.append(tuple(model.config.id2label[best[place]] for place in first))
    return found


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_run_on_tags(tmp_path: Path, family: str) -> None:
    """The scores of the run are those of its student in plain transformers, counted by hand."""
    teacher = tiny.make_checkpoint(tmp_path / "teacher", family)
    directory, summary = toy_run(tmp_path, teacher, **toytags.settings(tmp_path, "tags"), teacher_epochs=20)
    first, *_, last = summary["rounds"]
    assert last["synthetic"] > 0
    assert last["train_loss"] < first["train_loss"]
    rows = toytags.tagged(100, 2)
    found, gold = plain_tags(directory.student, rows), [tuple(row["tags"]) for row in rows]
    ours, theirs = [{(i, entity) for i, tags in enumerate(one) for entity in entities(tags)} for one in [found, gold]]
    hits = len(ours & theirs)
    scores = summary["validation"]["validation"]
    assert scores["span_f1"] == pytest.approx(2 * hits / (len(ours) + len(theirs)))
    right = [a == b for one, two in zip(found, gold, strict=True) for a, b in zip(one, two, strict=True)]
    assert scores["tag_accuracy"] == pytest.approx(np.mean(right))
    # better than the most frequent tag for all
    assert scores["tag_accuracy"] > np.mean([tag == "O" for tags in gold for tag in tags]) + 0.05
    assert scores["span_f1"] > 0.2
    assert scores["agreement"] > 0.7


def test_a_run_on_label_sets(tmp_path: Path, tiny_bert: Path) -> None:
    from sklearn.metrics import f1_score
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    settings = toytags.settings(tmp_path, "label_sets")
    directory, summary = toy_run(tmp_path, tiny_bert, **settings, teacher_epochs=20, rounds=2)
    model = AutoModelForSequenceClassification.from_pretrained(directory.student).eval()
    assert model.config.problem_type == "multi_label_classification"
    names = [model.config.id2label[i] for i in range(3)]
    assert names == ["bad", "good", "long"]
    tokenizer = AutoTokenizer.from_pretrained(directory.student)
    rows = toytags.with_sets(100, 2)
    with torch.no_grad():
        found = [model(**tokenizer(row["text"], return_tensors="pt")).logits[0].sigmoid() >= 0.5 for row in rows]
    gold = [[name in row["labels"] for name in names] for row in rows]
    scores = summary["validation"]["validation"]
    expected = f1_score(gold, torch.stack(found).int().numpy(), average="micro")
    assert scores["micro_f1"] == pytest.approx(expected)
    assert scores["micro_f1"] > 0.8


WAYS = [
    {"filter": "choose", "bypass": 1},
    {"losses_from": "pass", "precision": "bf16"},
    {"lift": "shift", "sampler": "adversarial"},
    {
        "losses": {"logits_mse": 1.0, "dist": 0.5, "hard_labels": 0.5, "hidden_cosine": 0.5},
        "mix": "replace",
        "synthetic_ratio": 0.5,
    },
    {"batch_size": 8, "gradient_accumulation": 2, "schedule": "static"},
]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [*(("tags", way) for way in WAYS), *(("label_sets", way) for way in WAYS[:2])],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_other_ways_to_train(tmp_path: Path, tiny_bert: Path, kind: str, settings: dict[str, Any]) -> None:
    _, summary = toy_run(tmp_path, tiny_bert, **{**toytags.settings(tmp_path, kind), "rounds": 2, **settings})
    first, second = summary["rounds"]
    assert second["synthetic"] > 0
    assert second["train_loss"] < first["train_loss"]


@pytest.mark.parametrize("kind", ["tags", "label_sets"])
def test_texts_without_labels(tmp_path: Path, tiny_bert: Path, kind: str) -> None:
    """A transfer set and an evaluation set of which no row has a label."""
    settings = toytags.settings(tmp_path, kind)
    rows = [{settings["text_column"]: row[settings["text_column"]]} for row in toytags.tagged(120, 7)] if (
        kind == "tags"
    ) else [{"text": row["text"]} for row in toytags.with_sets(120, 7)]  # fmt: skip
    texts, others = tmp_path / "texts.jsonl", tmp_path / "others.jsonl"
    tiny.write_jsonl(texts, rows[:80])
    tiny.write_jsonl(others, rows[80:])
    _, summary = toy_run(
        tmp_path, tiny_bert, **settings, rounds=2, transfer_file=str(texts), evaluation_file=str(others)
    )
    assert set(summary["evaluation"]) == {"agreement", "divergence"}
    assert summary["rounds"][-1]["train_loss"] < summary["rounds"][0]["train_loss"]


def test_a_resumed_run_ends_the_same(tmp_path: Path, tiny_bert: Path) -> None:
    check_resumed(tmp_path, tiny_bert, **toytags.settings(tmp_path, "tags"), filter="choose")


def test_predictions_and_decoding(tmp_path: Path, tiny_bert: Path) -> None:
    directory, _ = toy_run(tmp_path, tiny_bert, **toytags.settings(tmp_path, "tags"), rounds=2)
    saved = directory.predictions()["validation"]
    words = sum(len(row["tokens"]) for row in toytags.tagged(100, 2))
    assert int(saved["positions"].sum()) == words
    assert saved["student"].shape == saved["teacher"].shape == (saved["offsets"][-1], len(toytags.TAGS))
    decoded = decode_run(directory, Plugins(allow=""), "nearest_token", {}, limit=4)
    assert all(len(one.text.split()) == len(one.synthetic_text.split()) for one in decoded.examples)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("tags", {"granularity": "pooled"}, "set granularity to 'token'"),
        ("tags", {"sampler": "boundary"}, "looks at classes, and task 'file' has tags"),
        ("tags", {"sampler": "kl_max"}, "compares classes or numbers"),
        ("tags", {"metrics": ["accuracy"]}, "take another in metrics (span_f1"),
        ("label_sets", {"filter": "agreement_with_anchor"}, "looks at classes, and task 'file' has label sets"),
        ("tags", {"lift_options": {"source": "same_class"}}, "goes by the teacher's outputs"),
        ("taggs", {}, "Did you mean 'tags'?"),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, tiny_bert: Path, kind: str, settings: dict[str, Any], message: str
) -> None:
    given = toytags.settings(tmp_path, "tags" if kind == "taggs" else kind)
    with pytest.raises(SageError) as caught:
        toy_run(tmp_path, tiny_bert, **{**given, "task_kind": kind, **settings})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": ["O"]}, "row 3, column 'tags'"),
        ({"tags": None}, "row 3, column 'tags': there is no label"),
        ({"tokens": []}, "row 3, column 'tokens'"),
    ],
)
def test_rows_that_are_wrong(tmp_path: Path, tiny_bert: Path, change: dict[str, Any], message: str) -> None:
    settings = toytags.settings(tmp_path, "tags")
    rows = toytags.tagged(30, 3)
    rows[2] |= change
    tiny.write_jsonl(Path(settings["train_file"]), rows)
    with pytest.raises(DataError) as caught:
        toy_run(tmp_path, tiny_bert, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
