"""The grid: pairs that fail, hang and die are rows, and the others go on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from scorecardspies import Few, write_plugin
from toyrun import toy_config

from sage_kit.config import load_config
from sage_kit.scorecard import Row, all_pairs, load_vectors, score_grid

LONG = 500.0
"""A budget that no machine spends here."""


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of the grid see the built-ins and the one-file plugin only."""
    monkeypatch.setenv("SAGE_KIT_PLUGINS", "")


def test_the_grid_goes_on_whatever_a_pair_does(tmp_path: Path, tiny_bert: Path, no_plugins) -> None:
    file = write_plugin(tmp_path)
    plugins = Few([file])
    plugins.shown = ("pca", "absent", "dies", "fails", "knn", "stalls")
    config = toy_config(tmp_path, tiny_bert, inverter="knn", inverter_options={"k": 7})
    vectors = load_vectors(config, plugins)
    # the others take a fraction of a second; the one that hangs takes as long as it may
    found = score_grid(
        config, plugins, vectors, budget=LONG, longest=8.0, out=tmp_path / "out", plugin_files=[str(file)]
    )

    rows = {(row.reducer, row.inverter): row for row in found.rows}
    assert len(found.rows) == len(rows) == 8
    assert rows["pca", "fails"].status == "failed"
    assert "no way back" in rows["pca", "fails"].reason
    assert rows["pca", "dies"].status == "failed"
    assert "exit code 3" in rows["pca", "dies"].reason
    assert rows["pca", "knn"].status == "scored", rows["pca", "knn"]
    assert rows["pca", "stalls"].status == "out of time"
    assert {row.status for row in found.rows if row.reducer == "absent"} == {"unavailable"}
    assert "pip install" in rows["absent", "knn"].reason

    # saved: the cards, and the grid that holds the same
    scored = found.scored
    assert list(found.rows[: len(scored)]) == scored
    for row in scored:
        card = json.loads((tmp_path / "out" / row.directory / "scorecard.json").read_text())
        assert card["fidelity"] == row.card["fidelity"]
    assert rows["pca", "knn"].card["inverter_options"] == {"k": 7}
    saved = json.loads((tmp_path / "out" / "grid.json").read_text())
    assert [row["status"] for row in saved["rows"]] == [row.status for row in found.rows]
    lines = list(csv.DictReader((tmp_path / "out" / "grid.csv").read_text().splitlines()))
    assert float(lines[0]["r2"]) == scored[0].value("r2")
    assert float(lines[0]["r2_low"]) == scored[0].value("r2", "low")
    assert (lines[-1]["r2"], lines[-1]["status"]) == ("", found.rows[-1].status)


def test_a_spent_budget_leaves_rows_that_say_so(tmp_path: Path, tiny_bert: Path, no_plugins) -> None:
    plugins = Few()
    plugins.shown = ("pca", "identity", "knn", "anchored")
    config = toy_config(tmp_path, tiny_bert, inverter="knn")
    found = score_grid(config, plugins, load_vectors(config, plugins), budget=0.001, out=tmp_path / "out")
    assert {row.status for row in found.rows} == {"out of time"}
    # this reducer keeps the vectors' width whatever the settings say
    assert {(row.reducer, row.n_components) for row in found.rows} == {("pca", 2), ("identity", 32)}
    assert any("budget of 0.001 s" in row.reason for row in found.rows)


def test_pairs_that_do_not_go_together_are_left_out_and_slow_ones_come_last(tmp_path: Path, tiny_bert: Path) -> None:
    plugins = Few([write_plugin(tmp_path)], allow="")
    plugins.shown = ("pca", "placing", "rigid", "identity", "knn", "native")
    config = toy_config(tmp_path, tiny_bert, reducer="rigid", inverter="knn", n_components=3)
    vectors = load_vectors(config, plugins)
    pairs, rows, left_out = all_pairs._pairs(config, plugins, vectors)
    assert not rows
    assert list(left_out) == ["placing (3) with native", "rigid (3) with native"]
    # few dimensions go before many, and maps that are stored before those that are fitted anew in each process
    assert [(pair.config.reducer, pair.config.inverter) for pair in pairs] == [
        ("pca", "knn"), ("pca", "native"), ("placing", "knn"), ("rigid", "knn"), ("identity", "knn"),
        ("identity", "native"),
    ]  # fmt: skip


def test_rows_are_sorted_by_fidelity() -> None:
    def row(inverter: str, r2: float | None, has_card: bool = True) -> Row:
        card = {"fidelity": {"inverter": {"r2": {"value": r2}}}} if has_card else {}
        return Row("pca", inverter, 2, "scored" if card else "failed", card=card)

    rows = [row("a", None, False), row("e", None), row("b", -0.2), row("c", 0.3), row("d", 0.1)]
    assert [item.inverter for item in sorted(rows, key=all_pairs._rank)] == ["c", "d", "b", "e", "a"]


def test_an_inverter_that_proved_slow_waits() -> None:
    def pair(inverter: str) -> all_pairs._Pair:
        return all_pairs._Pair(load_config({"reducer": "pca", "inverter": inverter}))

    pairs = [pair("decoder"), pair("knn"), pair("rbf")]
    rows = [Row("pca", name, 2, "scored", seconds=seconds) for name, seconds in [("knn", 1), ("decoder", 9)]]
    assert [item.config.inverter for item in all_pairs._slow_last(pairs, rows, 5.0)] == ["decoder", "knn", "rbf"]
    rows[:0] = [Row("pca", "rbf", 2, "scored", seconds=2)] * 2
    assert [item.config.inverter for item in all_pairs._slow_last(pairs, rows, 5.0)] == ["knn", "rbf", "decoder"]
    assert all_pairs._slow_last(pairs, rows, 10.0) == pairs
