"""The page of results: what it says of a result, and that the one in the repository is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies.fakeresults import make_finding, save_result
from write_results_page import FOLDER, PAGE, page, section

from sage_kit.studies.claims import read_results


def test_a_result_has_its_findings_and_the_figure_of_the_first(tmp_path: Path) -> None:
    first = make_finding("gain", 0.1, 0.3, sentence="Ahead | by far.", table="over_plain")
    result = save_result(
        tmp_path, "04_static", first, make_finding("cost", -0.1, 0.2),
        figures=(("curves.png", "Curves."), ("over_plain.png", "Differences.")),
    )  # fmt: skip
    text = section(result)
    assert text.startswith("## 04 Title of 04_static\n")
    assert "Profile small, on cola, sst2; 5 seeds; 2026-01-01, Test CPU, 2 cores." in text
    assert "| yes | Ahead / by far. | 0.00018 |" in text
    assert "| undecided | About cost. | 0.51 |" in text
    assert f"![Differences.](04_static/{result.label}/over_plain.png)" in text
    assert "curves.png" not in text


def test_without_a_figure_of_the_first_finding_another_stands_for_it(tmp_path: Path) -> None:
    other = save_result(tmp_path, "04_static", make_finding("gain", 0.1, 0.3), figures=(("curves.png", "Curves."),))
    assert "curves.png)" in section(other)
    assert "![" not in section(save_result(tmp_path, "05_none", make_finding("gain", 0.1, 0.3)))


def test_the_page_holds_every_result_and_the_ledger(tmp_path: Path) -> None:
    for study in ("04_a", "05_b"):
        save_result(tmp_path, study, make_finding("gain", 0.1, 0.3))
    results, _ = read_results(tmp_path)
    text = page(results)
    assert text.index("## 04 ") < text.index("## 05 ") < text.index("## The ledger")
    assert "| claim | paper | notebook |" in text


def test_the_page_of_no_result_has_the_ledger() -> None:
    text = page([])
    assert text.index("There is no result yet.") < text.index("## The ledger")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the repository's folder of results")
def test_the_page_in_the_repository_is_up_to_date() -> None:
    results, faults = read_results(FOLDER)
    assert [fault for fault in faults if "make it again" not in fault.text] == []
    assert (FOLDER / PAGE).read_text(encoding="utf-8") == page(results), "run: python tools/write_results_page.py"
