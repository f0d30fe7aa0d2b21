"""The gallery: one HTML page of every study's result, and a table of all findings as CSV and parquet beside it.

The page holds its figures, styles and script itself and asks for nothing from elsewhere, so it can be mailed.
"""

from __future__ import annotations

import base64
import csv
import datetime
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sage_kit
from sage_kit.errors import MissingPackageError
from sage_kit.storage.files import disk_errors, only_finite, write_bytes, write_text
from sage_kit.studies import verdicts
from sage_kit.studies.cell_key import NEUTRAL
from sage_kit.studies.claims import CLAIMS, TITLE, Claim
from sage_kit.studies.ledger import RULE, STATE_MEANINGS, Entry, Fault, ledger_of, read_results
from sage_kit.studies.ledger_text import interval_text, machine_text, number_text
from sage_kit.studies.result import RESULT, Finding, StudyResult
from sage_kit.studies.runner import find_cells, parameters_text

TEMPLATE = "gallery.html.jinja"
CSV, PARQUET = "results.csv", "results.parquet"

COLUMNS: Mapping[str, type] = {
    **dict.fromkeys(("study", "label", "profile", "tasks"), str),
    **dict.fromkeys(("seeds", "examples"), int),
    "finding": str,
    **dict.fromkeys(("value", "low", "high", "threshold", "p", "p_adjusted", "detectable"), float),
    **dict.fromkeys(("state", "unit", "claim"), str),
}
"""Columns of results.csv and results.parquet: one row per finding, tasks joined by "+", numbers as in the tables."""

TONES = {
    **dict.fromkeys(("yes", "reproduced", "answered yes"), "good"),
    **dict.fromkeys(("no", "not reproduced", "answered no", "failed"), "bad"),
    **dict.fromkeys(("undecided", "interrupted", "differs in setting", "differs by task"), "open"),
}
"""How a state is coloured; its name is always there too."""

IMAGES = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff"}
"""Kinds of figure, and how such a file begins."""

BAR_WIDTH = 144.0  # width of the drawing of an interval [units of its view box]


def build_gallery(
    results_dir: str | Path | Sequence[str | Path],
    out: str | Path,
    cells_dir: str | Path | None = None,
    claims: Sequence[Claim] = CLAIMS,
    now: datetime.datetime | None = None,
) -> Path:
    """Write the gallery: one self-contained HTML file, and results.csv and results.parquet beside it.

    A name without ".html" is a folder, and the file its index.html. What is not a whole result is listed with its
    fault, and so are cells of `cells_dir` that are not done.
    """
    out = Path(out)
    page = out if out.suffix.lower() in (".html", ".htm") else out / "index.html"
    folders = [Path(folder) for folder in ([results_dir] if isinstance(results_dir, str | Path) else results_dir)]
    results, faults = read_results(*folders)
    results.sort(key=lambda result: (result.profile == "smoke", result.study, result.label))
    cells = [] if cells_dir is None else find_cells(Path(cells_dir))
    rows = finding_rows(results)
    when = now or datetime.datetime.now(datetime.timezone.utc)
    html = _render(results, faults, cells, ledger_of(results, claims), rows, folders, page.parent, when)
    with disk_errors(str(page)):
        write_text(page.parent / CSV, csv_text(rows))
        write_bytes(page.parent / PARQUET, _parquet_bytes(rows))
        write_text(page, html)
    return page


