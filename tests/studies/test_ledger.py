"""The ledger: which state a claim has by which results."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas
import pytest
from studies.fakeledger import adaptive, entry, in_papers_setting, ledger, qnli, reached
from studies.fakeresults import make_finding, runs_of, save_result

from sage_kit.errors import StudyError
from sage_kit.studies.claims import PAPER_TASKS
from sage_kit.studies.ledger import read_results

NAN = float("nan")


# ---- states


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [(0.1, 0.2, "reproduced"), (-0.2, -0.1, "not reproduced"), (-0.1, 0.2, "undecided"), (NAN, NAN, "undecided")],
)
def test_in_the_papers_setting_a_comparison_has_the_state_of_its_finding(
    tmp_path: Path, low: float, high: float, state: str
) -> None:
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(low, high))
    assert entry(tmp_path, "adaptive").state == state


def test_fewer_than_five_seeds_settle_nothing(tmp_path: Path) -> None:
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2, seeds=4))
    assert entry(tmp_path, "adaptive").state == "undecided"


def test_a_direction_below_is_reversed(tmp_path: Path) -> None:
    error = make_finding("umap_inversion_mse", 0.1, 0.2, threshold=0.345, direction="below", claim="inversion_mse")
    error = dataclasses.replace(error, row={"task": "sst2", "pair": "umap + native"})
    paper = {"teacher": "bert-base-uncased"}
    save_result(tmp_path, "05_reducers", error, profile="full", tasks=("sst2",), settings=paper)
    assert entry(tmp_path, "inversion_mse").state == "reproduced"
    for pair in ("umap + knn", "pca + native"):
        other = dataclasses.replace(error, row={"task": "sst2", "pair": pair})
        save_result(tmp_path, "05_reducers", other, profile="full", tasks=("sst2",), settings=paper)
        assert entry(tmp_path, "inversion_mse").state == "differs in setting"


@pytest.mark.parametrize(
    ("low", "high", "state"), [(1, 2, "answered yes"), (-2, -1, "answered no"), (-1, 1, "undecided")]
)
def test_an_open_question_is_answered_not_reproduced(tmp_path: Path, low: float, high: float, state: str) -> None:
    save_result(tmp_path, "08_beyond_glue", make_finding("gain_beyond_glue", low, high))
    assert entry(tmp_path, "beyond_glue").state == state


DEVIATIONS: list[tuple[dict[str, Any], str]] = [
    ({"teacher": "package:some_model/model"}, "teacher package:some_model/model"),
    ({"train_rows": 3000}, "train_rows 3000"),
    ({"validation_rows": 10}, "validation_rows 10"),
    ({"dev_fraction": 0.4}, "dev_fraction 0.4"),
    ({"student_layers": 3}, "student_layers 3 instead of 6"),
    ({"reducer": "pca"}, "reducer pca instead of umap"),
    ({"n_components": 8}, "n_components 8 instead of 2"),
    ({"lift": "replace"}, "lift replace instead of shift"),
    ({"inverter": "knn"}, "inverter knn instead of native"),
    ({"sampler_options": {}}, "sampler_options: fraction by default instead of 0.3"),
    ({"refit": "once"}, "refit once instead of every_round"),
    ({"warmup_corpus": "", "warmup_epochs": 0}, "no warm-up"),
    ({"warmup_corpus": "mine.txt"}, "warmup_corpus mine.txt instead of wikimedia/wikipedia:20231101.en"),
]


@pytest.mark.parametrize(("changes", "text"), DEVIATIONS, ids=lambda value: value if isinstance(value, str) else "")
def test_scores_and_comparisons_count_only_in_the_papers_setting(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    in_papers_setting(tmp_path, "09_glue", qnli(0.92, 0.93), tasks=("qnli",), run_settings=changes)
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2), run_settings=changes)
    for id in ("score_qnli", "adaptive"):
        found = entry(tmp_path, id)
        assert found.state == "differs in setting"
        assert text in found.evidence[0].deviations
        assert found.remark == "the finding: yes"


def test_equal_steps_are_no_deviation_except_where_the_length_is_what_is_claimed(tmp_path: Path) -> None:
    equal = {"rounds": 5, "stop_agreement": 1.01, "max_steps": 900, "teacher": "google-bert/bert-base-uncased"}
    in_papers_setting(tmp_path, "09_glue", qnli(0.92, 0.93), tasks=("qnli",), run_settings=equal)
    in_papers_setting(
        tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2), reached("cola", 9), reached("sst2", 9),
        run_settings=equal,
    )  # fmt: skip
    assert [entry(tmp_path, id).state for id in ("score_qnli", "adaptive", "ten_epochs")] == [
        "reproduced", "reproduced", "differs in setting",
    ]  # fmt: skip
    assert "rounds 5 instead of 10" in entry(tmp_path, "ten_epochs").evidence[0].deviations


def test_other_tasks_than_the_papers_are_a_deviation(tmp_path: Path) -> None:
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2), tasks=("cola", "movie_reviews"))
    found = entry(tmp_path, "adaptive")
    assert found.state == "differs in setting"
    assert found.evidence[0].deviations == ("task movie_reviews, which the paper does not report",)


def test_an_average_over_glue_takes_all_its_tasks(tmp_path: Path) -> None:
    ahead = make_finding("umap2_over_none", 0.1, 0.2, claim="ablation")
    in_papers_setting(tmp_path, "01_reducer_dimension", ahead)
    found = entry(tmp_path, "ablation")
    assert found.state == "differs in setting"
    assert found.evidence[0].deviations == ("an average without mrpc, stsb, qqp, mnli, qnli, rte",)
    in_papers_setting(tmp_path, "01_reducer_dimension", ahead, tasks=PAPER_TASKS)
    assert entry(tmp_path, "ablation").state == "reproduced"


def test_without_recorded_runs_the_settings_are_those_of_the_result(tmp_path: Path) -> None:
    save_result(tmp_path, "02_input_layer", make_finding("bypass_cheaper", 0.1, 0.2, claim="bypass_cheaper"))
    found = entry(tmp_path, "bypass_cheaper").evidence[0].deviations
    assert "no warm-up" in found
    assert not [text for text in found if "reducer" in text]  # no synthesis in what the claim is about


def test_an_open_question_is_answered_in_any_setting(tmp_path: Path) -> None:
    save_result(tmp_path, "08_beyond_glue", make_finding("gain_beyond_glue", 1, 2), settings={"train_rows": 3000})
    assert entry(tmp_path, "beyond_glue").state == "answered yes"


def test_a_score_below_the_papers_is_not_reproduced(tmp_path: Path) -> None:
    in_papers_setting(tmp_path, "09_glue", qnli(0.88, 0.90), tasks=("qnli",))
    assert entry(tmp_path, "score_qnli").state == "not reproduced"


# ---- findings by task, and several findings


@pytest.mark.parametrize(
    ("counts", "state"),
    [
        ((9, 9), "reproduced"),
        ((0, 0), "not reproduced"),
        ((9, 0), "differs by task"),
        ((9, 4), "undecided"),
        ((4, 4), "undecided"),
    ],
)
def test_a_claim_by_task_has_the_state_that_all_tasks_share(
    tmp_path: Path, counts: tuple[int, int], state: str
) -> None:
    tasks = ("cola", "sst2")
    findings = [reached(task, k) for task, k in zip(tasks, counts, strict=True)]
    save_result(tmp_path, "04_static_or_adaptive", *findings, profile="full", runs=runs_of(["SAGE"], tasks))
    found = entry(tmp_path, "ten_epochs")
    assert found.state == state
    assert all(f"rounds_to_agreement_{task}: " in found.remark for task in tasks)


def test_none_of_three_runs_reproduces_nothing(tmp_path: Path) -> None:
    finding = reached("rte", 0, 3)
    save_result(
        tmp_path, "04_static_or_adaptive", finding, profile="full", tasks=("rte",), runs=runs_of(["SAGE"], ["rte"])
    )
    assert entry(tmp_path, "ten_epochs").state == "undecided"


REPLACING = ("replacing_suffices", "replacing_keeps_agreement", "replacing_needs_fewer_rounds")


@pytest.mark.parametrize(
    ("lows", "state"),
    [
        ((0.1, 0.1, 0.1), "reproduced"),
        ((0.1, -0.3, 0.1), "not reproduced"),
        ((0.1, 0.1, -0.05), "undecided"),
        ((0.1, 0.1, None), "undecided"),
    ],
)
def test_replacing_suffices_only_where_agreement_and_rounds_say_so_too(
    tmp_path: Path, lows: tuple[float | None, ...], state: str
) -> None:
    findings = [
        make_finding(name, low, low + 0.1, claim="replacing" if name == REPLACING[0] else "")
        for name, low in zip(REPLACING, lows, strict=True)
        if low is not None
    ]
    in_papers_setting(tmp_path, "11_replace_or_add", *findings)
    found = entry(tmp_path, "replacing")
    assert found.state == state
    assert ("no finding replacing_needs_fewer_rounds" in found.remark) is (lows[2] is None)


# ---- the correction over the ledger


def weak(name: str, p: float, **changes: Any) -> Any:
    """A finding with an interval that gives about this p."""
    from scipy import stats

    reach = 1.96 / stats.norm.isf(p / 2)
    return make_finding(name, 1 - reach, 1 + reach, **changes)


def test_findings_are_corrected_over_all_that_the_ledger_takes(tmp_path: Path) -> None:
    in_papers_setting(tmp_path, "04_static_or_adaptive", weak("adaptive_over_static", 0.03, claim="adaptive"))
    assert entry(tmp_path, "adaptive").state == "reproduced"
    in_papers_setting(tmp_path, "10_is_it_the_region", weak("high_over_random", 0.04, claim="region"), mark="other")
    assert entry(tmp_path, "adaptive").state == entry(tmp_path, "region").state == "undecided"


def test_a_set_of_runs_counts_once_in_the_correction(tmp_path: Path) -> None:
    in_papers_setting(tmp_path, "04_static_or_adaptive", weak("adaptive_over_static", 0.03, claim="adaptive"))
    in_papers_setting(tmp_path, "10_is_it_the_region", weak("high_over_random", 0.03, claim="region"))
    assert entry(tmp_path, "adaptive").state == entry(tmp_path, "region").state == "reproduced"
    assert entry(tmp_path, "region").remark == "the same runs and numbers as claim adaptive"


def test_a_set_of_runs_counts_once_among_the_results_of_a_claim(tmp_path: Path) -> None:
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2))
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(-0.2, -0.1), tasks=("sst2",))
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(-0.2, -0.1), tasks=("rte",))
    found = entry(tmp_path, "adaptive")
    assert [item.result.label for item in found.evidence] == ["full-cola+sst2", "full-rte"]
    assert found.evidence[0].same_runs == ("full-sst2",)
    assert found.remark == "the same runs in full-sst2; 1 of 1 other results: another state"


def test_runs_are_known_from_the_table_where_a_result_does_not_list_them(tmp_path: Path) -> None:
    for tasks in (("cola", "sst2"), ("sst2",)):
        rows = [{name: run[name] for name in ("task", "arm", "run")} for run in runs_of(["SAGE"], tasks)]
        result = save_result(tmp_path, "08_beyond_glue", make_finding("gain_beyond_glue", 1, 2), tasks=tasks,
                             tables=("runs",))  # fmt: skip
        pandas.DataFrame(rows).to_parquet(result.folder / "runs.parquet")
    found = entry(tmp_path, "beyond_glue")
    assert [item.result.label for item in found.evidence] == ["small-cola+sst2"]
    assert found.evidence[0].same_runs == ("small-sst2",)


def test_nothing_is_run_at_first(tmp_path: Path) -> None:
    assert {item.state for item in ledger(tmp_path)} == {"not run"}


def test_smoke_results_never_count(tmp_path: Path) -> None:
    save_result(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2), profile="smoke")
    found = entry(tmp_path, "adaptive")
    assert (found.state, found.evidence, found.remark) == ("not run", (), "smoke results only")
    assert entry(tmp_path, "region").remark == "no result yet"


def test_a_study_without_the_task_leaves_the_claim_not_run(tmp_path: Path) -> None:
    save_result(tmp_path, "09_glue", qnli(0.92, 0.93), tasks=("qnli",), profile="full")
    found = entry(tmp_path, "score_rte")
    assert (found.state, found.remark) == ("not run", "no result with task rte")


def test_a_finding_held_against_another_number_settles_nothing(tmp_path: Path) -> None:
    score = make_finding("score_qnli", 0.92, 0.93, threshold=0.5, claim="score_qnli")
    in_papers_setting(tmp_path, "09_glue", score, tasks=("qnli",))
    found = entry(tmp_path, "score_qnli")
    assert found.state == "differs in setting"
    assert found.evidence[0].deviations == ("held against 0.5 instead of 0.9082",)


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
    in_papers_setting(tmp_path, "04_static_or_adaptive", more, tasks=("cola", "sst2"))
    in_papers_setting(tmp_path, "04_static_or_adaptive", fewer, tasks=("rte",))
    found = entry(tmp_path, "adaptive")
    assert found.state == ("reproduced" if good_first else "not reproduced")
    assert found.remark == "1 of 1 other results: another state"


def test_a_result_in_the_papers_setting_goes_before_others(tmp_path: Path) -> None:
    in_papers_setting(tmp_path, "04_static_or_adaptive", adaptive(0.1, 0.2), tasks=("rte",))
    in_papers_setting(
        tmp_path, "04_static_or_adaptive", adaptive(-0.2, -0.1), run_settings={"reducer": "pca"}, mark="pca"
    )
    found = entry(tmp_path, "adaptive")
    assert [item.result.label for item in found.evidence] == ["full-rte", "full-cola+sst2"]
    assert found.state == "reproduced"


def test_of_two_folders_with_the_same_result_the_later_counts(tmp_path: Path) -> None:
    for folder, low, time in (("results", 1, "2026-01-01"), ("local", -2, "2026-02-01"), ("older", 3, "2025-01-01")):
        save_result(tmp_path / folder, "08_beyond_glue", make_finding("gain_beyond_glue", low, low + 1), time=time)
    save_result(tmp_path / "local", "04_static_or_adaptive", adaptive(0.1, 0.2))
    results, faults = read_results(tmp_path / "results", tmp_path / "local", tmp_path / "older")
    assert [(result.study, result.time) for result in results] == [
        ("04_static_or_adaptive", "2026-01-01T00:00:00+00:00"), ("08_beyond_glue", "2026-02-01"),
    ]  # fmt: skip
    assert faults == []
    assert read_results() == ([], [])


# ---- folders that hold no result


def test_broken_folders_are_told_and_count_for_nothing(tmp_path: Path) -> None:
    study = tmp_path / "04_static_or_adaptive"
    save_result(tmp_path, study.name, adaptive(0.1, 0.2), tasks=("rte",))
    save_result(tmp_path, study.name, adaptive(0.1, 0.2), tasks=("lying",), profile="full")
    text = (study / "full-lying" / "result.json").read_text(encoding="utf-8")
    (study / "full-lying" / "result.json").write_text(text.replace('"state": "yes"', '"state": "no"'), encoding="utf-8")
    for name, content in {"half": None, "bypass": '{"format": 1, "stu', "old": '{"format": 0}', ".tmp-x": None}.items():
        (study / name).mkdir()
        if content is not None:
            (study / name / "result.json").write_text(content, encoding="utf-8")
    results, faults = read_results(tmp_path)
    assert [result.label for result in results] == ["small-rte"]
    told = {fault.path.name: str(fault) for fault in faults}
    assert set(told) == {"half", "bypass", "old", ".tmp-x", "full-lying"}
    assert "has no result.json" in told["half"]
    assert "not readable" in told["bypass"]
    assert "format 0" in told["old"]
    assert "being written" in told[".tmp-x"]
    assert "'adaptive_over_static' says 'no' where its numbers say 'yes'" in told["full-lying"]
    assert all(str(fault).count(str(fault.path)) == 1 for fault in faults)
    assert entry(tmp_path, "adaptive").chosen.result.label == "small-rte"  # type: ignore[union-attr]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no folder of results"):
        ledger(tmp_path / "nowhere")
