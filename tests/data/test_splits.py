from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from sage_kit.components import TaskSpec
from sage_kit.config import load_config
from sage_kit.data import Split, TaskData, load_task
from sage_kit.errors import DataError

Columns = dict[str, list[Any]]


def quiet(text: str) -> None:
    pass


def make_columns(n: int, n_classes: int = 2, start: int = 0) -> Columns:
    return {"text": [f"text {i}" for i in range(start, start + n)], "label": [i % n_classes for i in range(n)]}


def load(
    train: Mapping[str, Sequence[Any]],
    validation: Mapping[str, Sequence[Any]] | None = None,
    announce: Callable[[str], None] = quiet,
    fields: Mapping[str, Any] | None = None,
    **settings: Any,
) -> TaskData:
    columns = {"train": train, "validation": validation or make_columns(10, start=10_000)}
    spec = TaskSpec(
        **{
            "name": "toy",
            "summary": "",
            "text_columns": ("text",),
            "labels": ("no", "yes"),
            "loader": lambda config: columns,
            **(fields or {}),
        }
    )
    return load_task(spec, load_config({"task": "toy", "data_dir": "", **settings}), announce)


PAIR = {"text_columns": ("text", "other")}
NUMBERS = {"labels": (), "label_range": (0.0, 5.0), "metrics": ("pearson",)}


# ---- rows that belong together --------------------------------------------------------------------------------------


