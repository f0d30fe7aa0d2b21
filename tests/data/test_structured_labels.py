from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sage_kit.components import Answers
from sage_kit.data.structured_labels import (
    find_label_names,
    find_tags,
    read_answers,
    read_label_columns,
    read_label_sets,
    read_tags,
    read_words,
)
from sage_kit.errors import DataError

LABELS = ("anger", "fear", "joy")
TAGS = ("O", "B-PER", "I-PER")


def refuses(message: str, call: Any, *arguments: Any, **keywords: Any) -> None:
    with pytest.raises(DataError, match=message) as error:
        call(*arguments, **keywords)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 450


# ---- label sets


def test_label_sets_of_names_and_indices() -> None:
    values = [["joy", "anger"], [], ("fear",), [2, 0, 2], np.array([1]), "joy", 1, ["joy", 0]]
    found = read_label_sets(values, LABELS, "x.jsonl")
    assert found.dtype == np.int8
    expected = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert found.tolist() == expected


def test_label_sets_of_text_with_a_separator() -> None:
    found = read_label_sets(["joy; fear", "", ";anger"], LABELS, "x.csv", separator=";")
    assert found.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]


def test_indices_count_the_names_that_the_data_embed() -> None:
    found = read_label_sets([[0], [2]], LABELS, "x.parquet", names=("joy", "fear", "anger"))
    assert found.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_no_rows() -> None:
    assert read_label_sets([], LABELS, "x").shape == (0, 3)
    assert read_label_columns({"a": [], "b": []}, "x").shape == (0, 2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            ["joi"],
            r"x\.jsonl, row 2, .*: label 'joi' is unknown\. Did you mean 'joy'\? Known: anger, fear, joy",
        ),
        ([3], "row 2, column 'labels': label 3 is outside 0 to 2; a row has a list of labels, empty for none"),
        ([-1], "label -1 is outside 0 to 2"),
        (None, "there are no labels; a row has a list"),
        (float("nan"), "there are no labels"),
        (["joy", None], "expected the name of a label, got nothing"),
        (["joy", True], "expected the name of a label, got True"),
        ([1.5], r"expected the name of a label, got 1\.5"),
        ({"joy": 1}, r"expected a list of labels, got \{'joy': 1\} \(dict\)"),
    ],
)
def test_wrong_label_sets(value: Any, message: str) -> None:
    refuses(message, read_label_sets, [["joy"], value], LABELS, "x.jsonl")


def test_how_many_rows_are_wrong_and_their_numbers() -> None:
    values = [["joy"], ["x"], ["y"], ["z"]]
    refuses(r"row 7, .* \(and 2 more rows\)", read_label_sets, values, LABELS, "x", rows=[2, 7, 8, 9])


def test_labels_are_found() -> None:
    assert find_label_names([["b", "a"], [], ["c", "a"]], "x") == ("a", "b", "c")
    assert find_label_names(["b,a", ""], "x", separator=",") == ("a", "b")
    refuses("label 0 is a number, and nothing says what it stands for", find_label_names, [[0]], "x")


def test_a_column_for_each_label() -> None:
    found = read_label_columns({"a": [1, 0, "1"], "b": [True, "false", 0.0]}, "x.csv")
    assert (found.dtype, found.tolist()) == (np.int8, [[1, 1], [0, 0], [1, 0]])
    assert found.flags.c_contiguous
    refuses("row 2, column 'b': expected 0 or 1, got 2; a column", read_label_columns, {"b": [1, 2]}, "x.csv")
    refuses("row 1, column 'b': expected 0 or 1, got nothing", read_label_columns, {"a": [0], "b": [None]}, "x.csv")
    refuses("expected 0 or 1, got 'yes'", read_label_columns, {"b": ["yes"]}, "x.csv")


# ---- tags


def test_words() -> None:
    found = read_words([["Peter", "left"], "New York", np.array(["a"])], "x")
    assert found == [("Peter", "left"), ("New", "York"), ("a",)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "row 1, column 'tokens': there are no words; a row has a list of words"),
        (" ", "there are no words"),
        (None, "there are no words"),
        (["a", ""], "word 2 is empty"),
        (["a", 3], "word 2 is 3"),
        (["a", "\ud800"], "a word is not valid Unicode"),
        (7, r"expected a list of words, got 7 \(int\)"),
    ],
)
def test_wrong_words(value: Any, message: str) -> None:
    refuses(message, read_words, [value], "x")


