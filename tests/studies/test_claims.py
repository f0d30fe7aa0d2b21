"""The claims, and whether the findings that notebooks make agree with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from studies.claimcheck import claim_problems
from studies.fakeledger import reached
from studies.fakeresults import make_finding, save_result

from sage_kit.errors import StudyError
from sage_kit.storage.files import only_finite
from sage_kit.studies.claims import CLAIMS, Claim, find_claim

STUDIES = (
    "00_tour", "01_reducer_dimension", "02_input_layer", "03_loss_profile", "04_static_or_adaptive", "05_reducers",
    "06_decode_tokens", "07_coherence_filter", "08_beyond_glue", "09_glue", "10_is_it_the_region", "11_replace_or_add",
    "12_default_settings", "13_warm_up", "14_data_efficiency", "15_equal_cost_bypass", "16_controls",
    "17_losses",
)  # fmt: skip


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


# ---- do claims and notebooks agree


def results_of_all(root: Path, claims: tuple[Claim, ...] = CLAIMS) -> list[Any]:
    """A smoke result of each study with just the findings that the claims want."""
    results = []
    for study in STUDIES:
        findings = [
            make_finding(claim.finding, 0.1, 0.2, claim=claim.id, threshold=only_finite(claim.threshold) or 0.0)
            for claim in claims
            if claim.study == study and claim.id != "ten_epochs"
        ]
        also = [name for claim in claims if claim.study == study for name in claim.also]
        findings += [make_finding(name, 0.1, 0.2) for name in also]
        findings += [reached("sst2", 2)] if study == find_claim("ten_epochs").study else []
        results.append(save_result(root, study, *findings, profile="smoke", tasks=("qnli", "sst2", "cola", "rte")))
    return results


def test_agreement_has_no_problems(tmp_path: Path) -> None:
    assert claim_problems(results_of_all(tmp_path), STUDIES) == []


def test_a_claim_without_notebook_or_finding_is_a_problem(tmp_path: Path) -> None:
    results = results_of_all(tmp_path)
    wrong = [
        dataclasses.replace(find_claim("adaptive"), study="04_static_or_adaptiv"),
        dataclasses.replace(find_claim("region"), finding="high_over_randm"),
        dataclasses.replace(find_claim("replacing"), also=("replacing_keeps_agreemnt",)),
    ]
    problems = claim_problems(results, STUDIES, wrong)
    assert "no notebook '04_static_or_adaptiv'. Did you mean '04_static_or_adaptive'?" in problems[0]
    assert "makes no finding 'high_over_randm'. Did you mean 'high_over_random'?" in problems[1]
    assert "makes no finding 'replacing_keeps_agreemnt'. Did you mean 'replacing_keeps_agreement'?" in problems[2]
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
