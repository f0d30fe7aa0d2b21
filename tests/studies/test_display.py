"""What a study shows: in a notebook HTML and pictures with the verdict on top, elsewhere text."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies.fakeresults import make_finding, save_result

from sage_kit.studies import display

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")

SOURCE = """
import pandas
from sage_kit.studies import display
display.show_table(pandas.DataFrame({"<b>": [0.123456789]}), "first & last")
display.show_figure(b"\\x89PNG", "A caption.")
"""

VERDICT = """
box = display.VerdictBox()
"""

FILLED = """
from pathlib import Path
from sage_kit.studies.result import StudyResult
box.fill(StudyResult.load(Path({folder!r})))
"""


def outputs_of(notebook: object, cell: int) -> list[dict[str, str]]:
    shown = ("display_data", "update_display_data")
    return [output["data"] for output in notebook.cells[cell].outputs if output["output_type"] in shown]  # type: ignore[attr-defined]


def test_a_notebook_shows_tables_and_figures_and_the_verdict_where_its_place_was_made(tmp_path: Path) -> None:
    result = save_result(tmp_path, "04_x", make_finding("gain <b>", 0.01, 0.03))
    cells = [SOURCE, VERDICT, "print('runs')", FILLED.format(folder=str(result.folder))]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    first = outputs_of(notebook, 0)
    tables = [data["text/html"] for data in first if "text/html" in data]
    assert any("0.1235" in page and "&lt;b&gt;" in page and "<b>first &amp; last</b>" in page for page in tables)
    assert any("image/png" in data for data in first)
    assert any("A caption." in data.get("text/markdown", "") for data in first)
    (box,) = outputs_of(notebook, 1)
    assert "Is gain &lt;b&gt; so?" in box["text/html"]
    assert "<b>yes</b>" in box["text/html"]
    assert display.PENDING not in box["text/html"]
    # at the end a line says where it is
    assert "top of the notebook" in notebook.cells[3].outputs[0]["text"]


def test_outside_a_notebook_all_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pandas

    assert not display.in_notebook()
    display.show_table(pandas.DataFrame({"x": [0.123456789]}), "A title")
    display.show_figure(b"", "A caption.")
    display.VerdictBox().fill(save_result(tmp_path, "04_x", make_finding("gain", 0.01, 0.03)))
    printed = capsys.readouterr().out
    assert "A title\n" in printed
    assert "0.1235" in printed
    assert "Figure: A caption." in printed
    assert "yes       Is gain so?" in printed