def finding_rows(results: Iterable[StudyResult]) -> list[dict[str, Any]]:
    """One row per finding with the names of `COLUMNS`; numbers that are not finite are None."""
    return [
        only_finite(
            {
                "study": result.study,
                "label": result.label,
                "profile": result.profile,
                "tasks": "+".join(result.tasks),
                "finding": finding.name,
                **{name: getattr(finding, name) for name in COLUMNS if hasattr(finding, name)},
            }
        )
        for result in results
        for finding in result.findings
    ]


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as CSV with a heading; None is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _parquet_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    # with types given, a table without rows has them too
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _render(
    results: Sequence[StudyResult],
    faults: Sequence[Fault],
    cells: Sequence[Mapping[str, Any]],
    entries: Sequence[Entry],
    rows: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
    base: Path,
    when: datetime.datetime,
) -> str:
    try:
        import jinja2
    except ImportError as error:
        raise MissingPackageError("the gallery needs jinja2: pip install 'sage-kit[notebooks]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"machine": machine_text, "relative": lambda path: _relative(path, base)}
    anchors = {id(result): f"result-{index}" for index, result in enumerate(results)}
    machines = dict.fromkeys(machine_text(result.machine) for result in results)
    html: str = environment.get_template(TEMPLATE).render(
        when=when.strftime("%Y-%m-%d %H:%M %Z").strip(),
        version=sage_kit.__version__,
        folders=folders,
        machines=[machine for machine in machines if machine],
        smoke=sum(result.profile == "smoke" for result in results),
        paper=TITLE,
        claims=[entry for entry in entries if not entry.claim.is_question],
        questions=[entry for entry in entries if entry.claim.is_question],
        anchor_of=lambda result: anchors[id(result)],
        rule=RULE,
        meanings=STATE_MEANINGS,
        tones=TONES,
        cards=[_card_view(result, anchors[id(result)], cells, base) for result in results],
        faults=faults,
        cells=[_cell_view(cell, base) for cell in cells if cell["state"] != "done"],
        columns=list(COLUMNS),
        rows=[_row_view(row) for row in rows],
        csv=CSV,
        parquet=PARQUET,
    )
    return html


def _card_view(result: StudyResult, anchor: str, cells: Iterable[Mapping[str, Any]], base: Path) -> dict[str, Any]:
    folder = result.folder
    assert folder is not None, "the result was not loaded from a folder"
    notebooks = [
        *folder.glob("[!.]*.ipynb"),
        *(path for cell in cells if _made(cell, result) for path in _notebooks(cell)),
    ]
    links = [_link(folder, base, "result folder"), _link(folder / RESULT, base, RESULT)]
    return {
        "result": result,
        "anchor": anchor,
        "is_smoke": result.profile == "smoke",
        "findings": [_finding_view(finding) for finding in result.findings],
        "figures": [_figure_view(folder, file, caption, result.title) for file, caption in result.figures],
        "settings": _texts(result.settings),
        "details": [
            ("Parameters", _texts(result.parameters)),
            ("Data", _texts(result.data)),
            ("Machine", _texts({**result.machine, "seconds": result.seconds})),
            ("Versions", _texts(result.packages)),
        ],
        "links": links + [_link(path, base, path.name) for path in dict.fromkeys(sorted(notebooks))],
    }


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as a person reads them; those that were left out are not shown."""
    texts = {}
    for name, value in values.items():
        if isinstance(value, float):
            texts[name] = number_text(value)
        elif isinstance(value, list | tuple):
            texts[name] = ", ".join(map(str, value))
        elif value is not None:
            texts[name] = str(value)
    return {name: text for name, text in texts.items() if text}


def _finding_view(finding: Finding) -> dict[str, Any]:
    threshold = verdicts.number_text(finding.threshold, finding.unit)
    return {
        "finding": finding,
        "interval": interval_text(finding),
        "against": f"{'>' if finding.direction == 'above' else '<'} {threshold}",
        "bar": interval_bar(finding.value, finding.low, finding.high, finding.threshold),
        "unit": verdicts.unit_text(finding.unit),
    }


def interval_bar(value: float, low: float, high: float, threshold: float) -> dict[str, float] | None:
    """Places of an interval, its value and the threshold from 0 to `BAR_WIDTH`; None when one is not a number."""
    numbers = {"value": value, "low": low, "high": high, "threshold": threshold}
    if not all(math.isfinite(number) for number in numbers.values()):
        return None
    start, end = min(numbers.values()), max(numbers.values())
    margin = 6.0  # so that the dot is whole
    scale = (BAR_WIDTH - 2 * margin) / (end - start) if end > start else 0.0
    centre = margin if scale else BAR_WIDTH / 2
    return {name: round(centre + (number - start) * scale, 1) for name, number in numbers.items()}


def _figure_view(folder: Path, file: str, caption: str, title: str) -> dict[str, str]:
    view = {"caption": caption, "alt": caption or f"Figure {file} of {title}", "source": "", "fault": ""}
    path = folder / file
    beginning = IMAGES.get(path.suffix.lower())
    if beginning is None or path.name != file:
        return view | {"fault": f"The figure {file} is not shown: it is no PNG or JPEG file of this folder."}
    try:
        data = path.read_bytes()
    except OSError as error:
        return view | {"fault": f"The figure {file} cannot be read ({type(error).__name__}): run the study again."}
    if not data.startswith(beginning):
        return view | {"fault": f"The figure {file} is not whole: run the study again."}
    kind = "png" if path.suffix.lower() == ".png" else "jpeg"
    return view | {"source": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}


def _cell_view(cell: Mapping[str, Any], base: Path) -> dict[str, Any]:
    seconds = cell.get("seconds")
    return {
        "study": cell["study"],
        "state": cell["state"],
        "parameters": parameters_text(cell.get("parameters") or {}) or "no parameters",
        "seconds": "" if seconds is None else f"{number_text(seconds)} s",
        "error": cell.get("error") or "",
        "last_line": cell.get("last_line") or "",
        "links": [
            _link(Path(cell["directory"]), base, "folder"),
            *(_link(path, base, path.name) for path in _notebooks(cell)),
        ],
    }


def _row_view(row: Mapping[str, Any]) -> dict[str, Any]:
    cells = []
    for name, kind in COLUMNS.items():
        value = row[name]
        if kind is str:
            cells.append({"text": value, "sort": None})
        else:
            missing = value is None
            text = "-" if missing else number_text(float(value))
            cells.append({"text": text, "sort": "" if missing else repr(value)})
    return {"profile": row["profile"], "cells": cells}


def _made(cell: Mapping[str, Any], result: StudyResult) -> bool:
    """Whether a cell is where a result was made: it is done, and they differ in no parameter that both record."""
    parameters = cell.get("parameters") or {}
    shared = (parameters.keys() & result.parameters.keys()) - NEUTRAL
    return (
        cell["state"] == "done"
        and cell["study"] == result.study
        and all(parameters[name] == result.parameters[name] for name in shared)
    )


def _notebooks(cell: Mapping[str, Any]) -> list[Path]:
    return sorted(Path(cell["directory"]).glob("[!.]*.ipynb"))


def _link(path: Path, base: Path, text: str) -> dict[str, str]:
    return {"href": quote(_relative(path, base)), "text": text}


def _relative(path: Path, base: Path) -> str:
    """`path` as seen from the page's folder; as it is where no relative path leads there (another drive)."""
    try:
        relative = os.path.relpath(path, base)
    except ValueError:
        return path.as_posix()
    return Path(relative).as_posix()
