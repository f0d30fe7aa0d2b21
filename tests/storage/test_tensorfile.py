from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from sage_kit.storage import tensorfile

DTYPES = [
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
]
SHAPES = [(), (0,), (1,), (5,), (0, 4), (3, 0), (3, 5), (2, 3, 4)]


def values(dtype: str, shape: tuple[int, ...], seed: int = 0) -> NDArray[Any]:
    return np.asarray(np.random.default_rng(seed).integers(0, 100, shape)).astype(dtype)


def everything() -> dict[str, NDArray[Any]]:
    """An array of each dtype and shape; the odd ones among the narrow dtypes would push the others off their places."""
    return {
        f"{dtype} {shape}": values(dtype, shape, seed)
        for seed, (dtype, shape) in enumerate((d, s) for d in reversed(DTYPES) for s in SHAPES)
    }


def assert_same(found: dict[str, NDArray[Any]], expected: dict[str, NDArray[Any]]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_safetensors_reads_what_we_write(tmp_path: Path) -> None:
    arrays = everything()
    tensorfile.write(tmp_path / "x", arrays)
    assert_same(load_file(tmp_path / "x"), arrays)
    with safe_open(tmp_path / "x", framework="np") as file:
        assert_same({name: file.get_tensor(name) for name in file.keys()}, arrays)  # noqa: SIM118 (not a mapping)
    with safe_open(tmp_path / "x", framework="pt") as file:
        assert file.get_tensor("float16 (3, 5)").dtype == torch.float16


def test_we_read_what_safetensors_writes(tmp_path: Path) -> None:
    arrays = everything()
    save_file(arrays, tmp_path / "x", metadata={"some": "text"})
    assert_same(tensorfile.open_mapped(tmp_path / "x"), arrays)


def test_a_new_file_is_zero_and_replaces_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff" * 10_000)
    maps = tensorfile.create(tmp_path / "x", {"a": ("float32", (7, 3)), "b": (np.dtype("int64"), (2,))})
    assert not maps["a"].any()
    assert not maps["b"].any()
    assert_same(load_file(tmp_path / "x"), {"a": np.zeros((7, 3), np.float32), "b": np.zeros(2, np.int64)})


def test_a_file_without_arrays_is_a_file(tmp_path: Path) -> None:
    assert tensorfile.create(tmp_path / "x", {}) == {}
    assert tensorfile.open_mapped(tmp_path / "x") == {}
    assert load_file(tmp_path / "x") == {}


@pytest.mark.parametrize("name", ["a", "a longer name", "näme", 'quote"d'])
def test_every_array_is_aligned_to_its_items(tmp_path: Path, name: str) -> None:
    layout = {name: ("uint8", (3,)), "h": ("float16", (5,)), "f": ("float32", (3,)), "d": ("float64", (1,))}
    tensorfile.create(tmp_path / "x", layout)
    data = (tmp_path / "x").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    for array, (dtype, _) in layout.items():
        assert (8 + length + header[array]["data_offsets"][0]) % np.dtype(dtype).itemsize == 0
    for array in tensorfile.open_mapped(tmp_path / "x").values():
        assert array.flags.aligned


def test_other_byte_orders_are_stored_in_that_of_the_format(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "x", {"a": np.arange(4, dtype=">i4")})
    np.testing.assert_array_equal(load_file(tmp_path / "x")["a"], [0, 1, 2, 3])


def test_writes_to_an_opened_file_stay_private(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "x", {"a": np.arange(6, dtype=np.float32)})
    before = (tmp_path / "x").read_bytes()
    mine, theirs = tensorfile.open_mapped(tmp_path / "x"), tensorfile.open_mapped(tmp_path / "x")
    mine["a"][2] = 99
    assert mine["a"][2] == 99
    assert theirs["a"][2] == 2
    del mine
    assert (tmp_path / "x").read_bytes() == before


def test_reading_maps_and_does_not_load(tmp_path: Path) -> None:
    tensorfile.write(tmp_path / "x", {"a": np.arange(6, dtype=np.float32)})
    array = tensorfile.open_mapped(tmp_path / "x")["a"]
    assert isinstance(array, np.memmap)
    # torch takes the map as it is, without the warning it has for arrays that cannot be written
    assert torch.from_numpy(array).sum() == 15


def test_the_space_is_taken_when_the_file_is_made(tmp_path: Path) -> None:
    """A file with holes would meet a full disk as a bus error in the middle of a write."""
    tensorfile.create(tmp_path / "made", {"a": ("float32", (1_000_000,))})
    (tmp_path / "written").write_bytes(bytes(4_000_000))
    made, written = (tmp_path / "made").stat(), (tmp_path / "written").stat()
    if not hasattr(made, "st_blocks"):
        pytest.skip("the system does not tell how much space a file takes")
    assert made.st_blocks >= written.st_blocks


def test_where_the_system_cannot_reserve_space_zeros_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.posix_fallocate", raising=False)
    arrays = {"a": np.arange(3_000_000, dtype=np.float32), "b": np.ones(3, bool)}
    tensorfile.write(tmp_path / "x", arrays)
    assert_same(load_file(tmp_path / "x"), arrays)


@pytest.mark.parametrize("dtype", ["complex64", "<U3", "datetime64[s]", "object"])
def test_a_dtype_that_the_format_lacks_is_named(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(TypeError, match=r"array 'a' has dtype .* which a safetensors file cannot hold"):
        tensorfile.create(tmp_path / "x", {"a": (dtype, (2,))})
    assert not (tmp_path / "x").exists()


def test_a_dtype_that_numpy_lacks_is_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    save_torch({"a": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "x")
    with pytest.raises(TypeError, match="x: array 'a' has dtype BF16, which numpy does not have"):
        tensorfile.open_mapped(tmp_path / "x")
