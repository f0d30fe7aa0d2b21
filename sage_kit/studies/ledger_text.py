"""The ledger for people and programs: a table on the terminal, Markdown, JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sage_kit.studies import verdicts
from sage_kit.studies.claims import TITLE
from sage_kit.studies.ledger import RULE, STATE_MEANINGS, Entry, Fault
from sage_kit.studies.result import Finding

if TYPE_CHECKING:
    from rich.table import Table

HEADINGS = ("claim", "paper", "notebook", "state", "ours (95 % interval)", "seeds", "on", "machine")


def ledger_rows(entries: Iterable[Entry]) -> list[tuple[str, ...]]:
    """The cells under `HEADINGS`, one row per entry."""
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        claim, chosen = entry.claim, entry.chosen
        why = [*(chosen.deviations if chosen else ()), *([entry.remark] if entry.remark else [])]
        state = f"{entry.state} ({'; '.join(why)})" if why else entry.state
        head = (claim.statement, claim.paper_value or "-", claim.study, state)
        if chosen is None:
            rows.append((*head, "-", "-", "-", "-"))
            continue
        machine = machine_text(chosen.result.machine) or "-"
        rows.append((*head, chosen.numbers, str(chosen.finding.seeds), chosen.setting, machine))
    return rows


def ledger_table(entries: Sequence[Entry]) -> Table:
    """The ledger as a table for a terminal: the paper's claims, a line, its open questions."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Claims of {TITLE}", title_justify="left", caption=RULE, caption_justify="left", expand=True)
    for heading in HEADINGS:
        fixed = heading in ("notebook", "seeds")
        table.add_column(
            heading,
            justify="right" if heading == "seeds" else "left",
            no_wrap=fixed,
            ratio=None if fixed else 2 if heading == "claim" else 1,
        )
    for questions in (False, True):
        for row in ledger_rows(entry for entry in entries if entry.claim.is_question is questions):
            table.add_row(*map(Text, row))  # as Text: what stands in brackets must not be taken for markup
        table.add_section()
    return table


def ledger_json(entries: Iterable[Entry], faults: Iterable[Fault] = ()) -> dict[str, Any]:
    """The ledger as JSON-ready data: rule, meanings of the states, claims with all their results, and faults."""
    return {
        "paper": TITLE,
        "rule": RULE,
        "states": dict(STATE_MEANINGS),
        "claims": [entry.to_json() for entry in entries],
        "faults": [{"path": fault.path.as_posix(), "fault": fault.text} for fault in faults],
    }


def ledger_markdown(entries: Iterable[Entry]) -> str:
    """The ledger as Markdown: a table of claims, one of open questions, the rule and the meaning of each state."""
    entries = list(entries)
    lines = []
    for heading, questions in (("The paper's claims", False), ("Questions the paper leaves open", True)):
        rows = ledger_rows(entry for entry in entries if entry.claim.is_question is questions)
        if not rows:
            continue
        lines += [f"**{heading}**", "", _markdown_row(HEADINGS), _markdown_row(["---"] * len(HEADINGS))]
        lines += [*map(_markdown_row, rows), ""]
    used = {entry.state for entry in entries}
    lines += [RULE, ""]
    lines += [f"- {state}: {meaning}." for state, meaning in STATE_MEANINGS.items() if state in used]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    escaped = (" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def interval_text(finding: Finding) -> str:
    """A finding's number and its interval, in its unit: ``+1.20 (+0.30 to +2.10)``; a dash for what is not a number."""
    signed = finding.is_difference
    value, low, high = (
        "-" if math.isnan(number) else verdicts.number_text(number, finding.unit, signed=signed)
        for number in (finding.value, finding.low, finding.high)
    )
    return value if "-" in (low, high) else f"{value} ({low} to {high})"


def number_text(value: float) -> str:
    """A number to four decimals from 0.001 to 1,000, to three digits beyond; a dash for none."""
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if value == 0 or 1e-3 <= size < 1e3:
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}" if size >= 1e3 else f"{value:.2e}"


def machine_text(machine: Mapping[str, Any]) -> str:
    """The machine in few words: card, processor, cores; all that is known where none of these are."""
    known = [str(machine[name]) for name in ("card", "gpu", "processor", "cpu") if machine.get(name)]
    if machine.get("cores"):
        known.append(f"{machine['cores']} cores")
    return ", ".join(known or [f"{name} {value}" for name, value in machine.items() if value not in ("", None)])
