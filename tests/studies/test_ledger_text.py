"""The ledger for people and programs."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from studies.fakeledger import adaptive, in_papers_setting, ledger
from studies.fakeresults import MACHINE, make_finding, save_result

from sage_kit.studies.claims import CLAIMS, find_claim
from sage_kit.studies.ledger import RULE, STATE_MEANINGS, ledger_of, read_results
from sage_kit.studies.ledger_text import (
    HEADINGS,
    interval_text,
    ledger_json,
    ledger_markdown,
    ledger_rows,
    ledger_table,
    machine_text,
    number_text,
)

NAN = float("nan")


def printed(table: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=400, color_system=None, highlight=False).print(table)
    return stream.getvalue()


def test_the_table_shows_every_claim_with_its_number(tmp_path: Path) -> None:
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(0.01, 0.03))
    text = printed(ledger_table(ledger(tmp_path)))
    for claim in CLAIMS:
        assert claim.statement in text
    line = next(line for line in text.splitlines() if find_claim("adaptive").statement in line)
    cells = [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
    assert cells == [
        find_claim("adaptive").statement,
        "-",
        "04_static_or_adaptive",
        "reproduced",
        "+2.00 points (95 % CI +1.00 to +3.00)",
        "5",
        "full: cola, sst2",
        "Test CPU, 2 cores",
    ]
    assert "smoke results never count" in " ".join(text.lower().split())


@pytest.mark.parametrize("width", [100, 160])
def test_the_table_fits_the_terminal(tmp_path: Path, width: int) -> None:
    save_result(tmp_path, "04_static_or_adaptive", adaptive(0.01, 0.03), machine={"processor": "P" * 30, "cores": 64})
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(ledger_table(ledger(tmp_path)))
    rows = [line for line in stream.getvalue().splitlines() if line.startswith("│")]
    assert {len(line) for line in rows} == {width}
    assert all(line.endswith("│") and line.count("│") == len(HEADINGS) + 1 for line in rows)


def test_brackets_are_no_markup(tmp_path: Path) -> None:
    claim = dataclasses.replace(find_claim("adaptive"), statement="[bold]so[/bold]")
    save_result(tmp_path, "04_static_or_adaptive", adaptive(0.01, 0.03, unit="[red]u"))
    text = printed(ledger_table(ledger(tmp_path, [claim])))
    assert "[bold]so[/bold]" in text
    assert "[red]u" in text


def test_json_holds_all_results_and_is_json(tmp_path: Path) -> None:
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2))
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(NAN, NAN, value=NAN), tasks=("rte",))
    results, faults = read_results(tmp_path)
    data = json.loads(json.dumps(ledger_json(ledger_of(results), faults), allow_nan=False))
    assert (data["rule"], data["faults"]) == (RULE, [])
    assert set(data["states"]) == set(STATE_MEANINGS)
    assert [claim["id"] for claim in data["claims"]] == [claim.id for claim in CLAIMS]
    row = next(claim for claim in data["claims"] if claim["id"] == "adaptive")
    assert (row["state"], row["result"]["label"], row["result"]["low"]) == ("reproduced", "full-cola+sst2", 0.1)
    assert [(other["label"], other["low"], other["state"]) for other in row["other_results"]] == [
        ("full-rte", None, "undecided")
    ]
    assert row["result"]["machine"] == MACHINE
    assert next(claim for claim in data["claims"] if claim["id"] == "region")["result"] is None


def test_markdown_has_a_row_of_equal_width_for_every_claim(tmp_path: Path) -> None:
    save_result(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2, unit="a|b <i>\nc"))
    text = ledger_markdown(ledger(tmp_path))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == len(CLAIMS) + 4  # two tables, each with a heading and a rule
    assert {len(re.split(r"(?<!\\)\|", line)) for line in table} == {len(HEADINGS) + 2}
    assert r"a\|b &lt;i> c" in text
    assert f"- not run: {STATE_MEANINGS['not run']}." in text
    assert "answered yes:" not in text  # only states that occur are explained


def test_rows_fit_the_headings(tmp_path: Path) -> None:
    save_result(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2), machine={})
    assert {len(row) for row in ledger_rows(ledger(tmp_path))} == {len(HEADINGS)}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.912, "0.912"),
        (-0.01234, "-0.0123"),
        (12.0, "12"),
        (123456.7, "123,457"),
        (1.2e-5, "1.20e-05"),
        (NAN, "-"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number_text(value) == text


def test_intervals_and_machines() -> None:
    assert interval_text(make_finding("gain", 0.005, 0.015)) == "+1.00 (+0.50 to +1.50)"
    assert interval_text(make_finding("share", 0.25, 0.75, unit="R2", columns=("r2", "a", "b"))) == "0.5 (0.25 to 0.75)"
    assert interval_text(make_finding("gain", NAN, NAN, value=0.01)) == "+1.00"
    assert interval_text(make_finding("gain", NAN, NAN, value=NAN)) == "-"
    assert machine_text({"processor": "P", "cores": 2, "card": "C", "python": "3.11"}) == "C, P, 2 cores"
    assert machine_text({"host": "h", "note": ""}) == "host h"
    assert machine_text({}) == ""
