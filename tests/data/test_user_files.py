from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal
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


def load(announce: Callable[[str], None] = lambda text: None, **settings: Any) -> TaskData:
    return load_task(TEMPLATE, load_config({"task": "file", "data_dir": "", **settings}), announce)


def refuse(**settings: Any) -> str:
    """The one line of a DataError."""
    with pytest.raises(DataError) as error:
        load(**settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def remedies(message: str, setting: str = "label_names") -> list[str]:
    """What a message says to set a setting to."""
    return re.findall(rf"set {setting} to (\[.*?\](?![^\[]*\"\])|'[^']*'|true)", message)


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
        ({"may_be_half_empty": True}, "may_be_half_empty is set, but there are no pairs: set text_pair_column"),
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
        (
            ["x", "y"],
            {"task_kind": "regression"},
            r"label 'x' .*\(and 1 more row\); a regression label is .*; for classes, set task_kind to 'classification'",
        ),
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


# ---- labels that are numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "labels", "names"),
    [
        ("a.jsonl", [1, 1.0, "1", "1.00", 0, "0"], ("0", "1")),
        ("a.csv", ["10", "9", "1.0", "10.0", "9", "1"], ("1", "9", "10")),
        ("a.parquet", [Decimal("0.0"), Decimal("1.0")], ("0", "1")),
        ("a.parquet", [0.0, 1.0], ("0", "1")),
        ("a.jsonl", [True, "true", "True", False, "FALSE", False], ("false", "true")),
        ("a.csv", ["TRUE", "FALSE"], ("FALSE", "TRUE")),
        ("a.jsonl", [True, 1, False, 0], ("0", "1")),
        ("a.csv", ["01", "02"], ("1", "2")),
    ],
)
def test_a_number_is_one_class_however_it_is_spelled(
    tmp_path: Path, name: str, labels: list[Any], names: tuple[str, ...]
) -> None:
    told: list[str] = []
    data = load(told.append, train_file=write(tmp_path / name, labels * 12))
    assert data.spec.labels == names
    for text, label in zip(data.train.texts, data.train.labels, strict=True):
        original = labels[int(text.split()[1]) % len(labels)]
        value = str(original).lower()
        if value in ("true", "false") and names != ("FALSE", "TRUE"):
            assert names[label] in (value, "01"[value == "true"])
        else:
            assert names[label] in (value.upper(), str(int(float(original))) if value[0].isdigit() else "")
    if len(set(map(str, labels))) > len(names):
        assert any("are one class" in line for line in told)


def test_spellings_that_become_one_class_are_announced(tmp_path: Path) -> None:
    told: list[str] = []
    load(told.append, train_file=write(tmp_path / "a.jsonl", [1, "1.0", "01", 2] * 6))
    assert told[0].endswith("a.jsonl, column 'label': '1', '1.0' and '01' are one class, 1")


def test_numbers_that_are_not_whole_are_classes_or_measurements(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["1.5", "2", "2.50"] * 8)
    message = refuse(train_file=path)
    assert "row 1, column 'label': label 1.5 is not the name or number of a class (and 15 more rows)" in message
    assert remedies(message) == ['["1.5", "2", "2.5"]']
    assert load(train_file=path, label_names=remedies(message)[0]).spec.labels == ("1.5", "2", "2.5")
    assert remedies(message, "task_kind") == ["'regression'"]
    assert load(train_file=path, task_kind="regression").spec.label_range == (1.5, 2.5)


