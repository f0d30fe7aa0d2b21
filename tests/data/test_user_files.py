from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sage_kit.components import TaskSpec
from sage_kit.config import load_config
from sage_kit.data import TaskData, load_task
from sage_kit.errors import ConfigError, DataError, SageError

TEMPLATE = TaskSpec(name="file", summary="", text_columns=("text",), metrics=())


def write(path: Path, labels: Sequence[Any], start: int = 0, **columns: Sequence[Any]) -> str:
    """A file with the columns "text" and "label" and others; gives its path as text."""
    table = {"text": [f"text {i}" for i in range(start, start + len(labels))], "label": list(labels), **columns}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(table), path)
    elif path.suffix == ".jsonl":
        records = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([list(table), *zip(*table.values(), strict=True)])
    return str(path)


def load(**settings: Any) -> TaskData:
    return load_task(TEMPLATE, load_config({"task": "file", "data_dir": "", **settings}), lambda text: None)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["good", "bad"], ("bad", "good")),
        ([3, 20], ("3", "20")),
        ([-1, 1], ("-1", "1")),
        ([True, False], None),
    ],
)
def test_classes_are_the_sorted_labels_of_the_data(
    tmp_path: Path, suffix: str, labels: list[Any], names: tuple[str, ...] | None
) -> None:
    data = load(train_file=write(tmp_path / f"data{suffix}", labels * 20))
    if names is None:  # csv holds text only
        names = ("False", "True") if suffix == ".csv" else ("false", "true")
    assert data.spec.labels == names
    assert data.spec.metrics == ("accuracy", "f1")
    assert (data.spec.n_outputs, data.spec.is_regression) == (2, False)
    for split in (data.train, data.dev, data.validation["validation"]):
        for text, label in zip(split.texts, split.labels, strict=True):
            original = labels[int(text.split()[1]) % 2]
            assert names[label] in (str(original), str(original).lower())


