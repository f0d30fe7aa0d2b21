"""The page in a real browser, headless: drawn, hovered, selected, by keyboard, narrow, dark, and with hostile text."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from generatedrun import generated_run

from sage_bench.explorer import browser as started_browser
from sage_bench.explorer import why_no_browser
from sage_kit.explorer.page_data import page_data
from sage_kit.explorer.page_file import asset, write_page

SLOW = 60_000
"""Milliseconds that a step may take on a busy machine, whose GPU is computed."""

HOSTILE = "</script><img src=x onerror=\"document.title='bad'\"><b>bold</b> \u202egnp.\u202c \x1b[31m \x00 & \u2028 end"

pytestmark = [
    pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser() or "there is one"),
    # playwright's own, on some versions of Python
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages: of one run, of that beside a plain one, and of one whose texts are hostile."""
    folder = tmp_path_factory.mktemp("browser")
    one = generated_run(folder / "one", examples=600)
    plain = folder / "plain"
    shutil.copytree(one, plain)
    config = (plain / "config.toml").read_text(encoding="utf-8")
    (plain / "config.toml").write_text(config.replace('schedule = "adaptive"', 'schedule = "none"'), encoding="utf-8")
    (plain / "map.safetensors").unlink()
    for path in plain.glob("rounds/*/synthetic.safetensors"):
        path.unlink()
    bad = generated_run(folder / "bad", examples=60)
    rows = (folder / "bad" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    spoilt = [{**json.loads(row), "text": f"{HOSTILE} {number}"} for number, row in enumerate(rows)]
    text = "".join(json.dumps(row) + "\n" for row in spoilt)
    (folder / "bad" / "train.jsonl").write_text(text, encoding="utf-8")
    for name, runs in {"one": [one], "two": [one, plain], "bad": [bad]}.items():
        write_page(folder / f"{name}.html", page_data(runs), name)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Any, folder: Path) -> Iterator[Any]:
    """Opens a page; at the end nothing may have gone wrong in it, and nothing may have been asked for."""
    contexts, faults = [], []

    def visit(name: str, *, width: int = 1280, height: int = 900, theme: str = "light") -> Any:
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce")
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        address = (folder / f"{name}.html").as_uri()
        page.on("request", lambda asked: faults.append(asked.url) if asked.url not in (address, "data:,") else None)
        page.goto(address)
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert faults == []


def pixels(page: Any) -> int:
    """How many different colours the map has."""
    return int(
        page.evaluate(
            """() => new Promise((resolve) => {
                const app = window.sageExplorer, map = app.maps[0];
                map.plot.subscribe('drawing', () => {
                    const shot = document.createElement('canvas');
                    shot.width = map.ground.width; shot.height = map.ground.height;
                    const context = shot.getContext('2d');
                    context.drawImage(map.ground, 0, 0);
                    const { data } = context.getImageData(0, 0, shot.width, shot.height);
                    resolve(new Set(new Uint32Array(data.buffer)).size);
                }, 1);
                map.redraw();
            })"""
        )
    )


def place_of(page: Any, point: int) -> tuple[float, float]:
    """Where a point of the map is on the screen."""
    found = page.evaluate(
        """(point) => {
            const map = window.sageExplorer.maps[0];
            return map.onScreen(map.xy.slice(2 * point, 2 * point + 2));
        }""",
        point,
    )
    return float(found[0]), float(found[1])


def text_of(page: Any, point: int) -> str:
    return str(page.evaluate("(point) => window.sageExplorer.run.group.text(point)", point))


def lonely_point(page: Any) -> int:
    """The point whose nearest other one is farthest, so that the pointer means it alone."""
    return int(
        page.evaluate(
            """() => {
                const { xy, made } = window.sageExplorer.maps[0];
                const at = (places, i) => places.slice(2 * i, 2 * i + 2);
                const pairs = (places) => Array.from({ length: places.length / 2 }, (_, i) => at(places, i));
                const own = pairs(xy), all = [...own, ...pairs(made)];
                let best = 0, most = -1;
                own.forEach(([x, y], i) => {
                    const far = all.map((other, j) => (i === j ? 9 : Math.hypot(other[0] - x, other[1] - y)));
                    const least = far.reduce((one, other) => Math.min(one, other));
                    if (least > most) { most = least; best = i; }
                });
                return best;
            }"""
        )
    )


