"""The gallery: one page that holds everything and trusts no text, with a table of findings beside it."""

from __future__ import annotations

import base64
import csv
import datetime
import io
import json
import random
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image
from pyarrow import parquet
from scipy import stats
from studies.fakeresults import decide, make_finding, png, save_result

from sage_kit.errors import MissingPackageError, StudyError
from sage_kit.studies.gallery import COLUMNS, build_gallery
from sage_kit.studies.gallery_views import BAR_WIDTH, detectable_sentence, figure_view, interval_bar

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
    file = build_gallery(tmp_path / "results", tmp_path / "page" / "gallery.html", now=NOW, **options).page
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
        "It is.",
        "About other.",
        "Detectable with 80 % chance at the correction over 2 findings: a difference of 1.6 points.",
        "All 2 findings (1 yes, 1 undecided)",
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
    assert (image["alt"], image["width"], image["height"]) == ("Gain with intervals", "2", "2")
    shown = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    original = Image.open(io.BytesIO(png()))
    assert shown.convert("RGB").tobytes() == original.convert("RGB").tobytes()  # every pixel as it was
    assert [item["id"] for item in page.all("article")] == ["result-0"]
    assert page.text.index("The student reaches 91.2 on QNLI.") < page.text.index(result.title)


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
    (script,), (style,) = page.all("script"), page.all("style")
    policy = next(item["content"] for item in page.all("meta") if item.get("http-equiv") == "Content-Security-Policy")
    assert script["nonce"] == style["nonce"]
    assert f"script-src 'nonce-{script['nonce']}'" in policy
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none';")
    assert not [attributes for _, attributes in page.elements if "style" in attributes]
    assert page.text.count(EVIL) >= 14
    assert page.all("img")[0]["alt"] == EVIL
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_a_smoke_result_is_marked_and_comes_last(tmp_path: Path) -> None:
    save_result(tmp_path / "results", "01_reducer_dimension", make_finding("umap2_over_none", 1, 2), profile="smoke")
    save_result(tmp_path / "results", "04_static_or_adaptive", gain())
    page, _ = build(tmp_path)
    cards = page.all("article")
    assert [attributes.get("class", "") for attributes in cards] == ["", "smoke"]
    assert [attributes["data-verdict"] for attributes in cards] == ["yes", "yes"]
    assert set(cards[0]["data-claims"].split()) == {"adaptive", "ten_epochs"}
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
    gallery = build_gallery(results, tmp_path / "other", cells_dir=cells)
    assert [(fault.path.name, gallery.results) for fault in gallery.faults] == [("small-cola", 1), ("small-rte", 1)]
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
    card = page.text[page.text.index("parameters, data, machine") :]
    assert "it.ipynb" in card
    for name in ("other", "task", "failed", "study"):
        assert f"{name}.ipynb" not in card


def test_tables_beside_the_page_hold_every_finding(tmp_path: Path) -> None:
    save_result(
        tmp_path / "results", "04_static_or_adaptive", gain(unit='a,"b"'), make_finding("none", NAN, NAN, value=NAN)
    )
    _, file = build(tmp_path)
    rows = parquet.read_table(file.parent / "gallery.parquet").to_pylist()
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
    with (file.parent / "gallery.csv").open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [list(row) for row in read] == [list(COLUMNS)] * 2
    for text, row in zip(read, rows, strict=True):
        assert text == {name: "" if value is None else str(value) for name, value in row.items()}


