"""The command `python benchmarks`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import sage_bench as bench
from sage_bench.command import app
from sage_bench.measure import Session
from sage_bench.records import Line, Result, Spread
from sage_kit.cli import main


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """One bench named "fake"; `sessions` holds what it was given."""
    module, sessions = ModuleType("fake_bench"), []

    def run(session: Session) -> Result:
        assert session.scratch.is_dir()
        session.announce("at work")
        sessions.append(session)
        return Result("fake", [Line("work", "who", {"examples/s": Spread.of([2.0, 3.0, 4.0])})], notes=["A note."])

    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_bench", module)
    monkeypatch.setattr(bench, "BENCHES", {"fake": "fake_bench"})
    return SimpleNamespace(sessions=sessions)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments], app)
    return int(ended.value.code or 0)


def test_tables_json_and_picture(fake: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("fake", "--out", str(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert "3.00 (2.00 to 4.00)" in out
    assert "A note." in out
    assert "threads" in out
    assert "fake: at work" in err
    data = json.loads((tmp_path / "fake.json").read_text(encoding="utf-8"))
    assert data["lines"][0]["values"]["examples/s"]["median"] == 3.0
    assert data["machine"]["cores"] >= 1
    assert data["quick"] is False
    assert (tmp_path / "fake.png").read_bytes().startswith(b"\x89PNG")
    assert not fake.sessions[0].quick
    assert not fake.sessions[0].scratch.exists()


def test_quick_has_files_of_its_own_and_json_goes_to_stdout(
    fake: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--quick", "--json", "--out", str(tmp_path)) == 0
    (run,) = json.loads(capsys.readouterr().out)["benches"]
    assert run["bench"] == "fake"
    assert run["quick"] is True
    assert fake.sessions[0].quick
    assert {path.name for path in tmp_path.iterdir()} == {"fake-quick.json", "fake-quick.png"}


def test_an_unknown_bench_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("distil") == 2
    assert "Unknown bench 'distil'. Did you mean 'distill'?" in capsys.readouterr().err


def test_every_bench_has_a_module_that_runs() -> None:
    import importlib

    for module in bench.BENCHES.values():
        assert callable(importlib.import_module(module).run)
