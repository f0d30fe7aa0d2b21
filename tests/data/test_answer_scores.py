"""Answers against the rules of SQuAD and of HotpotQA, in examples worked out by hand."""

from __future__ import annotations

import math

import pytest

from sage_kit.components import Answers
from sage_kit.data.answer_scores import (
    best_scores,
    fact_overlap,
    hotpot_overlap,
    hotpot_scores,
    is_exact,
    normal_answer,
    word_overlap,
)
from sage_kit.errors import DataError


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Broncos!", "broncos"),
        ("a man, an apple, the end", "man apple end"),
        ("U.S.", "us"),
        ("U.S.-led", "usled"),
        ("theatre", "theatre"),
        ("A", ""),
        ("\u201cquoted\u201d", "\u201cquoted\u201d"),  # only ASCII punctuation, as in the published script
        ("Straße\tEINS\n", "straße eins"),
    ],
)
def test_normal_answers(text: str, normal: str) -> None:
    assert normal_answer(text) == normal


def test_words_that_are_shared() -> None:
    assert word_overlap("Denver Broncos", "The Denver Broncos.") == (1.0, 1.0, 1.0)
    f1, precision, recall = word_overlap("the red red car", "red car in red town")
    assert (precision, recall) == (3 / 5, 3 / 3)
    assert f1 == pytest.approx(2 * 0.6 / 1.6)
    assert word_overlap("one", "two") == (0.0, 0.0, 0.0)
    assert word_overlap("", "the") == (1.0, 1.0, 1.0)
    assert word_overlap("", "one") == (0.0, 0.0, 0.0)
    assert word_overlap("one", "") == (0.0, 0.0, 0.0)


def f1(reference: str, prediction: str) -> float:
    return word_overlap(reference, prediction)[0]


def test_the_best_answer_counts_and_none_is_an_answer() -> None:
    labels = [Answers(("red car", "a car"), (-1, 4)), Answers(), Answers(), Answers(("the", "."), (0, 3))]
    predictions = ["car", "", "car", ""]
    assert best_scores(labels, predictions, is_exact) == [1.0, 1.0, 0.0, 1.0]
    assert best_scores(labels, predictions, f1) == [1.0, 1.0, 0.0, 1.0]
    assert best_scores(labels[:1], ["red"], f1) == [pytest.approx(2 / 3)]
    # an answer of nothing but articles does not count beside others, so that "" is wrong
    assert best_scores([Answers(("the", "car"), (0, 4))], [""], is_exact) == [0.0]


def test_rows_must_match() -> None:
    with pytest.raises(DataError, match="there are 1 rows of answers, and 2 predicted ones"):
        best_scores([Answers()], ["", ""], is_exact)


def test_answers_and_starts_go_together() -> None:
    with pytest.raises(ValueError, match="2 texts and 1 starts"):
        Answers(("a", "b"), (0,))


# ---- HotpotQA


def test_yes_and_no_count_whole() -> None:
    assert hotpot_overlap("yes", "Yes.") == (1.0, 1.0, 1.0)
    assert hotpot_overlap("yes", "yes it is") == (0.0, 0.0, 0.0)
    assert hotpot_overlap("no man", "no") == (0.0, 0.0, 0.0)
    assert hotpot_overlap("no man", "no woman")[0] == 0.5
    assert word_overlap("yes", "yes it is")[0] == 0.5
    assert hotpot_overlap("the", "a") == (0.0, 0.0, 0.0)  # the published script counts no shared word, so 0


def test_facts() -> None:
    assert fact_overlap([("A", 0), ("B", 1)], [("A", 0), ("C", 1)]) == (0.5, 0.5, 0.5)
    assert fact_overlap([("A", 0)], []) == (0.0, 0.0, 0.0)
    assert fact_overlap([], [("A", 0)]) == (0.0, 0.0, 0.0)
    assert fact_overlap([("A", 0)], [("A", 0), ("A", 0)]) == (1.0, 1.0, 1.0)


def test_scores_of_hotpotqa_by_hand() -> None:
    found = hotpot_scores(
        ["yes", "red car", "green", "one two"],
        ["yes", "car", "blue", "one"],
        [[("A", 0), ("B", 0)], [("A", 0), ("B", 0)], [("A", 0)], [("A", 0)]],
        [[("A", 0), ("B", 0)], [("A", 0)], [("A", 0)], [("A", 0), ("B", 3)]],
    )
    two_thirds = 2 / 3
    expected = {
        "em": 1 / 4,
        "precision": (1 + 1 + 0 + 1) / 4,
        "recall": (1 + 0.5 + 0 + 0.5) / 4,
        "f1": (1 + two_thirds + 0 + two_thirds) / 4,
        "sp_em": 2 / 4,
        "sp_precision": (1 + 1 + 1 + 0.5) / 4,
        "sp_recall": (1 + 0.5 + 1 + 1) / 4,
        "sp_f1": (1 + two_thirds + 1 + two_thirds) / 4,
        "joint_em": 1 / 4,
        "joint_precision": (1 + 1 + 0 + 0.5) / 4,
        "joint_recall": (1 + 0.25 + 0 + 0.5) / 4,
        "joint_f1": (1 + 2 * 0.25 / 1.25 + 0 + 0.5) / 4,
    }
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[name], expected[name]) for name in expected)


def test_hotpotqa_needs_one_of_each() -> None:
    with pytest.raises(DataError, match="must be of one length and not empty"):
        hotpot_scores(["a"], ["a"], [[]], [])
    with pytest.raises(DataError, match="must be of one length and not empty"):
        hotpot_scores([], [], [], [])
