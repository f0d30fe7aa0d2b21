"""The transfer set, the teacher's rows and the evaluation set: which rows they are, and texts without labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sage_kit.components import TaskSpec
from sage_kit.config import load_config
from sage_kit.data import Split, TaskData, load_task
from sage_kit.errors import ConfigError, DataError

Columns = dict[str, list[Any]]


def make_columns(n: int, n_classes: int = 2, start: int = 0) -> Columns:
    return {"text": [f"text {i}" for i in range(start, start + n)], "label": [i % n_classes for i in range(n)]}


def load(
    train: Mapping[str, Sequence[Any]] | int = 1000,
    lines: list[str] | None = None,
    fields: Mapping[str, Any] | None = None,
    **settings: Any,
) -> TaskData:
    columns = {
        "train": make_columns(train) if isinstance(train, int) else train,
        "validation": make_columns(10, start=90_000),
    }
    base = {"name": "toy", "summary": "", "text_columns": ("text",), "labels": ("no", "yes")}
    spec = TaskSpec(**{**base, "loader": lambda config: columns, **(fields or {})})
    told = lines if lines is not None else []
    return load_task(spec, load_config({"task": "toy", "data_dir": "", **settings}), told.append)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts(*splits: Split | None) -> list[set[str]]:
    return [set(split.texts) for split in splits if split is not None]


# ---- carving --------------------------------------------------------------------------------------------------------


def test_without_the_settings_teacher_and_student_share_their_rows_and_there_is_no_evaluation_set() -> None:
    data = load(200)
    assert data.teacher is data.train
    assert data.evaluation is None
    assert list(data.splits) == ["train", "dev", "validation"]


def test_every_part_has_the_number_of_rows_that_its_setting_says_and_no_text_stands_on_two_sides() -> None:
    lines: list[str] = []
    data = load(
        1000, lines, dev_rows=50, evaluation_rows=200, transfer_pool=300, transfer_rows=120, teacher_rows=250,
        transfer_seed=3,
    )  # fmt: skip
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 120, "dev": 50, "validation": 10, "teacher": 250, "evaluation": 200,
    }  # fmt: skip
    parts = texts(data.train, data.teacher, data.dev, data.evaluation)
    assert len(set.union(*parts)) == sum(map(len, parts)) == 620
    assert lines == [
        "task toy: 120 train, 50 dev, 10 validation, 250 teacher, 200 evaluation rows; train is drawn from a pool of "
        "300 rows under transfer_seed 3"
    ]


def test_the_teacher_gets_all_rows_that_are_not_kept_for_others() -> None:
    data = load(1000, dev_rows=50, evaluation_rows=200, transfer_pool=300, transfer_rows=100)
    assert len(data.teacher) == 450
    data = load(1000, dev_rows=50, transfer_rows=100)
    assert len(data.teacher) == 850


def test_where_only_the_teachers_rows_are_set_the_student_learns_from_all_others() -> None:
    data = load(1000, dev_rows=100, teacher_rows=300)
    assert (len(data.teacher), len(data.train)) == (300, 600)
    drawn = load(1000, dev_rows=100, teacher_rows=300, transfer_rows=50)
    assert drawn.teacher.texts == data.teacher.texts
    assert set(drawn.train.texts) < set(data.train.texts)


def test_dev_stays_whatever_the_other_parts_are() -> None:
    for dev in ({}, {"dev_rows": 70}):
        alone = load(1000, **dev).dev.texts
        for settings in (
            {"evaluation_rows": 100}, {"evaluation_rows": 400}, {"transfer_rows": 90}, {"teacher_rows": 90},
            {"transfer_pool": 400, "transfer_rows": 10, "transfer_seed": 4, "evaluation_rows": 200},
        ):  # fmt: skip
            assert load(1000, **dev, **settings).dev.texts == alone
    assert load(1000, dev_rows=70, split_seed=1).dev.texts != load(1000, dev_rows=70).dev.texts


def test_the_evaluation_set_stays_whatever_is_drawn_and_a_larger_one_holds_it() -> None:
    small = load(1000, evaluation_rows=100).evaluation
    assert small is not None
    for settings in ({"transfer_rows": 90}, {"transfer_pool": 400, "transfer_seed": 2}, {"teacher_rows": 100}):
        found = load(1000, evaluation_rows=100, **settings).evaluation
        assert found is not None
        assert found.texts == small.texts
    large = load(1000, evaluation_rows=300).evaluation
    assert large is not None
    assert set(small.texts) < set(large.texts)


def test_draws_come_from_one_pool_and_leave_the_teacher_as_it_is() -> None:
    settings: dict[str, Any] = {"transfer_pool": 200, "transfer_rows": 80}
    pool = set(load(1000, transfer_pool=200).train.texts)
    draws = [load(1000, transfer_seed=seed, **settings) for seed in range(4)]
    for draw in draws:
        assert set(draw.train.texts) < pool
        assert draw.teacher.texts == draws[0].teacher.texts
    assert len({tuple(draw.train.texts) for draw in draws}) == 4
    again = load(1000, transfer_seed=2, seed=7, **settings)
    assert again.train.texts == draws[2].train.texts
    assert again.train.labels.tolist() == draws[2].train.labels.tolist()


def test_a_larger_draw_holds_a_smaller_one_of_the_same_seed() -> None:
    sizes = [load(1000, transfer_pool=400, transfer_rows=rows, transfer_seed=5) for rows in (25, 50, 100, 400)]
    for small, large in pairwise(sizes):
        assert set(small.train.texts) < set(large.train.texts)
    assert sizes[-1].train.texts == load(1000, transfer_pool=400).train.texts


def test_a_seed_that_draws_nothing_is_told() -> None:
    lines: list[str] = []
    load(1000, lines, transfer_rows=100, transfer_seed=1)
    assert lines[-1].endswith("; train is the whole pool, whatever transfer_seed is")


def test_parts_are_carved_by_class_in_proportion() -> None:
    columns = {"text": [f"text {i}" for i in range(1000)], "label": [int(i % 10 == 0) for i in range(1000)]}
    data = load(columns, dev_rows=100, evaluation_rows=200, transfer_pool=300)
    assert data.evaluation is not None
    assert [int(part.labels.sum()) for part in (data.dev, data.evaluation, data.train)] == [10, 20, 30]


def test_rows_of_one_text_stay_on_one_side_and_the_numbers_are_exact_all_the_same() -> None:
    rng = np.random.default_rng(0)
    names = rng.integers(0, 500, 1000)
    columns = {"text": [f"text {i}" for i in names], "label": [int(i) % 2 for i in names]}
    data = load(columns, dev_rows=77, evaluation_rows=201, transfer_pool=303)
    assert data.evaluation is not None
    assert (len(data.dev), len(data.evaluation), len(data.train)) == (77, 201, 303)
    parts = texts(data.train, data.teacher, data.dev, data.evaluation)
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_a_large_group_of_equal_texts_is_passed_over() -> None:
    columns = {"text": ["same"] * 600 + [f"text {i}" for i in range(400)], "label": [i % 2 for i in range(1000)]}
    for seed in range(5):
        data = load(columns, evaluation_rows=100, dev_rows=10, split_seed=seed)
        assert data.evaluation is not None
        assert len(data.evaluation) == 100
        assert "same" not in data.evaluation.texts


def test_pairs_and_numbers_are_carved_too() -> None:
    columns = {
        "text": [f"one {i}" for i in range(300)],
        "other": [f"two {i % 7}" for i in range(300)],
        "label": [i % 50 / 10 for i in range(300)],
    }
    fields = {
        "text_columns": ("text", "other"), "labels": (), "label_range": (0.0, 5.0), "metrics": ("pearson",),
        "validation_splits": (),
    }  # fmt: skip
    data = load(columns, fields=fields, dev_rows=20, evaluation_rows=40, transfer_rows=60)
    assert data.evaluation is not None
    assert (len(data.dev), len(data.evaluation), len(data.train), len(data.teacher)) == (20, 40, 60, 120)
    row = int(data.evaluation.texts[3].split()[1])
    assert data.evaluation.pairs is not None
    assert data.evaluation.pairs[3] == f"two {row % 7}"
    assert data.evaluation.labels[3] == pytest.approx(row % 50 / 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dev_rows": 50, "evaluation_rows": 500, "transfer_pool": 400},
            "dev_rows (50), evaluation_rows (500) and transfer_pool (400) take 950",
        ),
        (
            {"dev_rows": 50, "transfer_rows": 50},
            "dev_rows (50) and transfer_rows (50) take 100 and leave none for the teacher",
        ),
        (
            {"dev_rows": 50, "teacher_rows": 50},
            "dev_rows (50) and teacher_rows (50) take 100 and leave none for the student",
        ),
        ({"evaluation_rows": 95}, "dev_fraction (10) and evaluation_rows (95) take 105"),
        (
            {"dev_rows": 10, "teacher_rows": 50, "transfer_rows": 60},
            "dev_rows (10), transfer_rows (60) and teacher_rows (50) take 120",
        ),
    ],
)  # fmt: skip
def test_too_few_rows_are_one_line_with_the_numbers(settings: dict[str, int], message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(100, **settings)
    assert str(caught.value) == (
        f"task 'toy', split 'train': there are 100 rows, but {message}; lower these settings, or give more rows"
    )


def test_rows_that_repeat_one_text_are_not_enough() -> None:
    columns = {"text": ["a", "b", "c"] * 30, "label": [0, 1, 1] * 30}
    with pytest.raises(DataError, match=r"evaluation_rows is 20, but only 0 of the 60 rows left can be set apart"):
        load(columns, evaluation_rows=20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluation_rows": 5, "evaluation_file": "e.csv"}, "but evaluation_file gives that set: set one only"),
        ({"transfer_pool": 5, "transfer_file": "t.csv"}, "set transfer_pool to 0, or empty transfer_file"),
        ({"transfer_pool": 5, "transfer_rows": 6}, "lower transfer_rows or raise transfer_pool"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(settings)


def test_a_validation_split_of_the_name_of_the_evaluation_set_is_refused() -> None:
    columns = {"train": make_columns(100), "evaluation": make_columns(10, start=500)}
    fields = {"validation_splits": ("evaluation",), "loader": lambda config: columns}
    assert list(load(fields=fields).validation) == ["evaluation"]
    with pytest.raises(ConfigError, match="has a validation split called 'evaluation'"):
        load(fields=fields, evaluation_rows=10)


# ---- files without labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [-1, None, float("nan"), "", "  ", "nan", "null", -100, "unlabelled"])
def test_a_missing_label_is_welcome_in_a_transfer_set_and_in_an_evaluation_set(tmp_path: Path, label: Any) -> None:
    lines: list[str] = []
    data = load(
        100,
        lines,
        transfer_file=write(tmp_path / "t.jsonl", [{"text": f"t {i}", "label": label} for i in range(30)]),
        evaluation_file=write(tmp_path / "e.jsonl", [{"text": f"e {i}", "label": label} for i in range(20)]),
    )
    assert data.evaluation is not None
    assert data.train.labels.tolist() == [-1] * 30
    assert data.evaluation.labels.tolist() == [-1] * 20
    assert (data.train.unlabelled, data.evaluation.unlabelled, data.teacher.unlabelled) == (30, 20, 0)
    assert len(data.teacher) == 90
    assert lines[-1] == "rows without a label: 30 of train, 20 of evaluation"


def test_a_file_may_lack_the_column_of_the_label(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,text\n" + "".join(f"{i},t {i}\n" for i in range(30)), encoding="utf-8")
    lines: list[str] = []
    data = load(100, lines, transfer_file=str(path), transfer_rows=10)
    assert lines[0] == f"{path} has no column 'label': its 30 texts have no labels"
    assert data.train.labels.tolist() == [-1] * 10
    assert len(set(data.train.texts)) == 10
    parquet = tmp_path / "e.parquet"
    pq.write_table(pa.table({"text": [f"e {i}" for i in range(5)], "label": pa.nulls(5)}), parquet)
    found = load(100, evaluation_file=str(parquet)).evaluation
    assert found is not None
    assert found.labels.tolist() == [-1] * 5


def test_labels_that_are_there_are_kept(tmp_path: Path) -> None:
    labels: list[Any] = [0, "yes", None, 1, "no", -1]
    rows = [{"text": f"t {i}", "label": label} for i, label in enumerate(labels)]
    data = load(100, transfer_file=write(tmp_path / "t.jsonl", rows))
    assert data.train.labels.tolist() == [0, 1, -1, 1, 0, -1]
    assert data.train.unlabelled == 2


def test_missing_numbers_are_nan(tmp_path: Path) -> None:
    columns = {"text": [f"text {i}" for i in range(60)], "label": [i % 50 / 10 for i in range(60)]}
    fields = {"labels": (), "label_range": (0.0, 5.0), "metrics": ("pearson",), "validation_splits": ()}
    rows = [{"text": f"t {i}", "label": label} for i, label in enumerate([1.5, None, -1, "2", ""])]
    data = load(columns, fields=fields, transfer_file=write(tmp_path / "t.jsonl", rows))
    np.testing.assert_array_equal(data.train.labels, np.array([1.5, np.nan, np.nan, 2, np.nan], np.float32))
    assert data.train.labels.dtype == np.float32
    rows = [{"text": "t", "label": 7}, {"text": "u", "label": 1}]
    with pytest.raises(DataError, match=r"row 1, column 'label': label 7 is outside 0 to 5"):
        load(columns, fields=fields, transfer_file=write(tmp_path / "u.jsonl", rows))


def test_a_label_that_is_no_class_is_named_with_its_row(tmp_path: Path) -> None:
    rows = [{"text": "t", "label": None}, {"text": "u", "label": "perhaps"}]
    with pytest.raises(DataError, match=r"row 2, column 'label': .*'perhaps'.*or leave them empty"):
        load(100, transfer_file=write(tmp_path / "t.jsonl", rows))


def test_texts_are_checked_as_those_of_train_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2, column 'text': the text is empty"):
        load(100, transfer_file=write(tmp_path / "t.jsonl", [{"text": "t"}, {"text": " "}]))
    with pytest.raises(DataError, match=r"has no column 'text'"):
        load(100, evaluation_file=write(tmp_path / "e.jsonl", [{"sentence": "t"}]))
    with pytest.raises(DataError, match=r"does not exist"):
        load(100, evaluation_file=str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match=r"has no rows"):
        load(100, transfer_file=write(tmp_path / "empty.jsonl", []))


def test_texts_of_dev_and_of_the_evaluation_set_are_left_out_of_the_transfer_set(tmp_path: Path) -> None:
    every = make_columns(100)["text"]
    file = write(tmp_path / "t.jsonl", [{"text": text} for text in every])
    lines: list[str] = []
    data = load(100, lines, transfer_file=file, evaluation_rows=20)
    assert data.evaluation is not None
    assert set(data.train.texts) == set(every) - set(data.dev.texts) - set(data.evaluation.texts)
    assert f"{file}: 30 of 100 rows left out, whose text stands in dev or evaluation" in lines
    assert "70 of the 70 rows of train have a text that also stands in the teacher's rows" in lines
    with pytest.raises(DataError, match="each of its 10 rows has a text that stands in dev"):
        load(100, transfer_file=write(tmp_path / "d.jsonl", [{"text": text} for text in data.dev.texts]))


def test_rows_with_a_text_of_the_evaluation_file_are_left_out_of_train(tmp_path: Path) -> None:
    alone = load(100)
    theirs = [*alone.train.texts[:5], *alone.dev.texts[:2], "quite another"]
    lines: list[str] = []
    data = load(
        100, lines, evaluation_file=write(tmp_path / "e.jsonl", [{"text": text} for text in theirs]), transfer_rows=40
    )
    assert data.dev.texts == alone.dev.texts
    assert data.evaluation is not None
    assert data.evaluation.texts == theirs
    assert not set(theirs) & {*data.train.texts, *data.teacher.texts}
    assert "2 of the 8 rows of evaluation have a text that also stands in dev" in lines
    assert any("5 of 90 rows left out, whose text stands in evaluation" in line for line in lines)


def test_too_few_texts_for_the_draw_are_one_line(tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [{"text": f"t {i}"} for i in range(30)])
    with pytest.raises(DataError) as caught:
        load(100, transfer_file=file, transfer_rows=50)
    assert str(caught.value) == f"{file}: transfer_rows is 50, but 30 rows are left for it; lower transfer_rows"
    assert len(load(100, transfer_file=file, transfer_rows=30).train) == 30


# ---- task `file` ----------------------------------------------------------------------------------------------------


def user_data(tmp_path: Path, label: list[Any], lines: list[str] | None = None, **settings: Any) -> TaskData:
    rows = [{"text": f"text {i}", "label": value} for i, value in enumerate(label)]
    spec = TaskSpec(name="file", summary="", text_columns=("text",), metrics=("accuracy",))
    told = lines if lines is not None else []
    config = load_config({"task": "file", "train_file": write(tmp_path / "train.jsonl", rows), **settings})
    return load_task(spec, config, told.append)


def test_classes_of_the_users_own_file_are_found_in_the_other_files(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": value} for i, value in enumerate(["good", None, "bad", "NA"])]
    file = write(tmp_path / "t.jsonl", rows)
    data = user_data(tmp_path, ["bad", "good"] * 30, transfer_file=file, evaluation_rows=5)
    assert data.train.labels.tolist() == [1, -1, 0, -1]
    data = user_data(tmp_path, [3, 5] * 30, evaluation_file=write(tmp_path / "e.jsonl", [
        {"text": "t", "label": 5}, {"text": "u", "label": "3"}, {"text": "v", "label": -1}
    ]))  # fmt: skip
    assert data.evaluation is not None
    assert data.evaluation.labels.tolist() == [1, 0, -1]


def test_minus_one_is_a_class_where_the_users_own_file_has_it_for_one(tmp_path: Path) -> None:
    file = write(tmp_path / "e.jsonl", [{"text": "t", "label": -1}, {"text": "u", "label": None}])
    data = user_data(tmp_path, [-1, 1] * 30, evaluation_file=file)
    assert data.evaluation is not None
    assert data.evaluation.labels.tolist() == [0, -1]


def test_numbers_beyond_those_of_the_users_own_training_file_are_labels(tmp_path: Path) -> None:
    file = write(tmp_path / "e.jsonl", [{"text": "t", "label": 99.5}, {"text": "u", "label": ""}])
    data = user_data(tmp_path, [i / 10 for i in range(60)], evaluation_file=file, task_kind="regression")
    assert data.evaluation is not None
    np.testing.assert_array_equal(data.evaluation.labels, np.array([99.5, np.nan], np.float32))


def test_where_the_validation_data_come_from_is_told(tmp_path: Path) -> None:
    rows = [{"text": f"v {i}", "label": value} for i, value in enumerate(["bad", "good"] * 5)]
    own = user_data(tmp_path, ["bad", "good"] * 30, validation_file=write(tmp_path / "v.jsonl", rows))
    assert own.validation_source == "validation data from validation_file"
    apart = user_data(tmp_path, ["bad", "good"] * 30)
    assert apart.validation_source == "validation data set apart from train"
    assert load(100).validation_source == "validation data of the task's loader"
