"""Bench `explorer`: how long the explorer's page takes to be written, to be drawn, and to show another round.

The page is opened in headless Chromium, whose graphics the processor computes. Runs are generated, since a page does
not depend on how its numbers were made.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sage_bench.distill import MINILM
from sage_bench.generated_run import DEV, generated_run
from sage_bench.measure import Contender, Session, Work, alternate
from sage_bench.real_texts import real_texts
from sage_bench.records import Line, Result, Spread, Target
from sage_kit.explorer.page_data import page_data
from sage_kit.explorer.page_file import write_page
from sage_kit.models.checkpoints import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (50_000, 200_000)
QUICK_SIZES = (10_000,)
ROUNDS = 6
STEPS = 18
"""Of the slider, in one visit."""

DRAW_GOAL, STEP_GOAL = 2.0, 0.1

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 120_000
"""Milliseconds."""

DRAW, STEP, MEGABYTES, WRITE = "s to the first picture", "s per step of the slider", "MB", "s to write"

SLIDE = """async ([steps, rounds]) => {
    const app = window.sageExplorer, plot = app.maps[0].plot, seconds = [];
    for (let i = 0; i < steps; i++) {
        const began = performance.now();
        const drawn = new Promise((done) => plot.subscribe('drawing', () => requestAnimationFrame(done), 1));
        await app.setRound(1 + (i % rounds));
        await drawn;
        seconds.push((performance.now() - began) / 1000);
        await new Promise((done) => setTimeout(done, 150));
    }
    return seconds;
}"""


def run(session: Session) -> Result:
    """Write a page of each size, and visit it several times."""
    work = "the explorer's page, headless Chromium without a GPU"
    reason = why_no_browser()
    if reason:
        return Result("explorer", [Line(work, "explorer", is_ours=True, note=f"skipped: {reason}")])
    name, found = real_texts(session, dev_rows=DEV)
    texts = sorted(set(found))
    lines, targets = [], []
    for size in QUICK_SIZES if session.quick else SIZES:
        session.announce(f"writing a page of {size:,} texts")
        folder = session.scratch / str(size)
        tokenizer = load_tokenizer(MINILM)
        path = generated_run(folder, sentences(texts, size + DEV), tokenizer, rounds=ROUNDS, share=0.1)
        page = folder / "explorer.html"
        began = time.perf_counter()
        write_page(page, page_data([path]), "bench")
        wrote = time.perf_counter() - began
        with browser() as found:
            measured = alternate(
                [Contender("visit", lambda page=page, found=found: visit(found, page))],  # type: ignore[misc]
                repeats=3 if session.quick else 7,
                budget=30.0 if session.quick else 120.0,
                announce=session.announce,
            )["visit"]
        draw, step = measured.figure(DRAW), measured.figure(STEP)
        values = {STEP: step, DRAW: draw, WRITE: Spread.of([wrote]), MEGABYTES: Spread.of([page.stat().st_size / 1e6])}
        lines.append(Line(work, f"{size:,} texts", values, is_ours=True))
        if size == SIZES[0]:
            targets = [
                Target(f"first picture of {size:,} texts", draw, DRAW_GOAL, at_least=False, unit=" s"),
                Target(f"step of the slider of {size:,} texts", step, STEP_GOAL, at_least=False, unit=" s"),
            ]
    notes = [
        f"Texts are {name}; beyond their number, halves of two of them. A step is the median of {STEPS} in a visit, "
        "from the call to the next frame behind the drawing. At most 100,000 texts are on a page."
    ]
    return Result("explorer", lines, targets, notes)


def why_no_browser() -> str:
    """What is missing to drive a browser; "" where all is there."""
    if not any(map(shutil.which, BROWSERS)):
        return "needs chromium (apt-get install chromium)"
    return "" if importlib.util.find_spec("playwright") else "needs playwright (pip install playwright)"


def sentences(texts: Sequence[str], count: int) -> list[str]:
    """So many different texts: those that there are, and then a first half of one before the second half of another."""
    found = dict.fromkeys(texts[:count])
    rng = np.random.default_rng(0)
    while len(found) < count:
        one, other = (texts[place].split() for place in rng.integers(0, len(texts), 2))
        found[" ".join(one[: (len(one) + 1) // 2] + other[len(other) // 2 :])] = None
    return list(found)


@contextmanager
def browser() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        try:
            yield started
        finally:
            started.close()


def visit(browser: Any, page: Path) -> Work:
    """Open a page, wait for its map, and move the slider."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        tab = context.new_page()
        tab.set_default_timeout(PATIENCE)
        began = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("html[data-ready=yes]", state="attached")
        drawn = time.perf_counter() - began
        steps = tab.evaluate(SLIDE, [STEPS, ROUNDS])
    finally:
        context.close()
    return Work({}, None, {DRAW: drawn, STEP: float(np.median(steps))})