# ---- missing labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "labels", "told", "rest", "admitted"),
    [
        ("a.csv", ["-1", "0", "1"], "label -1 marks an unlabelled row", ("0", "1"), ("-1", "0", "1")),
        ("a.jsonl", [-1, 0, 1], "label -1 marks an unlabelled row", ("0", "1"), ("-1", "0", "1")),
        ("a.parquet", [-1.0, 0.0, 1.0], "label -1.0 marks an unlabelled row", ("0", "1"), ("-1", "0", "1")),
        ("a.csv", ["-1", "a", "b"], "label -1 marks an unlabelled row", ("a", "b"), ("-1", "a", "b")),
        ("a.csv", ["-100", "0", "1"], "label -100 marks an unlabelled row", ("0", "1"), ("-100", "0", "1")),
        ("a.csv", ["99", "1", "2"], "label 99 marks an unlabelled row", ("1", "2"), ("1", "2", "99")),
        ("a.csv", ["NA", "no", "yes"], "'NA' means that there is no label", ("no", "yes"), ("NA", "no", "yes")),
        ("a.csv", ["none", "no", "yes"], "'none' means that there is no label", ("no", "yes"), ("no", "none", "yes")),
        ("a.csv", ["?", "no", "yes"], "'?' means that there is no label", ("no", "yes"), ("?", "no", "yes")),
        ("a.csv", ["nan", "1", "2"], "nan means that there is no label", ("1", "2"), ("1", "2", "nan")),
        ("a.csv", ["", "no", "yes"], "there is no label", ("no", "yes"), ()),
        ("a.csv", ["\xa0", "no", "yes"], "there is no label", ("no", "yes"), ()),
        ("a.jsonl", [None, "no", "yes"], "there is no label", ("no", "yes"), ()),
        ("a.jsonl", [float("nan"), 1, 2], "there is no label", ("1", "2"), ()),
        ("a.parquet", [None, 1, 2], "there is no label", ("1", "2"), ()),
        ("a.parquet", [float("nan"), 1.0, 2.0], "there is no label", ("1", "2"), ()),
    ],
)
def test_missing_labels_are_named_with_their_rows_dropped_or_admitted(
    tmp_path: Path, name: str, labels: list[Any], told: str, rest: tuple[str, ...], admitted: tuple[str, ...]
) -> None:
    path = write(tmp_path / name, labels * 8)
    message = refuse(train_file=path)
    assert f"row 1, column 'label': {told}" in message
    assert "(and 7 more rows)" in message
    assert message.endswith("in rows 1, 4, 7 and 5 more)")

    assert remedies(message, "missing_labels") == ["'drop'"]
    lines: list[str] = []
    data = load(lines.append, train_file=path, missing_labels="drop")
    assert data.spec.labels == rest
    assert sum(map(len, (data.train, data.dev, *data.validation.values()))) == 16
    assert "8 of 24 rows dropped" in lines[0]
    for text, label in zip(data.train.texts, data.train.labels, strict=True):
        assert rest[label] == str(labels[int(text.split()[1]) % 3]).removesuffix(".0")

    assert [tuple(json.loads(names)) for names in remedies(message)] == ([admitted] if admitted else [])
    if admitted:
        data = load(train_file=path, label_names=remedies(message)[0])
        assert data.spec.labels == admitted
        assert sum(map(len, (data.train, data.dev, *data.validation.values()))) == 24


@pytest.mark.parametrize("labels", [[-1, 1], [-2, -1, 0, 1, 2], list(range(90, 100)), ["low", "medium"]])
def test_labels_that_only_look_like_codes_are_classes(tmp_path: Path, labels: list[Any]) -> None:
    data = load(train_file=write(tmp_path / "a.jsonl", labels * 8))
    assert data.spec.labels == tuple(map(str, labels))


def test_minus_one_and_one_are_told_to_be_two_classes(tmp_path: Path) -> None:
    told: list[str] = []
    load(told.append, train_file=write(tmp_path / "a.csv", ["-1", "1"] * 8))
    assert told[0].endswith("a.csv, column 'label': -1 and 1 are two classes")


def write_class_labels(path: Path, names: list[str], labels: list[int]) -> str:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    columns = {"text": [f"text {i}" for i in range(len(labels))], "label": labels}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)
    return str(path)


def test_minus_one_beside_embedded_names_is_a_missing_label(tmp_path: Path) -> None:
    path = write_class_labels(tmp_path / "a.parquet", ["neg", "pos"], [-1, 0, 1] * 8)
    message = refuse(train_file=path)
    assert "row 1, column 'label': label -1 marks an unlabelled row, as in the hub's test splits" in message
    assert remedies(message) == ['["-1", "neg", "pos"]']
    assert load(train_file=path, missing_labels="drop").spec.labels == ("neg", "pos")
    for names in (["-1", "neg", "pos"], ["-1", "0", "1"]):
        data = load(train_file=path, label_names=names)
        assert data.spec.labels == tuple(names)
        assert data.train.labels.tolist() == [int(text.split()[1]) % 3 for text in data.train.texts]


