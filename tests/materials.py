"""Everything that a command reads, made once and small: runs, results, cells, a cache, a search, data files."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
from toyrun import go_back, toy_run

sys.path.append(str(Path(__file__).parent / "studies"))


@dataclass(frozen=True)
class Materials:
    """Folders and files, each as its command takes it.

    Attributes
    ----------
    run : Path
        A finished run with all its checkpoints.
    killed, static : Path
        The same as if killed after round one; one that synthesises once, killed after round two.
    results, cells, cache, search, data : Path
        Folders.
    exported, searched : Path
        A student exported to ONNX, and a search of one trial; there where `make_exported` and `make_searched` made
        them.
    """

    run: Path
    killed: Path
    static: Path
    results: Path
    cells: Path
    cache: Path
    search: Path
    data: Path
    exported: Path
    searched: Path

    def files(self, name: str) -> list[str]:
        """The files of a folder, by their paths in it; hidden ones left out."""
        folder: Path = getattr(self, name)
        found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
        return [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]


def make_materials(folder: Path, teacher: Path) -> Materials:
    """Make them in an empty folder."""
    settings: dict[str, Any] = {"rounds": 2, "keep_checkpoints": 0, "observers": ["jsonl", "costs", "loss_profile"]}
    run, _ = toy_run(folder, teacher, **settings)
    static, _ = toy_run(folder, teacher, **{**settings, "rounds": 3}, schedule="static")
    run.unlock()
    static.unlock()
    killed = folder / "killed"
    shutil.copytree(run.path, killed)
    go_back(type(run)(killed), to_round=1)
    go_back(static, to_round=2)
    made = Materials(
        run.path, killed, static.path, folder / "results", folder / "cells", folder / "cache", folder / "search",
        folder / "data", folder / "exported", folder / "searched",
    )  # fmt: skip
    _make_results(made.results)
    _make_cells(made.cells)
    _make_search(made.search, folder, teacher)
    _make_data(made.data)
    return made


def _make_results(folder: Path) -> None:
    from fakeresults import make_finding, runs_of, save_result
    from pandas import DataFrame

    finding = make_finding("umap2_over_none", 0.01, 0.05, claim="ablation", columns=("difference", "low", "high"))
    arms = ("sage", "plain")
    runs = tuple(
        {**run, "loop": "", "plugin_files": [], "environment": {"code": "abc", "precision": "fp32", "threads": 1}}
        for run in runs_of(arms, ("cola", "sst2"), seeds=2)
    )
    figure = (("bars.png", "How it went"),)
    result = save_result(
        folder, "01_reducer_dimension", finding, make_finding("second", -0.1, 0.1), runs=runs,
        tables=("comparison", "runs"), figures=figure,
    )  # fmt: skip
    assert result.folder is not None
    DataFrame({"arm": ["sage"], "difference": [0.03], "low": [0.01], "high": [0.05]}).to_parquet(
        result.folder / "comparison.parquet"
    )
    DataFrame([{name: run[name] for name in ("task", "arm", "run")} for run in runs]).to_parquet(
        result.folder / "runs.parquet"
    )
    from fakeresults import png

    (result.folder / "bars.png").write_bytes(png())
    save_result(folder, "05_reducers", make_finding("other_over_umap", 0.01, 0.02))


def _make_cells(folder: Path) -> None:
    for key, state in (("0123456789abcdef", "done"), ("fedcba9876543210", "failed")):
        cell = folder / "05_reducers" / key
        cell.mkdir(parents=True)
        record = {
            "format": "cell-1", "study": "05_reducers", "key": key, "notebook": "/x/05_reducers.ipynb",
            "parameters": {"profile": "smoke", "task": None, "seeds": 2}, "state": state,
            "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:01:00Z", "seconds": 60.0,
            "error": None if state == "done" else "ValueError: no", "host": "here",
        }  # fmt: skip
        (cell / "cell.json").write_text(json.dumps(record))
        (cell / "log.txt").write_text("2026-01-01T00:00:00Z started\n")
        (cell / "notebook.ipynb").write_text("{}")


def _make_search(folder: Path, data: Path, teacher: Path) -> None:
    from toyrun import toy_config

    from sage_kit.searching.search_plan import SearchPlan
    from sage_kit.searching.search_space import read_space

    folder.mkdir()
    SearchPlan(toy_config(data, teacher), read_space(["learning_rate=1e-4:1e-2"], "")).write(folder)


def make_exported(materials: Materials) -> None:
    """Export the student of the finished run, in float32 and in eight bits."""
    from commandline import call_well

    words = ("--onnx", "--int8", "--no-latency", "--out", str(materials.exported))
    answer = call_well("export", str(materials.run), *words)
    assert answer.code == 0, answer


def make_searched(materials: Materials) -> None:
    """Search a setting of the finished run in one trial."""
    from commandline import call_well

    answer = call_well(
        "search", str(materials.searched), "--config", str(materials.run / "config.toml"), "--search",
        "learning_rate=1e-4:1e-2", *ONE_TRIAL,
    )  # fmt: skip
    assert answer.code == 0, answer


ONE_TRIAL = ("--trials", "1", "--finalists", "0", "--check-seeds", "0")


def _make_data(folder: Path) -> None:
    from pandas import DataFrame

    folder.mkdir()
    rows = tiny.toy_task_rows(40, seed=3)
    tiny.write_jsonl(folder / "rows.jsonl", rows)
    (folder / "rows.json").write_text(json.dumps(rows))
    table = DataFrame(rows)
    table.to_parquet(folder / "rows.parquet")
    table.to_csv(folder / "rows.csv", index=False)
    table.to_csv(folder / "rows.tsv", index=False, sep="\t")
