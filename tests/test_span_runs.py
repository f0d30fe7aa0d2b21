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
from toyrun import check_resumed, toy_config, toy_run

from sage_kit.components import Answers
from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.answer_scores import best_scores, is_exact, word_overlap
from sage_kit.data.splits import load_task
from sage_kit.distill import run
from sage_kit.errors import CompatibilityError, ConfigError, DataError, ModelError
from sage_kit.reports.decoding import decode_run


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


def test_a_narrower_student(tmp_path: Path, tiny_bert: Path) -> None:
    settings = {**toyspans.settings(tmp_path), "student_width": 16, "rounds": 2, "keep_best": "metric"}
    directory, summary = toy_run(tmp_path, tiny_bert, **settings)
    rows = toyspans.rows(80, 2)
    answers = plain_answers(directory.student, rows, 24, unanswered=False)
    f1 = float(np.mean(best_scores(of_rows(rows), answers, lambda a, b: word_overlap(a, b)[0])))
    assert summary["validation"]["validation"]["answer_f1"] == pytest.approx(f1)
    assert f1 > 0.5


def test_a_teacher_that_was_trained_for_it(tmp_path: Path, tiny_bert: Path) -> None:
    """It is taken as it is; the student of one run is the teacher of the next."""
    settings = {**toyspans.settings(tmp_path), "rounds": 1, "schedule": "none"}
    directory, first = toy_run(tmp_path, tiny_bert, **settings)
    _, second = toy_run(tmp_path, directory.student, **settings, student_layers=1)
    assert not second["teacher"]["finetuned_here"]
    scores = dict(first["validation"]["validation"])
    del scores["agreement"]
    assert second["teacher"]["validation"]["validation"] == pytest.approx(scores)


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


def test_a_resumed_run_ends_the_same(tmp_path: Path, tiny_bert: Path) -> None:
    check_resumed(tmp_path, tiny_bert, **toyspans.settings(tmp_path, unanswered=0.3), filter="choose")


def test_data_decide_whether_a_question_may_have_no_answer(tmp_path: Path, tiny_bert: Path) -> None:
    """Questions without an answer in the validation file alone are told, and count as wrong."""
    settings = toyspans.settings(tmp_path)
    tiny.write_jsonl(Path(settings["validation_file"]), toyspans.rows(40, 2, unanswered=0.5))
    told: list[str] = []
    config = toy_config(tmp_path, tiny_bert, **settings)
    plugins = Plugins(allow="")
    data = load_task(plugins.task("file", file_kind="spans"), config, told.append)
    assert not data.spec.unanswered
    none = sum(not answers.texts for answers in data.validation["validation"].labels)
    assert [line for line in told if "always" in line or "every question" in line] == [
        f"{none} of the 40 questions of validation have no answer, and none of the training split's: the models answer "
        "every question, so these count as wrong"
    ]


# ---- files ----------------------------------------------------------------------------------------------------------


