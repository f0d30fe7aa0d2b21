from __future__ import annotations

import errno
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sage_kit.errors import DiskFullError
from sage_kit.storage.files import (
    TEMPORARY_PREFIX,
    atomic_directory,
    disk_errors,
    remove_temporaries,
    write_json,
    write_text,
    write_texts,
)


class Crash(BaseException):
    """Stands for whatever may end a block, Ctrl-C included."""


def tree(directory: Path) -> dict[str, str]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_text(encoding="utf-8") for path in files}


# ---- whole or not at all


def test_files_that_belong_together_change_together(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    for path in files:
        path.write_text("old", encoding="utf-8")
        path.chmod(0o640)
    write_texts({path: f"new {path.name}" for path in files})
    assert tree(tmp_path) == {"a": "new a", "b": "new b", "c": "new c"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), Crash()])
@pytest.mark.parametrize("last", "abc")
def test_files_that_belong_together_stay_as_they_were(
    last: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / name for name in "abc"]
    for path in files:
        path.write_text("old", encoding="utf-8")
    replace, failed = Path.replace, []

    def fail_once(path: Path, target: Path) -> Path:
        if target.name == last and not failed:
            failed.append(target)
            raise error
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_once)
    with pytest.raises(type(error)):
        write_texts(dict.fromkeys(files, "new"))
    assert tree(tmp_path) == dict.fromkeys("abc", "old")


def test_a_directory_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with atomic_directory(target) as temporary:
        assert temporary.parent == target.parent
        (temporary / "deep").mkdir()
        (temporary / "deep" / "one").write_text("1", encoding="utf-8")
        assert not target.exists()
    assert tree(tmp_path) == {"a/b/deep/one": "1"}


def test_a_directory_replaces_the_old_one_wholly(tmp_path: Path) -> None:
    target = tmp_path / "x"
    for name in ("old", "new"):
        with atomic_directory(target) as temporary:
            (temporary / name).write_text(name, encoding="utf-8")
    assert tree(tmp_path) == {"x/new": "new"}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [Crash, ValueError, OSError])
def test_a_crash_in_the_block_leaves_the_old_directory_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "x"
    with atomic_directory(target) as temporary:
        (temporary / "file").write_text("old", encoding="utf-8")

    def crash() -> None:
        with atomic_directory(target) as temporary:
            (temporary / "file").write_text("new", encoding="utf-8")
            raise error

    with pytest.raises(error):
        crash()
    assert tree(tmp_path) == {"x/file": "old"}
    assert list(tmp_path.iterdir()) == [target]


def test_text_is_replaced_wholly_and_its_folder_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_text(path, "a longer old text\n")
    write_text(path, "née\n")
    assert tree(tmp_path) == {"a/b.txt": "née\n"}


def test_a_crash_while_text_is_written_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_text(path, "old")

    whole = Path.write_bytes

    def half(self: Path, data: bytes) -> None:
        whole(self, data[:2])
        raise Crash

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(Crash):
        write_text(path, "new")
    assert tree(tmp_path) == {"x": "old"}


def test_json_is_strict_and_has_null_for_what_json_lacks(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": float("nan"), "b": [1.5, float("inf"), {"c": -float("inf")}], "d": ("née", None, True)})
    text = path.read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text) == {"a": None, "b": [1.5, None, {"c": None}], "d": ["née", None, True]}


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert tree(tmp_path) == {"x.json": '{\n  "a": 1\n}\n'}


def test_temporaries_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    program = f"""
        import os
        from pathlib import Path
        from sage_kit.storage.files import atomic_directory
        with atomic_directory(Path({str(tmp_path)!r}, "x")) as temporary:
            (temporary / "half").write_text("1")
            os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert [path.name[: len(TEMPORARY_PREFIX)] for path in tmp_path.iterdir()] == [TEMPORARY_PREFIX]
    (tmp_path / f"{TEMPORARY_PREFIX}file").write_text("half", encoding="utf-8")
    (tmp_path / "kept").write_text("kept", encoding="utf-8")
    remove_temporaries(tmp_path)
    assert tree(tmp_path) == {"kept": "kept"}
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]
    remove_temporaries(tmp_path / "absent")


# ---- a full disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_clear_error(number: int) -> None:
    message = r"^disk full while writing the thing: make room$"
    with pytest.raises(DiskFullError, match=message), disk_errors("the thing", "make room"):
        raise OSError(number, "text that the system chooses")


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "no"), OSError("no number"), ValueError("28"), Crash()]
)
def test_other_errors_pass_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, disk_errors("the thing"):
        raise error
    assert caught.value is error


WRITERS = {
    "text": "write_text(target, 'x' * SIZE)",
    "json": "write_json(target, ['x' * SIZE])",
    "directory": "with atomic_directory(target) as new: (new / 'data').write_text('x' * SIZE)",
    "safetensors": """
        from safetensors.numpy import save_file
        with atomic_directory(target) as new: save_file({'a': np.zeros(SIZE)}, new / 'data')
    """,
    "tensorfile": """
        from sage_kit.storage import tensorfile
        with atomic_directory(target) as new: tensorfile.create(new / 'data', {'a': ('float64', (SIZE,))})
    """,
    "tokenizer": """
        from tokenizers import Tokenizer, models
        tokenizer = Tokenizer(models.WordLevel({f'word number {i}': i for i in range(SIZE // 10)}, 'word number 0'))
        with atomic_directory(target) as new: tokenizer.save(str(new / 'data'))
    """,
    "table": """
        import pyarrow, pyarrow.parquet
        table = pyarrow.table({'a': np.random.default_rng(0).random(SIZE)})
        with atomic_directory(target) as new: pyarrow.parquet.write_table(table, new / 'data')
    """,
}


def test_a_write_that_really_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """Each library reports in its own way that a file cannot grow; the system refuses more than LIMIT bytes."""
    resource = pytest.importorskip("resource", reason="needs a system that limits the size of files")
    assert resource.RLIMIT_FSIZE
    program = """
        import resource
        from pathlib import Path
        import numpy as np
        from sage_kit.errors import DiskFullError
        from sage_kit.storage.files import atomic_directory, disk_errors, write_json, write_text
        SIZE = 100_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    """
    for name, writer in WRITERS.items():
        target = tmp_path / name / "target"
        target.parent.mkdir()
        if "atomic_directory" in writer:
            target.mkdir()
            (target / "data").write_text("old", encoding="utf-8")
        else:
            target.write_text("old", encoding="utf-8")
        indented = textwrap.indent(textwrap.dedent(writer).strip(), " " * 16)
        program += f"""
        target = Path({str(target)!r})
        try:
            with disk_errors(str(target)):
{indented}
        except DiskFullError as error:
            print({name!r}, error)
"""
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.stderr == ""
    advice = "free some space and try again"
    expected = [f"{n} disk full while writing {tmp_path / n / 'target'}: {advice}" for n in WRITERS]
    assert process.stdout.splitlines() == expected
    for name, writer in WRITERS.items():
        kept = "target/data" if "atomic_directory" in writer else "target"
        assert tree(tmp_path / name) == {kept: "old"}
        assert [path.name for path in (tmp_path / name).iterdir()] == ["target"]