def test_the_map_is_drawn_and_the_slider_changes_the_round(visit: Any) -> None:
    page = visit("one")
    assert pixels(page) > 20
    assert page.locator(".map-card h2").inner_text() == "Map after round 3"
    before = page.evaluate("Array.from(window.sageExplorer.maps[0].rows, (row) => row[2]).join()")
    places = page.evaluate("Array.from(window.sageExplorer.maps[0].rows, (row) => [row[0], row[1]]).join()")
    slider = page.get_by_label("Round", exact=True)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.side h3').textContent.includes('round 2')")
    assert page.locator(".map-card h2").inner_text() == "Map after round 2"
    assert slider.get_attribute("aria-valuetext") == "round 2 of 3"
    after = page.evaluate("Array.from(window.sageExplorer.maps[0].rows, (row) => row[2]).join()")
    assert after != before
    assert page.evaluate("Array.from(window.sageExplorer.maps[0].rows, (row) => [row[0], row[1]]).join()") == places
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelector('.map-words').textContent.includes('after round 1')")
    assert "Nothing in round 1" in page.locator(".side").inner_text()


def test_pointing_at_a_text_shows_it(visit: Any) -> None:
    page = visit("one")
    point = lonely_point(page)
    x, y = place_of(page, point)
    page.mouse.move(x - 40, y)
    page.mouse.move(x, y, steps=4)
    page.wait_for_selector(".tip:not([hidden])")
    assert text_of(page, point) in page.locator(".tip").inner_text()
    page.mouse.click(x, y)
    page.wait_for_selector(".side blockquote")
    assert page.locator(".side blockquote").inner_text() == text_of(page, point)


def test_pointing_at_a_synthetic_example_marks_its_changes(visit: Any) -> None:
    page = visit("one")
    x, y = page.evaluate(
        """() => {
            const map = window.sageExplorer.maps[0];
            let right = 0;
            for (let i = 0; i < map.made.length; i += 2) if (map.made[i] > map.made[right]) right = i;
            return map.onScreen(map.made.slice(right, right + 2));
        }"""
    )
    page.mouse.move(x + 30, y)
    page.mouse.move(x, y, steps=4)
    page.wait_for_selector(".tip mark")
    told = page.locator(".tip").inner_text()
    assert "synthetic example" in told
    assert "its anchor" in told


def test_a_lasso_lists_what_it_holds(visit: Any) -> None:
    page = visit("one")
    page.get_by_label("Lasso").check(force=True)
    page.evaluate("document.querySelector('.sage-map').scrollIntoView({ block: 'center' })")
    box = page.locator(".sage-canvas").bounding_box()
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98), (0.02, 0.05)]
    spots = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in corners]
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=6)
        page.wait_for_timeout(100)  # the library takes a point of a lasso every few milliseconds
    page.mouse.up()
    page.wait_for_selector(".texts [role=radio][aria-checked=true]:has-text('Selected')")
    assert page.locator(".texts [role=radio][aria-checked=true]").inner_text() == "Selected (600)"
    losses = [float(cell) for cell in page.locator(".texts td[data-name=loss]").all_inner_texts()]
    assert len(losses) == 25
    assert losses == sorted(losses, reverse=True)
    page.get_by_role("button", name="Show more").click()
    assert page.locator(".texts tbody tr").count() == 50
    page.locator(".sage-map").focus()
    page.keyboard.press("Escape")
    assert page.locator(".texts [role=radio]:has-text('Selected')").count() == 0


