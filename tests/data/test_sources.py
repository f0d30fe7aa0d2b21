from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sage_kit.components import HubSource, SplitSource, TaskSpec
from sage_kit.config import RunConfig, load_config
from sage_kit.data.sources import read_file, read_tables
from sage_kit.errors import DataError, PluginError

COLUMNS = {"sentence": ["a film", "the plot"], "label": [0, 1]}


def make_spec(**fields: Any) -> TaskSpec:
    return TaskSpec(**{"name": "toy", "summary": "", "text_columns": ("sentence",), "labels": ("no", "yes"), **fields})


def config(**settings: Any) -> RunConfig:
    return load_config({"task": "toy", "data_dir": "", **settings})


def write_local(directory: Path, columns: Mapping[str, Any] = COLUMNS) -> None:
    directory.mkdir(parents=True)
    for split in ("train", "validation"):
        pq.write_table(pa.table(dict(columns)), directory / f"{split}.parquet")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A hub that has one data set; gives the list of what was asked of it."""
    calls: list[Any] = []

    def load_dataset(repository: str, configuration: str | None, **arguments: Any) -> Any:
        calls.append((repository, configuration, arguments["split"], arguments["revision"]))
        features = datasets.Features(
            {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
        )
        return datasets.Dataset.from_dict({"sentence": ["from", "hub"], "label": [1, 0]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


# ---- where the data come from ---------------------------------------------------------------------------------------


def test_data_dir_is_read_when_it_is_set(tmp_path: Path, hub: list[Any]) -> None:
    write_local(tmp_path / "group" / "toy")
    spec = make_spec(local="group/toy", hub=HubSource("some/set", "toy"))
    tables = read_tables(spec, config(data_dir=str(tmp_path)))
    assert list(tables) == ["train", "validation"]
    assert tables["train"].columns == COLUMNS
    assert tables["train"].where == str(tmp_path / "group" / "toy" / "train.parquet")
    assert hub == []


def test_the_hub_is_read_without_data_dir_or_without_a_local_form(tmp_path: Path, hub: list[Any]) -> None:
    source = HubSource("some/set", "toy", revision="abc")
    table = read_tables(make_spec(local="group/toy", hub=source), config())["train"]
    assert table.columns == {"sentence": ["from", "hub"], "label": [1, 0]}
    assert table.class_names == ("no", "yes")
    assert read_tables(make_spec(hub=source), config(data_dir=str(tmp_path)))["validation"].columns == table.columns
    assert hub == [("some/set", "toy", split, "abc") for split in ("train", "validation")] * 2


def test_a_revision_of_the_settings_goes_before_that_of_the_task(hub: list[Any]) -> None:
    read_tables(make_spec(hub=HubSource("some/set", "toy")), config())
    read_tables(make_spec(hub=HubSource("some/set", "toy", revision="abc")), config(data_revision="v2"))
    assert [asked[-1] for asked in hub] == ["main", "main", "v2", "v2"]


def test_each_split_may_lie_elsewhere(tmp_path: Path, hub: list[Any]) -> None:
    write_local(tmp_path / "toy" / "en")
    write_local(tmp_path / "toy" / "de", {"sentence": ["ein Film", "der Plan"], "label": [1, 1]})
    german = SplitSource("toy/de/validation", HubSource("some/set", "de"), "validation")
    spec = make_spec(
        local="toy/en", hub=HubSource("some/set", "en"), validation_splits=("validation", "german"),
        sources={"german": german},
    )  # fmt: skip
    tables = read_tables(spec, config(data_dir=str(tmp_path)))
    assert {name: table.columns["label"] for name, table in tables.items()} == {
        "train": [0, 1], "validation": [0, 1], "german": [1, 1],
    }  # fmt: skip
    read_tables(spec, config())
    assert [(call[1], call[2]) for call in hub] == [("en", "train"), ("en", "validation"), ("de", "validation")]


ACTS = {"sentence": ["a film", "the plot"], "act": [1, 0]}


def acts(tmp_path: Path, arrange: Any, **fields: Any) -> TaskSpec:
    """A task whose source joins two labels in one class."""
    features = datasets.Features({"sentence": datasets.Value("string"), "act": datasets.ClassLabel(names=["a", "a+b"])})
    (tmp_path / "toy").mkdir()
    datasets.Dataset.from_dict(ACTS, features=features).to_parquet(tmp_path / "toy" / "train.parquet")
    source = SplitSource("toy/train", None, "", ("sentence", "act"), arrange)
    return make_spec(**{"label_column": "act", "sources": {"train": source}, "validation_splits": (), **fields})


def test_a_source_of_another_shape_is_arranged(tmp_path: Path) -> None:
    spec = acts(tmp_path, lambda columns: {**columns, "act": [act.split("+") for act in columns["act"]]})
    table = read_tables(spec, config(data_dir=str(tmp_path)))["train"]
    assert table.columns == {"sentence": ["a film", "the plot"], "act": [["a", "b"], ["a"]]}
    assert (table.class_names, table.item_names) == ((), ())


@pytest.mark.parametrize(
    ("arrange", "error", "message"),
    [
        (lambda columns: {"sentence": []}, DataError, r"what `arrange` of task 'toy' makes of .* has no column 'act'"),
        (
            lambda columns: {"sentence": [], "act": [1]},
            PluginError,
            "makes columns of unequal length",
        ),
        (lambda columns: columns["nothing"], PluginError, r"`arrange` of task 'toy' raised KeyError: 'nothing'"),
        (lambda columns: None, PluginError, r"`arrange` of task 'toy' raised AttributeError"),
    ],
)
def test_what_cannot_be_arranged_is_told(tmp_path: Path, arrange: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_tables(acts(tmp_path, arrange), config(data_dir=str(tmp_path)))


def test_a_task_may_have_no_label_and_group_by_a_text(tmp_path: Path) -> None:
    write_local(tmp_path / "toy")
    spec = make_spec(local="toy", label_column="", task_kind="embeddings", group_column="sentence")
    table = read_tables(spec, config(data_dir=str(tmp_path)))["train"]
    assert table.columns == {"sentence": COLUMNS["sentence"]}


def test_a_task_that_is_local_alone_says_which_file_is_wanted() -> None:
    with pytest.raises(DataError, match=r"has no source on the hub: set data_dir .* that holds toy/<split>\.parquet$"):
        read_tables(make_spec(local="toy"), config())


def test_the_tasks_own_loader_comes_first(tmp_path: Path, hub: list[Any]) -> None:
    write_local(tmp_path / "group" / "toy")
    loaded = {"sentence": np.array(["own", "loader"]), "label": np.array([1, 0])}
    spec = make_spec(
        local="group/toy", hub=HubSource("some/set"), loader=lambda config: {"train": loaded, "validation": loaded}
    )
    table = read_tables(spec, config(data_dir=str(tmp_path)))["train"]
    assert table.columns == {"sentence": ["own", "loader"], "label": [1, 0]}
    assert {type(value) for values in table.columns.values() for value in values} == {str, int}
    assert hub == []


def test_a_task_without_any_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="task 'toy' has nothing to read: set data_dir"):
        read_tables(make_spec(), config(data_dir=str(tmp_path)))


def test_missing_local_data_are_named(tmp_path: Path) -> None:
    spec = make_spec(local="group/toy", hub=HubSource("some/set"))
    with pytest.raises(DataError, match=r"data_dir .*nowhere is not a folder"):
        read_tables(spec, config(data_dir=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match=r"group.toy.train\.parquet does not exist: correct data_dir"):
        read_tables(spec, config(data_dir=str(tmp_path)))


@pytest.mark.parametrize(
    "error",
    [ConnectionError("no\nnetwork"), ValueError("BuilderConfig 'x' not found"), datasets.exceptions.DatasetsError("x")],
)
def test_a_hub_that_gives_nothing_is_one_line_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load_dataset(*arguments: Any, **settings: Any) -> Any:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    spec = make_spec(local="group/toy", hub=HubSource("some/set", "toy"))
    message = r"hub data set some/set:toy, split 'train' cannot be loaded \(.*set data_dir .*group/toy/<split>\.parquet"
    with pytest.raises(DataError, match=message) as raised:
        read_tables(spec, config())
    assert "\n" not in str(raised.value)


def test_a_hub_data_set_without_the_column_is_an_error(hub: list[Any]) -> None:
    spec = make_spec(text_columns=("sentences",), hub=HubSource("some/set"))
    with pytest.raises(DataError, match=r"some/set, split 'train' has no column 'sentences'\. Did you mean"):
        read_tables(spec, config())


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        ({"train": COLUMNS}, "gives no split 'validation'; it gives train"),
        ({"train": {"sentence": ["x"]}}, "split 'train' has no column 'label'. Columns: sentence"),
        ({"train": {"sentence": ["x"], "label": []}}, "columns of unequal length"),
    ],
)
def test_a_loader_that_gives_the_wrong_thing_is_an_error(loaded: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_tables(make_spec(loader=lambda config: loaded), config())


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (None, r"task 'toy': its loader returned NoneType; expected {split: {column: values}}"),
        ([COLUMNS], "its loader returned list; expected"),
        (
            {"train": [{"sentence": "x", "label": 0}]},
            r"split 'train': its loader gives list; expected {column: values}",
        ),
        (
            {"train": {"sentence": "x", "label": [0]}},
            "column 'sentence': its loader gives str; expected a value for each",
        ),
        ({"train": {"sentence": ["x"], "label": 0}}, "column 'label': its loader gives int; expected a value for each"),
    ],
)
def test_a_loader_that_gives_no_tables_is_a_broken_plugin(loaded: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message) as error:
        read_tables(make_spec(loader=lambda config: loaded), config())
    assert "\n" not in str(error.value)


def test_a_loader_may_give_a_hugging_face_data_set() -> None:
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["yes", "no"])}
    )
    data = datasets.Dataset.from_dict(COLUMNS, features=features)
    table = read_tables(make_spec(loader=lambda config: {"train": data, "validation": data}), config())["train"]
    assert table.columns == COLUMNS
    assert table.class_names == ("yes", "no")


def test_no_hub_is_named_for_a_task_without_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.parquet does not exist: correct data_dir$"):
        read_tables(make_spec(local="group/toy"), config(data_dir=str(tmp_path)))


def test_a_loader_that_raises_is_one_line_unless_it_raised_ours() -> None:
    def broken(config: RunConfig) -> Any:
        raise KeyError("key")

    def ours(config: RunConfig) -> Any:
        raise DataError("the file is gone")

    with pytest.raises(PluginError, match="task 'toy': its loader raised KeyError: 'key'"):
        read_tables(make_spec(loader=broken), config())
    with pytest.raises(DataError, match=r"^the file is gone$"):
        read_tables(make_spec(loader=ours), config())


# ---- files ----------------------------------------------------------------------------------------------------------


def test_each_type_of_file_gives_the_wanted_columns(tmp_path: Path) -> None:
    parquet, jsonl, csv = (tmp_path / f"data{suffix}" for suffix in (".parquet", ".jsonl", ".csv"))
    pq.write_table(pa.table({**COLUMNS, "idx": [7, 8]}), parquet)
    jsonl.write_text('{"sentence": "a film", "label": 0, "idx": 7}\n\n{"label": 1, "sentence": "the plot"}\n')
    csv.write_text('\ufeffidx,label,sentence\n7,0,"a film, with ""quotes"" and\na line"\n\n8,1,the plot\n', "utf-8")
    assert read_file(parquet, ("sentence", "label")).columns == COLUMNS
    assert read_file(jsonl, ("sentence", "label")).columns == COLUMNS
    table = read_file(csv, ("sentence", "label"))
    assert table.columns == {"sentence": ['a film, with "quotes" and\na line', "the plot"], "label": ["0", "1"]}
    assert len(table) == 2


def test_class_names_that_a_parquet_file_embeds_are_found(tmp_path: Path) -> None:
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    datasets.Dataset.from_dict(COLUMNS, features=features).to_parquet(tmp_path / "data.parquet")
    assert read_file(tmp_path / "data.parquet", ("sentence", "label"), "label").class_names == ("no", "yes")
    assert read_file(tmp_path / "data.parquet", ("sentence", "label"), "sentence").class_names == ()
    pq.write_table(pa.table(COLUMNS), tmp_path / "plain.parquet")
    assert read_file(tmp_path / "plain.parquet", ("sentence", "label"), "label").class_names == ()


TAGGED = {"tokens": [["a", "b"], ["c"]], "tags": [[0, 1], [0]]}


def tagged(kind: str) -> datasets.Dataset:
    names = datasets.ClassLabel(names=["O", "B-X"])
    features = {"tokens": datasets.Sequence(datasets.Value("string"))}
    features["tags"] = [names] if kind == "list" else datasets.Sequence(names)
    return datasets.Dataset.from_dict(TAGGED, features=datasets.Features(features))


@pytest.mark.parametrize("kind", ["list", "sequence"])
def test_names_of_the_items_of_lists_are_found(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.parquet"
    tagged(kind).to_parquet(path)
    table = read_file(path, ("tokens", "tags"), "tags")
    assert (table.item_names, table.class_names) == (("O", "B-X"), ())
    assert table.columns == TAGGED
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **keywords: tagged(kind))
    spec = make_spec(text_columns=("tokens",), label_column="tags", task_kind="tags", hub=HubSource("some/set"))
    table = read_tables(spec, config())["train"]
    assert (table.item_names, table.class_names, table.columns) == (("O", "B-X"), (), TAGGED)
    spec = make_spec(text_columns=("tokens",), label_column="tags", loader=lambda config: {
        "train": tagged(kind), "validation": tagged(kind),
    })  # fmt: skip
    assert read_tables(spec, config())["train"].item_names == ("O", "B-X")


def test_columns_of_lists_and_records(tmp_path: Path) -> None:
    answers = [{"text": ["b"], "answer_start": [2]}, {"text": [], "answer_start": []}]
    columns = {"context": ["a b", "c"], "answers": answers}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    lines = [json.dumps({name: values[row] for name, values in columns.items()}) for row in range(2)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    (tmp_path / "data.json").write_text(json.dumps(columns))
    for suffix in ("parquet", "jsonl", "json"):
        assert read_file(tmp_path / f"data.{suffix}", tuple(columns)).columns == columns


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_missing_column_is_an_error_with_the_closest_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"sentense": ["x"], "label": [1]}), path)
    else:
        path.write_text('{"sentense": "x", "label": 1}\n' if suffix == ".jsonl" else "sentense,label\nx,1\n")
    message = rf"data\{suffix} has no column 'sentence'. Did you mean 'sentense'\? Columns: label, sentense\."
    with pytest.raises(DataError, match=message):
        read_file(path, ("sentence", "label"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.parquet", b"PAR1 not parquet", r"data\.parquet is not a valid parquet file: "),
        ("data.parquet", b"", r"data\.parquet is not a valid parquet file: "),
        ("data.jsonl", b'{"sentence": "x", "label": 1}\n{"sentence": \n', r"data\.jsonl, line 2 is not valid JSON: "),
        ("data.jsonl", b"[1, 2]\n", r"data\.jsonl, line 1 is not a JSON object: each line must be"),
        ("data.csv", b"sentence,label\nx,1\na, film,1\n", r"row 2 \(line 3\) has 3 fields, but the header has 2"),
        ("data.csv", b'sentence,label\nx,1\n"open,1\n', r"data\.csv, line 3 is not valid CSV: "),
        ("data.csv", b"sentence,label,label\nx,1,1\n", r"data\.csv has 2 columns named 'label'"),
        ("data.csv", b"", r"data\.csv has no column 'sentence'"),
        ("data.csv", b"sentence,label\n" + b"x,1\n" * 5000 + b"caf\xe9,1\n", r"data\.csv, line 5002 is not UTF-8"),
        ("data.jsonl", b'{"sentence": "caf\xe9"}\n', r"data\.jsonl, line 1 is not UTF-8 text"),
        ("data.txt", b"x", r"data\.txt: its name must end in \.jsonl, \.csv, \.parquet"),
    ],
)
def test_a_malformed_file_is_one_line_that_says_where(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_file(tmp_path / name, ("sentence", "label"))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv does not exist"):
        read_file(tmp_path / "gone.csv", ("sentence",))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv is not a file"):
        read_file(tmp_path / "folder.csv", ("sentence",))
