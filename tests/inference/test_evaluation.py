"""Scores of a finished student on labelled files and tasks: those that its run tells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import toyspans
import toytags
from toyrun import toy_run

from sage_kit.cli.app import main
from sage_kit.rundir import RunDirectory

Finished = tuple[RunDirectory, dict[str, Any], Path]


def evaluate(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """Scores by metric, as the command tells them."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments, "--json"])
    told = capsys.readouterr()
    assert ended.value.code == 0, told.err
    return {one["metric"]: one for one in json.loads(told.out)}


def test_classes(classes: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    directory, summary, file = classes
    found = evaluate(str(directory.path), str(file), capsys=capsys)
    accuracy = summary["validation"]["validation"]["accuracy"]
    assert found["accuracy"]["value"] == pytest.approx(accuracy)
    assert set(found) == {"accuracy", "macro_f1"}
    low, high = found["accuracy"]["low"], found["accuracy"]["high"]
    # the usual interval of a share
    assert high - low == pytest.approx(2 * 1.98 * np.sqrt(accuracy * (1 - accuracy) / 119), rel=0.06)
    assert (low + high) / 2 == pytest.approx(accuracy)
    only = evaluate(str(directory.student), str(file), "--metrics", "matthews", capsys=capsys)
    assert list(only) == ["matthews"]


@pytest.mark.parametrize("kind", ["tags", "label_sets", "spans"])
def test_labels_of_other_kinds(folder: Path, tiny_bert: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = toyspans.settings(folder) if kind == "spans" else toytags.settings(folder, kind)
    directory, summary = toy_run(folder, tiny_bert, **settings, rounds=1, teacher_epochs=10)
    file, label = settings["validation_file"], settings["label_column"]
    found = evaluate(str(directory.path), file, "--label-column", label, capsys=capsys)
    scores = summary["validation"]["validation"]
    assert {name: one["value"] for name, one in found.items()} == pytest.approx(
        {name: score for name, score in scores.items() if name != "agreement"}
    )
    for name in ("span_f1", "exact_set", "answer_f1"):
        if name in found:
            assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


def test_embeddings(folder: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tiny.toy_task_rows(160, seed=1)
    made = [{"text": a["text"], "other": b["text"], "label": float(a["label"] == b["label"])}
            for a, b in zip(rows[::2], rows[1::2], strict=True)]  # fmt: skip
    train, validation = folder / "pairs.jsonl", folder / "other_pairs.jsonl"
    tiny.write_jsonl(train, made[:60])
    tiny.write_jsonl(validation, made[60:])
    directory, summary = toy_run(
        folder, tiny_bert, task_kind="embeddings", text_pair_column="other", train_file=str(train),
        validation_file=str(validation), rounds=1,
    )  # fmt: skip
    found = evaluate(str(directory.path), str(validation), capsys=capsys)
    scores = {name: one for name, one in summary["validation"]["validation"].items() if name != "agreement"}
    assert {name: one["value"] for name, one in found.items()} == pytest.approx(scores)
    assert found["cosine_spearman"]["low"] is None  # nobody knows what a row contributes


def test_the_splits_of_a_task(
    folder: Path, tiny_bert: Path, plugin_file: Any, classes: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outputs are brought into the order of the task's classes, and its splits are scored one by one."""
    directory, summary, file = classes
    names = json.loads((directory.student / "config.json").read_text())["id2label"]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    labels = [names["1"], names["0"]]
    mine = plugin_file(
        f"""
        from sage_kit.components import TaskSpec

        def load(config):
            import json
            from pathlib import Path
            rows = [json.loads(line) for line in Path({str(file)!r}).read_text().splitlines()]
            labels = {labels!r}
            part = {{"text": [r["text"] for r in rows], "label": [labels.index(str(r["label"])) for r in rows]}}
            return {{"train": part, "one": part, "two": {{name: values[:50] for name, values in part.items()}}}}

        @hookimpl
        def sage_tasks():
            yield TaskSpec(name="turned", summary="x", text_columns=("text",), labels={tuple(labels)!r}, loader=load,
                           validation_splits=("one", "two"))
        """
    )
    assert {str(row["label"]) for row in rows} == set(labels)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["evaluate", str(directory.path), "--task", "turned", "--plugin", str(mine), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert [(one["split"], one["rows"]) for one in told] == [("one", 120), ("two", 50)]
    assert told[0]["value"] == pytest.approx(summary["validation"]["validation"]["accuracy"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name either a labelled file or, with --task, a task"),
        (["FILE", "--task", "sst2"], "name either a labelled file"),
        (["FILE", "--label-column", "stars"], "120 of 120 rows have no label in column 'stars'"),
        (["FILE", "--text-column", "review"], "has no column 'review'"),
        (["FILE", "--metrics", "pearson"], "metric 'pearson' is for numbers, and task 'file' has classes"),
        (["FILE", "--metrics", "acuracy"], "Did you mean 'accuracy'"),
        (["other.jsonl"], "other.jsonl.*'never seen'"),
        (["nothing.csv"], "nothing.csv does not exist"),
        (["--task", "ssst2"], "Did you mean 'sst2'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(
    classes: Finished, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    directory, _, file = classes
    monkeypatch.chdir(tmp_path)
    tiny.write_jsonl(Path("other.jsonl"), [{"text": "good", "label": "never seen"}])
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(directory.path), *(str(file) if word == "FILE" else word for word in arguments)])
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2, told
    assert re.search(message, told[-1]), told
