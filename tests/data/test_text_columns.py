"""Columns of text as Arrow holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sage_kit.data import text_columns
from sage_kit.data.text_columns import (
    ColumnBuilder,
    DerivedTexts,
    TextColumn,
    count_different,
    joined,
    numbered,
    take_rows,
)
from sage_kit.storage import spool
from sage_kit.storage.fingerprint import fingerprint

TEXTS = ["one", "", "drei", "四", "a 🐍 b", "one", "\x00 zero", "é" * 50, "drei"]


@pytest.fixture(params=["memory", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """Where columns lie: in memory, or all of them in files."""
    monkeypatch.setattr(spool, "IN_MEMORY", 0)
    monkeypatch.setattr(text_columns, "CHUNK", 4)
    return tmp_path if request.param == "file" else None


def test_a_column_is_a_sequence_of_its_texts(folder: Path | None) -> None:
    column = TextColumn.of(TEXTS, folder)
    assert len(column) == len(TEXTS)
    assert list(column) == TEXTS
    assert column == TEXTS
    assert column == TextColumn.of(TEXTS)
    assert column != TEXTS[:-1]
    assert column != [*TEXTS[:-1], "other"]
    assert [column[place] for place in range(-9, 9)] == TEXTS * 2
    for part in (slice(None), slice(2, 5), slice(-3, None), slice(None, None, -2), slice(7, 3), slice(4, 400)):
        assert column[part] == TEXTS[part]
    with pytest.raises(IndexError):
        column[9]
    assert "drei" in column
    assert column.index("四") == 3
    assert fingerprint(column) == fingerprint(TEXTS)
    assert list(TextColumn.of([], folder)) == []


def test_some_rows_of_some_rows(folder: Path | None) -> None:
    column = TextColumn.of(TEXTS, folder)
    first = np.array([8, 0, 3, 3, 1])
    taken = take_rows(column, first)
    assert isinstance(taken, TextColumn)
    assert taken == [TEXTS[row] for row in first]
    second = np.array([4, 0])
    assert take_rows(taken, second) == ["", "drei"]
    assert taken[1:3] == ["one", "四"]
    assert taken[-1] == ""
    assert take_rows(TEXTS, first) == list(taken)
    assert list(column) == TEXTS
    assert len(taken.take(np.zeros(0, np.int64))) == 0


def test_equal_texts_have_the_number_of_their_first_row(folder: Path | None) -> None:
    column, others = TextColumn.of(TEXTS, folder), TextColumn.of(list("abcdeafgh"), folder)
    expected = [0, 1, 2, 3, 4, 0, 5, 6, 2]
    assert numbered([column]).tolist() == expected
    assert numbered([TEXTS]).tolist() == expected
    # rows 0 and 5 are a pair that stands twice, 2 and 8 are not
    pairs = [0, 1, 2, 3, 4, 0, 5, 6, 7]
    assert numbered([column, others]).tolist() == pairs
    assert numbered([TEXTS, list("abcdeafgh")]).tolist() == pairs
    assert numbered([column.take(np.array([5, 2, 0, 8]))]).tolist() == [0, 1, 0, 1]
    assert count_different(column) == count_different(TEXTS) == 7
    both = joined([column, others])
    assert both == [*TEXTS, *"abcdeafgh"]
    assert joined([column, list("ab")]) == [*TEXTS, "a", "b"]
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in rng.integers(0, 300, 5000)]
    seconds = [f"s{number}" for number in rng.integers(0, 5, 5000)]
    of_pair: dict[tuple[str, str], int] = {}
    one_by_one = [of_pair.setdefault(pair, len(of_pair)) for pair in zip(words, seconds, strict=True)]
    assert numbered([TextColumn.of(words), TextColumn.of(seconds)]).tolist() == one_by_one


def test_a_column_with_something_else_in_it_is_a_list(folder: Path | None) -> None:
    for last in (None, 3, "\ud800", ["list"]):
        builder = ColumnBuilder(folder, is_text=True)
        builder.append(["a", "b"])
        builder.append(["c", last])
        builder.append(["d"])
        assert builder.finish() == ["a", "b", "c", last, "d"]
        assert isinstance(builder.finish(), list)
    for is_text in (True, False):
        builder = ColumnBuilder(folder, is_text=is_text)
        builder.append(["a"])
        builder.append(["b"])
        found = builder.finish()
        assert isinstance(found, TextColumn) == is_text
        assert found == ["a", "b"]


def test_texts_that_are_made_when_they_are_asked_for() -> None:
    asked = []

    def made(start: int, stop: int) -> list[str]:
        asked.append((start, stop))
        return [str(place) for place in range(start, stop)]

    texts = DerivedTexts(7, made)
    assert list(texts) == [str(place) for place in range(7)]
    asked.clear()
    assert (texts[3], texts[-1], texts[2:5], texts[5:2], texts[6:0:-3]) == ("3", "6", ["2", "3", "4"], [], ["6", "3"])
    assert (2, 5) in asked
    with pytest.raises(IndexError):
        texts[7]
