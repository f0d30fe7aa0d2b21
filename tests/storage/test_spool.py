"""Arrays that are written piece by piece, in memory or in a file without a name."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sage_kit.errors import DiskFullError, RunDirectoryError
from sage_kit.storage import spool
from sage_kit.storage.frozen import frozen_copy
from sage_kit.storage.spool import Spool


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "IN_MEMORY", 100)


def written(pieces: list[Any], folder: Path | None, dtype: str = "float32", row: tuple[int, ...] = ()) -> Any:
    made = Spool(dtype, folder, row)
    for piece in pieces:
        made.append(np.asarray(piece, dtype).reshape(-1, *row))
    assert len(made) == sum(np.size(piece) for piece in pieces) // int(np.prod(row))
    return made.finish()


@pytest.mark.parametrize("row", [(), (3,)])
@pytest.mark.parametrize("pieces", [0, 1, 4, 60])
def test_pieces_become_one_array(tmp_path: Path, pieces: int, row: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(size, *row)) for size in rng.integers(0, 5, pieces)]
    expected = np.concatenate([np.zeros((0, *row)), *given]).astype(np.float32)
    for folder in (None, tmp_path / "new"):
        found = written(given, folder, row=row)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32
        assert isinstance(found, np.memmap) == (folder is not None and expected.nbytes > 100)


def test_a_large_array_leaves_no_file_and_cannot_be_written_to(tmp_path: Path) -> None:
    found = written([range(1000)], tmp_path, "int64")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1
    frozen = frozen_copy(found)
    assert np.shares_memory(frozen, found)  # nothing was copied
    with pytest.raises(ValueError, match="WRITEABLE"):
        frozen.flags.writeable = True
    assert found[::10].sum() == sum(range(0, 1000, 10))


def test_a_process_that_is_killed_leaves_no_file(tmp_path: Path) -> None:
    program = f"""
import os, signal, pathlib, numpy
from sage_kit.storage.spool import Spool
one = Spool("int8", pathlib.Path({str(tmp_path)!r}))
one.append(numpy.zeros(2**25, numpy.int8))
print(one._file is not None, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("True\n", -9)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"cannot be written .*: set cache_dir"):
        written([range(1000)], tmp_path / "file" / "folder")

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full:
        write = flush = full

    monkeypatch.setattr(spool, "_nameless", lambda folder: Full())
    with pytest.raises(DiskFullError, match="disk full while writing a file in"):
        written([range(1000)], tmp_path)