def test_rows_of_one_group_stay_together_and_so_do_rows_of_one_text() -> None:
    rows = 200
    columns = {**make_columns(rows), "dialogue": [row // 4 for row in range(rows)]}
    columns["text"] = [columns["text"][row - 4 if row % 40 == 4 else row] for row in range(rows)]
    data = load(columns, validation={**make_columns(10, start=10_000), "dialogue": [0] * 10},
                fields={"group_column": "dialogue"}, dev_rows=40, evaluation_rows=40, transfer_rows=40)  # fmt: skip
    parts = [data.train, data.teacher, data.dev, data.splits["evaluation"]]
    for index, one in enumerate(parts):
        for other in parts[index + 1 :]:
            assert not set(one.groups or ()) & set(other.groups or ())
            assert not set(one.texts) & set(other.texts)
    assert sum(map(len, parts)) == rows
    assert [len(part) for part in parts[2:]] == [40, 40]


def test_a_part_of_so_many_rows_takes_some_of_a_group_and_leaves_its_others_out() -> None:
    columns = {**make_columns(200), "dialogue": [row // 7 for row in range(200)]}
    data = load(columns, validation={**make_columns(10, start=10_000), "dialogue": [0] * 10},
                fields={"group_column": "dialogue"}, dev_rows=40, transfer_rows=40)  # fmt: skip
    assert (len(data.dev), len(data.train)) == (40, 40)
    assert 200 - 14 < len(data.dev) + len(data.train) + len(data.teacher) < 200
    parts = [data.train, data.teacher, data.dev]
    assert not any(set(one.groups or ()) & set(other.groups or ()) for one, other in itertools.combinations(parts, 2))


# ---- what a task becomes --------------------------------------------------------------------------------------------


def test_a_task_is_read_into_train_dev_and_the_official_validation_splits() -> None:
    lines: list[str] = []
    data = load(make_columns(100), announce=lines.append)
    assert (len(data.train), len(data.dev), len(data.validation["validation"])) == (90, 10, 10)
    assert (data.train.name, data.dev.name) == ("train", "dev")
    assert data.train.pairs is None
    assert data.train.labels.dtype == np.int64
    assert lines == ["task toy: 90 train, 10 dev, 10 validation rows"]
    # every row is on one side, with its own label, in its old order
    rows = sorted(data.train.texts + data.dev.texts)
    assert rows == sorted(make_columns(100)["text"])
    for split in (data.train, data.dev):
        numbers = [int(text.split()[1]) for text in split.texts]
        assert numbers == sorted(numbers)
        assert split.labels.tolist() == [number % 2 for number in numbers]


def test_official_validation_splits_are_untouched() -> None:
    columns = make_columns(30, start=500)
    data = load(make_columns(100), columns)
    assert data.validation["validation"].texts == columns["text"]
    assert data.validation["validation"].labels.tolist() == columns["label"]


def test_a_task_without_a_validation_split_has_one_set_apart() -> None:
    data = load(make_columns(100), fields={"validation_splits": ()}, validation_fraction=0.3)
    assert [len(split) for split in (data.train, data.dev, *data.validation.values())] == [63, 7, 30]
    assert list(data.validation) == ["validation"]


def test_pairs_and_regression() -> None:
    columns = {**make_columns(20), "other": [f"other {i}" for i in range(20)]}
    columns["label"] = [i / 4 for i in range(20)]
    data = load(columns, columns, fields={**PAIR, **NUMBERS})
    assert data.train.labels.dtype == np.float32
    assert data.train.pairs is not None
    for text, pair, label in zip(data.train.texts, data.train.pairs, data.train.labels, strict=True):
        number = int(text.split()[1])
        assert (pair, label) == (f"other {number}", number / 4)


def test_labels_may_be_indices_names_or_whole_numbers() -> None:
    columns: Columns = {"text": list("abcdefgh"), "label": [0, 1, "no", "yes", "0", "1", 1.0, False]}
    data = load(make_columns(10), columns)
    assert data.validation["validation"].labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0]


def test_a_class_that_is_named_by_a_digit_is_found_by_its_name() -> None:
    columns: Columns = {"text": [f"t{i}" for i in range(20)], "label": ["1", "2"] * 10}
    data = load(columns, columns, fields={"labels": ("2", "1")})
    assert data.validation["validation"].labels.tolist() == [1, 0] * 10
    with pytest.raises(DataError, match=r"row 1, column 'label': label '0' \(str\) is no class. Classes: 1, 2"):
        load(columns, {"text": ["x"], "label": ["0"]}, fields={"labels": ("2", "1")})


# ---- subsets and parts ----------------------------------------------------------------------------------------------


def test_dev_is_carved_by_class_in_proportion() -> None:
    columns = make_columns(400)
    columns["label"] = [0] * 300 + [1] * 80 + [2] * 20
    data = load(columns, fields={"labels": ("a", "b", "c")}, dev_fraction=0.1)
    assert np.bincount(data.dev.labels).tolist() == [30, 8, 2]
    assert np.bincount(data.train.labels).tolist() == [270, 72, 18]


def test_dev_has_one_row_at_least_and_never_takes_a_class_whole() -> None:
    columns = make_columns(5)
    columns["label"] = [0, 0, 0, 0, 1]
    data = load(columns, dev_fraction=0.01)
    assert (len(data.dev), data.dev.labels.tolist()) == (1, [0])
    data = load(columns, dev_fraction=0.5)
    assert np.bincount(data.train.labels).tolist() == [2, 1]


def test_rows_of_one_text_stay_on_one_side() -> None:
    columns = make_columns(60)
    columns["text"] = [f"text {i // 3}" for i in range(60)]
    data = load(columns, dev_fraction=0.25)
    assert not set(data.train.texts) & set(data.dev.texts)
    assert (len(data.train), len(data.dev)) == (45, 15)
    other = [f"other {i}" for i in range(60)]
    pairs = load({**columns, "other": other}, {**make_columns(2), "other": ["x", "y"]}, fields=PAIR, dev_fraction=0.25)
    assert set(pairs.train.texts) & set(pairs.dev.texts), "pairs that share one text of two are different examples"


def test_a_class_of_which_every_text_repeats_another_class_stays_in_train() -> None:
    columns: Columns = {"text": [f"text {i}" for i in range(40)] + ["text 0", "text 1"], "label": [0] * 40 + [1, 1]}
    for seed in range(20):
        assert 1 in load(columns, dev_fraction=0.5, split_seed=seed).train.labels


def test_subsets_are_random_nested_drawn_before_carving_and_fixed_by_the_seed() -> None:
    train, validation = make_columns(300), make_columns(50, start=1000)

    def texts(**settings: Any) -> tuple[set[str], set[str]]:
        data = load(train, validation, **settings)
        return set(data.train.texts + data.dev.texts), set(data.validation["validation"].texts)

    small, large = texts(train_rows=50, validation_rows=5), texts(train_rows=100, validation_rows=10)
    assert [len(rows) for rows in (*small, *large)] == [50, 5, 100, 10]
    assert small[0] < large[0]
    assert small[1] < large[1]
    assert small == texts(train_rows=50, validation_rows=5)
    assert small != texts(train_rows=50, validation_rows=5, split_seed=1)
    assert small[0] != set(train["text"][:50])


def test_the_rows_that_a_seed_draws_never_change() -> None:
    data = load(make_columns(40), train_rows=12, validation_rows=3, dev_fraction=0.25)
    numbers = [[int(text.split()[1]) for text in split.texts] for split in (data.train, data.dev)]
    assert numbers == [[4, 5, 10, 11, 13, 15, 26, 37, 38], [1, 24, 32]]
    assert data.validation["validation"].texts == ["text 10002", "text 10005", "text 10007"]


def test_dev_depends_on_the_split_seed_and_not_on_the_seed() -> None:
    columns = make_columns(100)
    assert load(columns, seed=1).dev.texts == load(columns, seed=2).dev.texts
    assert load(columns, split_seed=1).dev.texts != load(columns, split_seed=2).dev.texts


def test_a_subset_larger_than_the_data_is_announced() -> None:
    lines: list[str] = []
    data = load(make_columns(20), announce=lines.append, train_rows=500, validation_rows=50)
    assert len(data.train) + len(data.dev) == 20
    assert lines[:2] == [
        "train_rows is 500, but train has 20 rows: all are used",
        "validation_rows is 50, but validation has 10 rows: all are used",
    ]


def test_validation_rows_that_stand_in_train_are_announced() -> None:
    lines: list[str] = []
    validation = make_columns(4, start=98)  # rows 98 and 99 are in train or in dev
    data = load(make_columns(100), validation, announce=lines.append)
    shared = len(set(data.train.texts) & set(validation["text"]))
    assert shared
    assert lines[-1] == f"{shared} of the 4 rows of validation have a text that also stands in train"


def test_a_part_of_a_split_keeps_texts_pairs_and_labels_together() -> None:
    split = Split("x", ["a", "b", "c"], ["d", "e", "f"], np.array([0, 1, 2]))
    part = split.take(np.array([2, 0]), "part")
    assert (part.name, part.texts, part.pairs, part.labels.tolist()) == ("part", ["c", "a"], ["f", "d"], [2, 0])
    assert split.take(np.array([1])).name == "x"


# ---- what is wrong with the data ------------------------------------------------------------------------------------


def with_rows(**changes: Mapping[int, Any]) -> Columns:
    columns: Columns = {**make_columns(20), "other": [f"other {i}" for i in range(20)]}
    for column, values in changes.items():
        for row, value in values.items():
            columns[column][row] = value
    return columns


WHERE = r"^task 'toy', split 'train'"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"label": {3: 7, 9: 8}},
            r", row 4, column 'label': label 7 is outside 0 to 1 \(no, yes\) \(and 1 more row\);",
        ),
        ({"label": {0: -2}}, r", row 1, column 'label': label -2 is outside 0 to 1"),
        ({"label": dict.fromkeys(range(20), -1)}, r", row 1, .*label -1 marks an unlabelled row.*\(and 19 more rows\)"),
        ({"label": {2: None}}, r", row 3, column 'label': there is no label;"),
        ({"label": {2: math.nan}}, r", row 3, column 'label': there is no label;"),
        ({"label": {2: "yess"}}, r", row 3, .*'yess' \(str\) is no class. Did you mean 'yes'\? Classes: no, yes;"),
        ({"label": {2: 0.5}}, r", row 3, column 'label': label 0.5 \(float\) is no class"),
        ({"label": {2: [1]}}, r", row 3, column 'label': label \[1\] \(list\) is no class"),
        (
            {"text": {5: "", 6: " \n"}},
            r", row 6, column 'text': the text is empty \(and 1 more row\); remove such rows",
        ),
        ({"text": {5: 12}}, r", row 6, column 'text': expected text, got 12 \(int\);"),
        ({"text": {5: None}}, r", row 6, column 'text': expected text, got nothing;"),
        ({"text": {5: b"bytes"}}, r", row 6, column 'text': expected text, got b'bytes' \(bytes\);"),
        ({"text": {5: "half \ud83d"}}, r", row 6, column 'text': the text is not valid Unicode;"),
        ({"other": {7: ""}}, r", row 8, column 'other': the text is empty;"),
        ({"label": dict.fromkeys(range(20), 1)}, r": no row of class 'no' to train on; add rows of it"),
    ],
)
def test_a_bad_row_is_named(changes: Mapping[str, Mapping[int, Any]], message: str) -> None:
    with pytest.raises(DataError, match=WHERE + message) as error:
        load(with_rows(**changes), {**make_columns(2), "other": ["x", "y"]}, fields=PAIR)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5.5, "label 5.5 is outside 0 to 5; correct the labels"),
        (-0.1, "label -0.1 is outside 0 to 5"),
        (math.nan, "there is no label; a regression label is a finite number"),
        (None, "there is no label"),
        ("", "there is no label"),
        (math.inf, r"label inf \(float\) is not a number"),
        ("four", r"label 'four' \(str\) is not a number"),
        (True, r"label True \(bool\) is not a number"),
        (10**400, r"label 1000.*\.\.\. \(int\) is not a number"),
    ],
)
def test_a_bad_number_is_named(value: Any, message: str) -> None:
    columns = make_columns(10)
    columns["label"] = [float(i % 6) for i in range(9)] + [value]
    with pytest.raises(DataError, match=rf"{WHERE}, row 10, column 'label': {message}"):
        load(columns, fields=NUMBERS)
    columns["label"][-1] = "3.5"
    assert 3.5 in load(columns, fields=NUMBERS, dev_fraction=0.1, split_seed=1).train.labels


