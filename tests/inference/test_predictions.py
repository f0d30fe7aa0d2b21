"""Predictions of a finished student for texts and files: those by which its run was scored."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import toyspans
import toytags
from toyrun import toy_run

from sage_kit.cli.app import main
from sage_kit.components.plugins import Plugins
from sage_kit.data.entities import entities
from sage_kit.errors import SageError
from sage_kit.inference.prediction_files import predict_file
from sage_kit.inference.predictor import Predictor, load_student
from sage_kit.rundir import RunDirectory

Finished = tuple[RunDirectory, dict[str, Any], Path]


def student(directory: Path, **settings: Any) -> Predictor:
    return load_student(str(directory), plugins=Plugins(allow=""), **settings)


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_classes_are_those_of_plain_transformers(classes: Finished, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    directory, _, file = classes
    output = tmp_path / "out.jsonl"
    assert predict_file(student(directory.path), file, output, ("text",), probabilities=True) == 120
    found, given = rows_of(output), rows_of(file)
    model = AutoModelForSequenceClassification.from_pretrained(directory.student).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory.student)
    batch = tokenizer([row["text"] for row in given], return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        shares = model(**batch).logits.double().softmax(-1).numpy()
    names = [model.config.id2label[index] for index in range(2)]
    assert [row["label"] for row in found] == [names[index] for index in shares.argmax(1)]
    np.testing.assert_allclose([row["probability"] for row in found], shares.max(1), atol=1e-5)
    for place, name in enumerate(names):
        np.testing.assert_allclose([row[f"probability_{name}"] for row in found], shares[:, place], atol=1e-5)


@pytest.mark.parametrize("kind", ["tags", "label_sets", "spans"])
def test_predictions_give_the_scores_of_the_run(folder: Path, tiny_bert: Path, kind: str, tmp_path: Path) -> None:
    settings = toyspans.settings(folder) if kind == "spans" else toytags.settings(folder, kind)
    directory, summary = toy_run(folder, tiny_bert, **settings, rounds=1, teacher_epochs=10)
    file = Path(settings["validation_file"])
    predictor = student(directory.path)
    assert predictor.spec.label_kind == kind
    output = tmp_path / "out.jsonl"
    predict_file(predictor, file, output, predictor.spec.text_columns)
    found, given = rows_of(output), rows_of(file)
    scores = summary["validation"]["validation"]
    assert len(found) == len(given)
    if kind == "tags":
        right = [
            a == b for one, row in zip(found, given, strict=True) for a, b in zip(one["tags"], row["tags"], strict=True)
        ]
        assert np.mean(right) == pytest.approx(scores["tag_accuracy"])
        ours, gold = (
            {(i, entity) for i, tags in enumerate(rows) for entity in entities(tuple(tags))}
            for rows in ([row["tags"] for row in found], [row["tags"] for row in given])
        )
        assert 2 * len(ours & gold) / (len(ours) + len(gold)) == pytest.approx(scores["span_f1"])
    elif kind == "label_sets":
        exact = np.mean([sorted(a["labels"]) == sorted(b["labels"]) for a, b in zip(found, given, strict=True)])
        assert exact == pytest.approx(scores["exact_set"])
    else:
        from sage_kit.data.answer_scores import is_exact

        exact = [
            any(is_exact(right, a["answer"]) for right in b["answers"]["text"])
            for a, b in zip(found, given, strict=True)
        ]
        assert np.mean(exact) == pytest.approx(scores["exact_match"])


def test_numbers(folder: Path, tiny_bert: Path) -> None:
    train, validation = folder / "numbers.jsonl", folder / "other_numbers.jsonl"
    tiny.write_jsonl(
        validation, [{"text": row["text"], "label": 2.5 * row["label"]} for row in tiny.toy_task_rows(40, seed=2)]
    )
    tiny.write_jsonl(
        train, [{"text": row["text"], "label": 2.5 * row["label"]} for row in tiny.toy_task_rows(80, seed=1)]
    )
    directory, _ = toy_run(
        folder, tiny_bert, task_kind="regression", train_file=str(train), validation_file=str(validation), rounds=1
    )
    texts = [row["text"] for row in rows_of(validation)]
    found = student(directory.path).predict(texts)["prediction"]
    np.testing.assert_allclose(found, directory.predictions()["validation"]["student"][:, 0], atol=1e-5)


def test_embeddings_are_those_of_the_encoder(folder: Path, tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    texts = [row["text"] for row in tiny.toy_task_rows(40, seed=1)]
    tiny.write_jsonl(folder / "texts.jsonl", [{"text": text} for text in texts])
    directory, _ = toy_run(
        folder, tiny_bert, task_kind="embeddings", label_column="", train_file=str(folder / "texts.jsonl"),
        validation_file="", rounds=1, text_prefix="good: ",
    )  # fmt: skip
    predictor = student(directory.student)  # the checkpoint alone knows its kind and its prompt
    found = np.array(predictor.predict(texts)["embedding"])
    model, tokenizer = (kind.from_pretrained(directory.student) for kind in (AutoModel, AutoTokenizer))
    batch = tokenizer([f"good: {text}" for text in texts], return_tensors="pt", padding=True)
    with torch.no_grad():
        states, mask = model.eval()(**batch).last_hidden_state, batch["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    np.testing.assert_allclose(found / np.linalg.norm(found, axis=1, keepdims=True), expected, atol=1e-5)
    cosine = predictor.predict(texts[:20], texts[20:])["cosine"]
    np.testing.assert_allclose(cosine, (expected[:20] * expected[20:]).sum(1), atol=1e-5)
    with pytest.raises(SageError, match="an embedding is no field of a CSV file"):
        predict_file(predictor, folder / "texts.jsonl", tmp_path / "out.csv", ("text",))
    assert not list(tmp_path.iterdir())


def test_every_type_of_file_holds_the_same(classes: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where rows come in several chunks, each with its rows in their order."""
    import pyarrow.parquet as pq

    directory, _, file = classes
    predictor = student(directory.path)
    whole = predictor.predict([row["text"] for row in rows_of(file)])
    monkeypatch.setattr("sage_kit.inference.prediction_files.CHUNK", 50)
    for ending in (".jsonl", ".csv", ".tsv", ".parquet"):
        output = tmp_path / f"out{ending}"
        assert predict_file(predictor, file, output, ("text",), keep=("text",)) == 120
        if ending == ".jsonl":
            found = rows_of(output)
        elif ending == ".parquet":
            found = pq.read_table(output).to_pylist()
        else:
            with output.open(newline="") as stream:
                found = list(csv.DictReader(stream, delimiter="\t" if ending == ".tsv" else ","))
        assert [row["label"] for row in found] == whole["label"]
        assert [row["text"] for row in found] == [row["text"] for row in rows_of(file)]
        np.testing.assert_allclose([float(row["probability"]) for row in found], whole["probability"], atol=1e-5)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".json"])
