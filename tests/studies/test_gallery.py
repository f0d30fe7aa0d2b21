"""The gallery: one page that holds everything and trusts no text, with a table of findings beside it."""

from __future__ import annotations

import base64
import csv
import datetime
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from pyarrow import parquet
from scipy import stats
from studies.fakeresults import make_finding, png, save_result

from sage_kit.errors import MissingPackageError, StudyError
from sage_kit.studies.gallery import BAR_WIDTH, COLUMNS, build_gallery, interval_bar

NAN = float("nan")
EVIL = "<script>alert('x')</script> & \"quoted\""
NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements with their attributes, text, and the balance of the tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write_cell(folder: Path, **changes: Any) -> None:
    folder.mkdir(parents=True)
    data = {
        "study": "05_reducers",
        "parameters": {"seeds": 5},
        "state": "done",
        "error": "",
        "key": "k",
        "seconds": 3.0,
    }
    (folder / "cell.json").write_text(json.dumps({**data, **changes}), encoding="utf-8")


def build(tmp_path: Path, **options: Any) -> tuple[Page, Path]:
    file = build_gallery(tmp_path / "results", tmp_path / "page" / "gallery.html", now=NOW, **options)
    page = Page(file.read_text(encoding="utf-8"))
    assert page.open == []
    return page, file


def gain(low: float = 0.01, high: float = 0.03, **changes: Any) -> Any:
    return make_finding("adaptive_over_static", low, high, claim="adaptive", **changes)


def test_the_page_shows_what_a_result_says(tmp_path: Path) -> None:
    result = save_result(
        tmp_path / "results", "04_static_or_adaptive", gain(sentence="It is."), make_finding("other", -1.0, 1.0),
        settings={"rounds": 7}, figures=(("gain.png", "Gain with intervals"),),
    )  # fmt: skip
    (tmp_path / "results/04_static_or_adaptive/small-cola+sst2/gain.png").write_bytes(png())
    page, _ = build(tmp_path)
    for text in (
        result.title,
        result.question,
        "It is. About other.",
        "+2.00 (+1.00 to +3.00)",
        "+2.00 points (95 % CI +1.00 to +3.00)",
        "Gain with intervals",
        "Test CPU, 2 cores",
        "tasks cola, sst2",
        "5 seeds",
        "2026-01-02 03:04 UTC",
        "rounds",
        "7",
        "differs in setting",
        "no warm-up",
        "the finding: yes",
        "undecided",
    ):
        assert text in page.text
    (image,) = page.all("img")
    assert image["alt"] == "Gain with intervals"
    assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == png()


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "results/04_static_or_adaptive/small-cola+sst2"
    save_result(tmp_path / "results", folder.parent.name, gain(), figures=(("gain.png", ""),))
    (folder / "gain.png").write_bytes(png())
    (folder / "made here.ipynb").write_text("{}", encoding="utf-8")
    page, file = build(tmp_path)
    assert not page.all("link")
    assert not page.all("iframe")
    for _, attributes in page.elements:
        assert attributes.get("src", "data:").startswith("data:")
        assert "srcset" not in attributes
    html = file.read_text(encoding="utf-8")
    for word in ("http://", "https://", "url(", "@import"):
        assert word not in html
    links = [attributes["href"] for attributes in page.all("a")]
    anchors = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    files = [link for link in links if not link.startswith("#")]
    assert "../results/04_static_or_adaptive/small-cola%2Bsst2/made%20here.ipynb" in files
    assert all((file.parent / unquote(link)).exists() for link in files)