def test_a_class_of_a_file_may_be_called_like_a_missing_label(tmp_path: Path) -> None:
    path = write_class_labels(tmp_path / "a.parquet", ["none", "some"], [0, 1] * 8)
    assert load(train_file=path).spec.labels == ("none", "some")


def test_missing_labels_of_the_validation_file_are_treated_alike(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ["a", "b"] * 10)
    validation = write(tmp_path / "validation.csv", ["a", "-1", "b"], start=100)
    assert "validation.csv, row 2, column 'label': label -1 marks" in refuse(
        train_file=train, validation_file=validation
    )
    told: list[str] = []
    data = load(told.append, train_file=train, validation_file=validation, missing_labels="drop")
    assert data.validation["validation"].texts == ["text 100", "text 102"]
    assert told[0].endswith("validation.csv, column 'label': 1 of 3 rows dropped (-1 in row 2)")
    unlabelled = write(tmp_path / "unlabelled.csv", ["-1"] * 4)
    message = refuse(train_file=train, validation_file=unlabelled, missing_labels="drop")
    assert "unlabelled.csv, row 1" in message
    assert "no row has one: take data with labels" in message


def test_rows_keep_their_numbers_when_others_are_dropped(tmp_path: Path) -> None:
    texts = [f"t{i}" for i in range(9)] + [""]
    path = write(tmp_path / "a.csv", ["", "a", "b", "", "a", "b", "a", "b", "a", "b"], text=texts)
    assert "a.csv, row 10, column 'text': the text is empty" in refuse(train_file=path, missing_labels="drop")


def test_missing_numbers_of_regression(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["1.5", "NA", "-1", "2"] * 6)
    message = refuse(train_file=path, task_kind="regression")
    assert "row 2, column 'label': 'NA' means that there is no label (and 5 more rows)" in message
    data = load(train_file=path, task_kind="regression", missing_labels="drop")
    assert data.spec.label_range == (-1.0, 2.0)


def test_a_code_among_measurements_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    for labels in ([1.5, 2, 3, -1], [1, 2, 5, 99]):
        told.clear()
        data = load(told.append, train_file=write(tmp_path / "a.csv", labels * 6), task_kind="regression")
        assert data.spec.label_range == (min(labels), max(labels))
        assert f"column 'label': {labels[3]} in rows 4, 8, 12 and 3 more counts as a number; if it" in told[0]
    told.clear()
    load(told.append, train_file=write(tmp_path / "a.csv", [-1, -0.5, 0.5, 1] * 6), task_kind="regression")
    assert not any("counts as a number" in line for line in told)


