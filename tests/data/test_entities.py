"""Entities against the published examples of seqeval, which follows the script conlleval, and by hand."""

from __future__ import annotations

import pytest

from sage_kit.data.entities import Entity, entities, entity_counts
from sage_kit.errors import DataError


def spans(tags: str) -> list[tuple[str, int, int]]:
    return [tuple(entity) for entity in entities(tags.split())]


def f1(labels: list[str], predictions: list[str]) -> float:
    counts = entity_counts([tags.split() for tags in labels], [tags.split() for tags in predictions])
    right, marked, found = (sum(column) for column in zip(*counts, strict=True))
    return 2 * right / (marked + found)


def test_examples_of_seqeval() -> None:
    # seqeval counts the last word in: ('PER', 0, 1) and ('LOC', 3, 3)
    assert spans("B-PER I-PER O B-LOC") == [("PER", 0, 2), ("LOC", 3, 4)]
    assert spans("O O O B-MISC I-MISC I-MISC O B-PER I-PER") == [("MISC", 3, 6), ("PER", 7, 9)]
    labels = ["O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    predictions = ["O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    assert f1(labels, predictions) == 0.5
    # of its two modes the one that is compatible with conlleval
    assert f1(["B-NP I-NP O"], ["I-NP I-NP O"]) == 1.0


def test_the_sample_of_conll_2000() -> None:
    # its first words: tags of the corpus, and those of a chunker, as the shared task's page on evaluation shows them
    labels = "B-NP I-NP I-NP B-NP I-NP I-NP B-VP B-NP B-VP B-NP I-NP I-NP"
    predictions = "I-NP I-NP I-NP B-NP I-NP I-NP B-VP B-NP B-VP B-NP I-NP I-NP"
    assert entity_counts([labels.split()], [predictions.split()]) == [(6, 6, 6)]


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("", []),
        ("O O", []),
        ("I-A I-A", [("A", 0, 2)]),  # IOB1, where B stands only between entities of one type
        ("I-A B-A I-A", [("A", 0, 1), ("A", 1, 3)]),
        ("I-A I-B", [("A", 0, 1), ("B", 1, 2)]),
        ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),
        ("B-A B-A", [("A", 0, 1), ("A", 1, 2)]),
        ("S-A B-A I-A E-A", [("A", 0, 1), ("A", 1, 4)]),  # IOBES
        ("B-A E-A I-A", [("A", 0, 2), ("A", 2, 3)]),
        ("E-A E-A", [("A", 0, 1), ("A", 1, 2)]),
        ("U-A B-A I-A L-A", [("A", 0, 1), ("A", 1, 4)]),  # BILOU
        ("O I-A O", [("A", 1, 2)]),
        ("B I O B", [("", 0, 2), ("", 3, 4)]),
        ("B-a-b I-a-b", [("a-b", 0, 2)]),
    ],
)
def test_rules(tags: str, found: list[tuple[str, int, int]]) -> None:
    assert spans(tags) == found


def test_an_entity_counts_with_its_type_and_all_its_words() -> None:
    labels, predictions = [["B-A", "I-A", "O", "B-B"]], [["B-A", "O", "O", "B-A"]]
    assert entity_counts(labels, predictions) == [(0, 2, 2)]
    assert entities(labels[0]) == [Entity("A", 0, 2), Entity("B", 3, 4)]


@pytest.mark.parametrize("tag", ["NOUN", "B-", "X-PER", "", "o", "PER-B"])
def test_a_tag_that_marks_no_entity_is_refused(tag: str) -> None:
    with pytest.raises(DataError, match=r"marks no entity: .* take metric 'tag_accuracy'"):
        entities(["O", tag])


def test_predictions_must_be_one_per_word() -> None:
    with pytest.raises(DataError, match="row 2 has 1 tags, and 2 predicted ones"):
        entity_counts([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(DataError, match="there are 2 rows of tags, and 1 of predicted ones"):
        entity_counts([["O"], ["O"]], [["O"]])
