from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sage_kit.storage.manifest import fault, write_manifest

NAME = "list.json"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "deep" / "b.txt").write_text("text", encoding="utf-8")
    (tmp_path / "empty").touch()
    write_manifest(tmp_path, NAME, {"what": "test"})
    return tmp_path


def test_lists_every_file_with_size_and_crc32(directory: Path) -> None:
    data = json.loads((directory / NAME).read_text(encoding="utf-8"))
    assert data["about"] == {"what": "test"}
    assert {name: item["bytes"] for name, item in data["files"].items()} == {
        "a.bin": 25600,
        "deep/b.txt": 4,
        "empty": 0,
    }
    # CRC-32 of "text" and of nothing, as any other program computes them
    assert data["files"]["deep/b.txt"]["crc32"] == 0x3B8BA7C7
    assert data["files"]["empty"]["crc32"] == 0
    assert fault(directory, NAME) is None


def test_writing_it_again_does_not_list_itself(directory: Path) -> None:
    write_manifest(directory, NAME, {"what": "again"})
    assert fault(directory, NAME) is None


def flip_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_one_bit, "{name} does not have its checksum"),
        (truncate, "{name} has {less} bytes instead of {size}"),
        (append, "{name} has {more} bytes instead of {size}"),
        (Path.unlink, "{name} is missing"),
    ],
)
@pytest.mark.parametrize("name", ["a.bin", "deep/b.txt"])
def test_damage_names_the_file(directory: Path, name: str, damage: Callable[[Path], None], message: str) -> None:
    size = (directory / name).stat().st_size
    damage(directory / name)
    assert fault(directory, NAME) == message.format(name=name, size=size, less=size - 1, more=size + 1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"files": 1}', '{"files": {"a.bin": 1}}', '{"files": {"a.bin": {"bytes": 1}}}']
)
def test_a_manifest_that_is_no_manifest_is_named(directory: Path, text: str) -> None:
    (directory / NAME).write_text(text, encoding="utf-8")
    assert fault(directory, NAME) == f"{NAME} is missing or not readable"


def test_a_missing_manifest_is_named(directory: Path) -> None:
    (directory / NAME).unlink()
    assert fault(directory, NAME) == f"{NAME} is missing or not readable"


def test_a_file_that_the_disk_cannot_read_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Path, mode: str = "r") -> None:
        raise OSError(5, "Input/output error", str(self))

    data = (directory / NAME).read_bytes()
    monkeypatch.setattr(Path, "open", broken)
    monkeypatch.setattr(Path, "read_bytes", lambda self: data)
    assert fault(directory, NAME) == "a.bin cannot be read: Input/output error"


def test_a_file_is_read_once_per_process_unless_it_changes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(data: bytes, value: int = 0) -> int:
        read.append(len(data))
        return zlib.crc32(data, value)

    monkeypatch.setattr("sage_kit.storage.manifest.zlib", SimpleNamespace(crc32=counted))
    # what has just been written may change again within one tick of the file system's clock
    assert fault(directory, NAME) is None
    assert fault(directory, NAME) is None
    assert read == [25600, 4] * 2
    long_ago = time.time() - 3600
    for name in ("a.bin", "deep/b.txt", "empty"):
        os.utime(directory / name, (long_ago, long_ago))
    assert fault(directory, NAME) is None
    assert fault(directory, NAME) is None
    assert read == [25600, 4] * 3
    flip_one_bit(directory / "a.bin")
    assert fault(directory, NAME) == "a.bin does not have its checksum"
