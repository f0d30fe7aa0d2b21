"""No command answers a damaged file with a traceback, whatever file of its input it is, and however damaged."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commandline import call_well
from damage import damaged_copy
from hypothesis import given
from hypothesis import strategies as st
from materials import ONE_TRIAL, Materials, make_exported, make_searched

from sage_kit.errors import MissingPackageError

SEEDS = st.integers(0, 2**32 - 1)

OF_RUNS = {
    "show": ["show", "{folder}", "--no-figures"],
    "show with figures": ["show", "{folder}"],
    "show as JSON": ["show", "{folder}", "--json"],
    "resume": ["resume", "{folder}"],
    "card": ["card", "{folder}", "--show"],
    "push": ["push", "{folder}", "me/model", "--dry-run"],
    "predict": ["predict", "{folder}", "{rows}", "--out", "{out}/found.csv"],
    "evaluate": ["evaluate", "{folder}", "{rows}"],
    "decode": ["decode", "{folder}"],
    "submit": ["submit", "sst2={folder}", "--out", "{out}/found.zip"],
    "export": ["export", "{folder}", "--onnx", "--out", "{out}/onnx"],
}  # fmt: skip

READ_BY = {
    "predict": ("config.toml", "summary.json", "student/"), "evaluate": ("config.toml", "summary.json", "student/"),
    "push": ("config.toml", "summary.json", "costs.json", "environment.json", "predictions.safetensors", "student/"),
    "card": ("config.toml", "summary.json", "costs.json", "environment.json", "predictions.safetensors", "student/"),
    "decode": ("config.toml", "environment.json", "rounds/"), "submit": ("config.toml", "summary.json", "student/"),
    "export": ("config.toml", "summary.json", "student/"),
}  # fmt: skip
"""Files that a command reads, where these are not all."""


@contextmanager
def copy_of(folder: Path, file: str, seed: int) -> Iterator[Path]:
    """A copy of a folder with one file damaged, for as long as the block."""
    with tempfile.TemporaryDirectory() as place:
        yield damaged_copy(folder, Path(place) / "copy", file, random.Random(seed))


def read_by(command: str, files: list[str]) -> list[str]:
    return [file for file in files if file.startswith(READ_BY.get(command, ("",)))]


@pytest.mark.parametrize("command", OF_RUNS)
@given(data=st.data())
def test_finished_runs(materials: Materials, command: str, data: st.DataObject) -> None:
    if command == "export":
        pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    file = data.draw(st.sampled_from(read_by(command, materials.files("run"))), "file")
    with copy_of(materials.run, file, data.draw(SEEDS, "seed")) as folder, tempfile.TemporaryDirectory() as out:
        places = {"folder": folder, "rows": materials.data / "rows.csv", "out": out}
        call_well(*(word.format(**places) for word in OF_RUNS[command]))


@given(data=st.data())
def test_runs_that_go_on(materials: Materials, data: st.DataObject) -> None:
    """A resume either ends well or with one line, and what it began with is not lost."""
    name = data.draw(st.sampled_from(["killed", "static"]), "run")
    files = [file for file in materials.files(name) if not file.endswith((".jsonl", ".parquet"))]
    file = data.draw(st.sampled_from(files), "file")
    with copy_of(getattr(materials, name), file, data.draw(SEEDS, "seed")) as folder:
        call_well("resume", str(folder))
        call_well("show", str(folder), "--no-figures")


@pytest.mark.parametrize("command", ["claims", "claims --json", "claims --markdown", "study verify"])
@given(data=st.data())
def test_results(materials: Materials, command: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(materials.files("results")), "file")
    with copy_of(materials.results, file, data.draw(SEEDS, "seed")) as folder:
        call_well(*command.split(), "--results", str(folder))


@given(data=st.data())
def test_reports(materials: Materials, data: st.DataObject) -> None:
    """One damaged result or cell leaves the rest of the page."""
    name = data.draw(st.sampled_from(["results", "cells"]), "what")
    file = data.draw(st.sampled_from(materials.files(name)), "file")
    with copy_of(getattr(materials, name), file, data.draw(SEEDS, "seed")) as folder:
        places = {"results": materials.results, "cells": materials.cells, name: folder}
        page = folder.parent / "page.html"
        answer = call_well(
            "study", "report", "--results", str(places["results"]), "--cells", str(places["cells"]), "--out", str(page)
        )
        assert answer.code == 0
        assert "05_reducers" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["study status", "study status --json"])
@given(data=st.data())
def test_cells(materials: Materials, command: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(materials.files("cells")), "file")
    with copy_of(materials.cells, file, data.draw(SEEDS, "seed")) as folder:
        answer = call_well(*command.split(), "--out", str(folder))
        assert answer.code == 0
        assert answer.out.count("05_reducers") >= 1  # the other cell is shown all the same


@given(data=st.data())
def test_caches(materials: Materials, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(materials.files("cache")), "file")
    with copy_of(materials.cache, file, data.draw(SEEDS, "seed")) as folder:
        call_well("cache", "--cache-dir", str(folder))
        call_well("cache", "--cache-dir", str(folder), "--clear")


@given(data=st.data())
def test_files_of_texts(materials: Materials, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(materials.files("data")), "file")
    with copy_of(materials.data, file, data.draw(SEEDS, "seed")) as folder:
        out = folder.parent / "found.csv"
        if data.draw(st.booleans(), "evaluate"):
            call_well("evaluate", str(materials.run), str(folder / file))
        else:
            answer = call_well("predict", str(materials.run), str(folder / file), "--out", str(out))
            assert out.exists() == (answer.code == 0)  # nothing half written


@given(data=st.data())
def test_searches(materials: Materials, data: st.DataObject) -> None:
    """Of a damaged plan; one that is whole would be searched, so only what is said of it is looked at."""
    from sage_kit.errors import SageError
    from sage_kit.searching.search_plan import SearchPlan

    seed = data.draw(SEEDS, "seed")
    with copy_of(materials.search, "search.toml", seed) as folder, contextlib.suppress(SageError):
        SearchPlan.read(folder)


@pytest.fixture(scope="session")
def exported(materials: Materials) -> Materials:
    """The materials, with a student that is exported to ONNX."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra `onnx`")
    from sage_kit.inference.onnx_export import require_exporter

    try:
        require_exporter()
    except MissingPackageError as too_old:
        pytest.skip(str(too_old))
    make_exported(materials)
    return materials


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@given(data=st.data())
def test_exported_students(exported: Materials, command: str, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(exported.files("exported")), "file")
    with copy_of(exported.exported, file, data.draw(SEEDS, "seed")) as folder, tempfile.TemporaryDirectory() as out:
        places = {"folder": folder, "rows": exported.data / "rows.csv", "out": out}
        call_well(*(word.format(**places) for word in OF_RUNS[command]))


