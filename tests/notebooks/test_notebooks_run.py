"""Every notebook at profile smoke: tables, figures, and verdicts that the numbers bear out."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from studies.claimcheck import claim_problems

from sage_kit.studies.result import StudyResult, inconsistencies, read_tables

pytest.importorskip("papermill")
pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")

pytestmark = pytest.mark.notebooks

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One place for all notebooks, so that they find each other's runs as they do for a reader."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("studies")
        patch.setenv("SAGE_KIT_CACHE_DIR", str(path / "cache"))
        # smoke is of the packaged reviews, whatever else is at hand
        patch.delenv("SAGE_KIT_DATA_DIR", raising=False)
        yield path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_its_verdict_is_what_its_numbers_say(path: Path, place: Path) -> None:
    from sage_kit.studies.runner import make_cell, run_cell

    parameters = {
        "profile": "smoke",
        "runs_dir": str(place / "runs"),
        "results_dir": str(place / "results"),
    }
    outcome = run_cell(make_cell(path, parameters, place / "cells"))
    assert outcome.state == "done", outcome.error

    (folder,) = (place / "results" / path.stem).iterdir()
    result = StudyResult.load(folder)
    notebook = nbformat.read(outcome.cell.directory / "notebook.ipynb", as_version=4)
    (verdict,) = re.findall(r'<div class="verdict".*?</div>', "".join(html_of(notebook)), re.DOTALL)
    assert all(html.escape(finding.sentence) in verdict for finding in result.findings)
    assert result.findings
    assert result.figures
    assert inconsistencies(result, read_tables(result)) == []
    assert all((folder / file).stat().st_size > 5000 for file, _ in result.figures)
    assert {"runs"} <= set(result.tables)


def html_of(notebook: Any) -> Iterator[str]:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield output.get("data", {}).get("text/html", "")


def test_findings_and_claims_agree(place: Path) -> None:
    missing = [path.stem for path in NOTEBOOKS if not (place / "results" / path.stem).is_dir()]
    if missing:
        pytest.skip(f"needs the results of all notebooks; {', '.join(missing)} did not run in this session")
    results = [StudyResult.load(folder) for folder in sorted((place / "results").glob("*/*"))]
    assert claim_problems(results, [path.stem for path in NOTEBOOKS]) == []