def test_rows_without_a_label_are_left_out_where_the_setting_says_so() -> None:
    lines: list[str] = []
    validation = {"text": ["x", "y", "z"], "label": [0, -1, "NA"]}
    train = with_rows(label={3: None, 5: "none", 9: -1})
    with pytest.raises(DataError, match=WHERE + r", row 4, .*there is no label \(and 2 more rows\); correct such rows"):
        load(train, validation)
    data = load(train, validation, announce=lines.append, missing_labels="drop")
    assert len(data.train) + len(data.dev) == 17
    assert data.validation["validation"].texts == ["x"]
    assert lines[:2] == [
        "task 'toy', split 'train', column 'label': 3 of 20 rows dropped (nothing in row 4; 'none' in row 6; -1 in row "
        "10)",
        "task 'toy', split 'validation', column 'label': 2 of 3 rows dropped (-1 in row 2; 'NA' in row 3)",
    ]
    with pytest.raises(DataError, match=r"split 'validation', row 1, .*no row has one: take data with labels"):
        load(train, {"text": ["x", "y"], "label": [-1, -1]}, missing_labels="drop")


def test_a_code_outside_the_range_of_a_regression_task_is_a_missing_label() -> None:
    columns = make_columns(10)
    columns["label"] = [float(i % 6) for i in range(9)] + [-1.0]
    with pytest.raises(DataError, match=WHERE + ", row 10, column 'label': label -1.0 marks an unlabelled row"):
        load(columns, fields=NUMBERS)
    data = load(columns, fields=NUMBERS, missing_labels="drop")
    assert len(data.train) + len(data.dev) == 9
    signed = {**NUMBERS, "label_range": (-1.0, 5.0)}
    assert len(load(columns, fields=signed).train) == 9