def test_no_result_at_all_still_gives_a_page_and_typed_tables(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    file = build_gallery(tmp_path / "results", tmp_path / "page").page
    assert file == tmp_path / "page" / "index.html"
    assert "There is no whole result yet." in Page(file.read_text(encoding="utf-8")).text
    table = parquet.read_table(file.parent / "index.parquet")
    assert (table.num_rows, table.column_names) == (0, list(COLUMNS))
    assert str(table.schema.field("value").type) == "double"
    assert len((file.parent / "index.csv").read_text(encoding="utf-8").splitlines()) == 1


def test_the_page_may_lie_among_the_results_and_changes_by_its_nonce_alone(tmp_path: Path) -> None:
    save_result(tmp_path / "results", "04_static_or_adaptive", gain())
    pages = [
        build_gallery(tmp_path / "results", tmp_path / "results", now=NOW).page.read_text(encoding="utf-8")
        for _ in range(2)
    ]
    nonces = [Page(page).all("script")[0]["nonce"] for page in pages]
    assert nonces[0] != nonces[1]
    assert pages[0].replace(nonces[0], "") == pages[1].replace(nonces[1], "")
    assert 'href="04_static_or_adaptive/small-cola%2Bsst2"' in pages[0]


def test_pages_of_one_folder_have_tables_of_their_own(tmp_path: Path) -> None:
    save_result(tmp_path / "some", "04_static_or_adaptive", gain())
    save_result(tmp_path / "more", "04_static_or_adaptive", gain(), make_finding("other", -1.0, 1.0))
    first = build_gallery(tmp_path / "some", tmp_path / "page" / "a.html")
    kept = first.csv.read_bytes(), first.parquet.read_bytes(), first.page.read_bytes()
    for name in ("b.html", "a.htm"):
        other = build_gallery(tmp_path / "more", tmp_path / "page" / name)
        assert other.csv.read_bytes() != kept[0]
    assert (first.csv.read_bytes(), first.parquet.read_bytes(), first.page.read_bytes()) == kept
    assert len(list((tmp_path / "page").iterdir())) == 9
    assert 'href="a.htm.csv"' in (tmp_path / "page" / "a.htm").read_text(encoding="utf-8")


def test_a_page_replaces_no_table_of_a_result(tmp_path: Path) -> None:
    result = save_result(tmp_path / "results", "04_static_or_adaptive", gain())
    assert result.folder is not None
    before = sorted(path.name for path in result.folder.iterdir())
    for out in (result.folder / "runs.html", result.folder):
        with pytest.raises(StudyError, match="is the folder of a result: name a page in another folder with --out"):
            build_gallery(tmp_path / "results", out)
    assert sorted(path.name for path in result.folder.iterdir()) == before
    (tmp_path / "x.html").mkdir()
    with pytest.raises(StudyError, match=r"x\.html is a folder"):
        build_gallery(tmp_path / "results", tmp_path / "x.html")


def test_a_study_has_one_card_whose_further_results_are_folded(tmp_path: Path) -> None:
    for changes in (
        {"profile": "smoke", "tasks": ("rte",), "time": "2026-03-01"},
        {"tasks": ("cola",), "sentence": "The one task."},
        {"sentence": "Both tasks."},
    ):
        sentence = changes.pop("sentence", "Smoke.")
        save_result(tmp_path / "results", "04_static_or_adaptive", gain(sentence=sentence), **changes)
    page, _ = build(tmp_path)
    (card,) = page.all("article")
    assert "class" not in card
    assert page.text.index("Both tasks.") < page.text.index("Another result: small-cola (yes)")
    assert page.text.index("The one task.") < page.text.index("Another result: smoke-rte")
    anchors = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {"result-0", "result-1", "result-2"} <= anchors


def test_the_leading_figure_is_that_of_the_main_finding(tmp_path: Path) -> None:
    figures = (("first.png", "First"), ("comparison.png", "That of the finding"), ("last.png", "Last"))
    result = save_result(tmp_path / "results", "04_static_or_adaptive", gain(), figures=figures)
    assert result.folder is not None
    for name, _ in figures:
        (result.folder / name).write_bytes(png())
    page, _ = build(tmp_path)
    assert [image["alt"] for image in page.all("img")] == ["That of the finding", "First", "Last"]
    assert "2 further figures" in page.text


def test_a_figure_is_never_larger_than_its_file_and_a_bomb_is_not_opened(tmp_path: Path) -> None:
    noise = random.Random(0)
    image = Image.new("L", (64, 64))
    image.putdata([noise.randrange(256) for _ in range(64 * 64)])
    image.save(tmp_path / "noise.jpg", quality=20)
    view = figure_view(tmp_path, "noise.jpg", "", "T")
    data = base64.b64decode(view["source"].removeprefix("data:image/jpeg;base64,"))
    assert data == (tmp_path / "noise.jpg").read_bytes()
    Image.new("1", (10_000, 10_000)).save(tmp_path / "bomb.png")
    assert "too many pixels" in figure_view(tmp_path, "bomb.png", "", "T")["fault"]


def test_what_a_design_could_have_found_is_a_sentence() -> None:
    finding = decide(make_finding("a", -0.01, 0.03))[0]
    assert detectable_sentence(finding) == (
        "Detectable with 80 % chance at the correction over 1 findings: a difference of 2.9 points."
    )
    few = decide(make_finding("a", -0.01, 0.03, seeds=2))[0]
    assert detectable_sentence(few) == "Nothing can be decided: 2 seeds, and a decision needs 5."
    share = decide(make_finding("a", 0.3, 0.9, counts=(3, 5), threshold=0.5))[0]
    assert detectable_sentence(share) == ""  # no share of five runs is found with that chance
    assert detectable_sentence(decide(make_finding("a", NAN, NAN, value=NAN))[0]) == ""


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
