from __future__ import annotations

import math
import unicodedata
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from sage_kit.data.classes import (
    ClassFinder,
    Label,
    difference,
    find_classes,
    is_blank,
    loose_form,
    missing_codes,
    read_label,
    read_labels,
)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1), ("1", 1), (1.0, 1), ("1.0", 1), ("01", 1), (" 1 ", 1), ("+1", 1), ("1e0", 1), ("1.", 1),
        (Decimal("1.00"), 1),
        (np.int64(1), 1), (np.float32(1), 1), (True, 1), ("true", 1), ("FALSE", 0), (-1, -1), ("-1.0", -1),
        ("\u22121", -1), ("-0", 0),
        (0.5, 0.5), ("0.5", 0.5), (".5", 0.5), (Decimal("0.5"), 0.5), (10**20, 10**20),
        ("100000000000000000001", 10**20 + 1),
    ],
)  # fmt: skip
def test_a_label_is_the_number_that_it_spells(value: Any, number: float) -> None:
    label = read_label(value)
    assert (label.number, type(label.number), label.is_missing) == (number, type(number), False)


@pytest.mark.parametrize(
    "value",
    ["one", "1,000", "1_000", "1 2", "0x1", "½", "¹", "\uff11", "inf", "1.2.3", "v1", "1e999", "--1", "yes", "t"],
)
def test_other_texts_are_names(value: str) -> None:
    label = read_label(value)
    assert (label.is_name, label.number, label.text) == (True, None, value)


@pytest.mark.parametrize(
    "value",
    [
        None, math.nan, np.float64("nan"), Decimal("NaN"), Decimal("sNaN"), "", "  ", "\u200b", "\xa0\ufeff", "NA",
        "n/a", "N/A", "<NA>", "nan", "NaN", " NaN ", "None", "NULL", "?", "-", "#N/A", "unlabelled",
        "\uff2e\uff21", "Missing", "nil",
    ],
)  # fmt: skip
def test_what_means_that_there_is_no_label(value: Any) -> None:
    assert read_label(value).is_missing


@pytest.mark.parametrize(
    ("value", "type_name"),
    [([1], "list"), ({"a": 1}, "dict"), (b"a", "bytes"), (math.inf, "float"), (10**400, "int"), (("a",), "tuple")],
)
def test_what_is_no_label_at_all_is_named_with_its_type(value: Any, type_name: str) -> None:
    label = read_label(value)
    assert (label.type_name, label.is_missing, label.number) == (type_name, False, None)
    assert str(label).endswith(f"({type_name})")


def test_half_a_surrogate_pair_is_no_name() -> None:
    assert read_label("a\ud800").type_name == "str that is not valid Unicode"


@pytest.mark.parametrize(
    ("numbers", "codes"),
    [
        ({0, 1, -1}, {-1}),
        ({-1, 0}, {-1}),
        ({-1, 1}, set()),  # of two classes one would be left
        ({-2, -1, 0, 1, 2}, set()),  # a scale
        ({0, 1, -100}, {-100}),
        ({0, 1, -1, -100}, {-1, -100}),
        ({1, 2, 99}, {99}),
        ({1, 2, 999, 99}, {99, 999}),
        (set(range(100)), set()),
        ({97, 98, 99}, set()),
        ({1, 50, 999}, {999}),
        ({1, 2, 3}, set()),
        ({-1}, {-1}),
        (set(), set()),
    ],
)
def test_codes_for_no_label_depend_on_the_other_numbers(numbers: set[int], codes: set[int]) -> None:
    assert missing_codes(numbers) == codes


def test_minus_one_beside_names_is_a_code() -> None:
    assert missing_codes({-1, 1}, with_names=True) == {-1}


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ("pos", "pos ", "blanks"),
        ("very good", "very\xa0good", "blanks"),
        ("very good", "very  good", "blanks"),
        ("good", "go\u200bod", "blanks"),
        ("good", "\ufeffgood", "blanks"),
        ("pos", "Pos", "case"),
        ("straße", "STRASSE", "case"),
        ("pos", "POS ", "blanks and case"),
        (unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café"), "Unicode form"),
        ("good", "\uff47\uff4f\uff4f\uff44", "Unicode form"),
        ("ﬁne", "fine", "Unicode form"),
    ],
)
def test_names_that_are_nearly_alike(one: str, other: str, what: str) -> None:
    assert loose_form(one) == loose_form(other)
    assert difference(one, other) == what
    assert find_classes(read_labels([one, other, "third"])).lookalikes() in ([[one, other]], [[other, one]])


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("pos", "pos."), ("cafe", "café"), ("a-b", "a b"), ("1", "2")])
def test_names_that_differ_are_not_nearly_alike(one: str, other: str) -> None:
    assert find_classes(read_labels([one, other])).lookalikes() == []


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["10", "9", "1"], ("1", "9", "10")),
        ([1, 1.0, "1", "2.0", Decimal(2)], ("1", "2")),
        (["-1", "1", "0"], ("-1", "0", "1")),
        ([True, "true", "False", False], ("false", "true")),
        (["True", "False"], ("False", "True")),
        ([True, 1, 0, "false"], ("0", "1")),
        ([True, 2, False], ("0", "1", "2")),
        (["true", "false", "half-true"], ("false", "half-true", "true")),
        (["b", "10", "9", "a"], ("9", "10", "a", "b")),
        ([0.5, 1], ("0.5", "1")),
    ],
)
def test_the_classes_of_labels(values: list[Any], names: tuple[str, ...]) -> None:
    found = find_classes(read_labels(values))
    assert found.names == names
    assert set(found.of.values()) == set(names)


def test_a_class_of_several_spellings_is_told() -> None:
    found = find_classes(read_labels([1, "1.0", "01", 2]))
    assert found.spellings() == {"1": ["1", "1.0", "01"]}


@pytest.mark.parametrize(
    ("names", "value", "index"),
    [
        (("no", "yes"), "yes", 1),
        (("no", "yes"), 1, 1),
        (("no", "yes"), "1.0", 1),
        (("no", "yes"), True, 1),
        (("no", "yes"), "Yes", None),
        (("no", "yes"), 0.5, None),
        (("no", "yes"), 7, 7),
        (("2", "1"), 1, 1),
        (("2", "1"), "1.00", 1),
        (("2", "1"), 0, None),
        (("1.5", "2"), Decimal("1.50"), 0),
        (("1", "01"), "01", 1),
        (("true", "false"), 1, 0),
        (("true", "false"), "TRUE", 0),
        (("true", "false", "half"), 2, 2),
        (("NA", "b"), "NA", 0),
        (("-1", "neg"), -1, 0),
        (("a", "b"), [1], None),
    ],
)
def test_the_class_that_a_label_means(names: tuple[str, ...], value: Any, index: int | None) -> None:
    assert ClassFinder(names).index(read_label(value)) == index


def test_integers_of_a_task_count_whatever_its_names() -> None:
    finder = ClassFinder(("2", "1"), integers_count=True)
    assert [finder.index(read_label(value)) for value in (1, "1", 1.0, "2")] == [1, 1, 1, 0]


def test_integers_stand_for_the_names_that_a_file_embeds() -> None:
    labels = read_labels([0, 1, -1, 2, None], ("none", "1"))
    assert labels[:2] == [Label("none", is_word=True), Label("1", is_word=True)]
    assert [label.number for label in labels[2:]] == [-1, 2, None]


@pytest.mark.parametrize(
    "text", ["", " ", "\t\n", "\xa0", "\u200b\u200d", "\ufeff", "\u3000", "\u2800", "\x00", "\u3164"]
)
def test_a_text_of_which_nothing_shows(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}.")