@pytest.fixture(scope="session")
def searched(materials: Materials) -> Materials:
    """The materials, with a search of one trial."""
    pytest.importorskip("optuna", reason="needs the extra `search`")
    make_searched(materials)
    return materials


@given(data=st.data())
def test_searches_that_go_on(searched: Materials, data: st.DataObject) -> None:
    """A search goes on, or says what is wrong; what its journal lost is run again."""
    names = [file for file in searched.files("searched") if not file.startswith("runs/")]
    file = data.draw(st.sampled_from(names), "file")
    with copy_of(searched.searched, file, data.draw(SEEDS, "seed")) as folder:
        call_well("search", str(folder), *ONE_TRIAL)


def test_materials_are_whole(materials: Materials) -> None:
    """Undamaged, all of it is read: what is found above is due to the damage."""
    places = {"folder": materials.run, "rows": materials.data / "rows.csv"}
    with tempfile.TemporaryDirectory() as out:
        for command, words in OF_RUNS.items():
            if command not in ("export", "push"):
                answer = call_well(*(word.format(**places, out=out) for word in words))
                assert answer.code == (2 if command == "submit" else 0), (command, answer)  # it is no task of GLUE
    assert call_well("claims", "--results", str(materials.results)).err == ""
    assert "1 done, 1 failed" in call_well("study", "status", "--out", str(materials.cells)).out
    shutil.rmtree(materials.run / "figures", ignore_errors=True)
