"""Files that are read as input: whole and of the types that are asked for, or one error of the class that fits."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from sage_kit.errors import DataError, RunDirectoryError, StudyError
from sage_kit.storage.reading import (
    ABSENT,
    Fields,
    json_loads,
    read_arrays,
    read_frame,
    read_json,
    read_toml,
    toml_loads,
)
from sage_kit.storage.tensorfile import dumps

ADVICE = "make it again"


class Thing(Fields):
    """What of a file is read."""

    name: str
    size: float | None = None
    parts: dict[str, int] = ABSENT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "thing.json"


def test_what_is_whole_comes_back_with_what_else_is_there(path: Path) -> None:
    path.write_text('{"name": "x", "size": 3, "parts": {"a": 1}, "more": [{"b": null}]}')
    found = read_json(path, Thing, StudyError, ADVICE)
    assert found == {"name": "x", "size": 3, "parts": {"a": 1}, "more": [{"b": None}]}
    assert json.loads(json.dumps(found)) == found
    assert copy.deepcopy(found) == found
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "EOF"), ("{", "EOF"), ("[]", "it holds a list and no object"), ("3", "it holds a number"),
        ("null", "it holds nothing"), ("[" * 100_000, "recursion limit"), ('{"a": ' * 100_000, "recursion limit"),
        ("9" * 10_000, "number out of range"), ('{"size": 1}', "name is missing"),
        ('{"name": 3}', "name is not a valid str"),
        ('{"name": "x", "size": "3"}', "size is not a valid number"), ('{"name": "x", "size": true}', "size is not"),
        ('{"name": "x", "parts": null}', "parts is not a valid dict"),
        ('{"name": "x", "parts": {"a": 0.5}}', "parts.a is not a valid int"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_one_line_of_the_class_that_is_asked_for(path: Path, content: str, told: str) -> None:
    path.write_text(content)
    with pytest.raises(RunDirectoryError) as caught:
        read_json(path, Thing, RunDirectoryError, ADVICE)
    message = str(caught.value)
    assert message.startswith(f"{path} is not readable (")
    assert told in message
    assert message.endswith(f": {ADVICE}")
    assert len(message) < 400


def test_other_encodings_and_missing_files(path: Path) -> None:
    with pytest.raises(StudyError, match="No such file or directory"):
        read_json(path, Thing, StudyError, ADVICE)
    for data in ('{"name": "x"}'.encode("utf-16"), b'{"name": "\xff"}', b"\x00" * 10):
        path.write_bytes(data)
        with pytest.raises(StudyError, match="is not readable"):
            read_json(path, Thing, StudyError, ADVICE)


def test_a_field_that_is_missing_is_the_same_error(path: Path) -> None:
    path.write_text('{"name": "x", "parts": {"a": 1}, "rounds": [{"loss": 1}]}')
    found = read_json(path, Thing, StudyError, ADVICE)
    with pytest.raises(StudyError, match=r"thing\.json has no 'size' that can be used: make it again"):
        found["size"]
    with pytest.raises(StudyError, match=r"has no 'parts\.b'"):
        found["parts"]["b"]
    with pytest.raises(StudyError, match=r"has no 'rounds\.0\.dev'"):
        found["rounds"][0]["dev"]
    assert found.get("size") is None


def test_a_lenient_reader_leaves_out_the_field_that_is_wrong(path: Path) -> None:
    path.write_text('{"name": "x", "size": "large", "parts": {"a": 1}}')
    found = read_json(path, Thing, StudyError, ADVICE, lenient=True)
    assert found == {"name": "x", "parts": {"a": 1}}
    assert found.faults == (f"{path}: size is not a valid number",)
    with pytest.raises(StudyError, match="has no 'size'"):
        found["size"]


@pytest.mark.parametrize("text", ["a = ", "a = 1\na = 2", "a = " + "[" * 100_000, "\x00"])
def test_texts_that_are_no_toml(path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        toml_loads(text)
    path.write_text(text)
    with pytest.raises(DataError, match=f": {ADVICE}"):
        read_toml(path, DataError, ADVICE)


def test_json_of_any_depth_is_a_value_error() -> None:
    for text in ("[" * 100_000, "", "{]", '"\\ud800"'):
        with pytest.raises(ValueError, match=r"."):
            json_loads(text)


def test_arrays_have_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    arrays = {"x": np.arange(6.0).reshape(2, 3), "on": np.array([True]), "none": np.zeros((0, 4), np.float32)}
    data = dumps(arrays, {"round": "2", "b": "ä"})
    assert dumps(arrays, {"round": "2", "b": "ä"}) == data
    path.write_bytes(data)
    found, metadata = read_arrays(path, StudyError, ADVICE)
    assert metadata == {"round": "2", "b": "ä"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        try:
            again, told = read_arrays(path, StudyError, ADVICE)
        except StudyError:
            continue
        # a name of the checksum itself that is spoilt is the one thing that does not show; the data is whole
        assert {name: array.tobytes() for name, array in again.items()} == {n: a.tobytes() for n, a in arrays.items()}
        assert metadata.items() <= told.items()


def test_files_of_other_writers_need_no_checksum(tmp_path: Path) -> None:
    from safetensors.numpy import save

    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"x": np.arange(3)}))
    assert read_arrays(path, StudyError, ADVICE)[0]["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\0\0\0\0\0\0\0\x40{}"])
def test_files_that_hold_no_arrays(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(StudyError, match=rf"is not readable \(.*\): {ADVICE}"):
        read_arrays(path, StudyError, ADVICE)


def test_tables_have_each_column_once(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table([pyarrow.array([1, 2]), pyarrow.array(["x", "y"])], names=["a", "b"]), path)
    assert list(read_frame(path, StudyError, ADVICE).columns) == ["a", "b"]
    with pytest.raises(StudyError, match="it has no column 'c'"):
        read_frame(path, StudyError, ADVICE, columns=["a", "c"])
    parquet.write_table(pyarrow.table([pyarrow.array([1, 2]), pyarrow.array(["x", "y"])], names=["a", "a"]), path)
    with pytest.raises(StudyError, match="it has two columns 'a'"):
        read_frame(path, StudyError, ADVICE)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StudyError, match="is not readable"):
        read_frame(path, StudyError, ADVICE)
