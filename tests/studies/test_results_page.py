"""The page of results: what it says of a result, and that the one in the repository is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import write_results_page
from studies.fakeresults import make_finding, save_result
from write_results_page import FOLDER, GAINS, PAGE, gains_png, main_results, page, paragraph, section

from sage_kit.studies.ledger import read_results


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


def with_gains(root: Path, label: str, *, tasks: tuple[str, ...], **changes: Any) -> Any:
    """A result of the main study, with the tables of its gains."""
    pandas = pytest.importorskip("pandas")
    names = [f"{name}{outcome}" for name in ("over_plain", "over_equal_flops") for outcome in OUTCOMES]
    result = save_result(root, "09_glue", make_finding("default_over_plain", 0.01, 0.02), label=label, tasks=tasks,
                         tables=tuple(names), **changes)  # fmt: skip
    rows = [(task, arm, 0.01, 0.0, 0.02) for task in (*tasks, "average") for arm in ("SAGE default", "SAGE paper")]
    for name in names:
        table = pandas.DataFrame(rows, columns=["task", "arm", "difference", "low", "high"])
        table.to_parquet(result.folder / f"{name}.parquet")
    return result


OUTCOMES = ("", "_agreement", "_divergence")


def test_the_page_opens_with_the_gains_of_the_main_study(tmp_path: Path) -> None:
    with_gains(tmp_path, "small-one", tasks=("sst2",))
    best = with_gains(tmp_path, "small-two", tasks=("sst2", "mrpc"))
    with_gains(tmp_path, "smoke-many", tasks=("sst2", "mrpc", "stsb"), profile="smoke")
    save_result(tmp_path, "09_glue", make_finding("x", 0.1, 0.3), label="small-three", tasks=("a", "b", "c"))
    results, _ = read_results(tmp_path)
    assert main_results(results) == [best]
    text = page(results)
    figure = text.index(f"]({GAINS})")
    assert text.index("# What the studies found") < figure < text.index("## 09 ")
    assert "over 5 runs, each with a transfer set of its own" in text
    assert "From [09_glue on sst2, mrpc](09_glue/small-two).*" in text
    picture = gains_png(results)
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


def test_results_on_other_tasks_stand_in_the_same_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = with_gains(tmp_path, "small-two", tasks=("sst2", "mrpc"))
    other = with_gains(tmp_path, "small-other", tasks=("qnli",))
    with_gains(tmp_path, "small-again", tasks=("mrpc",))
    with_gains(tmp_path, "small-few", tasks=("stsb",), seeds=3)
    results, _ = read_results(tmp_path)
    assert main_results(results) == [two, other]
    drawn: list[Any] = []
    draw = write_results_page.figures.gains
    monkeypatch.setattr(
        write_results_page.figures, "gains", lambda rows, **named: drawn.append(rows) or draw(rows, **named)
    )
    assert gains_png(results) is not None
    assert set(drawn[0]["task"]) == {"sst2", "mrpc", "qnli"}
    assert "[09_glue on qnli](09_glue/small-other)" in page(results)


def test_without_the_main_study_no_figure_opens_the_page(tmp_path: Path) -> None:
    save_result(tmp_path, "04_a", make_finding("gain", 0.1, 0.3))
    results, _ = read_results(tmp_path)
    assert GAINS not in page(results)
    assert gains_png(results) is None


def test_a_paragraph_follows_from_the_findings_alone(tmp_path: Path) -> None:
    yes, no = make_finding("gain", 0.1, 0.3), make_finding("loss", -0.3, -0.1)
    unknown = make_finding("cost", -0.1, 0.2)
    text = paragraph(save_result(tmp_path, "04_a", yes, unknown, no))
    assert text == "About gain. About loss. Of its 3 questions, 1 is not decided."
    assert paragraph(save_result(tmp_path, "04_a", unknown)) == "None of its questions is decided."
    few = paragraph(save_result(tmp_path, "04_a", make_finding("gain", 0.1, 0.3, seeds=2)))
    assert few.endswith("All rest on fewer seeds than a decision needs.")


def test_the_page_of_no_result_has_the_ledger() -> None:
    text = page([])
    assert text.index("There is no result yet.") < text.index("## The ledger")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the repository's folder of results")
def test_the_page_in_the_repository_is_up_to_date() -> None:
    results, faults = read_results(FOLDER)
    assert [fault for fault in faults if "make it again" not in fault.text] == []
    assert (FOLDER / PAGE).read_text(encoding="utf-8") == page(results), "run: python tools/write_results_page.py"