def test_text_is_escaped_wherever_it_comes_from(tmp_path: Path) -> None:
    results, cells = tmp_path / "results", tmp_path / "cells"
    finding = gain(sentence=EVIL, question=EVIL, unit=EVIL)
    save_result(
        results,
        "04_static_or_adaptive",
        finding,
        title=EVIL,
        question=EVIL,
        settings={EVIL: EVIL},
        parameters={EVIL: EVIL},
        machine={"processor": EVIL},
        packages={EVIL: EVIL},
        data={EVIL: EVIL},
        time=EVIL,
        figures=((EVIL, EVIL), ("a.png", EVIL)),
    )
    (results / "04_static_or_adaptive/small-cola+sst2/a.png").write_bytes(png())
    write_cell(cells / "05_reducers" / "1", state="failed", error=EVIL, study=EVIL, parameters={"a": EVIL})
    (results / "04_static_or_adaptive" / "<script>").mkdir()
    page, _ = build(tmp_path, cells_dir=cells)
    assert len(page.all("script")) == 1
    assert page.text.count(EVIL) >= 14
    assert page.all("img")[0]["alt"] == EVIL
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_a_smoke_result_is_marked_and_comes_last(tmp_path: Path) -> None:
    save_result(tmp_path / "results", "01_reducer_dimension", make_finding("umap2_over_none", 1, 2), profile="smoke")
    save_result(tmp_path / "results", "04_static_or_adaptive", gain())
    page, _ = build(tmp_path)
    assert [attributes.get("class", "") for attributes in page.all("article")] == ["", "smoke"]
    assert [attributes.get("class", "") for attributes in page.all("tr")].count("smoke") == 1
    assert page.text.count("is no evidence") == 1
    assert "1 of them smoke" in page.text
    assert "smoke results only" in page.text  # in the ledger


