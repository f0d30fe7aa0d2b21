"""Damages files in every way that a disk, an editor or a stranger may, to test that commands say what is wrong.

`damaged` takes the bytes of a file and its name, and gives other bytes; which ones follows from a `random.Random`, so
that a seed, or hypothesis, makes them again.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FOREIGN: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 2**70, 0.5, 1e308, -1e308,
    "", "text", "a [/x] b", "[bold]x", "nan", "\x1b[31m", "../..",
    "/nowhere", "x" * 5000, "ä\u202e", [], {}, [None], [[]], {"a": None}, {"": {}}, [1, "a", None], "2026-01-01", "01",
)  # fmt: skip
"""Values that a field was not meant to have."""

DEPTH = 20_000
"""Levels of what is nested deeply."""


def damaged(data: bytes, name: str, rng: random.Random) -> bytes:
    """Other bytes for a file of that name: broken as bytes, or well-formed with foreign content.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        Its ending says which format it has.
    rng : random.Random
    """
    ending = name.rpartition(".")[2].lower()
    ways: list[Callable[[bytes, random.Random], bytes]] = list(BYTES)
    if ending in STRUCTURED:
        ways = [*ways, *[STRUCTURED[ending]] * 2 * len(ways)]  # most mistakes are subtle ones
    return rng.choice(ways)(data, rng)


def damaged_copy(folder: Path, target: Path, file: str, rng: random.Random) -> Path:
    """A copy of a folder in which one file is damaged; unchanged files are linked."""
    shutil.copytree(folder, target, copy_function=_link)
    path = target / file
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(damaged(data, file, rng))
    return target


def _link(source: str, target: str) -> str:
    Path(target).hardlink_to(source)
    return target


# ---- as bytes --------------------------------------------------------------------------------------------------------


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice((0, 1, len(data) // 2, max(0, len(data) - 1), rng.randrange(len(data) + 1)))]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 30))):
        if changed:
            # half of the time near the beginning, where headers are
            place = rng.randrange(min(len(changed), 200) if rng.random() < 0.5 else len(changed))
            changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _other_encoding(data: bytes, rng: random.Random) -> bytes:
    text = data.decode(errors="replace")
    return rng.choice((
        lambda: text.encode("utf-16"), lambda: b"\xff\xfe" + data, lambda: data.replace(b'"', b'"\xe4\xff', 1),
        lambda: b"\xef\xbb\xbf" + data, lambda: data + b"\x00" * 8,
    ))()  # fmt: skip


def _something_else(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((
        b"null", b"3", b'"text"', b"[]", b"{}", b"true", b"1e999", b"NaN", b"\n", b"<html></html>", b"\x80\x04K\x01.",
        b"[" * DEPTH, b'{"a":' * DEPTH, b"a = " + b"[" * DEPTH, b"- " * DEPTH, b"9" * 5000, b"PAR1", b"\x00" * 64,
        b"\xff" * 64, struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 2) + b"[]",
    ))  # fmt: skip


BYTES = (_cut, _flipped, _other_encoding, _something_else)


# ---- as what the format means ----------------------------------------------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each value within nested dictionaries and lists, that to the whole left out."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def foreign(value: Any, rng: random.Random) -> Any:
    """The same value with a field of another type, or without one, or with one more."""
    changed = copy.deepcopy(value)
    found = list(places(changed))
    for _ in range(rng.choice((1, 1, 1, 3))):
        if not found:
            return rng.choice(FOREIGN)
        # fields near the top are few, and matter as much
        top = [path for path in found if len(path) == 1]
        *way, last = rng.choice(top if top and rng.random() < 0.4 else found)
        holder = changed
        try:
            for key in way:
                holder = holder[key]
            if rng.random() < 0.2:
                del holder[last]
            elif rng.random() < 0.1 and isinstance(holder, dict):
                holder[f"{last}_"] = holder.pop(last)
            else:
                holder[last] = copy.deepcopy(rng.choice(FOREIGN))
        except (KeyError, IndexError, TypeError):  # an earlier change took it away
            continue
    return changed


def _json(data: bytes, rng: random.Random) -> bytes:
    return json.dumps(foreign(json.loads(data), rng)).encode()


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines()
    place = rng.randrange(len(lines))
    lines[place] = _json(lines[place], rng)
    return b"\n".join(lines)


def _toml(data: bytes, rng: random.Random) -> bytes:
    import tomlkit

    changed = foreign(tomlkit.parse(data.decode()).unwrap(), rng)
    return tomlkit.dumps(_without_none(changed) if isinstance(changed, dict) else {"a": 1}).encode()


def _without_none(value: Any) -> Any:
    """The value without None, which TOML has not."""
    if isinstance(value, dict):
        return {str(key) or "empty": _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value if item is not None] if isinstance(value, list) else value


def _yaml(data: bytes, rng: random.Random) -> bytes:
    import yaml

    return str(yaml.safe_dump(foreign(yaml.safe_load(data), rng))).encode()


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    if rng.random() < 0.6:
        header = json.dumps(foreign(json.loads(data[8 : 8 + length]), rng)).encode()
        header += b" " * (-len(header) % 8)
        return struct.pack("<Q", len(header)) + header + data[8 + length :]
    import numpy as np
    from safetensors.numpy import load, save

    arrays = load(data)
    if not arrays:
        return save({"unknown": np.zeros(3)})
    name = rng.choice(list(arrays))
    array = np.atleast_1d(arrays[name])
    arrays[name] = np.ascontiguousarray(rng.choice((
        lambda: array[:1], lambda: np.nan_to_num(array).astype(np.int64), lambda: np.full_like(array, 1),
        lambda: array.reshape(-1),
        lambda: np.zeros((0, 3)), lambda: array.astype(np.float64) * np.nan,
        lambda: np.full(array.shape, 1 << 40), lambda: np.full(array.shape, -5),
    ))())  # fmt: skip
    if rng.random() < 0.3:
        del arrays[name]
    return save(arrays, {"round": "x"} if rng.random() < 0.3 else None)


def _parquet(data: bytes, rng: random.Random) -> bytes:
    import pyarrow
    from pyarrow import parquet

    table = parquet.read_table(pyarrow.BufferReader(data))
    place = rng.randrange(table.num_columns)
    name = table.column_names[place]
    values = table.column(place).to_pylist()
    table = rng.choice((
        lambda: table.append_column(name, table.column(place)),
        lambda: table.drop_columns([name]),
        lambda: table.slice(0, 0),
        lambda: table.set_column(place, name, pyarrow.array([[str(value)] for value in values])),
        lambda: table.set_column(place, name, pyarrow.array([str(value) for value in values])),
        lambda: table.set_column(place, name, pyarrow.array([None] * len(values), pyarrow.float64())),
        lambda: table.set_column(place, name, pyarrow.array([b"\xff\xfe"] * len(values))),
        lambda: table.set_column(place, name, pyarrow.array([1e308] * len(values))),
    ))()  # fmt: skip
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    return sink.getvalue()


STRUCTURED: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": _json, "ipynb": _json, "jsonl": _lines, "toml": _toml, "yaml": _yaml, "yml": _yaml,
    "safetensors": _safetensors, "parquet": _parquet,
}  # fmt: skip
"""By the ending of a file's name, what changes its meaning and leaves it well-formed."""