# ---- names that are nearly alike ------------------------------------------------------------------------------------

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("labels", "shown", "what"),
    [
        (["pos", "pos ", "neg"], ("'pos'", "'pos '"), "blanks"),
        (["pos", "Pos", "neg"], ("'Pos'", "'pos'"), "case"),
        (["very good", "very\xa0good", "bad"], ("'very good'", r"'very\xa0good'"), "blanks"),
        (["good", "go\u200bod", "bad"], ("'good'", r"'go\u200bod'"), "blanks"),
        ([COMPOSED, DECOMPOSED, "tea"], (r"'cafe\u0301'", f"'{COMPOSED}'"), "Unicode form"),
        (["good", "\uff47\uff4f\uff4f\uff44", "bad"], ("'good'", ""), "Unicode form"),
        (["1", "\uff11", "2"], ("'1'", ""), "Unicode form"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_names_that_are_nearly_alike_are_refused_unless_both_are_listed(
    tmp_path: Path, name: str, labels: list[str], shown: tuple[str, str], what: str
) -> None:
    path = write(tmp_path / name, labels * 6)
    message = refuse(train_file=path)
    assert f"differ only in {what}; give one class one spelling" in message
    for spelling in shown:
        assert spelling in message
    assert message.count("6 rows, the first is row") == 2
    names = remedies(message)[0]
    data = load(train_file=path, label_names=names)
    assert set(data.spec.labels) == set(labels)
    for text, label in zip(data.train.texts, data.train.labels, strict=True):
        assert data.spec.labels[label] == labels[int(text.split()[1]) % 3]


def test_a_name_of_the_validation_file_is_compared_too(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ["a", "b"] * 10)
    validation = write(tmp_path / "validation.csv", ["a", "B"], start=100)
    message = refuse(train_file=train, validation_file=validation)
    assert "'B' (1 row, the first is row 2 of " in message
    assert "'b' (10 rows, the first is row 2 of " in message
    assert "differ only in case" in message


def test_a_listed_name_admits_no_other_spelling(tmp_path: Path) -> None:
    message = refuse(train_file=write(tmp_path / "a.csv", ["neg", "pos "] * 6), label_names=["neg", "pos"])
    assert "row 2, column 'label': label 'pos ' (str) is no class. Did you mean 'pos'?" in message


# ---- remedies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    ("labels", "regression"), [(list(range(60)), True), ([f"label {i}" for i in range(60)], False)]
)
def test_nearly_one_class_for_each_row_asks_for_the_column(
    tmp_path: Path, name: str, labels: list[Any], regression: bool
) -> None:
    path = write(tmp_path / name, labels, sentiment=["a", "b"] * 30)
    message = refuse(train_file=path)
    assert "is 'label' the label column? It holds 60 different labels in 60 rows" in message
    assert "set label_column to another one (the file also has 'sentiment')" in message
    assert load(train_file=path, label_column="sentiment").spec.labels == ("a", "b")
    assert ("set task_kind to 'regression'" in message) == regression
    if regression:
        assert load(train_file=path, task_kind="regression").spec.label_range == (0, 59)


def test_classes_that_are_listed_are_not_questioned(tmp_path: Path) -> None:
    labels = [f"class {i % 12:02d}" for i in range(22)]
    path = write(tmp_path / "a.csv", labels)
    message = refuse(train_file=path)
    assert "It holds 12 different labels in 22 rows" in message
    assert "or, if they are classes, list them in label_names and give more rows of each" in message
    assert load(train_file=path, label_names=sorted(set(labels))).spec.labels == tuple(sorted(set(labels)))


def test_classes_of_a_small_file_are_not_questioned(tmp_path: Path) -> None:
    assert len(load(train_file=write(tmp_path / "a.csv", [str(i) for i in range(12)] * 3)).spec.labels) == 12


@pytest.mark.parametrize(
    "labels", [["a", ["b"]], [["x"], ["y"]], ["a", {"b": 1}], ["a", float("inf")], ["a\ud800", "b"], ["", "a"], ["a"]]
)
def test_regression_is_never_the_remedy_for_labels_that_are_no_numbers(tmp_path: Path, labels: list[Any]) -> None:
    assert "task_kind" not in refuse(train_file=write(tmp_path / "a.jsonl", labels * 8))


def test_a_list_of_labels_is_one_clear_line(tmp_path: Path) -> None:
    message = refuse(train_file=write(tmp_path / "a.parquet", [["a"], ["b", "c"]] * 8))
    assert (
        "row 1, column 'label': label ['a'] (list) is not the name or number of a class (and 15 more rows)" in message
    )
    assert message.endswith("a row has one label: several at once are not supported")


def test_an_unused_class_of_the_file_is_left_out_by_label_names(tmp_path: Path) -> None:
    path = write_class_labels(tmp_path / "a.parquet", ["neg", "neutral", "pos"], [0, 2] * 8)
    message = refuse(train_file=path)
    assert "no row of class 'neutral' to train on; add rows of it, or leave it out" in message
    assert remedies(message) == ['["neg", "pos"]']
    data = load(train_file=path, label_names=remedies(message)[0])
    assert data.spec.labels == ("neg", "pos")
    assert data.train.labels.tolist() == [int(text.split()[1]) % 2 for text in data.train.texts]


def test_label_names_that_the_file_embeds_mean_the_same_classes_in_any_order(tmp_path: Path) -> None:
    path = write_class_labels(tmp_path / "a.parquet", ["neg", "pos"], [0, 1] * 8)
    data = load(train_file=path, label_names=["pos", "neg"])
    assert data.train.labels.tolist() == [1 - int(text.split()[1]) % 2 for text in data.train.texts]
    data = load(train_file=path, label_names=["bad", "good"])  # other names for the same indices
    assert data.train.labels.tolist() == [int(text.split()[1]) % 2 for text in data.train.texts]


@pytest.mark.parametrize(
    ("labels", "given"),
    [([0, 2], "neg,neutral,pos"), (["a", "b"], "a,b,c"), (["1", "2"], "1,2,3"), ([1, 2], "neg,pos")],
)
def test_names_that_do_not_fit_the_file_are_told_with_names_that_do(
    tmp_path: Path, labels: list[Any], given: str
) -> None:
    path = write(tmp_path / "a.jsonl", labels * 8)
    message = refuse(train_file=path, label_names=given)
    assert load(train_file=path, label_names=remedies(message)[0]).spec.labels == tuple(map(str, labels))


def test_a_class_that_only_validation_has_is_told_with_its_rows(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ["a", "b"] * 10)
    validation = write(tmp_path / "validation.csv", ["a", "new", "new"], start=100)
    message = refuse(train_file=train, validation_file=validation)
    assert re.search(
        r"validation\.csv has 2 \(the first in row 2\): add such rows to train_file, or remove them", message
    )


# ---- files and texts ------------------------------------------------------------------------------------------------


def test_the_delimiter_that_a_message_names_is_the_remedy(tmp_path: Path) -> None:
    for delimiter in ";\t|":
        path = tmp_path / "a.csv"
        path.write_text(f"text{delimiter}label\n" + "".join(f"text {i}{delimiter}{i % 2}\n" for i in range(20)))
        (named,) = remedies(refuse(train_file=str(path)), "delimiter")
        assert len(load(train_file=str(path), delimiter=named[1:-1]).train) == 14


def test_one_text_of_a_pair_may_be_empty_where_the_setting_says_so(tmp_path: Path) -> None:
    for name, seconds in (("a.csv", ["", "x"]), ("a.jsonl", [None, "x"]), ("b.jsonl", ["\u200b", "x"])):
        path = write(tmp_path / name, [0, 1] * 8, b=seconds * 8)
        message = refuse(train_file=path, text_pair_column="b")
        assert "row 1, column 'b': " in message
        assert remedies(message, "may_be_half_empty") == ["true"]
        data = load(train_file=path, text_pair_column="b", may_be_half_empty="true")
        assert data.train.pairs is not None
        assert sum(not pair.strip("\u200b") for pair in data.train.pairs) > 3
    both = write(tmp_path / "both.jsonl", [0, 1] * 8, text=["", "x"] * 8, b=[None, "x"] * 8)
    message = refuse(train_file=both, text_pair_column="b", may_be_half_empty=True)
    assert "row 1, column 'text': both texts are empty (and 7 more rows)" in message


def test_texts_that_say_nothing_are_told(tmp_path: Path) -> None:
    def told(**columns: Any) -> list[str]:
        lines: list[str] = []
        pair = {"text_pair_column": "b"} if "b" in columns else {}
        load(lines.append, train_file=write(tmp_path / "a.csv", [0, 1] * 40, **columns), **pair)
        return [line.partition("a.csv, ")[2] for line in lines if "a.csv, " in line]

    assert told() == []
    assert told(b=["x"] * 80) == ["column 'b': every row holds the same text, so it says nothing about the label"]
    assert told(b=["x", "y"] * 40) == ["column 'b': only 2 different texts in 80 rows"]
    assert told(text=list(range(80))) == [
        "column 'text': every text is a number or a truth value; is it the column of the text?"
    ]
    texts = [f"t{i}" for i in range(77)] + ["NaN", "NaN", "null"]
    assert told(text=texts) == [
        "column 'text': 'NaN' in rows 78, 79; 'null' in row 80: does it stand for a missing text?"
    ]
    same = write(tmp_path / "same.csv", [0, 1] * 8, text=["same"] * 16)
    assert "16 rows that all hold the same text" in (message := refuse(train_file=same))
    assert "set text_column to another column" in message
    for blank in ("\u200b", "\xa0 \t", "\ufeff"):
        path = write(tmp_path / "blank.csv", [0, 1] * 8, text=[f"t{i}" for i in range(15)] + [blank])
        assert "row 16, column 'text': the text is empty; remove such rows" in refuse(train_file=path)
