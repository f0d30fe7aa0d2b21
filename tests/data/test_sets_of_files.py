"""Sets of labels in files of one's own: lists, columns of 0 and 1, and text with a separator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage_kit.components.plugins import Plugins
from sage_kit.config import load_config
from sage_kit.data.scoring import task_of
from sage_kit.data.splits import TaskData, load_task
from sage_kit.errors import ConfigError, DataError, SageError

SETS = [["a"], ["a", "b"], [], ["c"], ["b", "c"]] * 6


def load(path: Path, **settings: Any) -> TaskData:
    config = load_config({"task": "file", "task_kind": "label_sets", "train_file": str(path), **settings})
    return load_task(task_of(Plugins(allow=""), config), config, lambda text: None)


def write_lists(folder: Path) -> Path:
    path = folder / "lists.jsonl"
    rows = [{"text": f"text {i}", "label": labels} for i, labels in enumerate(SETS)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def write_columns(folder: Path) -> Path:
    path = folder / "columns.csv"
    rows = [f"text {i},{','.join(str(int(name in labels)) for name in 'abc')}" for i, labels in enumerate(SETS)]
    path.write_text("\n".join(["text,a,b,c", *rows]), encoding="utf-8")
    return path


def write_text(folder: Path) -> Path:
    path = folder / "text.csv"
    path.write_text("\n".join(["text,label", *(f"text {i},{' ; '.join(s)}" for i, s in enumerate(SETS))]))
    return path


def sets_of(data: TaskData) -> dict[str, list[str]]:
    found = {}
    for split in data.splits.values():
        for text, row in zip(split.texts, split.labels, strict=True):
            found[text] = [name for name, flag in zip(data.spec.labels, row, strict=True) if flag]
    return found


def test_all_ways_to_write_sets_say_the_same(tmp_path: Path) -> None:
    expected = {f"text {i}": labels for i, labels in enumerate(SETS)}
    ways = [
        load(write_lists(tmp_path)),
        load(write_columns(tmp_path), label_column="a, b,c"),
        load(write_text(tmp_path), label_separator=";"),
    ]
    for data in ways:
        assert data.spec.labels == ("a", "b", "c")
        assert sets_of(data) == expected


def test_names_of_the_settings_come_first(tmp_path: Path) -> None:
    assert load(write_lists(tmp_path), label_names=["c", "b", "a"]).spec.labels == ("c", "b", "a")
    with pytest.raises(DataError, match=r"row 3 \(?|row 1, column 'label': label 'a' is unknown"):
        load(write_lists(tmp_path), label_names=["b", "c"])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"label_column": "a,b,c", "label_separator": ";"}, ConfigError, "label_separator is set: empty it"),
        ({"label_column": "a,b,c", "label_names": ["a", "b", "c"]}, ConfigError, "label_names is set: empty it"),
        ({"label_column": "a,b,d"}, DataError, "no column 'd'"),
        ({"label_column": "a", "task_kind": "tags", "label_separator": ";"}, ConfigError, "set task_kind to"),
        ({"label_column": "text,a"}, DataError, "column 'text': expected 0 or 1"),
    ],
)
def test_settings_that_contradict(
    tmp_path: Path, settings: dict[str, Any], error: type[SageError], message: str
) -> None:
    with pytest.raises(error) as caught:
        load(write_columns(tmp_path), **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_that_is_neither_is_told(tmp_path: Path) -> None:
    path = write_columns(tmp_path)
    path.write_text(path.read_text().replace("text 4,0,1,1", "text 4,0,2,1"))
    with pytest.raises(DataError, match="row 5, column 'b': expected 0 or 1, got 2"):
        load(path, label_column="a,b,c")
