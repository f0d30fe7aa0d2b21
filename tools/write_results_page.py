"""Write `results/README.md` from the results that lie beside it: what each study found, and the ledger of claims.

The page is made of saved results alone, so that whoever adds one need only run this.

    python tools/write_results_page.py           # write the page
    python tools/write_results_page.py --check   # only say whether it is up to date; exit status 1 if not
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage_kit.errors import StudyError
from sage_kit.storage.files import write_bytes
from sage_kit.studies import plots as figures
from sage_kit.studies.ledger import COUNTED_PROFILES, ledger_of, read_results
from sage_kit.studies.ledger_text import ledger_markdown, machine_text
from sage_kit.studies.result import StudyResult, read_tables
from sage_kit.studies.statistics import AVERAGE
from sage_kit.studies.verdicts import PERCENT_CHANGE, POINTS, can_decide

if TYPE_CHECKING:
    from pandas import DataFrame

FOLDER = Path(__file__).parents[1] / "results"
PAGE = "README.md"

HEAD = """# What the studies found

Written by `python tools/write_results_page.py` from the folders beside this page; `sage-kit study report` makes an HTML
page of the same with every figure. [The studies](../docs/studies.md) tells how they compare. A finding is *yes* or *no*
where its p against the threshold, corrected over the findings of its study, is below 5 %; else, and with fewer than
five seeds, it is *undecided*.
"""

NONE = "There is no result yet.\n"

MAIN, ARM, GAINS = "09_glue", "SAGE default", "gains.png"
"""The study whose numbers open the page, the arm that they are of, and the figure of them."""

COMPARISONS = {"over_plain": "equal steps", "over_equal_flops": "equal FLOPs"}
OUTCOMES = {"": ("score", POINTS), "agreement": ("agreement with the teacher", POINTS),
            "divergence": ("divergence from the teacher", PERCENT_CHANGE)}  # fmt: skip


def page(results: Sequence[StudyResult]) -> str:
    """The text of the page."""
    parts = [
        HEAD,
        *opening(results),
        *(map(section, results) if results else [NONE]),
        "## The ledger\n",
        ledger_markdown(ledger_of(results)),
    ]
    return "\n".join(parts)


def main_results(results: Sequence[StudyResult]) -> list[StudyResult]:
    """The results whose numbers open the page: that of the largest profile, then over most tasks, then of most seeds,
    and those of the same profile and as many seeds on other tasks.
    """
    own = [one for one in results if one.study == MAIN and one.profile in COUNTED_PROFILES]
    ranked = sorted(own, key=lambda one: (COUNTED_PROFILES.index(one.profile), -len(one.tasks), -one.seeds))
    chosen: list[StudyResult] = []
    for one in ranked:
        is_like = not chosen or (one.profile, one.seeds) == (chosen[0].profile, chosen[0].seeds)
        is_new = not any(set(one.tasks) & set(other.tasks) for other in chosen)
        if is_like and is_new and gains_of(one) is not None:
            chosen.append(one)
    return chosen


def gains_of(result: StudyResult) -> DataFrame | None:
    """What `ARM` gains over plain distillation, by task, outcome and comparison; None where it has no such tables."""
    from pandas import concat

    try:
        tables = read_tables(result)
    except StudyError:
        return None
    parts = []
    for name, comparison in COMPARISONS.items():
        for outcome, (words, _) in OUTCOMES.items():
            table = tables.get(f"{name}_{outcome}" if outcome else name)
            if table is None:
                return None
            parts.append(table[table["arm"] == ARM].assign(outcome=words, comparison=comparison))
    found = concat(parts, ignore_index=True)
    return None if found.empty else found


def opening(results: Sequence[StudyResult]) -> list[str]:
    """The figure that the page opens with, and what stands below it; nothing without a main result."""
    chosen = main_results(results)
    if not chosen:
        return []
    caption = (
        f"What {ARM} gains over plain distillation on held-out rows, by task, at equal student steps and at equal "
        f"FLOPs; 95 % intervals over {chosen[0].seeds} runs, each with a transfer set of its own, and the examples."
    )
    sources = ", ".join(f"[{one.study} on {', '.join(one.tasks)}]({one.study}/{one.label})" for one in chosen)
    return [f"![{caption}]({GAINS})\n", f"*{caption} From {sources}.*\n"]


def gains_png(results: Sequence[StudyResult]) -> bytes | None:
    """The picture that the page opens with; None without a main result."""
    from pandas import concat

    chosen = main_results(results)
    if not chosen:
        return None
    rows = concat([gains_of(one) for one in chosen], ignore_index=True)
    if len(chosen) > 1:  # an average is over the tasks of one result
        rows = rows[rows["task"] != AVERAGE]
    title = f"{ARM} over plain distillation ({chosen[0].profile})"
    figure = figures.gains(rows, title=title, units=dict(OUTCOMES.values()))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def paragraph(result: StudyResult) -> str:
    """What one result found in words, by rule: what is decided, in full, and how much is not."""
    decided = [finding for finding in result.findings if finding.state != "undecided"]
    open_ones = [finding for finding in result.findings if finding.state == "undecided"]
    parts = [finding.sentence for finding in decided]
    if not result.findings:
        return "Nothing was asked."
    if not decided:
        parts.append("None of its questions is decided.")
    elif open_ones:
        parts.append(f"Of its {len(result.findings)} questions, {len(open_ones)} {_are(len(open_ones))} not decided.")
    few = [finding for finding in open_ones if not can_decide(finding.seeds)]
    if few and len(few) == len(result.findings):
        parts.append("All rest on fewer seeds than a decision needs.")
    return " ".join(" ".join(part.split()) for part in parts)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def section(result: StudyResult) -> str:
    """What one result found: its question, its findings, and the figure that goes with the first of them."""
    folder = f"{result.study}/{result.label}"
    lines = [
        f"## {result.study.partition('_')[0]} {result.title}",
        "",
        f"{result.question} ([notebook](../notebooks/{result.study}.ipynb), [tables and figures]({folder}))",
        "",
        f"Profile {result.profile}, on {', '.join(result.tasks)}; {result.seeds} seeds; {result.time[:10]}, "
        f"{machine_text(result.machine)}.",
        "",
        paragraph(result),
        "",
        "| answer | finding | p, corrected |",
        "| --- | --- | --- |",
    ]
    for finding in result.findings:
        p = "-" if math.isnan(finding.p_adjusted) else f"{finding.p_adjusted:.2g}"
        cells = (finding.state, finding.sentence, p)
        lines.append(f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |")
    figures = dict(result.figures)
    if figures and result.findings:
        name = f"{result.findings[0].table}.png"
        name = name if name in figures else next(iter(figures))
        lines += ["", f"![{figures[name]}]({folder}/{name})", "", f"*{figures[name]}*"]
    return "\n".join([*lines, ""])


def main() -> int:
    """Write or compare; the exit status."""
    parser = argparse.ArgumentParser(description="Write results/README.md from the results beside it.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    arguments = parser.parse_args()
    results, faults = read_results(FOLDER)
    for fault in faults:
        print(fault, file=sys.stderr)
    path, text = FOLDER / PAGE, page(results)
    is_current = path.is_file() and path.read_text(encoding="utf-8") == text
    is_current = is_current and (not main_results(results) or (FOLDER / GAINS).is_file())
    if arguments.check:
        print("up to date" if is_current else f"{path} is not up to date: run python tools/write_results_page.py")
        return 0 if is_current and not faults else 1
    path.write_text(text, encoding="utf-8")
    picture = gains_png(results)
    if picture is not None:
        write_bytes(FOLDER / GAINS, picture)
    print(f"Written: {path}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
