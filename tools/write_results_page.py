"""Write `results/README.md` from the results that lie beside it: what each study found, and the ledger of claims.

The page is made of saved results alone, so that whoever adds one need only run this.

    python tools/write_results_page.py           # write the page
    python tools/write_results_page.py --check   # only say whether it is up to date; exit status 1 if not
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from sage_kit.studies.claims import ledger_markdown, ledger_of, machine_text, read_results
from sage_kit.studies.result import StudyResult

FOLDER = Path(__file__).parents[1] / "results"
PAGE = "README.md"

HEAD = """# What the studies found

Written by `python tools/write_results_page.py` from the folders beside this page; `sage-kit study report` makes an HTML
page of the same with every figure. [The studies](../docs/studies.md) tells how they compare. A finding is *yes* or *no*
where its p against the threshold, corrected over the findings of its study, is below 5 %; else, and with fewer than
five seeds, it is *undecided*.
"""

NONE = "There is no result yet.\n"


def page(results: Sequence[StudyResult]) -> str:
    """The text of the page."""
    parts = [
        HEAD,
        *(map(section, results) if results else [NONE]),
        "## The ledger\n",
        ledger_markdown(ledger_of(results)),
    ]
    return "\n".join(parts)


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
    if arguments.check:
        print("up to date" if is_current else f"{path} is not up to date: run python tools/write_results_page.py")
        return 0 if is_current and not faults else 1
    path.write_text(text, encoding="utf-8")
    print(f"Written: {path}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
