"""Runs on questions and answers: from a file to a student that plain transformers loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import toyspans
from safetensors.torch import load_file
from test_resume import without_times
from toyrun import go_back, toy_config, toy_run

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.answer_scores import best_scores, is_exact, word_overlap
from sage_kit.data.splits import load_task
from sage_kit.components import Answers
from sage_kit.distill import resume, run
from sage_kit.errors import CompatibilityError, ConfigError, DataError, ModelError
from sage_kit.reports.decoding import decode_run
from sage_kit.rundir import RunDirectory
from sage_kit.storage.files import write_bytes


def plain_answers(checkpoint: Path, rows: Sequence[dict[str, Any]], max_length: int, *, unanswered: bool) -> list[str]:
    """What plain transformers answers with an exported student, by the rules of its example script."""
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    model = AutoModelForQuestionAnswering.from_pretrained(checkpoint).eval()
    assert type(model).__module__.startswith("transformers.")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    found = []
    for row in rows:
        windows = tokenizer(
            row["question"], row["context"], truncation="only_second", max_length=max_length, stride=max_length // 3,
            return_overflowing_tokens=True, return_offsets_mapping=True, padding=True, return_tensors="pt",
        )  # fmt: skip
        inputs = {name: windows[name] for name in tokenizer.model_input_names}
        with torch.no_grad():
            output = model(**inputs)
        best, text, null = -np.inf, "", np.inf
        for i, offsets in enumerate(windows["offset_mapping"].tolist()):
            starts, ends = (one[i].double().numpy() for one in (output.start_logits, output.end_logits))
            null = min(null, starts[0] + ends[0])
            inside = [k for k, which in enumerate(windows.sequence_ids(i)) if which == 1]
            for start in inside:
                for end in inside:
                    if 0 <= end - start < 30 and starts[start] + ends[end] > best:
                        best, text = starts[start] + ends[end], row["context"][offsets[start][0] : offsets[end][1]]
        found.append("" if unanswered and null > best else text)
    return found


def of_rows(rows: Sequence[dict[str, Any]]) -> list[Answers]:
    return [Answers(tuple(r["answers"]["text"]), tuple(r["answers"]["answer_start"])) for r in rows]


@pytest.mark.parametrize(("family", "unanswered"), [("bert", 0.0), ("roberta", 0.3), ("distilbert", 0.0)])
def test_a_run(tmp_path: Path, family: str, unanswered: float) -> None:
    """The scores of the run are those of its student in plain transformers, by SQuAD's rules, a question once."""
    teacher = tiny.make_checkpoint(tmp_path / "teacher", family)
    config = toy_config(tmp_path, teacher, **toyspans.settings(tmp_path, unanswered=unanswered))
    directory, summary = run(config, Plugins(allow=""))
    first, *_, last = summary["rounds"]
    assert last["synthetic"] == summary["sequences"]["train"] > summary["examples"]["train"]
    assert last["train_loss"] < first["train_loss"]
    assert summary["examples"]["validation"] == 80
    rows = toyspans.rows(80, 2, unanswered=unanswered)
    answers = plain_answers(directory.student, rows, 24, unanswered=unanswered > 0)
    scores = summary["validation"]["validation"]
    exact, f1 = (
        float(np.mean(best_scores(of_rows(rows), answers, score)))
        for score in (lambda a, b: float(is_exact(a, b)), lambda a, b: word_overlap(a, b)[0])
    )
    assert (scores["exact_match"], scores["answer_f1"]) == pytest.approx((exact, f1))
    assert f1 > 0.6
    assert scores["agreement"] > 0.6
    assert ("" in answers) == (unanswered > 0)
    assert summary["labels"] == {"kind": "spans", "names": [], "unanswered": unanswered > 0}


def test_predictions_and_decoding(tmp_path: Path, tiny_bert: Path) -> None:
    directory, summary = toy_run(tmp_path, tiny_bert, **toyspans.settings(tmp_path), rounds=2)
    saved = directory.predictions()["validation"]
    sequences = summary["sequences"]["validation"]
    assert saved["labels"].shape == (sequences, 2)
    assert saved["row_of"].shape == (sequences,)
    assert saved["student"].shape == saved["teacher"].shape == (saved["offsets"][-1], 2)
    assert len(set(saved["row_of"].tolist())) == 80
    decoded = decode_run(directory, Plugins(allow=""), "nearest_token", {}, limit=4)
    assert len(decoded.examples) == 4
    for example in decoded.examples:
        question, new = example.text.split("?")[0], example.synthetic_text.split("?")[0]
        assert question == new
    assert any(example.text != example.synthetic_text for example in decoded.examples)


@pytest.mark.parametrize(
    "settings",
    [
        {"filter": "choose"},
        {"losses_from": "pass"},
        {"lift": "replace", "lift_options": {"source": "auto", "temperature": 0.0}},
        {"mix": "replace", "synthetic_ratio": 0.5},
        {"bypass": 1},
        {"precision": "bf16"},
        {"losses": {"logits_mse": 1.0, "hard_labels": 0.5, "hidden_cosine": 0.5}},
        {"sampler": "adversarial", "lift": "shift"},
        {"batch_size": 8, "gradient_accumulation": 2},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_other_ways_to_train(tmp_path: Path, tiny_bert: Path, settings: dict[str, Any]) -> None:
    _, summary = toy_run(tmp_path, tiny_bert, **{**toyspans.settings(tmp_path), "rounds": 2, **settings})
    first, second = summary["rounds"]
    assert second["synthetic"] > 0
    assert second["train_loss"] < first["train_loss"]
