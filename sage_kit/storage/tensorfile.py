"""Memory-mapped safetensors files: written piece by piece, read without loading.

The safetensors library writes and reads whole tensors; token states can be larger than memory. The format is simple
(an 8-byte little-endian header length, a JSON header, then the raw data), so the header is written here and the data is
a numpy memory map. `safetensors.safe_open` reads these files as any other.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sage_kit.storage.fingerprint import fingerprint

_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
CHECKSUM = "checksum"
"""Under which `dumps` keeps its checksum among the metadata."""

METADATA = "__metadata__"
"""Under which the format keeps texts beside the arrays."""

_DTYPES = {name: np.dtype(dtype) for dtype, name in _NAMES.items()}


def create(path: Path, layout: Mapping[str, tuple[DTypeLike, tuple[int, ...]]]) -> dict[str, NDArray[Any]]:
    """Make a safetensors file of zeros and map it for writing.

    Parameters
    ----------
    path : Path
        The file; replaced if it exists.
    layout : mapping of str to (dtype, shape)
        The arrays, by name.

    Returns
    -------
    dict of str to array
        Writable memory maps. Changes reach the disk when the maps are flushed or released.

    Raises
    ------
    TypeError
        For a dtype that the format does not have.
    OSError
        When the disk is full.
    """
    header, size = _header(layout, None)
    with path.open("wb") as stream:
        stream.write(header)
        # really reserve the space: a full disk must fail here and not as a bus error in a memory map
        _reserve(stream, len(header), size)
    return _map(path, "r+")


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays that are in memory.

    Raises
    ------
    TypeError
        For a dtype that the format does not have.
    OSError
        When the disk is full.
    """
    maps = create(path, {name: (values.dtype, values.shape) for name, values in arrays.items()})
    for name, values in arrays.items():
        maps[name][...] = values


def dumps(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of arrays in memory, with a checksum that `loads` looks at; equal ones give equal bytes.

    Raises
    ------
    TypeError
        For a dtype that the format does not have.
    """
    return b"".join(pieces(arrays, metadata))


def pieces(
    arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """What `dumps` gives, one after another: the header, and the memory of each array; raises as that."""
    metadata = dict(metadata or {})
    header, _ = _header(
        {name: (values.dtype, values.shape) for name, values in arrays.items()},
        {**metadata, CHECKSUM: checksum(arrays, metadata)},
    )
    yield header
    for name in _in_order(arrays):
        yield np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data


def loads(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Arrays and metadata of a safetensors file in memory; a checksum that it has must fit.

    Raises
    ------
    ValueError
        When it is damaged.
    TypeError
        For a dtype that numpy does not have.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays, metadata = load(data), _metadata_of(data)
    except (SafetensorError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise ValueError(str(error)) from None
    said = metadata.pop(CHECKSUM, None)
    if said is not None and said != checksum(arrays, metadata):
        raise ValueError("it does not have its checksum")
    return arrays, metadata


def checksum(arrays: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> str:
    """32 hexadecimal digits for names, types, shapes and contents of arrays or tensors, and the texts beside them."""
    return fingerprint(dict(arrays), dict(metadata or {}))


def open_mapped(path: Path) -> dict[str, NDArray[Any]]:
    """Map a safetensors file for reading; writes to the arrays stay private to the process.

    Returns
    -------
    dict of str to array

    Raises
    ------
    ValueError
        When the file is damaged.
    TypeError
        For a dtype that numpy does not have, as bfloat16.
    """
    try:
        return _map(path, "c")
    except (struct.error, KeyError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error})") from None


def _in_order(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    # widest items first keeps every array aligned to its item size
    return sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)


def _header(
    layout: Mapping[str, tuple[DTypeLike, tuple[int, ...]]], metadata: Mapping[str, str] | None
) -> tuple[bytes, int]:
    """The beginning of a file, and the bytes of the arrays behind it."""
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    # widest items first keeps every array aligned to its item size
    names = sorted(layout, key=lambda name: -np.dtype(layout[name][0]).itemsize)
    for name in names:
        dtype, shape = np.dtype(layout[name][0]), tuple(int(size) for size in layout[name][1])
        if dtype.name not in _NAMES:
            raise TypeError(f"array {name!r} has dtype {dtype}, which a safetensors file cannot hold")
        start, end = end, end + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": _NAMES[dtype.name], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, end


def _metadata_of(data: bytes) -> dict[str, str]:
    """The texts beside the arrays of a file that the library has read."""
    (length,) = struct.unpack("<Q", data[:8])
    return dict(json.loads(data[8 : 8 + length]).get(METADATA) or {})


def _reserve(stream: Any, start: int, size: int) -> None:
    if size and hasattr(os, "posix_fallocate"):
        stream.flush()
        os.posix_fallocate(stream.fileno(), start, size)
        return
    block = bytes(1 << 22)
    while size > 0:
        size -= stream.write(block[: min(size, len(block))])


def _map(path: Path, mode: Any) -> dict[str, NDArray[Any]]:
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    arrays: dict[str, NDArray[Any]] = {}
    for name, item in header.items():
        if name == METADATA:
            continue
        if item["dtype"] not in _DTYPES:
            raise TypeError(f"{path}: array {name!r} has dtype {item['dtype']}, which numpy does not have")
        dtype, shape = _DTYPES[item["dtype"]], tuple(item["shape"])
        start, end = item["data_offsets"]
        if start == end:
            arrays[name] = np.zeros(shape, dtype)
        else:
            arrays[name] = np.memmap(path, dtype=dtype, mode=mode, offset=8 + length + start, shape=shape)
    return arrays