def test_a_class_of_a_task_may_be_called_like_a_missing_label() -> None:
    data = load(with_rows(label={3: "none"}), fields={"labels": ("none", "yes")})
    assert len(data.train) + len(data.dev) == 20


def test_labels_of_a_loader_may_be_of_any_numeric_type() -> None:
    columns: Columns = {
        "text": list("abcdefg"),
        "label": [np.int64(0), np.float32(1), Decimal("1.0"), "1.0", "true", "0", np.True_],
    }
    data = load(make_columns(10), columns)
    assert data.validation["validation"].labels.tolist() == [0, 1, 1, 1, 1, 0, 1]


def test_official_validation_rows_are_checked_too() -> None:
    with pytest.raises(DataError, match=r"^task 'toy', split 'validation', row 2, column 'text': the text is empty"):
        load(make_columns(10), {"text": ["x", ""], "label": [0, 1]})


def test_one_empty_text_of_a_pair_is_tolerated_where_the_task_says_so() -> None:
    fields = {**PAIR, "may_be_half_empty": True}
    validation = {**make_columns(2), "other": ["x", "y"]}
    data = load(with_rows(text={1: ""}, other={2: " "}), validation, fields=fields)
    assert len(data.train) + len(data.dev) == 20
    for nothing in ("", None, math.nan):
        assert len(load(with_rows(text={1: nothing}), validation, fields=PAIR, may_be_half_empty=True).train) == 18
    with pytest.raises(DataError, match=WHERE + ", row 5, column 'text': both texts are empty; remove such rows"):
        load(with_rows(text={1: "", 4: ""}, other={4: ""}), validation, fields=fields)