def squad(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows as SQuAD 2.0 nests them."""
    paragraphs = []
    for number, row in enumerate(rows):
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
        question = {"id": str(number), "question": row["question"], "answers": answers, "is_impossible": not answers}
        paragraphs.append({"context": row["context"], "qas": [question]})
    return {"version": "v2.0", "data": [{"title": "toy", "paragraphs": paragraphs}]}


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def test_all_files_of_answers_are_read_alike(tmp_path: Path) -> None:
    rows = toyspans.rows(60, 4, unanswered=0.3)
    tiny.write_jsonl(tmp_path / "rows.jsonl", rows)
    (tmp_path / "squad.json").write_text(json.dumps(squad(rows)), encoding="utf-8")
    write_parquet(tmp_path / "rows.parquet", rows)
    parts = []
    for name in ("rows.jsonl", "squad.json", "rows.parquet"):
        config = load_config({
            "task": "file", "task_kind": "spans", "text_column": "question", "text_pair_column": "context",
            "label_column": "answers", "train_file": str(tmp_path / name),
        })  # fmt: skip
        data = load_task(Plugins(allow="").task("file", file_kind="spans"), config, lambda line: None)
        assert data.spec.unanswered
        parts.append({split: (own.texts, own.pairs, list(own.labels)) for split, own in data.splits.items()})
    assert parts[0] == parts[1] == parts[2]
    assert {answers.texts for answers in parts[0]["train"][2]} >= {()}


def test_questions_about_one_context_stay_together(tmp_path: Path) -> None:
    rows = toyspans.rows(30, 4)
    more = [{**row, "question": f"{row['question']} {word}"} for row in rows for word in ("one", "two", "three")]
    tiny.write_jsonl(tmp_path / "rows.jsonl", more)
    settings = {**toyspans.settings(tmp_path), "train_file": str(tmp_path / "rows.jsonl"), "validation_file": ""}
    data = load_task(
        Plugins(allow="").task("file", file_kind="spans"), load_config({"task": "file", **settings}), lambda line: None
    )
    contexts = [set(split.pairs or ()) for split in data.splits.values()]
    assert len(contexts) == 3
    assert sum(map(len, contexts)) == len(set().union(*contexts)) == 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_pair_column": ""}, "set text_column to the column of questions and text_pair_column to that of their"),
        ({"granularity": "pooled"}, "set granularity to 'token'"),
        ({"losses": {"dist": 1.0}}, "loss 'dist' looks at classes, and task 'file' has spans: leave it out"),
        ({"filter": "agreement_with_anchor"}, "filter 'agreement_with_anchor' looks at classes, and task"),
        ({"metrics": ["accuracy"]}, "metric 'accuracy' is for classes, and task 'file' has spans: take"),
        ({"label_column": "answer"}, "answer"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, tiny_bert: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((CompatibilityError, ConfigError, DataError)) as caught:
        toy_run(tmp_path, tiny_bert, **{**toyspans.settings(tmp_path), **settings})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"text": ["nowhere"], "answer_start": [3]}, "row 2, column 'answers': answer 'nowhere' does not stand at"),
        ({"answer": "good"}, "row 2, column 'answers': expected the answers under 'text', got 'answer'"),
        (3, "row 2, column 'answers': expected the text of an answer, got 3"),
    ],
)
def test_wrong_answers_are_told_in_one_line(tmp_path: Path, tiny_bert: Path, answers: Any, message: str) -> None:
    settings = toyspans.settings(tmp_path)
    rows = toyspans.rows(20, 1)
    rows[1]["answers"] = answers
    tiny.write_jsonl(Path(settings["train_file"]), rows)
    with pytest.raises(DataError) as caught:
        toy_run(tmp_path, tiny_bert, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_family_without_such_a_model_is_told_in_one_line(tmp_path: Path) -> None:
    teacher = tiny.make_checkpoint(tmp_path / "teacher", "nomic_bert")
    with pytest.raises(ModelError, match=r"type 'nomic_bert', and transformers has no ForQuestionAnswering model"):
        toy_run(tmp_path, teacher, **toyspans.settings(tmp_path))


def test_texts_without_labels(tmp_path: Path, tiny_bert: Path) -> None:
    """The student learns from questions that nobody has answered, and is compared with the teacher on others."""
    settings = toyspans.settings(tmp_path)
    for name, seed in (("transfer", 7), ("evaluation", 8)):
        bare = [{key: row[key] for key in ("question", "context")} for row in toyspans.rows(60, seed)]
        settings[f"{name}_file"] = str(tiny.write_jsonl(tmp_path / f"{name}.jsonl", bare))
    _, summary = toy_run(tmp_path, tiny_bert, **settings, rounds=2)
    assert summary["examples"]["evaluation"] == summary["examples"]["train"] == 60
    assert summary["evaluation"].keys() == {"agreement", "divergence"}
    assert summary["evaluation"]["agreement"] > 0.5


def test_a_question_that_is_cut_is_told(tmp_path: Path, tiny_bert: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = toyspans.settings(tmp_path)
    rows = toyspans.rows(40, 1)
    rows[3]["question"] = "why " * 30 + "?"
    tiny.write_jsonl(Path(settings["validation_file"]), rows)
    observers = {"observers": ["progress"], "teacher_epochs": 1, "rounds": 1, "schedule": "none"}
    toy_run(tmp_path, tiny_bert, **settings, **observers)
    told = capfd.readouterr()
    assert "validation: the first text of 1 of 40 rows (the first: 'why why" in told.out + told.err
