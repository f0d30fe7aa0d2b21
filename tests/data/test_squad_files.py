from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage_kit.components import Answers
from sage_kit.data.sources import read_file
from sage_kit.data.structured_labels import read_answers
from sage_kit.errors import DataError

CONTEXT = "Bees live in hives."


def document(**changes: Any) -> dict[str, Any]:
    """A file of version 2.0 with a question that has two answers, and one that has none."""
    first = {
        "id": "1",
        "question": "Where?",
        "answers": [{"text": "hives", "answer_start": 13}],
        "is_impossible": False,
    }
    first["answers"].append({"text": "in hives", "answer_start": 10})
    second = {"id": "2", "question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "x"}]}
    paragraph = {"context": CONTEXT, "qas": [{**first, **changes}, second]}
    return {"version": "v2.0", "data": [{"title": "Bees", "paragraphs": [paragraph]}]}


def read(path: Path, content: Any) -> dict[str, list[Any]]:
    path.write_text(json.dumps(content))
    return {name: list(v) for name, v in read_file(path, ("question", "context", "answers")).columns.items()}


def test_questions_are_rows(tmp_path: Path) -> None:
    columns = read(tmp_path / "dev.json", document())
    assert columns["question"] == ["Where?", "Why?"]
    assert columns["context"] == [CONTEXT, CONTEXT]
    assert read_answers(columns["answers"], columns["context"], "dev.json") == [
        Answers(("hives", "in hives"), (13, 10)),
        Answers(),
    ]


def test_version_1_and_the_other_columns(tmp_path: Path) -> None:
    content = document()
    del content["version"]
    for question in content["data"][0]["paragraphs"][0]["qas"]:
        question.pop("is_impossible")
    content["data"][0].pop("title")
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    table = read_file(path, ("id", "title"))
    assert table.columns == {"id": ["1", "2"], "title": ["", ""]}
    assert table.others == ("context", "question", "answers")


def test_a_question_without_answers_in_the_file(tmp_path: Path) -> None:
    content = document()
    del content["data"][0]["paragraphs"][0]["qas"][0]["answers"]
    columns = read(tmp_path / "test.json", content)
    with pytest.raises(DataError, match=r"row 1, column 'answers': there are no answers; a question without one"):
        read_answers(columns["answers"], columns["context"], "test.json")


def test_a_table_under_data_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"data": [{"text": "a", "paragraphs": [1]}]}))
    assert read_file(path, ("text", "paragraphs")).columns == {"text": ["a"], "paragraphs": [[1]]}


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("context",), None, r"data\[0\]\.paragraphs\[0\] has no text 'context'"),
        (("context",), "  ", r"data\[0\]\.paragraphs\[0\] has no text 'context'"),
        (("qas",), None, r"data\[0\]\.paragraphs\[0\] has no list 'qas': write it as SQuAD's files do"),
        (("qas", 1, "question"), 3, r"data\[0\]\.paragraphs\[0\]\.qas\[1\] has no text 'question'"),
        (("qas", 0, "is_impossible"), True, r"qas\[0\] is marked is_impossible, and has answers: correct one"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, place: tuple[Any, ...], value: Any, message: str) -> None:
    content = document()
    part = content["data"][0]["paragraphs"][0]
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path / "dev.json", content)
    assert "\n" not in str(error.value)


def test_an_article_without_paragraphs(tmp_path: Path) -> None:
    content = document()
    content["data"].append({"title": "x"})
    with pytest.raises(DataError, match=r"data\[1\] has no list 'paragraphs'"):
        read(tmp_path / "dev.json", content)
