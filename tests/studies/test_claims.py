"""The ledger: a claim's state follows from the numbers of one result, chosen without a look at them."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from studies.fakeresults import MACHINE, make_finding, save_result

from sage_kit.errors import StudyError
from sage_kit.files import only_finite
from sage_kit.studies.claims import (
    CLAIMS,
    HEADINGS,
    RULE,
    STATE_MEANINGS,
    Claim,
    Entry,
    claim_problems,
    find_claim,
    interval_text,
    ledger,
    ledger_json,
    ledger_markdown,
    ledger_of,
    ledger_rows,
    ledger_table,
    machine_text,
    number_text,
    read_results,
    setting_deviations,
)

NAN = float("nan")
STUDIES = (
    "00_tour", "01_reducer_dimension", "02_input_layer", "03_loss_profile", "04_static_or_adaptive", "05_reducers",
    "06_decode_tokens", "07_coherence_filter", "08_beyond_glue", "09_glue", "10_is_it_the_region", "11_replace_or_add",
    "12_default_settings",
)  # fmt: skip


def entry(root: Path, id: str) -> Entry:
    return next(item for item in ledger(root) if item.claim.id == id)


def adaptive(low: float, high: float, **changes: Any) -> Any:
    return make_finding("adaptive_over_static", low, high, claim="adaptive", **changes)


def qnli(low: float, high: float) -> Any:
    return make_finding("score_qnli", low, high, threshold=find_claim("score_qnli").threshold, claim="score_qnli")


# ---- the claims themselves


def test_claims_are_distinct_and_name_studies_that_exist() -> None:
    assert len({claim.id for claim in CLAIMS}) == len({(claim.study, claim.finding) for claim in CLAIMS}) == len(CLAIMS)
    assert {claim.study for claim in CLAIMS} == set(STUDIES) - {"00_tour", "12_default_settings"}


def test_questions_come_after_claims() -> None:
    kinds = [claim.is_question for claim in CLAIMS]
    assert kinds == sorted(kinds)
    assert {True, False} == set(kinds)


@pytest.mark.parametrize(
    ("id", "value", "examples"), [("score_qnli", 0.912, 5463), ("score_sst2", 0.923, 872), ("score_rte", 0.685, 277)]
)
def test_scores_are_held_against_the_published_one_less_its_standard_error(
    id: str, value: float, examples: int
) -> None:
    error = (value * (1 - value) / examples) ** 0.5
    assert find_claim(id).threshold == pytest.approx(value - error, abs=1e-3)
    assert f"{100 * value:.1f}" in find_claim(id).paper_value


def test_an_unknown_claim_is_told_with_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"Unknown claim 'adaptiv'\. Did you mean 'adaptive'\?"):
        find_claim("adaptiv")


# ---- states


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [(0.1, 0.2, "reproduced"), (-0.2, -0.1, "not reproduced"), (-0.1, 0.2, "undecided"), (NAN, NAN, "undecided")],
)
def test_a_comparison_has_the_state_of_its_finding(tmp_path: Path, low: float, high: float, state: str) -> None:
    save_result(tmp_path, "04_static_or_adaptive", adaptive(low, high))
    assert entry(tmp_path, "adaptive").state == state


def test_a_direction_below_is_reversed(tmp_path: Path) -> None:
    rounds = make_finding("rounds_to_agreement", 6.0, 8.0, threshold=10.0, direction="below", claim="ten_epochs")
    save_result(tmp_path, "04_static_or_adaptive", rounds)
    assert entry(tmp_path, "ten_epochs").state == "reproduced"


@pytest.mark.parametrize(
    ("low", "high", "state"), [(1, 2, "answered yes"), (-2, -1, "answered no"), (-1, 1, "undecided")]
)
def test_an_open_question_is_answered_not_reproduced(tmp_path: Path, low: float, high: float, state: str) -> None:
    save_result(tmp_path, "08_beyond_glue", make_finding("gain_beyond_glue", low, high))
    assert entry(tmp_path, "beyond_glue").state == state


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"profile": "small"}, "differs in setting"),
        ({"profile": "full", "settings": {"teacher": "package:some_model/model"}}, "differs in setting"),
        ({"profile": "full", "settings": {"train_rows": 3000}}, "differs in setting"),
        ({"profile": "full", "parameters": {"train_rows": 3000}}, "differs in setting"),
        ({"profile": "full", "settings": {"validation_rows": 10}}, "differs in setting"),
        ({"profile": "full", "settings": {"train_rows": 0, "teacher": "google-bert/bert-base-uncased"}}, "reproduced"),
        ({"profile": "full", "parameters": {"teacher": None, "train_rows": None}}, "reproduced"),
        ({"profile": "full", "settings": {"rounds": 5}}, "reproduced"),
    ],
)
def test_a_score_counts_only_in_the_papers_setting(tmp_path: Path, changes: dict[str, Any], state: str) -> None:
    result = save_result(tmp_path, "09_glue", qnli(0.92, 0.93), tasks=("qnli",), **changes)
    assert entry(tmp_path, "score_qnli").state == state
    assert bool(setting_deviations(result)) is (state == "differs in setting")


def test_a_comparison_counts_in_any_setting(tmp_path: Path) -> None:
    save_result(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2), settings={"train_rows": 3000})
    assert entry(tmp_path, "adaptive").state == "reproduced"


def test_a_score_below_the_papers_is_not_reproduced(tmp_path: Path) -> None:
    save_result(tmp_path, "09_glue", qnli(0.88, 0.90), tasks=("qnli",), profile="full")
    assert entry(tmp_path, "score_qnli").state == "not reproduced"


def test_nothing_is_run_at_first(tmp_path: Path) -> None:
    assert {item.state for item in ledger(tmp_path)} == {"not run"}


def test_smoke_results_never_count(tmp_path: Path) -> None:
    save_result(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2), profile="smoke")
    found = entry(tmp_path, "adaptive")
    assert (found.state, found.evidence, found.remark) == ("not run", (), "smoke results only")


def test_a_study_without_the_task_leaves_the_claim_not_run(tmp_path: Path) -> None:
    save_result(tmp_path, "09_glue", qnli(0.92, 0.93), tasks=("qnli",), profile="full")
    found = entry(tmp_path, "score_rte")
    assert (found.state, found.remark) == ("not run", "no result with task rte")


def test_a_finding_held_against_another_number_settles_nothing(tmp_path: Path) -> None:
    rounds = make_finding("rounds_to_agreement", 2.0, 4.0, threshold=5.0, direction="below", claim="ten_epochs")
    save_result(tmp_path, "04_static_or_adaptive", rounds)
    found = entry(tmp_path, "ten_epochs")
    assert found.state == "differs in setting"
    assert found.evidence[0].deviations == ("held against 5 instead of 10",)


# ---- several results


def test_every_step_of_the_rule(tmp_path: Path) -> None:
    study = "04_static_or_adaptive"
    winners = [  # each beats all before it, by the rule's next step up
        {"tasks": ("a", "b"), "seeds": 9, "label": "small-a+b-0f0f0f", "time": "2026-09-01T00:00:00+00:00"},
        {"tasks": ("a",), "seeds": 9, "time": "2026-08-01T00:00:00+00:00"},
        {"tasks": ("a", "b"), "seeds": 5, "time": "2026-02-01T00:00:00+00:00"},
        {"tasks": ("a", "c"), "seeds": 5, "time": "2026-03-01T00:00:00+00:00"},
        {"tasks": ("b", "c"), "seeds": 6, "time": "2026-01-01T00:00:00+00:00"},
        {"tasks": ("a",), "seeds": 1, "profile": "full", "time": "2026-01-01T00:00:00+00:00"},
    ]
    expected = []
    for changes in winners:
        result = save_result(tmp_path, study, adaptive(0.1, 0.2), **changes)
        expected.insert(0, result.label)
        assert [item.result.label for item in entry(tmp_path, "adaptive").evidence] == expected


@pytest.mark.parametrize("good_first", [True, False])
def test_the_numbers_choose_no_result(tmp_path: Path, good_first: bool) -> None:
    good, bad = adaptive(0.1, 0.2), adaptive(-0.2, -0.1)
    more, fewer = (good, bad) if good_first else (bad, good)
    save_result(tmp_path, "04_static_or_adaptive", more, tasks=("cola", "sst2"))
    save_result(tmp_path, "04_static_or_adaptive", fewer, tasks=("rte",))
    found = entry(tmp_path, "adaptive")
    assert found.state == ("reproduced" if good_first else "not reproduced")
    assert found.remark == "1 of 1 other results: another state"


# ---- folders that hold no result


def test_broken_folders_are_told_and_count_for_nothing(tmp_path: Path) -> None:
    study = tmp_path / "04_static_or_adaptive"
    save_result(tmp_path, study.name, adaptive(0.1, 0.2), tasks=("rte",))
    save_result(tmp_path, study.name, adaptive(0.1, 0.2), tasks=("lying",), profile="full")
    text = (study / "full-lying" / "result.json").read_text(encoding="utf-8")
    (study / "full-lying" / "result.json").write_text(text.replace('"state": "yes"', '"state": "no"'), encoding="utf-8")
    for name, content in {"half": None, "cut": '{"format": 1, "stu', "old": '{"format": 0}', ".tmp-x": None}.items():
        (study / name).mkdir()
        if content is not None:
            (study / name / "result.json").write_text(content, encoding="utf-8")
    results, faults = read_results(tmp_path)
    assert [result.label for result in results] == ["small-rte"]
    told = {fault.path.name: str(fault) for fault in faults}
    assert set(told) == {"half", "cut", "old", ".tmp-x", "full-lying"}
    assert "has no result.json" in told["half"]
    assert "not readable" in told["cut"]
    assert "format 0" in told["old"]
    assert "being written" in told[".tmp-x"]
    assert "'adaptive_over_static' says 'no' where its numbers say 'yes'" in told["full-lying"]
    assert all(str(fault).count(str(fault.path)) == 1 for fault in faults)
    assert entry(tmp_path, "adaptive").chosen.result.label == "small-rte"  # type: ignore[union-attr]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no folder of results"):
        ledger(tmp_path / "nowhere")


# ---- for people and programs


def printed(table: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=400, color_system=None, highlight=False).print(table)
    return stream.getvalue()


def test_the_table_shows_every_claim_with_its_number(tmp_path: Path) -> None:
    save_result(tmp_path, "04_static_or_adaptive", adaptive(0.01, 0.03))
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
        "0.02 (0.01 to 0.03) points",
        "5",
        "small: cola, sst2",
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
    save_result(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2))
    save_result(tmp_path, "04_static_or_adaptive", adaptive(NAN, NAN, value=NAN), tasks=("rte",))
    results, faults = read_results(tmp_path)
    data = json.loads(json.dumps(ledger_json(ledger_of(results), faults), allow_nan=False))
    assert (data["rule"], data["faults"]) == (RULE, [])
    assert set(data["states"]) == set(STATE_MEANINGS)
    assert [claim["id"] for claim in data["claims"]] == [claim.id for claim in CLAIMS]
    row = next(claim for claim in data["claims"] if claim["id"] == "adaptive")
    assert (row["state"], row["result"]["label"], row["result"]["low"]) == ("reproduced", "small-cola+sst2", 0.1)
    assert [(other["label"], other["low"], other["state"]) for other in row["other_results"]] == [
        ("small-rte", None, "undecided")
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
    assert interval_text(0.5, 0.25, 0.75) == "0.5 (0.25 to 0.75)"
    assert interval_text(0.5, NAN, NAN) == "0.5"
    assert machine_text({"processor": "P", "cores": 2, "card": "C", "python": "3.11"}) == "C, P, 2 cores"
    assert machine_text({"host": "h", "note": ""}) == "host h"
    assert machine_text({}) == ""


# ---- do claims and notebooks agree


def results_of_all(root: Path, claims: tuple[Claim, ...] = CLAIMS) -> list[Any]:
    """A smoke result of each study with just the findings that the claims want."""
    results = []
    for study in STUDIES:
        findings = [
            make_finding(claim.finding, 0.1, 0.2, claim=claim.id, threshold=only_finite(claim.threshold) or 0.0)
            for claim in claims
            if claim.study == study
        ]
        results.append(save_result(root, study, *findings, profile="smoke", tasks=("qnli", "sst2", "cola", "rte")))
    return results


def test_agreement_has_no_problems(tmp_path: Path) -> None:
    assert claim_problems(results_of_all(tmp_path), STUDIES) == []


def test_a_claim_without_notebook_or_finding_is_a_problem(tmp_path: Path) -> None:
    results = results_of_all(tmp_path)
    wrong = [
        dataclasses.replace(find_claim("adaptive"), study="04_static_or_adaptiv"),
        dataclasses.replace(find_claim("region"), finding="high_over_randm"),
    ]
    problems = claim_problems(results, STUDIES, wrong)
    assert "no notebook '04_static_or_adaptiv'. Did you mean '04_static_or_adaptive'?" in problems[0]
    assert "makes no finding 'high_over_randm'. Did you mean 'high_over_random'?" in problems[1]
    assert "study '04_static_or_adaptiv' has no result" in claim_problems(results, claims=wrong[:1])[0]


def test_a_finding_that_names_another_claim_or_threshold_is_a_problem(tmp_path: Path) -> None:
    claims = [find_claim("score_qnli")]
    finding = make_finding("score_qnli", 0.1, 0.2, claim="score_qnl", threshold=0.5)
    result = save_result(tmp_path, "09_glue", finding, tasks=("qnli",))
    problems = claim_problems([result], claims=claims)
    assert len(problems) == 3
    assert "names the claim 'score_qnl'" in problems[0]
    assert "held against 0.5, and the claim against 0.9082" in problems[1]
    assert "unknown claim 'score_qnl'. Did you mean 'score_qnli'?" in problems[2]


@pytest.mark.parametrize(("finding", "count"), [("score_mrpc", 0), ("accuracy_mrpc", 1)])
def test_a_claim_about_another_task_is_looked_up_under_the_results_own(
    tmp_path: Path, finding: str, count: int
) -> None:
    result = save_result(tmp_path, "09_glue", make_finding(finding, 0.1, 0.2), tasks=("mrpc",), profile="smoke")
    assert len(claim_problems([result], claims=[find_claim("score_qnli")])) == count