def test_files_are_read_as_those_of_a_run(classes: Finished, tmp_path: Path, ending: str) -> None:
    import pandas

    directory, _, file = classes
    rows = pandas.DataFrame(rows_of(file))
    source = tmp_path / f"in{ending}"
    {".csv": lambda: rows.to_csv(source, index=False), ".parquet": lambda: rows.to_parquet(source),
     ".json": lambda: rows.to_json(source, orient="records")}[ending]()  # fmt: skip
    predictor = student(directory.path)
    predict_file(predictor, source, tmp_path / "out.jsonl", ("text",))
    assert [row["label"] for row in rows_of(tmp_path / "out.jsonl")] == predictor.predict(list(rows["text"]))["label"]


def test_the_command(classes: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, _, file = classes
    output = tmp_path / "out.csv"
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(directory.path), str(file), "--out", str(output), "--keep", "text"])
    assert ended.value.code == 0
    assert "120 rows" in capsys.readouterr().out
    assert output.read_text().splitlines()[0] == "text,label,probability"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--out", "out.xlsx"], r"ends in \.jsonl, \.csv, \.tsv, \.parquet"),
        (["--out", "no/such/out.csv"], "no/such is no folder: make it first"),
        (["--text-column", "review"], "has no column 'review'"),
        (["--keep", "label"], "has the name of one that is kept"),
        (["--kind", "tag"], "Did you mean 'tags'"),
        (["--kind", "tags"], "has no trained head for a task of kind 'tags'"),
        (["--max-length", "99"], "max_length is 99, but model .* takes at most 64 tokens"),
        (["--delimiter", "ab"], "delimiter"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_and_leave_nothing(
    classes: Finished, tmp_path: Path, change: list[str], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import re

    directory, _, file = classes
    monkeypatch.chdir(tmp_path)
    usual = [] if "--out" in change else ["--out", "out.jsonl"]
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(directory.path), str(file), *usual, *change])
    told = capsys.readouterr().err
    assert ended.value.code == 2, told
    assert told.count("\n") == 1
    assert re.search(message, told), told
    assert not list(tmp_path.iterdir())


def test_what_is_no_student(
    classes: Finished, tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, _, file = classes
    with pytest.raises(SageError, match=r"is no classifier and no sentence encoder.*name a student"):
        student(tiny_bert)
    with pytest.raises(SageError, match=r"no directory .* exists"):
        student(tmp_path / "nothing")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.toml").write_text((directory.path / "config.toml").read_text())
    with pytest.raises(SageError, match="is not finished, so it has no student: finish it with `sage-kit resume"):
        student(begun)
    same = tmp_path / "same.jsonl"
    same.write_text(file.read_text())
    with pytest.raises(SageError, match="is the file that is read: name another"):
        predict_file(student(directory.path), same, same, ("text",))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(SageError, match=r"empty\.jsonl has no rows"):
        predict_file(student(directory.path), empty, tmp_path / "out.jsonl", ("text",))
    gap = tmp_path / "gap.jsonl"
    tiny.write_jsonl(gap, [{"text": "good"}, {"text": ""}])
    with pytest.raises(SageError, match="row 2"):
        predict_file(student(directory.path), gap, tmp_path / "out.jsonl", ("text",))
    assert not (tmp_path / "out.jsonl").exists()
