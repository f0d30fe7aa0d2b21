"""Observer `loss_profile`, and `sage_kit.rundir.loss_profiles`, which writes and reads its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from numpy.typing import NDArray
from toyrun import toy_run

from sage_kit.components.records import RunInfo
from sage_kit.config import RunConfig
from sage_kit.errors import DiskFullError, RunDirectoryError
from sage_kit.rundir.loss_profiles import read_loss_profiles, write_loss_profile


def run_in(directory: Path) -> RunInfo:
    return RunInfo(directory=directory, config=RunConfig(), examples={}, parameters={}, primary_metric="accuracy")


def losses(seed: int, n: int = 1000) -> NDArray[np.float32]:
    """Losses of many easy examples and a few hard ones; some are not seen yet; read-only, as the loop gives them."""
    values = np.random.default_rng(seed).gamma(0.3, 0.4, n).astype(np.float32)
    values[::17] = np.nan
    values.flags.writeable = False
    return values


def test_what_is_written_is_read_to_the_bit(build: Any, tmp_path: Path) -> None:
    observer = build("observer", "loss_profile")
    # in no particular order, and by number: 1000 comes after 999
    for round in (1000, 2, 999):
        observer.sage_losses_profiled(run_in(tmp_path), round, losses(round))
    assert (tmp_path / "rounds" / "002" / "losses.parquet").is_file()
    rounds, read = read_loss_profiles(tmp_path)
    assert rounds.tolist() == [2, 999, 1000]
    assert (rounds.dtype, read.dtype) == (np.int64, np.float32)
    assert read.tobytes() == np.stack([losses(2), losses(999), losses(1000)]).tobytes()


def test_the_file_says_what_it_is_and_is_compressed(tmp_path: Path) -> None:
    path = write_loss_profile(tmp_path, 3, losses(3, 20_000))
    file = pyarrow.parquet.ParquetFile(path)
    assert file.schema_arrow.names == ["loss"]
    assert file.schema_arrow.metadata[b"round"] == b"3"
    assert b"training example" in file.schema_arrow.metadata[b"about"]
    column = file.metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in column.encodings
    # mantissas are noise, so little more than a part of the byte of sign and exponent can be saved
    assert path.stat().st_size < 0.9 * 4 * 20_000


def test_a_round_written_again_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_loss_profile(tmp_path, 1, losses(1)).read_bytes()
    assert write_loss_profile(tmp_path, 1, losses(2)).read_bytes() != first
    assert write_loss_profile(tmp_path, 1, losses(1)).read_bytes() == first
    assert [path.name for path in (tmp_path / "rounds" / "001").iterdir()] == ["losses.parquet"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match=r"losses\.parquet"):
        write_loss_profile(tmp_path, 1, losses(1))
    assert list((tmp_path / "rounds" / "001").iterdir()) == []


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no loss profiles"):
        read_loss_profiles(tmp_path)
    path = write_loss_profile(tmp_path, 1, losses(1))
    good = path.read_bytes()
    for bad in (good[: len(good) // 2], b""):
        path.write_bytes(bad)
        with pytest.raises(RunDirectoryError, match=re.escape(str(path))) as caught:
            read_loss_profiles(tmp_path)
        assert "\n" not in str(caught.value)
    path.write_bytes(good)
    other = write_loss_profile(tmp_path, 2, losses(2, 999))
    with pytest.raises(RunDirectoryError, match=re.escape(f"{other} holds 999 losses")):
        read_loss_profiles(tmp_path)


def test_a_run_writes_every_round(tmp_path: Path, tiny_bert: Path) -> None:
    from safetensors.numpy import load_file

    directory, summary = toy_run(
        tmp_path, tiny_bert, observers=["loss_profile"], rounds=2, schedule="none", keep_checkpoints=0
    )
    assert summary["disabled_observers"] == {}
    rounds, read = read_loss_profiles(directory.path)
    assert rounds.tolist() == [1, 2]
    assert read.shape == (2, summary["examples"]["train"])
    # the checkpoints hold the same losses, written by the loop itself
    for round, row in zip(rounds, read, strict=True):
        kept = load_file(directory.path / "checkpoints" / f"round-{round:03d}" / "profile.safetensors")["losses"]
        np.testing.assert_array_equal(row, kept)
    np.testing.assert_allclose(read[0].mean(dtype=np.float64), summary["rounds"][0]["train_loss"], rtol=1e-5)
