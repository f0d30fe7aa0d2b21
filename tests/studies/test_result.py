"""Findings: their state follows from their numbers, and whoever doubts one can recompute it from the tables."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from studies.fakeresults import decide

from sage_kit.errors import StudyError
from sage_kit.studies.result import (
    Finding,
    StudyResult,
    contradiction,
    find_folders,
    inconsistencies,
    label_of,
    pick_row,
    read_tables,
)

pandas = pytest.importorskip("pandas")

NUMBERS = {"value": 0.02, "low": 0.01, "high": 0.03, "threshold": 0.0}
TABLE = pandas.DataFrame({"arm": ["a", "b"], "difference": [0.02, -1.0], "low": [0.01, -2.0], "high": [0.03, 0.5]})


def finding(**changes: object) -> Finding:
    first = Finding(
        "gain", "Is a ahead?", **NUMBERS, state="yes", sentence="Yes.", unit="points", seeds=5, table="comparison",
        row={"arm": "a"},
    )  # fmt: skip
    (decided,) = decide(dataclasses.replace(first, **changes))
    return decided


def result(*findings: Finding) -> StudyResult:
    return StudyResult(
        study="01_x", title="X", question="Is it?", label="small-cola", profile="small", tasks=("cola",), seeds=3,
        parameters={"seeds": None}, settings={"rounds": 2}, findings=findings, tables=("comparison",),
        figures=(("a.png", "A."),), machine={"cores": 2}, packages={"torch": "2"}, data={"cola": "ab"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "threshold", "direction", "state"),
    [
        (0.1, 0.2, 0.0, "above", "yes"),
        (-0.2, -0.1, 0.0, "above", "no"),
        (-0.1, 0.1, 0.0, "above", "undecided"),
        (0.0, 0.1, 0.0, "above", "undecided"),  # the threshold itself is not beyond it
        (0.1, 0.2, 0.3, "below", "yes"),
        (0.4, 0.5, 0.3, "below", "no"),
        (math.nan, 0.5, 0.3, "below", "undecided"),
        (-math.inf, math.inf, 0.0, "above", "undecided"),
    ],
)
def test_state_follows_from_the_interval(low: float, high: float, threshold: float, direction: str, state: str) -> None:
    found = finding(value=(low + high) / 2, low=low, high=high, threshold=threshold, direction=direction)
    assert found.state == state
    assert contradiction(result(found)) == ""


@pytest.mark.parametrize(("seeds", "state"), [(0, "yes"), (1, "undecided"), (4, "undecided"), (5, "yes")])
def test_fewer_than_five_seeds_decide_nothing(seeds: int, state: str) -> None:
    found = finding(seeds=seeds)
    assert found.state == state
    assert found.p < 0.001
    assert math.isnan(found.p_adjusted) == (state == "undecided")
    assert found.family == (state == "yes")


def test_findings_are_corrected_together() -> None:
    # each alone leaves zero out; together only the first does, and what cannot be decided does not count
    together = decide(
        finding(),
        finding(low=0.0005, high=0.0395),
        finding(low=0.0003, high=0.0397),
        finding(seeds=2),
        finding(low=math.nan),
    )
    assert [one.state for one in together] == ["yes", "undecided", "undecided", "undecided", "undecided"]
    first, second, third, *_ = together
    assert (first.family, third.family) == (3, 3)
    assert first.p_adjusted == pytest.approx(3 * first.p)
    assert second.p < third.p < 0.05
    assert second.p_adjusted == third.p_adjusted == pytest.approx(2 * second.p)
    alone = finding(low=0.0005, high=0.0395)
    assert alone.state == "yes"
    # a design must find more to find it among several
    assert second.detectable > alone.detectable > 0.0195
    assert contradiction(result(*together)) == ""


def test_a_state_or_a_p_that_contradicts_the_interval_is_told() -> None:
    wrong = dataclasses.replace(finding(), state="no")
    assert "finding 'gain' says 'no' where its numbers say 'yes'" in contradiction(result(wrong))
    wrong = dataclasses.replace(finding(), low=-0.01)
    assert "p = 8.86e-05 and its interval contradict each other" in contradiction(result(wrong))


def test_a_result_comes_back_from_its_folder(tmp_path: Path) -> None:
    first = result(finding(), finding(name="nan", low=math.nan, high=math.nan, df=4.0, counts=(3, 5)))
    folder = tmp_path / "01_x" / "small-cola"
    first.save(folder)
    (found,) = find_folders(tmp_path)
    again = StudyResult.load(found)
    assert again.findings[0] == first.findings[0]
    assert math.isnan(again.findings[1].low)
    assert (again.findings[0].df, again.findings[1].df, again.findings[1].counts) == (math.inf, 4, (3, 5))
    assert again.to_json() == first.to_json()
    assert again.verdict == ("yes", "Yes. Yes.")


def test_an_unreadable_result_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "01_x" / "small-cola"
    result().save(folder)
    path = folder / "result.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(StudyError, match=r"result\.json is not readable .* run the study again$"):
        StudyResult.load(folder)
    path.write_text(json.dumps({"format": 99}))
    with pytest.raises(
        StudyError, match=r"was made before this version's way to decide \(format 99, .*\): make it again$"
    ):
        StudyResult.load(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": 0.021}, "value is 0.021, but comparison.difference is 0.02"),
        ({"state": "no"}, "the state is 'no', but the numbers say 'yes'"),
        ({"p": 0.04}, "p is 0.04, but the numbers say"),
        ({"table": "other"}, "there is no table 'other'"),
        ({"row": {"arm": "c"}}, "0 rows with arm='c'"),
        ({"row": {}}, "2 rows with no condition"),
        ({"row": {"who": "a"}}, "no column 'who'"),
    ],
)
def test_a_finding_that_disagrees_with_its_table_is_told(changes: dict[str, object], words: str) -> None:
    wrong = dataclasses.replace(finding(), **changes)
    assert any(words in fault for fault in inconsistencies(result(wrong), {"comparison": TABLE}))
    assert inconsistencies(result(finding()), {"comparison": TABLE}) == []


def test_tables_are_read_beside_the_result(tmp_path: Path) -> None:
    first = result(finding())
    first.save(tmp_path / "r")
    TABLE.to_parquet(tmp_path / "r" / "comparison.parquet")
    loaded = StudyResult.load(tmp_path / "r")
    assert inconsistencies(loaded, read_tables(loaded)) == []
    (tmp_path / "r" / "comparison.parquet").write_bytes(b"no parquet")
    with pytest.raises(StudyError, match=r"comparison\.parquet is not readable"):
        read_tables(loaded)


def test_one_row_is_picked_by_all_its_conditions() -> None:
    assert pick_row(TABLE, {"arm": "b"}, "t")["high"] == 0.5


def test_labels() -> None:
    assert label_of("small", ["cola", "sst2"]) == "small-cola+sst2"
    assert label_of("small", ["cola"], "ab12cd") == "small-cola-ab12cd"
    assert label_of("small", ["cola"], "ab12cd", "bf16") == "small-cola-bf16-ab12cd"
    assert label_of("small", ["cola"], precision="fp32") == "small-cola-fp32"