def test_tags_of_names_and_indices() -> None:
    words = [("Peter", "left"), ("Mary", "Ann", "stays")]
    expected = [("B-PER", "O"), ("B-PER", "I-PER", "O")]
    assert read_tags([["B-PER", "O"], [1, 2, 0]], words, TAGS, "x") == expected
    assert read_tags(["B-PER O", "B-PER I-PER O"], words, TAGS, "x") == expected
    assert read_tags([[2, 0], [2, 1, 0]], words, TAGS, "x", names=("O", "I-PER", "B-PER")) == expected
    assert read_tags([["X", "O"], ["X", "Y", "O"]], words, (), "x") == [("X", "O"), ("X", "Y", "O")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["O"], "row 2, column 'tags': there is 1 tag for 2 words: 'Mary left'; each word has one tag"),
        (["O", "B-PRE"], r"tag 'B-PRE' of word 2 \('left'\) is unknown\. Did you mean 'B-PER'\?"),
        ([3, 0], r"tag 3 of word 1 \('Mary'\) is outside 0 to 2"),
        (["O", None], r"expected the name of a tag of word 2 \('left'\), got nothing"),
        ([False, "O"], r"expected the name of a tag of word 1 \('Mary'\), got False"),
        (None, "there are no tags"),
        (3, r"expected a list of tags, got 3 \(int\)"),
    ],
)
def test_wrong_tags(value: Any, message: str) -> None:
    refuses(message, read_tags, [["O"], value], [("x",), ("Mary", "left")], TAGS, "x")


def test_tags_are_found_outside_first() -> None:
    assert find_tags([("I-A", "O"), ("B-A",)]) == ("O", "B-A", "I-A")
    assert find_tags([("NOUN", "ADJ")]) == ("ADJ", "NOUN")


# ---- answers

CONTEXT = "Bees live in hives, and hives are warm."


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ({"text": ["hives"], "answer_start": [13]}, Answers(("hives",), (13,))),
        ({"text": ["hives", "warm"], "answer_start": [24, 34]}, Answers(("hives", "warm"), (24, 34))),
        ([{"text": "hives", "answer_start": 24}], Answers(("hives",), (24,))),
        ([{"text": "hives"}], Answers(("hives",), (13,))),
        ({"text": "hives", "answer_start": np.int32(13)}, Answers(("hives",), (13,))),
        ({"text": ["hives", "cold"], "answer_start": [-1, None]}, Answers(("hives", "cold"), (13, -1))),
        (["warm", "cold"], Answers(("warm", "cold"), (34, -1))),
        ("live in", Answers(("live in",), (5,))),
        ({"text": [], "answer_start": []}, Answers()),
        ([], Answers()),
        ("", Answers()),
    ],
)
def test_answers(value: Any, answers: Answers) -> None:
    assert read_answers([value], [CONTEXT], "x") == [answers]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"text": ["hives"], "answer_start": [12]},
            "row 2, column 'answers': answer 'hives' does not stand at character 12 of its context, but at 13; an "
            "answer is a piece of its context",
        ),
        ({"text": ["cold"], "answer_start": [0]}, "answer 'cold' does not stand at character 0 .*, nor anywhere else"),
        ({"text": ["hives"], "answer_start": [500]}, "does not stand at character 500"),
        ({"text": ["hives", "warm"], "answer_start": [13]}, "there are 2 texts and 1 starts of answers"),
        ({"text": ["hives"], "answer_start": ["13"]}, "answer 'hives' begins at '13', which is no character's number"),
        ({"text": ["hives"], "answer_start": [-2]}, "answer 'hives' begins at -2"),
        ({"text": [""], "answer_start": [0]}, "expected the text of an answer, got an empty one"),
        ({"text": [None]}, "expected the text of an answer, got None"),
        ({"answer": "hives"}, "expected the answers under 'text', got 'answer'"),
        ([{"start": 1}], "expected the text of an answer, got None"),
        (None, "there are no answers; a question without one has an empty list"),
        (3, "expected the text of an answer, got 3"),
    ],
)
def test_wrong_answers(value: Any, message: str) -> None:
    refuses(message, read_answers, [[], value], [CONTEXT, CONTEXT], "x")
