"""The gallery in a real browser: no error, nothing asked for, the filter, the keyboard, and text that is inert."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from studies.fakeresults import make_finding, png, save_result

from sage_kit.studies.gallery import build_gallery

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<img src=x onerror=\"document.title='hacked'\"></script><script>document.title='hacked'</script>"

playwright = pytest.importorskip("playwright.sync_api", reason="a browser is driven by playwright")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium, which not every machine has")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gallery")
    yes = make_finding("adaptive_over_static", 0.01, 0.03, claim="adaptive")
    save_result(root / "results", "04_static_or_adaptive", yes, title=EVIL, question=EVIL)
    save_result(root / "results", "04_static_or_adaptive", yes, tasks=("cola",))
    open_one = make_finding("other_over_umap", -1.0, 1.0, claim="other_reducers", sentence="Longword" * 40)
    shown = save_result(root / "results", "05_reducers", open_one, figures=(("wide.png", "Wide"),))
    assert shown.folder is not None
    (shown.folder / "wide.png").write_bytes(png(1200, 300))
    save_result(root / "results", "06_decode_tokens", make_finding("x", 1.0, 2.0, seeds=2), profile="smoke")
    return build_gallery(root / "results", root / "a.html").page


@pytest.fixture
def page(chromium: Any, gallery: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page in a window of the width that a test asks for, whose complaints and requests are noted."""
    context = chromium.new_context(viewport={"width": getattr(request, "param", 1440), "height": 900})
    page = context.new_page()
    page.complaints, page.asked = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(gallery.as_uri())
    yield page
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in page.asked if url.startswith("file:")]) == 1
    context.close()


@pytest.mark.parametrize("page", [1440, 768, 390], indirect=True)
def test_nothing_is_wider_than_the_window_and_text_is_inert(page: Any) -> None:
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for claim in page.locator(".claims > li").all()[:3]:
        claim.locator("summary").click()
        box = claim.locator(".more").bounding_box()
        assert box["x"] + box["width"] <= width
    assert page.title() == "sage-kit studies"
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 1
    assert page.locator(".contents > details").evaluate("fold => fold.open") is (width > 992)


def visible(page: Any) -> list[str]:
    """Studies whose cards, and entries in the contents, are shown."""
    cards = page.locator("article[data-verdict]:visible h3 + p").all_inner_texts()
    named = page.locator(".contents a[data-card]:visible").all_inner_texts()
    assert [text.strip() for text in named] == [text.partition(" ")[0] for text in cards]
    return [text.partition("_")[0] for text in cards]


def test_filter_by_state_and_claim(page: Any) -> None:
    verdict, claim = page.get_by_label("Verdict of the study"), page.get_by_label("Claim or question")
    assert visible(page) == ["04", "05", "06"]
    verdict.select_option("yes")
    assert visible(page) == ["04"]
    assert page.locator("output").inner_text() == "1 of 3 studies shown"
    verdict.select_option("")
    claim.select_option("other_reducers")
    assert visible(page) == ["05"]
    assert page.locator("li[data-claim]:visible").count() == 1
    verdict.select_option("yes")
    assert page.get_by_text("No study fits the filter.").is_visible()
    page.get_by_role("button", name="Show all").click()
    assert visible(page) == ["04", "05", "06"]
    page.get_by_label("smoke runs").uncheck()
    assert visible(page) == ["04", "05"]
    claim.select_option("is undecided")
    assert visible(page) == ["05"]
    # a link leads to what the filter hides, and to what is folded
    page.evaluate("location.hash = 'result-0'")
    page.wait_for_function("!document.getElementById('result-0').closest('[hidden]')")
    page.evaluate("location.hash = 'result-1'")
    page.wait_for_function("document.getElementById('result-1').closest('details').open")


def test_everything_is_reached_by_keyboard(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName + ' ' + (document.activeElement.name ?? '')").strip())
        if page.evaluate("document.activeElement === document.body"):
            break
    assert {"SUMMARY", "A", "SELECT verdict", "SELECT claim", "INPUT smoke", "DIV", "BUTTON"} <= reached
    page.locator(".claims summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".claims details").first.evaluate("fold => fold.open")
    page.locator("#all ~ details > summary").click()
    heading = page.locator("#findings th button").first
    heading.focus()
    page.keyboard.press("Enter")
    assert page.locator("#findings th").first.get_attribute("aria-sort") == "ascending"