def test_an_empty_split_is_an_error() -> None:
    empty: Columns = {"text": [], "label": []}
    with pytest.raises(DataError, match=r"^task 'toy', split 'train' has no rows$"):
        load(empty)
    with pytest.raises(DataError, match=r"^task 'toy', split 'validation' has no rows$"):
        load(make_columns(10), empty)


def test_every_class_missing_from_train_is_named() -> None:
    with pytest.raises(DataError, match=WHERE + ": no row of class 'c', 'e' to train on"):
        load({"text": list("xyz"), "label": [0, 1, 3]}, fields={"labels": tuple("abcde")})


def test_a_subset_without_a_class_is_an_error_with_the_remedy() -> None:
    columns = make_columns(1000)
    columns["label"] = [0] * 999 + [1]
    message = ", the 10 rows that train_rows draws: no row of class 'yes' to train on; raise train_rows or change"
    with pytest.raises(DataError, match=WHERE + message):
        load(columns, train_rows=10)


def test_too_few_rows_to_carve_from_are_an_error() -> None:
    with pytest.raises(DataError, match=WHERE + ": 1 row cannot be parted into train and dev; give at least 2"):
        load({"text": ["x"], "label": [1.0]}, {"text": ["y"], "label": [1.0]}, fields=NUMBERS)
    with pytest.raises(DataError, match=WHERE + ": 4 rows that all hold the same text cannot be parted"):
        load({"text": ["x"] * 4, "label": [0, 1, 0, 1]})
    with pytest.raises(DataError, match=WHERE + ": no class has 2 different texts, so dev would take a class's last"):
        load({"text": ["x", "y"], "label": [0, 1]})
    # two rows are enough where one class has both, or there are no classes
    assert len(load({"text": ["x", "y"], "label": [1.0, 2.0]}, fields=NUMBERS).dev) == 1


def test_embedded_class_names_in_another_order_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from sage_kit.data import splits
    from sage_kit.data.sources import Table

    spec = TaskSpec(name="toy", summary="", text_columns=("text",), labels=("no", "yes"))
    config = load_config({"task": "toy", "data_dir": ""})

    def tables(names: tuple[str, ...]) -> Callable[..., dict[str, Table]]:
        columns = make_columns(10)
        return lambda *_: {split: Table(split, columns, names) for split in ("train", "validation")}

    monkeypatch.setattr(splits, "read_tables", tables(("yes", "no")))
    with pytest.raises(DataError, match="column 'label': its classes are yes, no in this order, but task 'toy' has"):
        load_task(spec, config, quiet)
    for names in ((), ("no", "yes"), ("neg", "pos")):
        monkeypatch.setattr(splits, "read_tables", tables(names))
        train = load_task(spec, config, quiet).train
        assert train.labels.tolist() == [int(text.split()[1]) % 2 for text in train.texts]