def test_bad_folders_figures_and_cells_are_listed_and_not_fatal(tmp_path: Path) -> None:
    results, cells = tmp_path / "results", tmp_path / "cells"
    figures = (("gone.png", "a"), ("cut.png", "b"), ("../../../secret.png", "c"), ("page.svg", "d"))
    save_result(results, "04_static_or_adaptive", gain(), figures=figures)
    (results / "04_static_or_adaptive/small-cola+sst2/cut.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(png())
    (results / "05_reducers" / "small-rte").mkdir(parents=True)
    (results / "05_reducers" / "small-cola").mkdir(parents=True)
    (results / "05_reducers" / "small-cola" / "result.json").write_text("{", encoding="utf-8")
    write_cell(cells / "05_reducers" / "failed", state="failed", error="ValueError: no such thing\n  at line 3")
    write_cell(cells / "05_reducers" / "interrupted", state="running", parameters={"task": "rte"}, seconds=None)
    write_cell(cells / "05_reducers" / "fine", parameters={"task": "unseen"})
    for name, text in (("broken", "[1]"), ("cut", "{")):
        (cells / "05_reducers" / name).mkdir()
        (cells / "05_reducers" / name / "cell.json").write_text(text, encoding="utf-8")
    page, _ = build(tmp_path, cells_dir=cells)
    for text in (
        "gone.png cannot be read (FileNotFoundError)",
        "cut.png is not whole",
        "secret.png is not shown",
        "page.svg is not shown",
        "../results/05_reducers/small-rte",
        "has no result.json",
        "../results/05_reducers/small-cola",
        "is not readable",
        "cell.json is not readable",
        "ValueError: no such thing\n  at line 3",
        "task=rte",
        "seeds=5",
    ):
        assert text in page.text
    assert page.text.count("cell.json is not readable") == 2
    assert "05_reducers interrupted" in page.text  # it says it is running, and nobody executes it
    assert "task=unseen" not in page.text
    assert page.all("img") == []


def test_the_notebook_of_the_cell_that_made_a_result_is_linked(tmp_path: Path) -> None:
    cells = tmp_path / "cells"
    save_result(
        tmp_path / "results",
        "05_reducers",
        make_finding("other_over_umap", 1, 2),
        parameters={"seeds": 5, "task": None, "runs_dir": "a"},
    )
    for name, changes in {
        "it": {"parameters": {"seeds": 5, "task": None, "runs_dir": "b", "not_recorded": 1}},
        "other": {"parameters": {"seeds": 6, "task": None}},
        "task": {"parameters": {"seeds": 5, "task": "rte"}},
        "failed": {"parameters": {"seeds": 5}, "state": "running"},
        "study": {"study": "06_decode_tokens"},
    }.items():
        write_cell(cells / "05_reducers" / name, **changes)
        (cells / "05_reducers" / name / f"{name}.ipynb").write_text("{}", encoding="utf-8")
    page, _ = build(tmp_path, cells_dir=cells)
    card = page.text[page.text.index("Parameters, data, machine") :]
    assert "it.ipynb" in card
    for name in ("other", "task", "failed", "study"):
        assert f"{name}.ipynb" not in card


def test_tables_beside_the_page_hold_every_finding(tmp_path: Path) -> None:
    save_result(
        tmp_path / "results", "04_static_or_adaptive", gain(unit='a,"b"'), make_finding("none", NAN, NAN, value=NAN)
    )
    _, file = build(tmp_path)
    rows = parquet.read_table(file.parent / "results.parquet").to_pylist()
    first = {
        "study": "04_static_or_adaptive",
        "label": "small-cola+sst2",
        "profile": "small",
        "tasks": "cola+sst2",
        "seeds": 5,
        "finding": "adaptive_over_static",
        "value": 0.02,
        "low": 0.01,
        "high": 0.03,
        "threshold": 0.0,
        "state": "yes",
        "unit": 'a,"b"',
        "claim": "adaptive",
    }
    assert {name: rows[0][name] for name in first} == first
    assert rows[0]["p"] == rows[0]["p_adjusted"] == pytest.approx(2 * stats.norm.sf(2 * 1.959964))
    assert rows[0]["detectable"] == pytest.approx(0.01 / 1.959964 * (1.959964 + stats.norm.ppf(0.8)))
    assert [(row["finding"], row["value"], row["state"]) for row in rows[1:]] == [("none", None, "undecided")]
    with (file.parent / "results.csv").open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [list(row) for row in read] == [list(COLUMNS)] * 2
    for text, row in zip(read, rows, strict=True):
        assert text == {name: "" if value is None else str(value) for name, value in row.items()}


def test_no_result_at_all_still_gives_a_page_and_typed_tables(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    file = build_gallery(tmp_path / "results", tmp_path / "page")
    assert file == tmp_path / "page" / "index.html"
    assert "There is no whole result yet." in Page(file.read_text(encoding="utf-8")).text
    table = parquet.read_table(file.parent / "results.parquet")
    assert (table.num_rows, table.column_names) == (0, list(COLUMNS))
    assert str(table.schema.field("value").type) == "double"
    assert len((file.parent / "results.csv").read_text(encoding="utf-8").splitlines()) == 1


def test_the_page_may_lie_among_the_results(tmp_path: Path) -> None:
    save_result(tmp_path / "results", "04_static_or_adaptive", gain())
    pages = [build_gallery(tmp_path / "results", tmp_path / "results", now=NOW).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]
    assert b'href="04_static_or_adaptive/small-cola%2Bsst2"' in pages[0]


def test_no_folder_of_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no folder of results"):
        build_gallery(tmp_path / "nowhere", tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_a_folder_of_cells_that_is_not_there_holds_none(tmp_path: Path) -> None:
    save_result(tmp_path / "results", "04_static_or_adaptive", gain())
    page, _ = build(tmp_path, cells_dir=tmp_path / "nowhere")
    assert "What did not finish" not in page.text


def test_without_jinja2_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'sage-kit\[notebooks\]'"):
        build_gallery(tmp_path / "results", tmp_path / "page")


# ---- drawing of an interval


def test_places_of_an_interval_keep_order_and_proportion() -> None:
    bar = interval_bar(2.0, 1.0, 5.0, 0.0)
    assert bar is not None
    assert 0 < bar["threshold"] < bar["low"] < bar["value"] < bar["high"] < BAR_WIDTH
    unit = (bar["high"] - bar["threshold"]) / 5
    assert bar["low"] - bar["threshold"] == pytest.approx(unit, abs=0.1)
    assert bar["value"] - bar["threshold"] == pytest.approx(2 * unit, abs=0.1)


def test_an_interval_without_width_stands_in_the_middle() -> None:
    assert set((interval_bar(1.0, 1.0, 1.0, 1.0) or {}).values()) == {BAR_WIDTH / 2}


def test_what_is_not_a_number_is_not_drawn() -> None:
    assert interval_bar(1.0, NAN, 2.0, 0.0) is None
