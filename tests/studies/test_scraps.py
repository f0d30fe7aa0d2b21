"""Scraps: what a notebook leaves in its outputs, and how it is read back."""

from __future__ import annotations

import pytest

from sage_kit.studies import scraps

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")

SOURCE = """
import pandas
from sage_kit.studies import scraps
scraps.glue("numbers", {"value": 1.5, "missing": float("nan")})
scraps.glue("numbers", {"value": 2.5, "missing": float("inf")})
scraps.show_table(pandas.DataFrame({"<b>": [0.123456789]}))
scraps.show_figure(b"\\x89PNG", "A caption.")
"""


def test_a_notebook_leaves_scraps_and_shows_tables_and_figures() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE)])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert scraps.read_scraps(notebook) == {"numbers": {"value": 2.5, "missing": None}}
    outputs = [output["data"] for output in notebook.cells[0].outputs if output["output_type"] == "display_data"]
    tables = [data["text/html"] for data in outputs if "text/html" in data]
    assert any("0.1235" in page and "&lt;b&gt;" in page for page in tables)
    assert any("image/png" in data for data in outputs)
    assert any("A caption." in data.get("text/markdown", "") for data in outputs)
    first = notebook.cells[0].outputs[0]
    assert first["metadata"]["scrapbook"] == {"name": "numbers", "data": True, "display": False}


def test_outside_a_notebook_nothing_is_glued_and_tables_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    import pandas

    assert not scraps.in_notebook()
    scraps.glue("numbers", 1)
    scraps.show_table(pandas.DataFrame({"x": [0.123456789]}))
    scraps.show_figure(b"", "A caption.")
    assert "0.1235" in (printed := capsys.readouterr().out)
    assert "Figure: A caption." in printed
