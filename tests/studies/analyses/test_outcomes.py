"""Every outcome of a comparison with plain distillation, at equal steps and at equal FLOPs."""

from __future__ import annotations

from pathlib import Path

import pytest
from toyrun import ALL_ROWS, toy_settings

from sage_kit.studies.analyses.outcomes import (
    EQUAL_FLOPS,
    add_contrasts,
    add_outcomes,
    add_over_plain,
    compute_apart,
    find_ahead,
    find_within,
    with_equal_flops,
)
from sage_kit.studies.arms import Arm
from sage_kit.studies.result import StudyResult
from sage_kit.studies.study import Study
from sage_kit.studies.verdicts import Margin


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Study:
    folder = tmp_path_factory.mktemp("outcomes")
    settings = toy_settings(folder, tiny_bert, rounds=2)
    for name in ("task", "runs_dir", "observers"):
        settings.pop(name, None)
    return Study(
        "01_x", title="X", question="Is it?", profile="small", task="file", seeds=2,
        runs_dir=str(folder / "runs"), results_dir=str(folder / "results"),
        **{**settings, **ALL_ROWS, "dev_fraction": 0.4},
    )  # fmt: skip


def test_every_outcome_is_a_finding_at_equal_steps_and_at_equal_flops(study: Study) -> None:
    arms = [Arm("plain", schedule="none"), Arm("SAGE", schedule="adaptive")]
    runs = with_equal_flops(study, study.run(arms), "SAGE")
    table = runs.table().groupby("arm")[["student_steps", "student_flops", "teacher_flops"]].mean()
    assert table.loc["plain", "student_steps"] == table.loc["SAGE", "student_steps"]
    assert table.loc[EQUAL_FLOPS, "student_steps"] > table.loc["SAGE", "student_steps"]
    spent = table["student_flops"] + table["teacher_flops"]
    assert spent[EQUAL_FLOPS] == pytest.approx(spent["SAGE"], rel=0.1)

    compute = compute_apart(study, runs, [EQUAL_FLOPS]).set_index("arm")
    assert list(compute.index) == ["plain", "SAGE", EQUAL_FLOPS]
    assert list(compute["equal"]) == [False, True, False]

    add_over_plain(study, runs)
    assert study.figures["over_plain"][0].startswith(b"\x89PNG")
    add_contrasts(study, "pairs", runs, [("SAGE", "plain"), ("SAGE", EQUAL_FLOPS)])
    for end in ("", "_agreement", "_divergence"):
        pair, over = study.tables[f"pairs{end}"], study.tables[f"over_plain{end}"]
        assert list(pair["against"]) == ["plain", EQUAL_FLOPS]
        assert pair["difference"].iloc[0] == over.set_index("arm").loc["SAGE", "difference"]
    add_outcomes(study, "over_equal_flops", runs, EQUAL_FLOPS, arms=["SAGE"])
    assert [study.tables[f"over_plain{end}"]["metric"].iloc[0] for end in ("", "_agreement", "_divergence")] == [
        "primary", "agreement", "divergence",
    ]  # fmt: skip
    assert list(study.tables["over_equal_flops"]["arm"]) == ["SAGE"]

    find_ahead(study, "gain", "over_plain", "SAGE", what="synthesis", other="plain distillation", claim="adaptive")
    find_ahead(study, "spent", "over_equal_flops", "SAGE", what="synthesis", other="as many FLOPs", outcomes=[""])
    margin = Margin(0.01, "half a point does not matter", 0.02)
    find_within(
        study, "kept", "over_plain_agreement", "SAGE", margin,
        what="synthesis", other="plain distillation", measure="agreement", claim="replacing",
    )  # fmt: skip
    study.finish()
    assert study.result is not None
    assert study.result.folder is not None
    found = {finding.name: finding for finding in StudyResult.load(study.result.folder).findings}
    assert list(found) == ["gain", "gain_agreement", "gain_divergence", "spent", "kept"]
    assert [finding.claim for finding in found.values()] == ["adaptive", "", "", "", "replacing"]
    assert [finding.direction for finding in found.values()] == ["above", "above", "below", "above", "above"]
    assert [finding.unit for finding in found.values()] == ["points", "points", "percent change", "points", "points"]
    start = "No significant difference between synthesis and plain distillation in agreement with the teacher: "
    assert found["gain_agreement"].sentence.startswith(start)
    assert "2 seeds, and a decision needs 5" in found["gain"].sentence
    kept = found["kept"]
    assert (kept.threshold, kept.margin_reason) == (-0.01, margin.reason)
    assert kept.question == "Does synthesis lose less agreement than the margin, against plain distillation?"
    assert kept.sentence.startswith("A loss of agreement of the margin by synthesis against plain distillation is")
