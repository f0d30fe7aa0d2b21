"""The gallery: one HTML page with a card for each study, and a table of all findings as CSV and parquet beside it.

The page holds its figures, styles and script itself and asks for nothing from elsewhere, so it can be mailed.
"""

from __future__ import annotations

import csv
import datetime
import io
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sage_kit
from sage_kit.errors import MissingPackageError, StudyError
from sage_kit.storage.files import disk_errors, only_finite, write_bytes, write_text
from sage_kit.studies.claims import CLAIMS, TITLE, Claim
from sage_kit.studies.gallery_views import by_study, card_of, cell_view, relative, short_numbers
from sage_kit.studies.ledger import RULE, STATE_MEANINGS, Entry, Fault, ledger_of, read_results
from sage_kit.studies.ledger_text import machine_text, number_text
from sage_kit.studies.result import RESULT, StudyResult
from sage_kit.studies.runner import find_cells
from sage_kit.studies.verdicts import STATES

TEMPLATE = "gallery.html.jinja"
PAGE_ENDINGS = (".html", ".htm")

COLUMNS: Mapping[str, type] = {
    **dict.fromkeys(("study", "label", "profile", "tasks"), str),
    **dict.fromkeys(("seeds", "examples"), int),
    "finding": str,
    **dict.fromkeys(("value", "low", "high", "threshold", "p", "p_adjusted", "detectable"), float),
    **dict.fromkeys(("state", "unit", "claim"), str),
}
"""Columns of the tables beside the page: one row per finding, tasks joined by "+", numbers as in the tables."""

TONES = {
    **dict.fromkeys(("yes", "reproduced", "answered yes"), "good"),
    **dict.fromkeys(("no", "not reproduced", "answered no", "failed"), "bad"),
    **dict.fromkeys(("undecided", "interrupted", "differs in setting", "differs by task"), "open"),
}
"""How a state is coloured; its name is always there too."""


@dataclass(frozen=True)
class Gallery:
    """What was written, and what is wrong with some of what it was made from.

    Attributes
    ----------
    page, csv, parquet : Path
        The page, and the tables of all findings.
    results : int
        How many whole results the page shows.
    faults : tuple of Fault
        Folders that hold no whole result.
    """

    page: Path
    csv: Path
    parquet: Path
    results: int
    faults: tuple[Fault, ...]


def build_gallery(
    results_dir: str | Path | Sequence[str | Path],
    out: str | Path,
    cells_dir: str | Path | None = None,
    claims: Sequence[Claim] = CLAIMS,
    now: datetime.datetime | None = None,
) -> Gallery:
    """Write the gallery: one self-contained HTML file, and the findings as CSV and parquet beside it, under its name.

    What is not a whole result is listed with its fault, and so are cells of `cells_dir` that are not done.

    Parameters
    ----------
    results_dir : path or sequence of path
        Folders of results.
    out : path
        The page; a name without ".html" is a folder, and the page its index.html.
    cells_dir : path or None
        Folder of the executed notebooks.
    claims : sequence of Claim
    now : datetime or None
        When the page says that it was built.

    Raises
    ------
    StudyError
        When a folder of results is not there, or the page's folder is that of a result, whose tables it might replace.
    MissingPackageError
        Without jinja2.
    DiskFullError
    """
    page = _page_path(Path(out))
    folders = [Path(folder) for folder in ([results_dir] if isinstance(results_dir, str | Path) else results_dir)]
    results, faults = read_results(*folders)
    cells = [] if cells_dir is None else find_cells(Path(cells_dir))
    ordered = [result for group in by_study(results) for result in group]
    rows = finding_rows(ordered)
    when = now or datetime.datetime.now(datetime.timezone.utc)
    # two pages of one folder have tables of their own
    stem = page.stem if page.suffix == ".html" else page.name
    gallery = Gallery(page, page.parent / f"{stem}.csv", page.parent / f"{stem}.parquet", len(results), tuple(faults))
    html = _render(gallery, ordered, cells, ledger_of(results, claims), rows, folders, when)
    with disk_errors(str(page)):
        write_text(gallery.csv, csv_text(rows))
        write_bytes(gallery.parquet, _parquet_bytes(rows))
        write_text(page, html)
    return gallery


def _page_path(out: Path) -> Path:
    """Where the page goes, if it may."""
    page = out if out.suffix.lower() in PAGE_ENDINGS else out / "index.html"
    if (page.parent / RESULT).is_file():
        raise StudyError(f"{page.parent} is the folder of a result: name a page in another folder with --out")
    if page.is_dir():
        raise StudyError(f"{page} is a folder: name another page with --out")
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
    gallery: Gallery,
    results: Sequence[StudyResult],
    cells: Sequence[Mapping[str, Any]],
    entries: Sequence[Entry],
    rows: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
    when: datetime.datetime,
) -> str:
    try:
        import jinja2
    except ImportError as error:
        raise MissingPackageError("the gallery needs jinja2: pip install 'sage-kit[notebooks]'") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    base = gallery.page.parent
    environment.filters |= {
        "machine": machine_text,
        "relative": lambda path: relative(path, base),
        "short": short_numbers,
    }
    anchors = {id(result): f"result-{index}" for index, result in enumerate(results)}
    machines = dict.fromkeys(machine_text(result.machine) for result in results)
    claims = [entry.claim for entry in entries]
    cards = [card_of(group, anchors, claims, cells, base) for group in by_study(results)]
    verdicts = Counter(card.view["state"] for card in cards)
    states = Counter(entry.state for entry in entries)
    html: str = environment.get_template(TEMPLATE).render(
        # a text that was written before the page cannot know it, so it can start no script even if it got past the
        # escaping
        nonce=secrets.token_urlsafe(16),
        when=when.strftime("%Y-%m-%d %H:%M %Z").strip(),
        version=sage_kit.__version__,
        folders=folders,
        machines=[machine for machine in machines if machine],
        results=len(results),
        smoke=sum(result.profile == "smoke" for result in results),
        paper=TITLE,
        ledger=[
            {
                "heading": heading,
                "anchor": f"ledger-{index}",
                "entries": [entry for entry in entries if entry.claim.is_question is is_question],
            }
            for index, (heading, is_question) in enumerate((("What the paper claims", False), ("Open questions", True)))
        ],
        anchor_of=lambda result: anchors[id(result)],
        rule=RULE,
        meanings=STATE_MEANINGS,
        tones=TONES,
        verdicts={name: verdicts[name] for name in STATES if verdicts[name]},
        claim_states={name: states[name] for name in STATE_MEANINGS if states[name]},
        cards=cards,
        faults=gallery.faults,
        cells=[cell_view(cell, base) for cell in cells if cell["state"] != "done"],
        columns=list(COLUMNS),
        rows=[_row_view(row) for row in rows],
        csv=gallery.csv.name,
        parquet=gallery.parquet.name,
    )
    return html


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
