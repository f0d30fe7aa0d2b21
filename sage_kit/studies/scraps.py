"""Scraps: data that a notebook leaves in its own outputs, under the MIME type that scrapbook readers know.

A scrap is an output of type ``application/scrapbook.scrap.json+json`` whose value is ``{"name", "data", "encoder",
"version"}``. Outside a notebook the same is printed as text.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sage_kit.files import only_finite
from sage_kit.studies.result import StudyResult

if TYPE_CHECKING:
    from pandas import DataFrame

MIME_TYPE = "application/scrapbook.scrap.json+json"
VERSION = 1
MOST_ROWS = 2000
"""Longer tables are glued by their size only; the parquet file holds them."""


def glue(name: str, data: Any) -> None:
    """Leave JSON data under a name in the notebook's outputs; outside a notebook nothing happens.

    Parameters
    ----------
    name : str
    data
        Whatever JSON takes; NaN and infinity become None.
    """
    if not in_notebook():
        return
    from IPython.display import display

    content = {MIME_TYPE: {"name": name, "data": only_finite(data), "encoder": "json", "version": VERSION}}
    display(content, metadata={"scrapbook": {"name": name, "data": True, "display": False}}, raw=True)


def glue_result(result: StudyResult, tables: Mapping[str, DataFrame]) -> None:
    """Glue a result and its tables, and show the verdict."""
    glue("result", result.to_json())
    for name, table in tables.items():
        rows: Any = json.loads(table.to_json(orient="records"))
        glue(name, rows if len(rows) <= MOST_ROWS else {"rows": len(rows), "file": f"{name}.parquet"})
    show_verdict(result)


def show_verdict(result: StudyResult) -> None:
    """Show findings with their state, sentence and corrected p: as HTML in a notebook, else as text."""
    if not in_notebook():
        print(_verdict_text(result))
        return
    from IPython.display import display

    display({"text/html": _verdict_html(result), "text/plain": _verdict_text(result)}, raw=True)


def show_table(table: DataFrame) -> None:
    """Show a table with numbers of four digits."""
    if not in_notebook():
        print(table.to_string(index=False, float_format="{:.4g}".format))
        return
    from IPython.display import display

    page = table.to_html(index=False, float_format="{:.4g}".format, border=0)
    display({"text/html": page, "text/plain": table.to_string(index=False)}, raw=True)


def show_figure(png: bytes, caption: str) -> None:
    """Show a picture and its caption."""
    if not in_notebook():
        print(f"Figure: {caption}")
        return
    from IPython.display import display

    data = base64.b64encode(png).decode("ascii")
    display({"image/png": data, "text/plain": caption}, raw=True)
    display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)


def read_scraps(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """The scraps of an executed notebook.

    Parameters
    ----------
    notebook : mapping
        As nbformat reads it.

    Returns
    -------
    dict
        Data by name; of several under one name, the last.
    """
    found: dict[str, Any] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            scrap = output.get("data", {}).get(MIME_TYPE)
            if scrap is not None:
                found[scrap["name"]] = scrap["data"]
    return found


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _rows(result: StudyResult) -> Iterator[tuple[str, str, str, str]]:
    for finding in result.findings:
        p = "-" if math.isnan(finding.p_adjusted) else f"{finding.p_adjusted:.2g}"
        yield finding.state, finding.question, finding.sentence, p


def _verdict_text(result: StudyResult) -> str:
    lines = [
        f"{state:<9} {question}\n          {sentence}\n          corrected p: {p}"
        for state, question, sentence, p in _rows(result)
    ]
    return "\n".join([f"{result.title}: {result.verdict[0]}", *_notes(result), *lines])


def _verdict_html(result: StudyResult) -> str:
    rows = "".join(
        f"<tr><td><b>{html.escape(state)}</b></td><td style='text-align:left'>{html.escape(question)}<br>"
        f"{html.escape(sentence)}</td><td>{p}</td></tr>"
        for state, question, sentence, p in _rows(result)
    )
    notes = "".join(f"<p><b>{html.escape(note)}</b></p>" for note in _notes(result))
    head = "<tr><th>verdict</th><th style='text-align:left'>question</th><th>p, corrected</th></tr>"
    return f"{notes}<table>{head}{rows}</table>"


def _notes(result: StudyResult) -> list[str]:
    return ["A smoke run: these numbers are no evidence."] if result.profile == "smoke" else []