def test_everything_can_be_reached_by_keyboard(visit: Any) -> None:
    page = visit("two")
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate(
                """() => {
                    const at = document.activeElement;
                    const name = at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent ?? at.textContent;
                    return `${at.tagName.toLowerCase()}.${at.type ?? ''} ${name.trim().slice(0, 24)}`;
                }"""
            )
        )
    told = "\n".join(sorted(seen))
    for wanted in ("input.radio run", "input.range Round", "button.button Zoom in", "input.checkbox synthetic"):
        assert wanted in told, (wanted, told)
    for wanted in (
        "select.select-one",
        "input.radio Move",
        "button.button Hardest",
        "input.search",
        "button.button Dark",
    ):
        assert wanted in told, (wanted, told)
    row = page.locator(".texts .row-button").first
    row.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".side blockquote")
    assert page.locator(".side blockquote").inner_text() == row.inner_text()
    outline = page.evaluate("getComputedStyle(document.querySelector('.texts .row-button')).outlineStyle")
    assert outline == "none"  # it has the focus no longer
    page.get_by_label("Round", exact=True).focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_two_runs_stand_side_by_side_on_one_map(visit: Any) -> None:
    page = visit("two")
    assert "plain distillation 0." in page.locator(".headline").inner_text()
    page.get_by_label("Beside it").select_option(index=1)
    page.wait_for_selector(".maps.two figure:nth-child(2) canvas")
    page.wait_for_function("window.sageExplorer.maps.length === 2 && window.sageExplorer.maps[1].rows")
    assert page.evaluate("window.sageExplorer.maps.map((map) => map.chosen.length > 0)") == [True, False]
    same = "window.sageExplorer.maps.every((map) => map.xy.join() === window.sageExplorer.maps[0].xy.join())"
    assert page.evaluate(same)
    page.get_by_role("button", name="Zoom in").click()
    page.wait_for_function(
        "window.sageExplorer.maps[0].view[1] > 1.2 && "
        "Math.abs(window.sageExplorer.maps[0].view[1] - window.sageExplorer.maps[1].view[1]) < 1e-3"
    )
    page.get_by_label("plain").first.check(force=True)
    page.wait_for_function("document.querySelector('.intro h1').textContent.includes('plain distillation')")
    assert page.locator(".sage-chart .curve").count() >= 6


@pytest.mark.parametrize("width", [390, 768, 1440])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_and_takes_the_readers_colours(visit: Any, width: int, theme: str) -> None:
    page = visit("two", width=width, height=844, theme=theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#sage-explorer").get_attribute("data-theme") == theme
    light = page.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"
    assert light == (theme == "light")
    page.get_by_role("button", name="colours").click()
    assert page.locator("#sage-explorer").get_attribute("data-theme") != theme
    assert pixels(page) > 20


def test_hostile_text_is_inert(visit: Any) -> None:
    page = visit("bad")
    shown = page.locator(".texts .text").first
    assert "</script><img src=x" in shown.inner_text()
    assert page.locator(".texts img, .side img, .texts b").count() == 0
    assert page.title() == "bad"
    assert not {"\u202e", "\x1b", "\x00"} & set(page.locator("body").inner_text())


def test_the_widget_draws_the_same(browser: Any, folder: Path) -> None:
    # as anywidget does: the bundle is a module whose `render` gets the model, bytes as a DataView
    page = browser.new_page()
    page.set_default_timeout(SLOW)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    module = "data:text/javascript;base64," + base64.b64encode(asset("explorer.js").encode()).decode()
    data = base64.b64encode(page_data([folder / "one" / "run"])).decode()
    # what JupyterLab says of lists in any output
    lab = ".jp-OutputArea-output dt { font-weight: bold; float: left; width: 20%; } "
    lab += ".jp-OutputArea-output dd { float: left; width: 80%; }"
    cell = "<div class='jp-OutputArea-output'><div id='cell' style='width: 900px'></div></div>"
    page.set_content(f"<style>{lab}</style><style id='own'></style>{cell}")
    page.locator("#own").evaluate("(style, text) => { style.textContent = text; }", asset("explorer.css"))
    page.evaluate(
        """async ([module, data]) => {
            const widget = (await import(module)).default;
            const bytes = new DataView(Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)).buffer);
            const model = { get: (name) => ({ data: bytes, height: 0 })[name] };
            window.clean = await widget.render({ model, el: document.getElementById('cell') });
        }""",
        [module, data],
    )
    assert "600 training texts" in page.locator("#cell .map-words").inner_text()
    assert page.locator("#cell .texts tbody tr").count() == 25
    for name in ("dt", "dd"):
        assert page.locator(f"#cell .tile {name}").first.evaluate("(one) => getComputedStyle(one).float") == "none"
    page.evaluate("window.clean()")
    assert faults == []
    page.close()


def test_fifty_thousand_points_are_drawn(visit: Any, folder: Path, tmp_path: Path) -> None:
    run = generated_run(tmp_path, examples=50_000, share=0.1)
    write_page(folder / "many.html", page_data([run]), "many")
    page = visit("many")
    assert "50,000 training texts" in page.locator(".map-words").inner_text()
    for round in (2, 3, 1):
        page.evaluate("async (round) => { await window.sageExplorer.setRound(round); }", round)
        page.wait_for_function(f"document.querySelector('.map-words').textContent.includes('after round {round}')")
        assert pixels(page) > 20
