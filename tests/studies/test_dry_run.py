"""What a grid would execute, shown without executing anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from studies.toynotebook import write_notebook

from sage_kit.cli import main
from sage_kit.studies import runner
from sage_kit.studies.dry_run import expected_cells, total_text
from sage_kit.studies.grid import grid_cells


@pytest.fixture(autouse=True)
def working_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")
    write_notebook(Path("notebooks/05_reducers.ipynb"), "1")
    Path("grid.toml").write_text('study = "05"\nseeds = [1, 2, 3]\n', encoding="utf-8")


def cells(**overrides: str) -> list[runner.Cell]:
    return grid_cells(Path("notebooks").resolve(), Path("runs/cells"), file="grid.toml", overrides=overrides)


def leave(cell: runner.Cell, folder: str = "", **record: Any) -> None:
    """Leave what an executed cell leaves, under another key if one is given, as code of yesterday does."""
    directory = cell.directory.parent / folder if folder else cell.directory
    directory.mkdir(parents=True)
    told = {"study": cell.study, "key": directory.name, "parameters": dict(cell.parameters), "error": None}
    (directory / runner.CELL).write_text(json.dumps({**told, "state": "done", **record}), encoding="utf-8")
    if record.get("state", "done") == "done":
        (directory / runner.NOTEBOOK).write_text("{}", encoding="utf-8")


def test_states_and_times() -> None:
    first, second, third = cells()
    leave(first, seconds=10.0)
    leave(second, "yesterday", seconds=40.0)
    leave(third, state="failed", seconds=1.0)
    found = expected_cells([first, second, third])
    assert [(one.state, one.is_due, one.seconds) for one in found] == [
        ("done", False, 10.0), ("not run", True, 40.0), ("failed", True, 25.0),
    ]  # fmt: skip
    assert [one.source for one in found] == [
        "its execution", "1 cell with the same parameters", "2 cells with profile smoke",
    ]  # fmt: skip
    assert total_text(found, 1) == "3 cells: 1 done, 2 to execute, in about 65 s with 1 at a time; nothing was started."
    assert "in about 40 s with 2 at a time" in total_text(found, 2)  # the longest one
    assert [one.is_due for one in expected_cells([first], again=True)] == [True]


def test_where_nothing_is_known_it_says_so() -> None:
    (first, *others) = cells(profile="small")
    leave(first, profile="small", seconds=5.0)
    (unknown,) = expected_cells(cells()[:1])
    assert unknown.seconds is None  # another profile
    assert total_text([unknown], 1) == "1 cell: 0 done, 1 to execute, of no known time; nothing was started."
    assert "without 1 of no known time" in total_text([*expected_cells(others), unknown], 1)


def test_the_command_starts_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_cell", None)
    with pytest.raises(SystemExit) as exit_info:
        main(["study", "run", "--grid", "grid.toml", "--dry-run"])
    out, err = capsys.readouterr()
    assert (exit_info.value.code, err) == (0, "")
    assert out.count("not run") == 3
    assert all(f"seeds={seeds}" in out for seeds in (1, 2, 3))
    assert "3 cells: 0 done, 3 to execute" in out
    assert sorted(path.name for path in Path().iterdir()) == ["grid.toml", "notebooks"]
    for arguments, what in ((["--jobs", "0"], "jobs is 0"), (["-p", "sedes=1"], "Did you mean 'seeds'")):
        with pytest.raises(SystemExit) as exit_info:
            main(["study", "run", "--grid", "grid.toml", "--dry-run", *arguments])
        out, err = capsys.readouterr()
        assert (exit_info.value.code, out) == (2, "")
        assert what in err
