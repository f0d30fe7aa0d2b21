"""Tables: every number of the record is in the text that a person sees."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from sage_kit.components.records import Costs, RoundResult
from sage_kit.reports.tables import comparison_table, costs_table, outcome_tables, rounds_table

NAN = float("nan")


def rows(table: Table, width: int = 200) -> tuple[str, list[list[str]]]:
    """The table as printed, and its cells row by row, headings first."""
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, highlight=False).print(table)
    text = stream.getvalue()
    headings = [str(column.header).replace("\n", " ") for column in table.columns]
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines() if "│" in line]
    return text, [headings, *cells]


def summary(**changes: Any) -> dict[str, Any]:
    scores = {"accuracy": 0.81234, "f1": 0.75, "agreement": 0.9125, "calibration_error": 0.0333}
    plain = {
        "task": "mrpc",
        "validation": {"validation": scores},
        "teacher": {
            "validation": {"validation": {"accuracy": 0.8642, "f1": 0.9, "calibration_error": 0.01}},
            "finetuned_here": True,
            "seconds": 45.3,
        },
        "parameters": {"teacher": 109_483_778, "student": 66_955_010},
        "student_steps": 12_345,
        "teacher_tokens": 9_876_543,
        "seconds": 61.7,
    }
    return {**plain, **changes}


# ---- arms


def test_the_teacher_and_every_arm_have_a_row() -> None:
    other = summary(student_steps=7, validation={"validation": {"accuracy": 0.5, "f1": 0.25, "agreement": 0.125}})
    text, (headings, *lines) = rows(comparison_table({"SAGE": summary(), "plain distillation": other}))
    assert headings == [
        "model", "accuracy", "f1", "agreement with teacher", "deployable parameters", "student steps", "teacher tokens",
        "seconds",
    ]  # fmt: skip
    assert lines == [
        ["teacher", "0.8642", "0.9000", "-", "109,483,778", "-", "-", "45"],
        ["SAGE", "0.8123", "0.7500", "0.9125", "66,955,010", "12,345", "9,876,543", "62"],
        ["plain distillation", "0.5000", "0.2500", "0.1250", "66,955,010", "7", "9,876,543", "62"],
    ]
    assert "mrpc: official validation data, used for reporting only" in text


def test_the_teachers_seconds_are_those_of_the_arm_that_made_it() -> None:
    found = summary(teacher={**summary()["teacher"], "seconds": 0.2})  # in the cache
    for arms in ({"a": summary(), "b": found}, {"a": found, "b": summary()}):
        _, (_, teacher, *_) = rows(comparison_table(arms))
        assert teacher[-1] == "45"
    ready = summary(teacher={**summary()["teacher"], "finetuned_here": False, "seconds": 0.2})
    _, (_, teacher, _) = rows(comparison_table({"a": ready}))
    assert teacher[-1] == "-"


def test_several_validation_splits_have_columns_of_their_own() -> None:
    splits = {"matched": 0.81, "mismatched": 0.82}
    table = comparison_table(
        {
            "SAGE": summary(
                task="mnli",
                validation={name: {"accuracy": value, "agreement": value + 0.1} for name, value in splits.items()},
                teacher={
                    "validation": {name: {"accuracy": value + 0.05} for name, value in splits.items()},
                    "finetuned_here": False,
                    "seconds": 0.0,
                },
            )
        }
    )
    _, (headings, teacher, arm) = rows(table)
    assert headings[1:5] == [
        "matched accuracy", "matched agreement with teacher",
        "mismatched accuracy", "mismatched agreement with teacher",
    ]  # fmt: skip
    assert teacher[1:5] == ["0.8600", "-", "0.8700", "-"]
    assert arm[1:5] == ["0.8100", "0.9100", "0.8200", "0.9200"]


def test_many_validation_splits_have_a_table_with_a_row_each() -> None:
    splits = {"validation_en": 0.81, "validation_de": 0.7, "validation_zh": 0.6}
    run = summary(
        primary_metric="accuracy",
        validation={name: {"accuracy": value, "agreement": value + 0.1} for name, value in splits.items()},
        teacher={
            "validation": {name: {"accuracy": value + 0.05} for name, value in splits.items()},
            "finetuned_here": False,
            "seconds": 0.0,
        },
    )
    comparison, apart = outcome_tables({"SAGE": run, "plain": run})
    _, (headings, _, arm, _) = rows(comparison)
    assert headings[1:3] == ["validation_en accuracy", "validation_en agreement with teacher"]
    assert arm[1:3] == ["0.8100", "0.9100"]
    assert len(headings) == 7
    _, (headings, *lines) = rows(apart)
    assert headings == [
        "split", "teacher accuracy", "SAGE accuracy", "SAGE agreement", "plain accuracy", "plain agreement",
    ]  # fmt: skip
    assert lines[1] == ["validation_de", "0.7500", "0.7000", "0.8000", "0.7000", "0.8000"]
    assert [line[0] for line in lines] == list(splits)
    assert len(outcome_tables({"SAGE": summary()})) == 1


def test_a_run_that_diverged_or_had_no_round_has_a_table() -> None:
    diverged = {"validation": {"pearson": None, "agreement": None}}
    teacher = {"validation": {"validation": {"pearson": 0.875}}, "finetuned_here": False, "seconds": 0.0}
    _, (_, first, second) = rows(comparison_table({"SAGE": summary(validation=diverged, teacher=teacher)}))
    assert first[1:3] == ["0.8750", "-"]
    assert second[1:3] == ["-", "-"]
    _, (headings, *lines) = rows(comparison_table({"SAGE": summary(validation={})}))
    assert headings == ["model", "deployable parameters", "student steps", "teacher tokens", "seconds"]
    assert [line[0] for line in lines] == ["teacher", "SAGE"]


# ---- rounds


def result(round: int, **changes: Any) -> RoundResult:
    plain: dict[str, Any] = {
        "round": round, "steps": 111, "total_steps": 222, "train_loss": 0.54321, "train_agreement": 0.8765,
        "synthetic_loss": 0.25, "synthetic": 1234, "dropped": 17,
        "dev": {"matthews": 0.4321, "agreement": 0.9012},
        "validation": {"validation": {"matthews": 0.3456, "agreement": 0.8}}, "seconds": 12.34, "padding": 0.03,
        "outside_hull": 0.0625,
    }  # fmt: skip
    return RoundResult(**{**plain, **changes})


def test_each_round_has_a_row() -> None:
    history = [result(1, synthetic_loss=NAN, synthetic=0, outside_hull=NAN), result(2)]
    text, (headings, *lines) = rows(rounds_table(history, "matthews"))
    assert headings == [
        "round", "steps", "loss", "synthetic loss", "synthetic", "outside hull", "dropped", "agreement train",
        "agreement dev", "matthews dev", "matthews validation", "seconds",
    ]  # fmt: skip
    body = lines[-2:]  # the headings are folded over two lines
    assert body == [
        ["1", "111", "0.5432", "-", "0", "-", "17", "0.8765", "0.9012", "0.4321", "0.3456", "12.3"],
        ["2", "111", "0.5432", "0.2500", "1234", "0.0625", "17", "0.8765", "0.9012", "0.4321", "0.3456", "12.3"],
    ]
    assert "rounds" in text


def test_a_history_read_from_json_has_a_table() -> None:
    record = result(1, synthetic_loss=NAN, dev={"pearson": NAN, "agreement": 0.5}, validation={"v": {"pearson": NAN}})
    _, lines = rows(rounds_table([RoundResult.from_json(record.to_json())], "pearson"))
    assert lines[-1] == ["1", "111", "0.5432", "-", "1234", "0.0625", "17", "0.8765", "0.5000", "-", "-", "12.3"]


def test_no_rounds_give_no_rows() -> None:
    _, lines = rows(rounds_table([], "accuracy"))
    assert len(lines[0]) == 11
    assert [line for line in lines[1:] if any(cell.isdigit() for cell in line)] == []


# ---- costs


def test_costs_go_by_time_the_longest_first() -> None:
    costs = Costs()
    costs.add("reduce", seconds=2.0)
    costs.add("student", seconds=30.25, tokens=1_234_567, flops=9_876_000_000_000)
    costs.add("teacher", seconds=10.0, tokens=1_000)
    _, (headings, *lines) = rows(costs_table(costs.to_json()))
    assert headings == ["activity", "seconds", "tokens", "GFLOP"]
    assert lines == [
        ["student", "30.2", "1,234,567", "9,876"],
        ["teacher", "10.0", "1,000", "-"],
        ["reduce", "2.0", "-", "-"],
    ]


@pytest.mark.parametrize("costs", [{"seconds": {"a": 1.0}, "tokens": {}, "flops": {}}, Costs().to_json()])
def test_costs_without_tokens_have_a_table(costs: dict[str, Any]) -> None:
    _, lines = rows(costs_table(costs))
    assert len(lines) == 1 + len(costs["seconds"])