def test_without_a_validation_file_a_part_by_class_is_set_apart_first(tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", ["a"] * 60 + ["b"] * 40)
    data = load(train_file=path, validation_fraction=0.2, dev_fraction=0.25)
    sizes = [np.bincount(split.labels).tolist() for split in (data.train, data.dev, data.validation["validation"])]
    assert sizes == [[36, 24], [12, 8], [12, 8]]
    texts = [*data.train.texts, *data.dev.texts, *data.validation["validation"].texts]
    assert len(set(texts)) == 100
    # the part is set apart before the subsets, so a smaller training set is reported on with the same rows
    smaller = load(train_file=path, validation_fraction=0.2, train_rows=30)
    assert smaller.validation["validation"].texts == data.validation["validation"].texts
    assert len(smaller.train) + len(smaller.dev) == 30


def test_a_validation_file_is_reported_on_as_it_is(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ["a", "b"] * 10)
    validation = write(tmp_path / "validation.jsonl", ["b", "a", "b"], start=100)
    data = load(train_file=train, validation_file=validation)
    assert len(data.train) + len(data.dev) == 20
    assert data.validation["validation"].texts == ["text 100", "text 101", "text 102"]
    assert data.validation["validation"].labels.tolist() == [1, 0, 1]


def test_columns_pairs_and_label_names_follow_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    records = [{"q": f"question {i}", "a": f"answer {i}", "y": i % 3} for i in range(30)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    names = ["zero", "one", "two"]
    data = load(train_file=str(path), text_column="q", text_pair_column="a", label_column="y", label_names=names)
    assert (data.spec.text_columns, data.spec.label_column, data.spec.labels) == (("q", "a"), "y", tuple(names))
    assert data.spec.metrics == ("accuracy",)
    assert data.train.pairs is not None
    for text, pair, label in zip(data.train.texts, data.train.pairs, data.train.labels, strict=True):
        number = int(text.split()[1])
        assert (pair, label) == (f"answer {number}", number % 3)


def test_label_names_that_are_digits_are_names_and_not_indices(tmp_path: Path) -> None:
    data = load(train_file=write(tmp_path / "data.jsonl", [1, 2] * 10), label_names=["2", "1"])
    # rows hold 1 and 2 in turn, which the names put second and first
    assert data.train.labels.tolist() == [1 - int(text.split()[1]) % 2 for text in data.train.texts]


def test_class_names_that_the_file_embeds_are_taken(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    columns = {"text": [f"text {i}" for i in range(20)], "label": [0, 1] * 10}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "train.parquet")
    validation = write(tmp_path / "validation.csv", ["a", "z"], start=50)
    data = load(train_file=str(tmp_path / "train.parquet"), validation_file=validation)
    assert data.spec.labels == ("z", "a")
    assert data.validation["validation"].labels.tolist() == [1, 0]
    features["label"] = datasets.ClassLabel(names=["a", "z"])
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="embed different class names for column 'label'"):
        load(train_file=str(tmp_path / "train.parquet"), validation_file=str(tmp_path / "other.parquet"))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_regression_takes_its_range_from_the_data(tmp_path: Path, suffix: str) -> None:
    train = write(tmp_path / f"train{suffix}", [i / 10 for i in range(30)])
    validation = write(tmp_path / f"validation{suffix}", [-1.0, 9.5])
    data = load(train_file=train, validation_file=validation, task_kind="regression")
    assert (data.spec.labels, data.spec.label_range) == ((), (-1.0, 9.5))
    assert data.spec.metrics == ("pearson", "spearman")
    assert data.validation["validation"].labels.tolist() == [-1.0, 9.5]
    assert data.train.labels.dtype == np.float32


# ---- what is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_file": ""}, "task 'file' needs train_file: a .jsonl, .csv or .parquet file"),
        ({"text_pair_column": "text"}, "must be different columns"),
        ({"label_column": "text"}, "must be different columns"),
        ({"text_column": ""}, "task 'file' needs text_column and label_column"),
        ({"label_names": ["a", "b"], "task_kind": "regression"}, "label_names is set, but task_kind is 'regression'"),
        ({"label_names": ["a", "a"]}, "label_names lists a class twice: a, a"),
        ({"label_names": ["a"]}, "label_names lists only 'a': a task needs two classes"),
        ({"validation_file": "train.csv"}, "validation_file is the train_file: leave it empty"),
    ],
)
def test_settings_that_do_not_go_together_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("train.csv"), ["a", "b"] * 5)
    with pytest.raises(ConfigError, match=message):
        load(**{"train_file": "./train.csv", **settings})


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([], {}, r"train\.jsonl has no rows"),
        (["a"] * 5, {}, r"column 'label': every label is 'a'; a task needs two classes"),
        ([0.5, 1.5], {}, r"train\.jsonl, row 1, .*label 0.5 is not the name or number of a class \(and 1 more row\)"),
        (["a", None, ""], {}, r"row 2, column 'label': there is no label \(and 1 more row\)"),
        (["a", "b", "c"], {"label_names": ["a", "b"]}, r"row 3, column 'label': label 'c' \(str\) is no class"),
        ([0, 1, 2], {"label_names": ["a", "b"]}, r"row 3, column 'label': label 2 is outside 0 to 1 \(a, b\)"),
        ([0, 1, -1], {"label_names": ["a", "b"]}, r"row 3, column 'label': label -1 marks an unlabelled row"),
        (["a", "b"] * 3, {"label_names": ["a", "b", "c"]}, r"train\.jsonl: no row of class 'c' to train on"),
        ([1.5] * 4, {"task_kind": "regression"}, r"column 'label': every label is 1.5"),
        ([1, "x"], {"task_kind": "regression"}, r"row 2, column 'label': label 'x' \(str\) is not a number"),
        (
            [0, 1],
            {"text_column": "txt"},
            r"train\.jsonl has no column 'txt'. Did you mean 'text'\? Columns: label, text",
        ),
        ([0, 1], {"validation_fraction": 0.5}, r"no class has 2 different texts, so validation would take"),
    ],
)
def test_data_that_cannot_be_used_are_named(
    tmp_path: Path, labels: list[Any], settings: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "train.jsonl", labels)
    with pytest.raises(DataError, match=message) as error:
        load(train_file=path, **settings)
    assert "\n" not in str(error.value)


def test_a_class_that_only_the_validation_file_has_is_missing_from_train(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ["a", "b"] * 10)
    validation = write(tmp_path / "validation.csv", ["a", "new"], start=100)
    with pytest.raises(DataError, match=r"train\.csv: no row of class 'new' to train on"):
        load(train_file=train, validation_file=validation)


@pytest.mark.parametrize("name", ["gone.csv", "data.xlsx"])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SageError, match=name.replace(".", r"\.")):
        load(train_file=str(tmp_path / name))
